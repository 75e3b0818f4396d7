"""Distilled sets in the folders of other codes: read for evaluation, and written for their readers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.arguments import checked
from attar.core.errors import AttarError, suggestion
from attar.core.files import appearing, write_json
from attar.core.json_shapes import Values, mistake, number, read_json
from attar.core.progress import Say, quiet
from attar.core.store import Store
from attar.core.wording import counted, listed
from attar.data.output_places import check_place, occupied
from attar.sets.distilled import DistilledSet, check_undamaged, folder_name
from attar.sets.manifest import MOST_WEIGHT

if TYPE_CHECKING:
    from attar.data import ImageSet


@dataclass(frozen=True)
class Layout:
    """Where a code keeps the images of a class; {label} counts from 0, {wnid} is ImageNet's, {name} is made safe."""

    folder: str
    """The folder of a class."""
    file: str
    """The file of image {n} of a class."""
    elsewhere: str | None = None
    """The folder of a class that is not ImageNet's; None: there is none."""


LAYOUTS: dict[str, Layout] = {
    "minimax": Layout("{wnid}", "{n}.png"),
    "rded": Layout("{label:05d}", "class{label:05d}_id{n:05d}.png"),
    "d4m": Layout("{label}", "{label}-image{n}0.png"),
    "d3hr": Layout("{wnid}", "{n}.png", elsewhere="{label:03d}"),
    "folder": Layout("{name}", "{n:04d}.png"),
}
"""The layouts of the published codes of these methods; folder: one named after each class.

RDED writes .jpg; its reader takes any image, so that ours are lossless. D3HR's reader needs a list of the files,
train.txt. D4M's folders 0, 1, 10, 11 ... do not sort as they count, and torchvision's ImageFolder would shuffle the
classes: here a folder's name alone says which class it is.
"""


WEIGHTS = "weights.json"
"""Of a set whose images have weights: file -> what its loss is multiplied by."""
SAY_WHICH = (
    "say which is which with `class_map` FILE (folder = class or label; `attar export` writes one, classes.json)"
)


def wordnet_ids(classes: Sequence[str]) -> list[str | None]:
    """The WordNet id of each class that is one of ImageNet's, whether it is called by it or by name; else None."""
    from attar.data.class_names import imagenet_names, imagenet_wnids, matches

    matched = matches(classes, imagenet_names(), 1000, classes)
    ids: list[str | None] = []
    for name in classes:
        labels, number = matched[name], re.search(r" \((\d+)\)$", name)
        if number and int(number.group(1)) in labels:
            labels = [int(number.group(1))]
        ids.append(imagenet_wnids()[labels[0]] if len(labels) == 1 else None)
    return ids


def class_folders(layout: str, classes: Sequence[str]) -> list[str]:
    """What a layout calls the folder of each class.

    Raises:
        AttarError: no such layout, or it needs WordNet ids and some of the classes have none.
    """
    if layout not in LAYOUTS:
        raise AttarError(f"`layout` {layout}{suggestion(layout, LAYOUTS)}: choose one of {', '.join(LAYOUTS)}")
    form = LAYOUTS[layout].folder
    ids: Sequence[str | None] = [None] * len(classes)
    if "{wnid}" in form:
        ids = wordnet_ids(classes)
        strangers = [name for name, wnid in zip(classes, ids, strict=True) if wnid is None]
        if strangers:
            form = LAYOUTS[layout].elsewhere or ""
        if not form:
            others = [other for other in LAYOUTS if other != layout]
            raise AttarError(
                f"`layout` {layout} names folders by WordNet id, and these classes are not ImageNet's: "
                f"{', '.join(map(repr, strangers[:5]))}; choose another: {', '.join(others)}"
            )
    safe = [folder_name(label, name, len(classes)) for label, name in enumerate(classes)]
    return [
        form.format(label=label, wnid=wnid, name=name) for label, (wnid, name) in enumerate(zip(ids, safe, strict=True))
    ]


