"""Distilled sets of any IPC from the statistics that were kept with one, and the prior: without the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attar.core.arguments import checked
from attar.core.errors import AttarError, reason
from attar.core.json_shapes import TABLE, TEXT, Many, Maybe, Shape, mistake, whole
from attar.core.progress import Progress, silent
from attar.core.store import Artefact, Store
from attar.core.wording import counted
from attar.distillation.from_manifest import damaged_manifest, method_of, spec_of
from attar.job import Job, Spec

if TYPE_CHECKING:
    from torch import Tensor

    from attar.core.progress import Say
    from attar.data import ImageSet
    from attar.methods.d3hr.method import D3HR
    from attar.sets.distilled import DistilledSet

_NEEDED: Shape = {
    "method": {"select": TABLE},
    "output_size": Maybe(whole(1)),
    "data": {"counts": Many(whole(1))},
    "prior": {"fingerprint": TEXT, "codec": TEXT, "codec_source": Maybe(TEXT)},
    "compute": TABLE,
    "selected_by": Maybe(TABLE),
}
"""Keys of a manifest that are looked at here beside those that every one must have."""


@dataclass(frozen=True)
class Overrides:
    """What may be otherwise than it was for the set that is made again."""

    prior: str | None = None
    """Where the set's prior lies now, if it was moved; it must be the same one."""
    seed: int | None = None
    """Seed of all randomness; none: the set's own, with which the IPC that it has gives the images that it has."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""


@checked
def regenerate(
    folder: Path,
    ipcs: Sequence[int],
    out: Path,
    overrides: Overrides = Overrides(),
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
) -> list[Path]:
    """Writes sets of these IPCs from what `keep_statistics` kept in `folder`, as `distill_sets` does.

    Raises:
        AttarError: the set keeps no statistics or is damaged, the prior is another one, or as `distill_sets`.
    """
    from attar.distillation.checks import needs_data
    from attar.distillation.run import distill_sets

    origin = _with_statistics(folder)
    method = _method(origin)
    job = Dataless(
        origin,
        spec_of(origin, prior=overrides.prior, seed=overrides.seed, device=overrides.device),
        store,
        progress,
        dry_run,
    )
    keys = [origin.manifest["prior"][name] for name in ("fingerprint", "codec")]
    unknown = job.untrained is not None or job.unread
    if not unknown and [job.prior.key, job.codec.key] != keys:
        raise AttarError(f"`prior` {job.spec.prior}: is not the prior that {folder} was made with; name that one")
    if what := needs_data(method):
        raise AttarError(f"{folder} cannot be made again without the data, which {what} needs")
    fits, arrays = job.kept(method), job.arrays()
    if not dry_run:
        job.store_kept(fits, arrays)
    return distill_sets(job, origin.manifest["method"]["name"], method, ipcs, out, say=say, fits=fits)


def _with_statistics(folder: Path) -> DistilledSet:
    """The set in a folder, if it has all that its like can be made from."""
    from attar.sets.distilled import STATISTICS, open_distilled, verify

    origin = open_distilled(folder)
    if not origin.manifest.get("statistics"):
        raise AttarError(f"{folder} keeps no statistics: distill it by d3hr, with `keep_statistics`")
    if problem := next((line for line in verify(folder) if STATISTICS in line or "manifest" in line), None):
        raise AttarError(f"{folder} is damaged ({problem})")
    if wrong := mistake(origin.manifest, _NEEDED):
        raise damaged_manifest(origin, wrong)
    return origin


NAMES = {"mean": "mean", "std": "deviation"}


class Dataless(Job):
    """A job whose classes, and what was learnt of them, come from a distilled set instead of images."""

    def __init__(
        self, origin: DistilledSet, spec: Spec, store: Store | None, progress: Progress, dry: bool = False
    ) -> None:
        super().__init__(spec, store, progress, dry)
        self.origin = origin

    @cached_property
    def everything(self) -> ImageSet:
        return cast("ImageSet", Counted(self.origin.classes, self.origin.manifest["data"]["counts"], self._digest))

    @cached_property
    def images(self) -> ImageSet:
        return self.everything

    @cached_property
    def prior_labels(self) -> list[int]:
        labels = self.origin.manifest["prior"].get("labels") or super().prior_labels
        if max(labels) >= self.prior.n_classes:
            known = counted(self.prior.n_classes, "class")
            raise damaged_manifest(self.origin, f"prior.labels has {max(labels)}, and the prior {known}")
        return labels

    def about_data(self) -> dict[str, Any]:
        return {**self.origin.manifest["data"], "regenerated_from": self._digest}

    def kept(self, method: D3HR) -> dict[int, Artefact]:
        """What the set kept of each class, as what the method's fit has learnt."""
        return {
            label: Artefact("fit", {"kept": self._digest, "fit": method.fit, "class": name})
            for label, name in enumerate(self.classes)
        }

    def arrays(self) -> dict[str, Tensor]:
        """Mean and deviation of the classes, each (classes, C, H, W).

        Raises:
            AttarError: the file holds something else.
        """
        from safetensors.torch import load_file

        from attar.sets.distilled import STATISTICS

        file, shape = self.origin.folder / STATISTICS, (len(self.classes), *self.codec.shape)
        try:
            tensors = load_file(file)
        except Exception as error:  # safetensors has many kinds
            raise AttarError(
                f"{file} cannot be read ({reason(error)}); copy the set again, or distill it again"
            ) from error
        for name in ("mean", "std"):
            if name not in tensors or tuple(tensors[name].shape) != shape or not tensors[name].is_floating_point():
                sizes = " x ".join(map(str, shape))
                raise AttarError(f"{file} is damaged: {name} is no array of {sizes} numbers; distill the set again")
            if not tensors[name].isfinite().all() or (name == "std" and (tensors[name] < 0).any()):
                raise AttarError(f"{file} is damaged: {name} holds what is no {NAMES[name]}; distill the set again")
        return tensors

    def store_kept(self, fits: Mapping[int, Artefact], arrays: Mapping[str, Tensor]) -> None:
        """Puts it into the store, where the stages look for it."""
        from safetensors.torch import save_file

        def make(statistics: Mapping[str, Tensor], scratch: Path) -> None:
            save_file(dict(statistics), scratch / "fit.safetensors")

        for label, (mean, std) in enumerate(zip(arrays["mean"], arrays["std"], strict=True)):
            statistics = {"mean": mean[None], "variance": std[None].double().square()}
            self.store.once(fits[label], partial(make, statistics))

    @property
    def _digest(self) -> str:
        return next(iter(self.origin.manifest["statistics"].values()))


@dataclass(frozen=True)
class Counted:
    """Images of which only the classes and their numbers are known: what a job without data asks of an ImageSet."""

    classes: tuple[str, ...]
    counts: Sequence[int]
    made_of: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(self.counts)

    def of_class(self, label: int) -> range:
        return range(self.counts[label])

    def digest(self, label: int) -> str:
        return self.made_of

    def identity(self, label: int) -> dict[str, Any]:
        return {"count": self.counts[label], "digest": self.made_of}


def _method(origin: DistilledSet) -> D3HR:
    """The method that the set was made with, its fit brought to the one time whose statistics were kept."""
    made_by = method_of(origin)
    if not getattr(made_by, "keeps_statistics", False):
        name = origin.manifest["method"]["name"]
        raise damaged_manifest(origin, f"method.name is {name}, which keeps no statistics")
    method = cast("D3HR", made_by)
    time = method.matched_time
    return replace(method, time=None, fit=replace(method.fit, times=(time,)))
