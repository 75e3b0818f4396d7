"""The product on disk: images that other tools read as they are, a manifest that says how they came about, a card."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.files import appearing, replacing, write_json
from attar.core.hub_ids import near
from attar.core.store import digest, file_digest, fingerprint
from attar.core.urls import url_of
from attar.data.degenerate import ACCIDENT
from attar.sets.card import card
from attar.sets.manifest import FORMAT, read_manifest
from attar.sets.mosaics import Picture, pictures
from attar.sets.own_labels import LABEL_FILES, LABELS, add_column

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CLASSES_SHOWN = 20
IMAGES_SHOWN = 10
"""How many classes of a large set are shown, and how many images of each."""
PROTOTYPES = "__prototypes__"
"""Folder of the prototypes' pictures: `datasets` overlooks names of this form, and takes any other for images."""
STATISTICS = "statistics.safetensors"
"""What `keep_statistics` keeps."""
KINDS = ("images", "prototypes", "statistics", "labels")
"""Keys of a manifest that list files, with the digest of each."""
COMPLETE = "attar-complete.json"
"""The marker that is written last where a set is published (attar.sets.urls)."""
SPLIT_WORDS = frozenset(
    ["train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval", "evaluation"]
)


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set opened from its folder."""

    folder: Path
    """Where it lies."""
    manifest: dict[str, Any]
    """Its manifest.json."""
    elsewhere: tuple[tuple[Path, ...], ...] | None = None
    """The image files of each class, of a set that another code wrote (attar.sets.layouts)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Original class names in label order."""
        return tuple(self.manifest["classes"])

    def files(self) -> list[list[Path]]:
        """The image files of each class, in order."""
        if self.elsewhere is not None:
            return [list(files) for files in self.elsewhere]
        return self._by_class(self.manifest["images"])

    @property
    def formation(self) -> int:
        """Parts in each row and column of its images, which are mosaics; 1: they are none."""
        return int(self.manifest.get("formation", 1))

    @property
    def reduced_by(self) -> int:
        """What part of their size the images were stored at that networks learn from: its formation, or what it had
        before it was expanded."""
        return int(self.manifest.get("expanded_from", {}).get("formation", self.formation))

    def pictures(self) -> list[list[Picture]]:
        """What networks learn from, of each class: its images, or the parts of its mosaics, in order."""
        return [pictures(files, self.formation) for files in self.files()]

    def weights(self) -> list[list[float]] | None:
        """What each picture weighs where networks learn from it, 1 on average of a class; None: all the same."""
        by_class = self.manifest.get("weights")
        return by_class and [[weight * len(own) / sum(own) for weight in own] for own in by_class]

    @property
    def labels(self) -> Path | None:
        """The folder of the soft labels that it holds itself; None: it holds none."""
        return self.folder / LABELS if "labels" in self.manifest else None

    def prototypes(self) -> list[list[Path]]:
        """Pictures of some prototypes of some classes, for each class; none where the method has no prototypes."""
        return self._by_class(self.manifest.get("prototypes", {}))

    def _by_class(self, relatives: Iterable[str]) -> list[list[Path]]:
        names = [folder_name(label, name, len(self.classes)) for label, name in enumerate(self.classes)]
        files: dict[str, list[Path]] = {name: [] for name in names}
        for relative in sorted(relatives):
            files[Path(relative).parent.name].append(self.folder / relative)
        return [files[name] for name in names]


@checked
def open_distilled(folder: Path) -> DistilledSet:
    """The distilled set in `folder`.

    Raises:
        AttarError: there is none, a newer Attar wrote it, or its manifest is damaged: names the key.
    """
    file = folder / "manifest.json"
    if url := url_of(folder):
        raise AttarError(f"{url}: bring the set here first, with `attar pull {url}`")
    if not folder.exists():
        raise AttarError(f"{folder}{near(str(folder))}: there is no such folder")
    if not file.is_file():
        inside = sorted(child.parent.name for child in folder.glob("[!.]*/manifest.json"))
        hint = f"; there are sets inside it: {', '.join(inside)}" if inside else ""
        hint = hint or "; sets that other codes wrote are read by `attar evaluate` with their `layout`"
        raise AttarError(f"{folder}: holds no distilled set (no manifest.json){hint}")
    distilled = DistilledSet(folder, read_manifest(file))
    if set(distilled.manifest.get("statistics", {})) - {STATISTICS}:
        raise AttarError(f"{file} is damaged: statistics lists other files than {STATISTICS}")
    if (labels := distilled.manifest.get("labels")) is not None and set(labels) != set(LABEL_FILES):
        raise AttarError(f"{file} is damaged: labels lists other files than {', '.join(LABEL_FILES)}")
    known = {folder_name(label, name, len(distilled.classes)) for label, name in enumerate(distilled.classes)}
    for kind, root in (("images", "images"), ("prototypes", PROTOTYPES)):
        for name in distilled.manifest.get(kind, {}):
            parts = re.fullmatch(rf"{root}/(\d+_\w+)/\d+\.png", name, re.ASCII)
            if parts is None or parts[1] not in known:
                raise AttarError(f"{file} is damaged: {kind} lists {name!r}, no image of a class of the set")
    for name, files in zip(distilled.classes, distilled.files(), strict=True):
        if len(files) != distilled.manifest["ipc"]:
            mismatch = f"images lists {len(files)} of class {name!r}, and ipc is {distilled.manifest['ipc']}"
            raise AttarError(f"{file} is damaged: {mismatch}")
    _check_inside(distilled)
    return distilled


@dataclass(frozen=True)
class Stored:
    """What the images of a set take, and the soft labels that it holds."""

    pixels: int
    """Of all images."""
    bytes: int
    """Of their files, and of those of the labels, once: not of the column that holds them again."""


def stored(distilled: DistilledSet) -> Stored:
    """What a set takes; what cannot be opened is not counted."""
    from PIL import Image

    pixels = size = 0
    for file in chain.from_iterable(distilled.files()):
        with suppress(OSError), Image.open(file) as image:
            pixels += image.width * image.height
            size += file.stat().st_size
    for name in distilled.manifest.get("labels", ()):
        with suppress(OSError):
            size += (distilled.folder / name).stat().st_size if name.startswith(LABELS) else 0
    return Stored(pixels, size)


def _check_inside(distilled: DistilledSet) -> None:
    """Raises AttarError where a link leads out of a set; those to the hub's blobs, which its downloads are, pass."""
    own = distilled.folder.resolve()
    hub = [above.parent / "blobs" for above in (own, *own.parents) if above.name == "snapshots"]
    files = [file for files in (*distilled.files(), *distilled.prototypes()) for file in files]
    files += [distilled.folder / name for kind in KINDS[2:] for name in distilled.manifest.get(kind, {})]
    linked = [path for path in (*sorted({file.parent for file in files}), *files) if path.is_symlink()]
    for path in (*linked, distilled.folder / "images", distilled.folder / PROTOTYPES):
        if not any(path.resolve().is_relative_to(place) for place in (own, *hub)):
            raise AttarError(f"{path}: a link that leads out of the set; copy the files themselves")