@checked
def export(distilled: DistilledSet, layout: str, out: Path, *, say: Say = quiet, dry_run: bool = False) -> None:
    """Writes the images of a set, bit for bit, in a layout, with classes.json, which says whose folder is whose.

    Where they have weights, weights.json says what each file's loss is multiplied by; `open_layout` reads it.

    `out` appears whole, by one rename. A dry run ends after the checks, having said what would be written.

    Raises:
        AttarError: the set is damaged or of mosaics, the layout does not suit its classes, or `out` is taken.
    """
    folders = class_folders(layout, distilled.classes)
    if distilled.formation > 1:
        raise AttarError(
            f"{distilled.folder}: its images are mosaics (`formation` {distilled.formation}), which other codes do not "
            "take apart: write their parts with `attar expand`, and export those"
        )
    check_place(out, "`out`", [distilled.manifest["data"]["spec"]])
    check_undamaged(distilled)
    if occupied(out):
        raise AttarError(f"`out` {out}: something is there already; choose another folder, or remove it")
    files = [file for of_class in distilled.files() for file in of_class]
    summary = f"{counted(len(files), 'image')} in {counted(len(folders), 'folder')}, layout {layout}"
    if dry_run:
        size = sum(file.stat().st_size for file in files)
        say(f"{summary}, {size:,} bytes, and classes.json would be written to {out.resolve()}")
        return
    with appearing(out, "choose another `out`") as made:
        written = _copied(distilled, layout, folders, made)
        write_json(made / "classes.json", dict(zip(folders, distilled.classes, strict=True)))
        if (weights := distilled.weights()) is not None:
            write_json(made / WEIGHTS, dict(zip(written, chain.from_iterable(weights), strict=True)))
        if layout == "d3hr":
            lines = [f"{out.absolute() / name}\n" for name in written]
            (made / "train.txt").write_text("".join(lines), encoding="utf-8")
    more = f", {WEIGHTS} what each image weighs" if weights is not None else ""
    say(f"wrote {out.resolve()}: {summary}; classes.json says which class each folder is{more}")


def _copied(distilled: DistilledSet, layout: str, folders: Sequence[str], made: Path) -> list[str]:
    """Copies all images into `made`; their names there, class by class."""
    written = []
    for label, (folder, of_class) in enumerate(zip(folders, distilled.files(), strict=True)):
        (made / folder).mkdir()
        for n, file in enumerate(of_class):
            written.append(f"{folder}/{LAYOUTS[layout].file.format(label=label, n=n)}")
            shutil.copyfile(file, made / written[-1])
    return written


def open_layout(
    folder: Path, layout: str, real: ImageSet, mapping: Mapping[str, int | str] | None, store: Store
) -> DistilledSet:
    """The set that another code wrote into `folder`, its classes in the order of those of `real`.

    A class folder is matched by its name: as the layout calls it, or as `mapping` says (folder = class or label), and
    never by its place among the others. Every image is tried.

    Raises:
        AttarError: a folder that is no class of `real`, two that are the same, a class without a folder, or images
            that cannot be read.
    """
    from attar.data import load_data, readable

    images = load_data(f"imagefolder:{folder}")
    labels = _matched(folder, layout, images.classes, real, mapping or {})
    readable(images, "error", store)
    files = [
        tuple(folder / name for name in sorted(map(images.name, images.of_class(labels.index(label))), key=_counted))
        for label in range(len(labels))
    ]
    manifest = {
        "method": {"name": f"{layout} layout"},
        "layout": layout,
        "folders": [images.classes[labels.index(label)] for label in range(len(labels))],
        "ipc": max(map(len, files)),
        "seed": 0,
        "classes": list(real.classes),
        "preprocess": "resize-crop",
        "data": {"spec": real.spec, "imbalance_factor": None, "hold_out": False, "skipped": []},
    }
    if (folder / WEIGHTS).is_file():
        manifest["weights"] = _weights_of(folder, files)
    return DistilledSet(folder, manifest, tuple(files))


def _weights_of(folder: Path, files: Sequence[Sequence[Path]]) -> list[list[float]]:
    """What weights.json says of the files of each class.

    Raises:
        AttarError: it says something else, or nothing of a file.
    """
    weights = read_json(folder / WEIGHTS)
    names = [[file.relative_to(folder).as_posix() for file in of_class] for of_class in files]
    wrong = mistake(weights, Values(number(0, MOST_WEIGHT))) or mistake(
        weights, dict.fromkeys(chain.from_iterable(names), number(0, MOST_WEIGHT))
    )
    by_class = [] if wrong else [[weights[name] for name in of_class] for of_class in names]
    if wrong or not all(map(any, by_class)):
        raise AttarError(
            f"{folder / WEIGHTS}: {wrong or 'all files of a class weigh 0'}; without weights.json all weigh the same"
        )
    return by_class


def understood(distilled: DistilledSet) -> str:
    """What was made of a set from elsewhere, in a line."""
    manifest, counts = distilled.manifest, sorted({len(files) for files in distilled.files()})
    pairs = [f"{own} = {name!r}" for own, name in zip(manifest["folders"], distilled.classes, strict=True)]
    more = " ..." if len(pairs) > 4 else ""
    each = counted(counts[0], "image") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"
    return (
        f"{distilled.folder}: layout {manifest['layout']}, {each} of each of {counted(len(pairs), 'class')} of "
        f"{manifest['data']['spec']}: {', '.join(pairs[:4])}{more}"
    )


