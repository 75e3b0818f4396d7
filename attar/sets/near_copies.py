"""Near copies: how far each image of a distilled set is from the nearest real one of its class. Kept beside the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.files import replacing, writing
from attar.core.json_shapes import NAME, TEXT, Many, Shape, mistake, number, read_json, whole
from attar.core.progress import Meter, Progress, Say, quiet, silent
from attar.core.store import Store, write_json
from attar.core.words import counted
from attar.data.places import check_place
from attar.sets.distilled import DistilledSet

if TYPE_CHECKING:
    from attar.data.pixels import Pixels
    from attar.job import Job, Spec
    from attar.selection.features import Features, Kind
    from attar.teachers.reference import TeacherReference

_DISTANCES = Many(Many(number(0)), least=1)
_SHAPE: Shape = {
    "measures": Many({"kind": NAME, "distances": _DISTANCES, "numbers": Many(Many(whole(0))), "real": _DISTANCES})
}
COMPARED = 100
"""Real images of each class whose own nearest is looked up, to compare with."""
NEAR = 5
"""An image is a near copy if it is nearer to a real one than so many per cent of real images are to their nearest."""
PAIRS = 10
"""So many of the closest pairs are shown."""
SIDE = 128
"""Pixels: larger ones are shown as thumbnails of this size."""


@dataclass(frozen=True)
class Nearest:
    """Distances of one kind; of pixels root mean squares from 0 to 1 (black to white), of features Euclidean."""

    kind: str
    distances: list[list[float]]
    """Of each image of each class to the nearest real one of the class."""
    numbers: list[list[int]]
    """Which real image that is, by its number in the data."""
    real: list[list[float]]
    """Of some real images of each class to the nearest other one."""

    @property
    def all(self) -> list[float]:
        """The distances of all images."""
        return [value for of_class in self.distances for value in of_class]

    @property
    def all_real(self) -> list[float]:
        """The same of the real images."""
        return [value for of_class in self.real for value in of_class]

    @property
    def near_copies(self) -> float:
        """The share of images that are near copies (see NEAR)."""
        return float(np.mean(np.array(self.all) < np.percentile(self.all_real, NEAR)))

    def closest(self, count: int) -> list[tuple[int, int]]:
        """(label, index) of the images closest to a real one, the closest first."""
        places = [(value, label, k) for label, of in enumerate(self.distances) for k, value in enumerate(of)]
        return [(label, index) for _, label, index in sorted(places)[:count]]

    def __str__(self) -> str:
        told = f"{self.kind}: nearest real image at {np.median(self.all):.3g} (median; closest {min(self.all):.3g})"
        if not self.all_real:
            return told
        return f"{told}, between real images {np.median(self.all_real):.3g}; {self.near_copies:.0%} near copies"


def folder_of(one: DistilledSet) -> Path:
    """Where the distances of a set are kept: beside it."""
    folder = one.folder if one.folder.name not in ("", "..") else one.folder.resolve()
    return folder.with_name(f"{folder.name}.nearest")


def read_nearest(one: DistilledSet) -> list[Nearest]:
    """What is kept of a set as it is now; nothing if it was not measured, or is another set since."""
    file = folder_of(one) / "nearest.json"
    if not file.is_file():
        return []
    kept = read_json(file)
    wrong = mistake(kept, {"set": TEXT})
    if wrong is None and kept["set"] != one.manifest["digest"]:
        return []
    each = [len(files) for files in one.files()]
    for of in kept["measures"] if (wrong := wrong or mistake(kept, _SHAPE)) is None else ():
        if [len(values) for values in of["distances"]] != each or [len(values) for values in of["numbers"]] != each:
            wrong = f"{of['kind']}: not one distance for each image"
    if wrong is not None:
        raise AttarError(f"{file} is damaged: {wrong}; remove it, or run `attar nearest` again")
    return [Nearest(**{field.name: of[field.name] for field in fields(Nearest)}) for of in kept["measures"]]


@checked
def nearest(
    one: DistilledSet,
    kinds: Sequence[Kind] = ("pixels",),
    teacher: TeacherReference | None = None,
    *,
    prior: str | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> list[Nearest]:
    """Measures a set and writes `nearest.json` and pictures of the closest pairs beside it.

    A dry run ends after the checks, having said what would be compared and written.

    Args:
        kinds: what is compared (attar.selection.features): pixels, at 32 x 32; teacher, which is named; prior, whose
            middle layer is asked, by default the one that made the set; or latents.

    Raises:
        AttarError: the set is damaged, its data is not at hand or has changed, or a prior or teacher is missing or does
            not fit.
    """
    from attar.job import Job
    from attar.selection.features import Features
    from attar.sets.images import real_images

    _check(one, kinds, teacher, prior)
    folder = folder_of(one)
    job = Job(_spec(one, prior, device), store, progress, dry_run)
    real = real_images(one, job.store)
    if dry_run:
        _open(job, kinds, teacher)
        count = sum(map(len, one.files()))
        beside = f"{counted(count, 'image')} of {one.folder} beside {counted(len(real), 'real one')}"
        files = f"nearest.json and {counted(len(kinds), 'picture')} of the closest pairs"
        say(f"{beside} would be compared by {', '.join(kinds)}; {files} would be written to {folder}")
        return []
    measured = [_measured(job, one, Features(kind, teacher if kind == "teacher" else None)) for kind in kinds]
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for measure in measured:
            with replacing(folder / f"closest-{measure.kind}.png") as temporary:
                _pairs(job, one, measure).save(temporary, format="PNG")
    by_kind = {measure.kind: vars(measure) for measure in [*_still_valid(one), *measured]}
    write_json(folder / "nearest.json", {"set": one.manifest["digest"], "measures": list(by_kind.values())})
    return measured


def _check(one: DistilledSet, kinds: Sequence[Kind], teacher: TeacherReference | None, prior: str | None) -> None:
    """Raises AttarError where something is not named, the set is damaged, or nothing may be written beside it."""
    from attar.sets.distilled import verify

    if "teacher" in kinds and teacher is None:
        raise AttarError("`features` teacher: name one with `teacher`")
    if {"prior", "latents"} & set(kinds) and not (prior or one.manifest["prior"]):
        raise AttarError(f"`features` {','.join(kinds)}: {one.folder} was made without a prior; name one with `prior`")
    check_place(folder_of(one), "attar nearest:", [one.manifest["data"]["spec"]], adds=["nearest.json"])
    if one.elsewhere is None and (problems := verify(one.folder)):
        raise AttarError(f"{one.folder} is damaged ({problems[0]}); `attar verify` lists all that is wrong")


def _open(job: Job, kinds: Sequence[Kind], teacher: TeacherReference | None) -> None:
    """Opens all that images would be compared by, which checks that it is there and fits."""
    from attar.selection.features import teacher_for

    if "teacher" in kinds and teacher is not None:
        teacher_for(job, teacher)
    if "prior" in kinds:
        _ = job.prior
    if "latents" in kinds:
        _ = job.codec


def _still_valid(one: DistilledSet) -> list[Nearest]:
    """What was measured of the set before."""
    try:
        return read_nearest(one)
    except AttarError:
        return []


def _spec(one: DistilledSet, prior: str | None, device: str) -> Spec:
    from attar.job import Spec

    data, made = one.manifest["data"], one.manifest["prior"] or {}
    spec = Spec(
        data["spec"],
        prior=prior or made.get("source"),
        classes=one.classes,
        imbalance_factor=data.get("imbalance_factor"),
        hold_out=data.get("hold_out", False),
        preprocess=one.manifest["preprocess"],
        on_bad_image="skip" if data["skipped"] else "error",
        device=device,
    )
    return spec if prior else replace(spec, codec=made.get("codec_source"))


def _measured(job: Job, one: DistilledSet, look: Features) -> Nearest:
    import torch

    from attar.selection import random_order

    found = Nearest(look.of, [], [], [])
    meter = Meter(job.progress, f"comparing {look.of}", len(one.classes), "classes")
    for label, files in enumerate(one.files()):
        numbers = job.images.of_class(label)
        rows = look.rows(job, label, torch.from_numpy(numbers))
        unit = 2 * rows.shape[1] ** 0.5 if look.of == "pixels" else 1.0
        distances, places = _neighbours(rows, _features(job, look, label, files))
        found.distances.append((distances / unit).tolist())
        found.numbers.append(numbers[places].tolist())
        order = random_order(0, one.classes[label], len(rows))[:COMPARED].numpy()
        others, _ = _neighbours(rows, rows[order], own=order) if len(rows) > 1 else (np.empty(0), None)
        found.real.append((others / unit).tolist())
        meter.add()
    return found


def _neighbours(rows: Any, points: Any, own: Any = None) -> tuple[Any, Any]:
    """Of each point (M, D): the distance to the nearest of some rows (N, D), and its place, both (M,).

    `own`, (M,), are the places of the points among the rows, where they are rows: these do not count.
    """
    from sklearn.neighbors import NearestNeighbors
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        found = NearestNeighbors(n_neighbors=1 if own is None else 2, algorithm="brute").fit(rows)
        places = found.kneighbors(points, return_distance=False)
    chosen = places[:, 0] if own is None else np.where(places[:, 0] == own, places[:, 1], places[:, 0])
    return np.linalg.norm(points.astype(np.float64) - rows[chosen], axis=1), chosen


def _features(job: Job, look: Features, label: int, files: Sequence[Path]) -> Any:
    """The features (N, D) of image files, made as those of real images are (attar.selection.features)."""
    from attar.priors.codec import to_float
    from attar.selection import features

    if look.of == "pixels":
        return to_float(_read(job, files, features.SIDE)).flatten(1).numpy()
    if look.of == "teacher":
        from attar.selection.features import teacher_for
        from attar.teachers.features import features_and_losses

        assert look.teacher is not None, "`nearest` has seen to it"
        teacher = teacher_for(job, look.teacher)
        return features_and_losses(teacher, _read(job, files, teacher.side), label)[0].numpy()
    z, _ = job.codec.encode(to_float(_read(job, files, job.codec.size)))
    return replace(look, teacher=None).rows(job, label, z) if look.of == "prior" else z.flatten(1).numpy()


def _read(job: Job, files: Sequence[Path], side: int) -> Pixels:
    """Image files as uint8 (N, side, side, 3)."""
    from attar.data import decode, preprocess

    pictures = (decode.read(file) for file in files)
    return np.stack([preprocess(picture, side, job.spec.preprocess) for picture in pictures])


def _pairs(job: Job, one: DistilledSet, measure: Nearest) -> Any:
    """A picture of the closest pairs: the set's images above, below each the real image nearest to it."""
    from PIL import Image

    from attar.data import load_pixels

    files, places = one.files(), measure.closest(PAIRS)
    chosen = [files[label][index] for label, index in places]
    with Image.open(chosen[0]) as first:
        side = min(min(first.size), SIDE)
    real = [measure.numbers[label][index] for label, index in places]
    rows = [_read(job, chosen, side), load_pixels(job.images, real, side, job.spec.preprocess)]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
