"""Near copies: how far each image of a distilled set is from the nearest real one of its class. Kept beside the set.

From the same features comes how much of the real images a set covers, how far its images are from one another, a map of
each class, and, by a teacher, how surely the images are of their class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.files import replacing, writing
from attar.core.json_shapes import NAME, TEXT, Many, Shape, mistake, number, read_json, whole
from attar.core.progress import Meter, Progress, Say, about, quiet, silent, timed
from attar.core.store import Store, write_json
from attar.core.wording import counted
from attar.data.output_places import check_place
from attar.sets.distilled import DistilledSet, check_undamaged
from attar.sets.maps import PrincipalMap, principal_map
from attar.sets.mosaics import Picture
from attar.sets.neighbours import NEIGHBOURS, covered_share, nearest_of

if TYPE_CHECKING:
    from attar.data.pixels import Pixels
    from attar.job import Job, Spec
    from attar.selection.features import FeatureKind, ImageFeatures
    from attar.teachers.reference import TeacherReference

MOST = 1e12
"""The largest distance or coordinate: sums and squares of ever larger ones would be no numbers any more."""
_DISTANCES = Many(Many(number(0, MOST)), least=1)
_POINTS = Many(Many(number(-MOST, MOST), least=2))
_SHAPE: Shape = {
    "measures": Many(
        {
            "kind": NAME,
            "distances": _DISTANCES,
            "numbers": Many(Many(whole(0))),
            "real": _DISTANCES,
            "covered?": Many(number(0, 1)),
            "apart?": Many(Many(number(0))),
            "sure?": Many(Many(number(0, 1))),
            "maps?": Many({"variance": Many(number(0, 1)), "real": _POINTS, "images": _POINTS, "starts": _POINTS}),
        }
    )
}
COMPARED = 100
"""Real images of each class whose own nearest is looked up, to compare with."""
NEAR = 5
"""An image is a near copy if it is nearer to a real one than this many per cent of real images are to their nearest."""
PAIRS = 10
"""How many of the closest pairs are shown."""
SIDE = 128
"""Pixels: larger ones are shown as thumbnails of this size."""
TIMED = 4
"""Images that are looked at to see how long it takes."""


@dataclass(frozen=True)
class Nearest:
    """Distances of one kind; of pixels root mean squares from 0 to 1 (black to white), of features Euclidean."""

    kind: str
    """What is compared: pixels, or whose features."""
    distances: list[list[float]]
    """The distance of each image of each class, of mosaics of each part, to the nearest real one of the class."""
    numbers: list[list[int]]
    """Which real image that is, by its number in the data."""
    real: list[list[float]]
    """The distance of some real images of each class to the nearest other one."""
    covered: list[float] = field(default_factory=list)
    """The share of these real images of each class that is covered (`covered_share`); nothing of very small classes."""
    apart: list[list[float]] = field(default_factory=list)
    """The distance of each image of each class to the nearest other image of the set in its class."""
    sure: list[list[float]] = field(default_factory=list)
    """By a teacher: the probability that it gives each image of being of its class."""
    maps: list[PrincipalMap] = field(default_factory=list)
    """Where the images of each class lie among the real ones."""

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
        text = f"{self.kind}: nearest real image at {np.median(self.all):.3g} (median; closest {min(self.all):.3g})"
        if self.all_real:
            text += f", between real images {np.median(self.all_real):.3g}; {self.near_copies:.0%} near copies"
        return "; ".join([text, *self.spread.values()])

    @property
    def spread(self) -> dict[str, str]:
        """What was found beside distances to real images, by what it is, in words."""
        apart, sure = ([value for of in by_class for value in of] for by_class in (self.apart, self.sure))
        found = {"covered": f"{np.mean(self.covered):.0%} of real images covered"} if self.covered else {}
        found |= {"apart": f"{np.median(apart):.3g} between its own"} if apart else {}
        return found | ({"sure": f"the teacher is {np.mean(sure):.0%} sure"} if sure else {})


def folder_of(distilled: DistilledSet) -> Path:
    """Where the distances of a set are kept: beside it."""
    folder = distilled.folder if distilled.folder.name not in ("", "..") else distilled.folder.resolve()
    return folder.with_name(f"{folder.name}.nearest")


def read_nearest(distilled: DistilledSet) -> list[Nearest]:
    """What is kept of a set as it is now; nothing if it was not measured, or is another set since."""
    file = folder_of(distilled) / "nearest.json"
    if not file.is_file():
        return []
    record = read_json(file)
    wrong = mistake(record, {"set": TEXT})
    if wrong is None and record["set"] != distilled.manifest["digest"]:
        return []
    each = [len(pictures) for pictures in distilled.pictures()]
    for of in record["measures"] if (wrong := wrong or mistake(record, _SHAPE)) is None else ():
        if (misfit := _misfit(of, each, distilled.manifest["data"]["images"])) is not None:
            wrong = f"{of['kind']}: {misfit}"
    if wrong is not None:
        raise AttarError(f"{file} is damaged: {wrong}; remove it, or run `attar nearest` again")
    known = [one.name for one in fields(Nearest)]
    return [Nearest(**{name: of[name] for name in known if name in of}) for of in record["measures"]]


def _misfit(of: dict[str, Any], each: list[int], images: int) -> str | None:
    """What of a measure does not go together, or with the set and the images of its data."""
    if any([len(values) for values in of[name]] != each for name in ("distances", "numbers")):
        return "not one distance for each image"
    if max(map(max, of["numbers"])) >= images:
        return f"a number of a real image, of which there are {images:,}, is too large"
    if len(of.get("maps", each)) not in (0, len(each)):
        return "not one map for each class"
    if any(one["variance"] and not one["real"] for one in of.get("maps", ())):
        return "a map without real images"
    return None


def nearest_pixels(
    distilled: DistilledSet, nearest: Nearest, labels: Sequence[int], count: int, store: Store | None = None
) -> dict[int, Pixels]:
    """Label -> the real images nearest to the first `count` of a class, square thumbnails of at most 128 pixels.

    Raises:
        AttarError: the data is not at hand, or not what it was.
    """
    from attar.data import load_pixels
    from attar.job import Job
    from attar.sets.source_data import real_images

    job = Job(Metrics().spec(distilled), store)
    real_images(distilled, job.store)
    side = min(_side(distilled.files()[labels[0]][0]), SIDE)
    return {
        label: load_pixels(job.images, nearest.numbers[label][:count], side, job.spec.preprocess) for label in labels
    }


def _side(file: Path) -> int:
    """The shorter side of an image."""
    from PIL import Image

    with Image.open(file) as image:
        return min(image.size)


@dataclass(frozen=True)
class Metrics:
    """How images are compared, and where that is computed."""

    kinds: tuple[FeatureKind, ...] = ("pixels",)
    """The features that are compared (attar.selection.features); pixels at 32 x 32."""
    teacher: TeacherReference | None = None
    """Whose features, where the kinds name a teacher."""
    prior: str | None = None
    """Whose middle layer and latents; None: of the one that made the set."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""

    def check(self, distilled: DistilledSet) -> None:
        """Raises AttarError where a set has no prior, or a teacher is not named."""
        if "teacher" in self.kinds and self.teacher is None:
            raise AttarError("`features` teacher: name one with `teacher`")
        if {"prior", "latents"} & set(self.kinds) and not (self.prior or distilled.manifest["prior"]):
            kinds = ",".join(self.kinds)
            raise AttarError(f"`features` {kinds}: {distilled.folder} was made without a prior; name one with `prior`")

    def spec(self, distilled: DistilledSet) -> Spec:
        """The data of a set, and the prior that is asked."""
        from attar.job import Spec

        data, made = distilled.manifest["data"], distilled.manifest["prior"] or {}
        spec = Spec(
            data["spec"],
            prior=self.prior or made.get("source"),
            classes=distilled.classes,
            imbalance_factor=data.get("imbalance_factor"),
            hold_out=data.get("hold_out", False),
            preprocess=distilled.manifest["preprocess"],
            on_bad_image="skip" if data["skipped"] else "error",
            device=self.device,
        )
        return spec if self.prior else replace(spec, codec=made.get("codec_source"))

    def open(self, job: Job) -> None:
        """Opens all that images are compared by, which checks that it is there and fits."""
        from attar.selection.features import teacher_for

        if "teacher" in self.kinds and self.teacher is not None:
            teacher_for(job, self.teacher)
        if "prior" in self.kinds:
            _ = job.prior
        if "latents" in self.kinds:
            _ = job.codec