def _matched(
    root: Path, layout: str, folders: Sequence[str], real: ImageSet, mapping: Mapping[str, int | str]
) -> list[int]:
    """The label of each folder."""

    mapped = {folder: _mapped(root, folder, value, folders, real) for folder, value in mapping.items()}
    exactly, alike = _known(layout, real.classes, str), _known(layout, real.classes, partial(_called, layout))
    possible = [
        {mapped[folder]} if folder in mapped else exactly.get(folder) or alike.get(_called(layout, folder), set())
        for folder in folders
    ]
    where = f"{root}: in layout {layout} the class {real.classes[0]!r} of {real.spec} is the folder "
    where += f"{class_folders(layout, real.classes)[0]!r}; "
    if strange := [folder for folder, labels in zip(folders, possible, strict=True) if not labels]:
        raise AttarError(
            f"{where}these folders are no class of it: {listed(strange)}{_hint(layout, folders, real.classes)}"
        )
    for folder, labels in zip(folders, possible, strict=True):
        if len(labels) > 1:
            them = listed([repr(real.classes[label]) for label in sorted(labels)])
            raise AttarError(f"{where}{folder!r} may be any of its classes {them}: {SAY_WHICH}")
    of_folders = [min(labels) for labels in possible]
    if twice := [folder for folder, label in zip(folders, of_folders, strict=True) if of_folders.count(label) > 1]:
        raise AttarError(f"{where}{listed(twice)} are the same class")
    if without := [name for label, name in enumerate(real.classes) if label not in of_folders]:
        raise AttarError(f"{where}no folder is {listed(without)}; name the set's own classes with `classes`")
    _refuse_numbers(layout, dict(zip(folders, of_folders, strict=True)), real, mapped)
    return of_folders


def _mapped(root: Path, folder: str, value: int | str, folders: Sequence[str], real: ImageSet) -> int:
    """The label that a class map gives to a folder."""
    if folder not in folders:
        raise AttarError(f"`class_map`: {root} has no folder {folder!r}{suggestion(folder, folders)}")
    label = real.classes.index(value) if value in real.classes else value
    if not isinstance(label, int) or not 0 <= label < len(real.classes):
        near = suggestion(value, real.classes) if isinstance(value, str) else ""
        raise AttarError(
            f"`class_map`: {folder!r} = {value!r}: neither a class of {real.spec} nor a label of one{near}"
        )
    return label


def _refuse_numbers(layout: str, labels: Mapping[str, int], real: ImageSet, mapped: Mapping[str, int]) -> None:
    """Raises AttarError where folders that are read as labels may as well be the names of other classes."""
    if "{label" not in LAYOUTS[layout].folder + (LAYOUTS[layout].elsewhere or ""):
        return
    by_name = {int(name): label for label, name in enumerate(real.classes) if re.fullmatch(r"\d+", name, re.ASCII)}
    numbers = {folder: int(folder) for folder in labels if re.fullmatch(r"\d+", folder, re.ASCII)}
    if len(by_name) < len(real.classes) or not set(numbers.values()) <= by_name.keys():
        return
    for folder, written in numbers.items():
        if folder not in mapped and by_name[written] != labels[folder]:
            raise AttarError(
                f"the folder {folder!r} is label {labels[folder]} in layout {layout}, the class "
                f"{real.classes[labels[folder]]!r} of {real.spec}, but may also be named after its class "
                f"{real.classes[by_name[written]]!r}: {SAY_WHICH}"
            )


def _known(layout: str, classes: Sequence[str], compared: Callable[[str], str]) -> dict[str, set[int]]:
    """What a folder may be called -> the labels of the classes; by name also as the data calls it, or by WordNet id.

    Args:
        compared: what of a name is compared.
    """
    lists: list[Sequence[str | None]] = [class_folders(layout, classes)]
    if layout == "folder":
        lists += [wordnet_ids(classes), classes]
    known: dict[str, set[int]] = {}
    for names in lists:
        for label, name in enumerate(names):
            if name is not None:
                known.setdefault(compared(name), set()).add(label)
    return known


def _called(layout: str, folder: str) -> str:
    """A folder's name as it is compared: D3HR's reader looks at its last three digits, where there are no ids."""
    from attar.data.class_names import normal

    if layout == "d3hr" and not re.fullmatch(r"n\d{8}", folder):
        return folder[-3:]
    return normal(folder) if layout == "folder" else folder


def _hint(layout: str, folders: Sequence[str], classes: Sequence[str]) -> str:
    """Another layout that would fit, or what else can be done."""
    for other in LAYOUTS:
        try:
            compared = partial(_called, other)
            if other != layout and set(map(compared, folders)) <= _known(other, classes, compared).keys():
                return f"; `layout` {other} would fit"
        except AttarError:
            continue
    return f"; {SAY_WHICH}, or pick other `classes`"


def _counted(name: str) -> list[int | str]:
    """A key that sorts 2.png before 10.png."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
