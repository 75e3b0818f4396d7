"""A distilled set made once more from what its manifest says, and compared with it image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Store
from attar.core.wording import counted
from attar.distillation.from_manifest import damaged_manifest, method_of, spec_of
from attar.job import Job
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from attar.distillation.predictions import Predictions
    from attar.sets.distilled import DistilledSet
    from attar.teachers.teacher import SingleTeacher


@dataclass(frozen=True)
class MadeAgain:
    """How a set is made again: where things lie now that lay elsewhere, and who judges what differs."""

    data: str | None = None
    """The set's data, if they were moved."""
    prior: str | None = None
    """The set's prior, if it was moved."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    judge: str | None = None
    """A teacher that is asked how far images that differ are apart; `attar train-teacher` makes one."""


@dataclass(frozen=True)
class ChangedImage:
    """An image that is not the same file."""

    image: str
    """Its name within the set."""
    largest: int
    """The largest difference of a value, of 255."""
    mean: float
    """The mean difference of its values, of 255."""


@dataclass(frozen=True)
class Reproduction:
    """What became of a set that was made again."""

    folder: Path
    """The set that was made now."""
    images: int
    """How many images were compared."""
    differences: tuple[ChangedImage, ...]
    """The images whose bytes differ."""
    otherwise: tuple[str, ...]
    """What is otherwise here than where the set was made: device, versions, inputs."""
    predictions: Predictions | None = None
    """What a teacher makes of the images whose bytes differ, where one was asked."""

    def __str__(self) -> str:
        if not self.differences:
            return f"reproduced: {counted(self.images, 'image')}, the same bytes"
        largest = max(difference.largest for difference in self.differences)
        mean = sum(difference.mean for difference in self.differences) / len(self.differences)
        why = f"; here {', '.join(self.otherwise)}" if self.otherwise else ", though nothing else is known to differ"
        judged = f"; {self.predictions}" if self.predictions else ""
        return (
            f"{len(self.differences)} of {counted(self.images, 'image')} differ, by {mean:.2g} of 255 on average and "
            f"{largest} at most{judged}{why}"
        )


@checked
def reproduce(
    folder: Path,
    out: Path,
    places: MadeAgain = MadeAgain(),
    fields: Mapping[str, Any] | None = None,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
) -> Reproduction | None:
    """Distills into `out` what the set in `folder` was distilled from, and compares both; None of a dry run.

    `fields` are fields of the method that the manifest cannot hold, such as the folder of rded's teacher. Devices of
    one kind and the same versions give the same bytes. Others differ in last bits, which denoising can make visible.

    Raises:
        AttarError: the set is damaged, was made from kept statistics or expanded, or as `distill_sets`.
    """
    from attar.distillation.run import distill_sets
    from attar.sets.distilled import check_undamaged, open_distilled

    origin = open_distilled(folder)
    check_undamaged(origin)
    if out.resolve() == folder.resolve():
        raise AttarError(f"`out` {out}: is the set itself; name another folder for the one that is made now")
    manifest = origin.manifest
    if "regenerated_from" in manifest["data"]:
        raise AttarError(f"{folder} was made from kept statistics, without data: `attar regenerate` makes its like")
    if "expanded_from" in manifest:
        source = manifest["expanded_from"]["set"]
        raise AttarError(f"{folder} holds the parts of another set ({source}): reproduce that, and `attar expand` it")
    spec = spec_of(origin, **_told(origin), data=places.data, prior=places.prior, device=places.device)
    method, job = method_of(origin, fields), Job(spec, store, progress, dry_run)
    teacher = None if places.judge is None else _judge(job, places.judge)
    (made,) = distill_sets(job, manifest["method"]["name"], method, (manifest["ipc"],), out, say=say)
    if dry_run:
        return None
    result = compared(origin, open_distilled(made))
    return result if teacher is None else _with_predictions(result, job, teacher, origin)


def _judge(job: Job, name: str) -> SingleTeacher:
    """The teacher of this name; raises AttarError where it cannot judge the job's images."""
    from attar.selection.features import teacher_for

    try:
        return teacher_for(job, TeacherReference(name))
    except AttarError as error:
        raise AttarError(f"`judge` {name}: cannot be asked ({error})") from error


def _with_predictions(result: Reproduction, job: Job, teacher: SingleTeacher, origin: DistilledSet) -> Reproduction:
    """The same with what a teacher makes of the images that differ, if any do."""
    from attar.distillation.predictions import predictions_apart
    from attar.sets.distilled import open_distilled

    if not (names := [difference.image for difference in result.differences]):
        return result
    again = open_distilled(result.folder)
    return replace(result, predictions=predictions_apart(job, teacher, origin, again, names))


def _told(origin: DistilledSet) -> dict[str, Any]:
    """Settings of the data, as the manifest tells them."""
    data = origin.manifest["data"]
    for name in ("imbalance_factor", "hold_out", "skipped"):
        if name not in data:
            raise damaged_manifest(origin, f"data.{name} is missing")
    return {
        "classes": tuple(origin.classes),
        "imbalance_factor": data["imbalance_factor"],
        "hold_out": data["hold_out"],
        "on_bad_image": "skip" if data["skipped"] else "error",
        "keep_statistics": origin.manifest.get("keep_statistics", False),
    }


def compared(origin: DistilledSet, again: DistilledSet) -> Reproduction:
    """Two sets of the same images, compared by their digests, and by their pixels where these differ."""
    before, now = origin.manifest["images"], again.manifest["images"]
    if set(before) != set(now):
        raise AttarError(f"{again.folder} has other images than {origin.folder}: their data or classes differ")
    differing = [name for name in sorted(before) if before[name] != now[name]]
    differences = tuple(_difference(origin.folder, again.folder, name) for name in differing)
    return Reproduction(again.folder, len(before), differences, tuple(_otherwise(origin.manifest, again.manifest)))


def _difference(first: Path, second: Path, name: str) -> ChangedImage:
    from PIL import Image

    pixels = []
    for root in (first, second):
        with Image.open(root / name) as image:
            pixels.append(np.asarray(image.convert("RGB"), dtype=np.int16))
    if pixels[0].shape != pixels[1].shape:
        return ChangedImage(name, 255, 255.0)
    gap = np.abs(pixels[0] - pixels[1])
    return ChangedImage(name, int(gap.max()), float(gap.mean()))


INPUTS: Sequence[tuple[str, ...]] = (
    ("data", "fingerprint"),
    ("prior", "fingerprint"),
    ("prior", "codec"),
    ("method",),
    ("machine", "device"),
    ("compute", "dtype"),
    ("compute", "tile"),
    ("compute", "codec_tile"),
    ("compute", "threads"),
    ("attar",),
)
"""Keys of manifests that images depend on, beside the versions of libraries."""


def _otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in two manifests, in words; fingerprints and settings are named alone."""
    words = []
    for path in INPUTS:
        old, new = _at(before, path), _at(now, path)
        if old != new:
            short = all(isinstance(value, str | int) for value in (old, new)) and "fingerprint" not in path
            words.append(f"{' '.join(path)} {new} (was {old})" if short else f"another {' '.join(path)}")
    there, here = before["versions"], now["versions"]
    return words + [f"{name} {here.get(name)} (was {old})" for name, old in there.items() if here.get(name) != old]


def _at(manifest: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = manifest
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