@checked
def nearest(
    distilled: DistilledSet,
    metrics: Metrics = Metrics(),
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> list[Nearest]:
    """Measures a set and writes `nearest.json` and pictures of the closest pairs beside it.

    A dry run ends after the checks, having said what would be compared and written.

    Raises:
        AttarError: the set is damaged, its data is not at hand or has changed, or a prior or teacher is missing or does
            not fit.
    """
    from attar.job import Job
    from attar.selection.features import ImageFeatures
    from attar.sets.source_data import real_images

    metrics.check(distilled)
    folder, kinds = folder_of(distilled), metrics.kinds
    check_place(folder, "attar nearest:", [distilled.manifest["data"]["spec"]], adds=["nearest.json"])
    check_undamaged(distilled)
    job = Job(metrics.spec(distilled), store, progress, dry_run)
    real = real_images(distilled, job.store)
    features = [ImageFeatures(kind, metrics.teacher if kind == "teacher" else None) for kind in kinds]
    if dry_run:
        metrics.open(job)
        count = sum(map(len, distilled.pictures()))
        beside = f"{counted(count, 'image')} of {distilled.folder} beside {counted(len(real), 'real one')}"
        files = f"nearest.json and {counted(len(kinds), 'picture')} of the closest pairs"
        say(f"{beside} would be compared by {', '.join(kinds)}{_time(job, distilled, features)}")
        say(f"{files} would be written to {folder}")
        return []
    measured = [_measured(job, distilled, by) for by in features]
    _write(job, distilled, measured)
    return measured


def _time(job: Job, distilled: DistilledSet, features: Sequence[ImageFeatures]) -> str:
    """About how long it takes to look at the set's images, and at real ones whose features are not stored yet."""
    if job.unread:
        return ", in a time that is not known, for the prior's weights are left unread"
    pictures, seconds = distilled.pictures(), 0.0
    for by in features:
        left = sum(map(len, pictures)) + sum(by.missing(job, label) for label in job.labels)
        few = pictures[0][:TIMED]
        seconds += left * timed(partial(_looked_at, job, by, few)) / len(few)
    return f", {about(seconds)}"


def _looked_at(job: Job, by: ImageFeatures, pictures: Sequence[Picture]) -> None:
    """The work of a few images' features; nothing of it is stored."""
    import torch

    from attar.priors.features import prior_features

    latents, _ = _looked(job, replace(by, of="latents") if by.of == "prior" else by, 0, pictures)
    if by.of == "prior":
        prior_features(job.prior, torch.from_numpy(latents).view(-1, *job.codec.shape))


def _write(job: Job, distilled: DistilledSet, measured: Sequence[Nearest]) -> None:
    """Keeps what was measured beside the set, with what was measured of it before."""
    folder = folder_of(distilled)
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for measure in measured:
            with replacing(folder / f"closest-{measure.kind}.png") as temporary:
                _pairs(job, distilled, measure).save(temporary, format="PNG")
    by_kind = {measure.kind: vars(measure) for measure in [*_still_valid(distilled), *measured]}
    write_json(folder / "nearest.json", {"set": distilled.manifest["digest"], "measures": list(by_kind.values())})


def _still_valid(distilled: DistilledSet) -> list[Nearest]:
    """What was measured of the set before."""
    try:
        return read_nearest(distilled)
    except AttarError:
        return []


def _measured(job: Job, distilled: DistilledSet, by: ImageFeatures) -> Nearest:
    import torch

    from attar.selection import random_order

    nearest = Nearest(by.of, [], [], [])
    meter = Meter(job.progress, f"comparing {by.of}", len(distilled.classes), "classes")
    prototypes = distilled.prototypes()
    for label, pictures in enumerate(distilled.pictures()):
        numbers = job.images.of_class(label)
        rows = by.rows(job, label, torch.from_numpy(numbers))
        unit = 2 * rows.shape[1] ** 0.5 if by.of == "pixels" else 1.0
        points, sure = _looked(job, by, label, pictures)
        distances, places = nearest_of(rows, points)
        nearest.distances.append((distances / unit).tolist())
        nearest.numbers.append(numbers[places].tolist())
        order = random_order(0, distilled.classes[label], len(rows))[:COMPARED].numpy()
        others, _ = nearest_of(rows, rows[order], own=order) if len(rows) > 1 else (np.empty(0), None)
        nearest.real.append((others / unit).tolist())
        nearest.covered.extend([covered_share(rows, order, points)] if len(rows) > NEIGHBOURS else [])
        of_own, _ = nearest_of(points, points, own=np.arange(len(points))) if len(points) > 1 else (np.empty(0), None)
        nearest.apart.append((of_own / unit).tolist())
        nearest.sure.extend([sure.tolist()] if sure is not None else [])
        began = [Picture(file) for file in prototypes[label]]
        starts = _looked(job, by, label, began)[0] if began else []
        nearest.maps.append(principal_map(rows, order, points, starts))
        meter.add()
    return nearest


def _looked(job: Job, by: ImageFeatures, label: int, pictures: Sequence[Picture]) -> tuple[Any, Any]:
    """The features (N, D) of a set's pictures, and a teacher's probabilities (N,) of their class; else None.

    They are made as those of real images are (attar.selection.features).
    """
    from attar.priors.codec import to_float
    from attar.selection import features

    if by.of == "pixels":
        return to_float(_read(job, pictures, features.SIDE)).flatten(1).numpy(), None
    if by.of == "teacher":
        from attar.selection.features import teacher_for
        from attar.teachers.features import features_and_losses

        assert by.teacher is not None, "`nearest` has seen to it"
        teacher = teacher_for(job, by.teacher)
        found, losses = features_and_losses(teacher, _read(job, pictures, teacher.side), label)
        return found.numpy(), np.exp(-losses.double().numpy())
    z, _ = job.codec.encode(to_float(_read(job, pictures, job.codec.size)))
    return replace(by, teacher=None).rows(job, label, z) if by.of == "prior" else z.flatten(1).numpy(), None


def _read(job: Job, pictures: Sequence[Picture], side: int) -> Pixels:
    """A set's pictures as uint8 (N, side, side, 3)."""
    from attar.data import preprocess

    return np.stack([preprocess(picture.read(), side, job.spec.preprocess) for picture in pictures])


def _pairs(job: Job, distilled: DistilledSet, measure: Nearest) -> Any:
    """A picture of the closest pairs: the set's images above, below each the real image nearest to it."""
    from PIL import Image

    from attar.data import load_pixels

    pictures, places = distilled.pictures(), measure.closest(PAIRS)
    chosen = [pictures[label][index] for label, index in places]
    side = min(*chosen[0].read().size, SIDE)
    real = [measure.numbers[label][index] for label, index in places]
    rows = [_read(job, chosen, side), load_pixels(job.images, real, side, job.spec.preprocess)]
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