@checked
def find_distilled(folder: Path) -> list[DistilledSet]:
    """The set in `folder`, or the sets one folder below it (one an IPC), in order of their IPC.

    Before them, where it is the `out` of an experiment (sets/LABEL/seed-0/ipc-001 ...), all sets of that, in order of
    their folders.

    Raises:
        AttarError: there is none.
    """
    if (folder / "manifest.json").is_file():
        return [open_distilled(folder)]
    compared = [open_distilled(file.parent) for file in sorted(folder.glob("sets/*/seed-*/ipc-*/manifest.json"))]
    inside = [open_distilled(file.parent) for file in folder.glob("[!.]*/manifest.json")]
    inside.sort(key=lambda distilled: int(distilled.manifest["ipc"]))
    return [*compared, *inside] or [open_distilled(folder)]


def evenly(labels: Sequence[int], count: int) -> list[int]:
    """`count` of these labels, evenly spaced; all of them, if there are no more."""
    count = min(len(labels), count)
    return [labels[k * len(labels) // count] for k in range(count)]


def folder_name(label: int, name: str, classes: int) -> str:
    """`<nnn>_<safe class name>`: ASCII, sorting in label order, never a path, never taken for the name of a split."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", plain)
    safe = "_".join(word + "x" if word.lower() in SPLIT_WORDS else word for word in words)[:60] or "class"
    return f"{label:0{max(3, len(str(classes - 1)))}d}_{safe}"


Numbered = tuple[int, int, "np.ndarray[Any, np.dtype[np.uint8]]"]
"""(label, index within the class, uint8 (H, W, 3))"""
Labeller = Callable[["DistilledSet"], Mapping[str, Any]]
"""Writes the soft labels of a set into its folder `LABELS`; gives what its manifest says of them."""


def write_distilled(
    folder: Path,
    classes: Sequence[str],
    images: Callable[[Collection[int]], Iterable[Numbered]],
    manifest: dict[str, Any],
    prototypes: Iterable[Numbered] = (),
    statistics: Mapping[str, Tensor] | None = None,
    distinct: bool = False,
    labels: Labeller | None = None,
) -> None:
    """Writes a distilled set: `folder` appears, whole, when its last image is written. One process at a time.

    An interrupted write leaves a hidden folder beside it, which the same run goes on from and any other run replaces.

    Args:
        images: called with the labels that are already written whole; gives the other images in the order of their
            labels.
        manifest: everything but the digests, which are added here, and the seconds that the images took.
        prototypes: pictures of what the images began from, kept beside them.
        statistics: arrays that the images can be made again from, without the data, kept beside them.
        distinct: no two images of a class may be all that it has, and equal: so does a broken prior. Data may hold an
            image twice, so real images, and images that begin as chosen ones, are not held to it.
        labels: called with the set, images and all, before it appears; None: it holds no soft labels.

    Raises:
        AttarError: something stands where `folder` would go, or images are equal that must not be.
        Unwritable: the disk is full, or the place may not be written; what is written so far is kept.
    """
    remedy = "choose another `out`; the same command goes on from there"
    with appearing(folder, remedy, manifest["run"][:12]) as made:
        whole = _write(folder, made, classes, images, manifest, prototypes, distinct)
        if statistics is not None:
            whole["statistics"] = _saved_statistics(made, statistics)
        if labels is not None:
            whole |= _labelled(DistilledSet(made, whole), labels)
        text = card(whole)
        whole["card"] = digest(text.encode())
        whole["digest"] = fingerprint(whole)
        (made / "README.md").write_text(text, encoding="utf-8")
        write_json(made / "manifest.json", whole)


def _write(
    folder: Path,
    partial: Path,
    classes: Sequence[str],
    images: Callable[[Collection[int]], Iterable[Numbered]],
    manifest: dict[str, Any],
    prototypes: Iterable[Numbered],
    distinct: bool,
) -> dict[str, Any]:
    """Writes the images; the manifest of so much of the set."""
    begun = time.monotonic()
    (partial / "images").mkdir(exist_ok=True)
    names = [folder_name(label, name, len(classes)) for label, name in enumerate(classes)]
    opened = [label for label, name in enumerate(names) if (partial / "images" / name).is_dir()]
    finished = [label for label in opened[:-1] if _readable(partial / "images" / names[label], manifest["ipc"])]
    written = {
        "images": _saved(partial, "images", names, images(finished)),
        "prototypes": _saved(partial, PROTOTYPES, names, prototypes),
    }
    _check_distinct(folder, classes, names, written["images"], 1 if distinct else ACCIDENT)
    return {
        "format": 2 if "formation" in manifest else 1,
        **manifest,
        "seconds": {**manifest["seconds"], "images": round(time.monotonic() - begun, 3)},
        "classes": list(classes),
        **{kind: digests for kind, digests in written.items() if digests},
    }


def _labelled(distilled: DistilledSet, labels: Labeller) -> dict[str, Any]:
    """What the manifest of a set with labels says more, and otherwise."""
    begun = time.monotonic()
    said = labels(distilled)
    files = [(label, file) for label, own in enumerate(distilled.files()) for file in own]
    digests = add_column(
        distilled.folder,
        [file.relative_to(distilled.folder).as_posix() for _, file in files],
        [label for label, _ in files],
        [folder_name(label, name, len(distilled.classes)) for label, name in enumerate(distilled.classes)],
    )
    seconds = {**distilled.manifest["seconds"], "labels": round(time.monotonic() - begun, 3)}
    return {**said, "format": FORMAT, "seconds": seconds, "labels": digests}


def _readable(folder: Path, count: int) -> bool:
    """Whether a class that an interrupted write left behind has all of its images, each of them whole."""
    from PIL import Image

    files = sorted(folder.iterdir())
    try:
        for file in files:
            with Image.open(file) as image:
                image.verify()
    except Exception:  # PIL raises many kinds on what is no image
        return False
    return [file.name for file in files] == [f"{index:04d}.png" for index in range(count)]


def _check_distinct(
    folder: Path, classes: Sequence[str], names: Sequence[str], images: Mapping[str, str], accident: int
) -> None:
    """Raises AttarError where all images of a class, or all of the set, are equal; `images` are digests by name."""
    why = "the prior or its codec is broken" if accident == 1 else "look at the data that they are from"
    by_class: dict[str, list[str]] = {safe: [] for safe in names}
    for file, image in images.items():
        by_class[Path(file).parent.name].append(image)
    for name, own in zip(classes, by_class.values(), strict=True):
        if len(own) > accident and len(set(own)) == 1:
            raise AttarError(f"{folder}: all {len(own)} images of {name!r} are equal: {why}")
    if len(images) > 1 and len(set(images.values())) == 1:
        raise AttarError(f"{folder}: all {len(images)} images are equal: {why}")


def _saved(root: Path, kind: str, names: Sequence[str], pictures: Iterable[Numbered]) -> dict[str, str]:
    """Saves pictures in `root/kind`; the digest of every picture there, by its name within `root`."""
    from PIL import Image

    for label, index, pixels in pictures:
        file = root / kind / names[label] / f"{index:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return {file.relative_to(root).as_posix(): file_digest(file) for file in sorted((root / kind).rglob("*.png"))}


def _saved_statistics(root: Path, statistics: Mapping[str, Tensor]) -> dict[str, str]:
    from safetensors.torch import save_file

    with replacing(root / STATISTICS) as temporary:
        save_file(dict(statistics), temporary)
    return {STATISTICS: file_digest(root / STATISTICS)}


def check_undamaged(distilled: DistilledSet) -> None:
    """Raises AttarError where the files of one of Attar's own sets are not what its manifest says."""
    if distilled.elsewhere is None and (problems := verify(distilled.folder)):
        raise AttarError(f"{distilled.folder} is damaged ({problems[0]}); `attar verify` lists all that is wrong")


@checked
def verify(folder: Path) -> list[str]:
    """What is wrong with a distilled set: missing, extra and altered files, one line each; an empty list if nothing."""
    distilled = open_distilled(folder)
    expected: dict[str, str] = {name: of for kind in KINDS for name, of in distilled.manifest.get(kind, {}).items()}
    allowed = {"manifest.json", "README.md"}
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    problems = [f"missing: {name}" for name in expected if name not in files]
    more = files.keys() - expected.keys() - allowed - {COMPLETE}
    problems += [f"extra: {name}" for name in sorted(more)]
    problems += [
        f"altered: {name}" for name, digest in expected.items() if name in files and file_digest(files[name]) != digest
    ]
    problems += [f"missing: {name}" for name in sorted(allowed - files.keys())]
    if "README.md" in files and file_digest(files["README.md"]) != distilled.manifest.get("card"):
        problems.append("altered: README.md")
    rest = {name: value for name, value in distilled.manifest.items() if name != "digest"}
    if fingerprint(rest) != distilled.manifest.get("digest"):
        problems.append("altered: manifest.json")
    return problems
