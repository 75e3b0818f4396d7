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
from attar.core.words import counted
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


@checked
def regenerate(
    folder: Path,
    ipcs: Sequence[int],
    out: Path,
    *,
    prior: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
) -> list[Path]:
    """Writes sets of these IPCs from what `--keep-statistics` kept in `folder`, as `distill_sets` does.

    With the seed of that set, the default, the IPC that it has gives the images that it has.

    Args:
        prior: where the prior lies now, if it was moved; it must be the same one.

    Raises:
        AttarError: the set keeps no statistics or is damaged, the prior is another one, or as `distill_sets`.
    """
    from attar.distillation.checks import needs_data
    from attar.distillation.run import make_sets

    one = _with_statistics(folder)
    method = _method(one)
    job = Dataless(one, _spec(one.manifest, prior, seed, device), store, progress, dry_run)
    if job.untrained is None and [job.prior.key, job.codec.key] != [
        one.manifest["prior"][name] for name in ("fingerprint", "codec")
    ]:
        raise AttarError(f"`prior` {job.spec.prior}: is not the prior that {folder} was made with; name that one")
    if what := needs_data(method):
        raise AttarError(f"{folder} cannot be made again without the data, which {what} needs")
    name, fits, arrays = one.manifest["method"]["name"], job.kept(method), job.arrays()
    if not dry_run:
        job.store_kept(fits, arrays)
    return make_sets(job, name, method, ipcs, out, say=say, dry_run=dry_run, fits=fits)


def _with_statistics(folder: Path) -> DistilledSet:
    """The set in a folder, if it has all that its like can be made from."""
    from attar.sets.distilled import STATISTICS, open_distilled, verify

    one = open_distilled(folder)
    if not one.manifest.get("statistics"):
        raise AttarError(f"{folder} keeps no statistics: distill it by d3hr, with `keep_statistics`")
    if problem := next((line for line in verify(folder) if STATISTICS in line or "manifest" in line), None):
        raise AttarError(f"{folder} is damaged ({problem})")
    if wrong := mistake(one.manifest, _NEEDED):
        raise _damaged(one, wrong)
    return one


NAMES = {"mean": "mean", "std": "deviation"}


def _damaged(one: DistilledSet, wrong: str) -> AttarError:
    return AttarError(f"{one.folder / 'manifest.json'} is damaged: {wrong}; copy the set again, or distill it again")


class Dataless(Job):
    """A job whose classes, and what was learnt of them, come from a distilled set instead of images."""

    def __init__(
        self, one: DistilledSet, spec: Spec, store: Store | None, progress: Progress, dry: bool = False
    ) -> None:
        super().__init__(spec, store, progress, dry)
        self.one = one

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dataless, (self.one, self.spec, self.store, silent))

    @cached_property
    def everything(self) -> ImageSet:
        return cast("ImageSet", Counted(self.one.classes, self.one.manifest["data"]["counts"], self._digest))

    @cached_property
    def images(self) -> ImageSet:
        return self.everything

    @cached_property
    def prior_labels(self) -> list[int]:
        labels = self.one.manifest["prior"].get("labels") or super().prior_labels
        if max(labels) >= self.prior.n_classes:
            known = counted(self.prior.n_classes, "class")
            raise _damaged(self.one, f"prior.labels has {max(labels)}, and the prior {known}")
        return labels

    def about_data(self) -> dict[str, Any]:
        return {**self.one.manifest["data"], "regenerated_from": self._digest}

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

        file, shape = self.one.folder / STATISTICS, (len(self.classes), *self.codec.shape)
        try:
            found = load_file(file)
        except Exception as error:  # safetensors has many kinds
            raise AttarError(
                f"{file} cannot be read ({reason(error)}); copy the set again, or distill it again"
            ) from error
        for name in ("mean", "std"):
            if name not in found or tuple(found[name].shape) != shape or not found[name].is_floating_point():
                sizes = " x ".join(map(str, shape))
                raise AttarError(f"{file} is damaged: {name} is no array of {sizes} numbers; distill the set again")
            if not found[name].isfinite().all() or (name == "std" and (found[name] < 0).any()):
                raise AttarError(f"{file} is damaged: {name} holds what is no {NAMES[name]}; distill the set again")
        return found

    def store_kept(self, fits: Mapping[int, Artefact], arrays: Mapping[str, Tensor]) -> None:
        """Puts it into the store, where the stages look for it."""
        from safetensors.torch import save_file

        def make(kept: Mapping[str, Tensor], scratch: Path) -> None:
            save_file(dict(kept), scratch / "fit.safetensors")

        for label, (mean, std) in enumerate(zip(arrays["mean"], arrays["std"], strict=True)):
            kept = {"mean": mean[None], "variance": std[None].double().square()}
            self.store.once(fits[label], partial(make, kept))

    @property
    def _digest(self) -> str:
        return next(iter(self.one.manifest["statistics"].values()))


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


def _spec(manifest: Mapping[str, Any], prior: str | None, seed: int | None, device: str) -> Spec:
    """The settings that the set was made with, but for those that are given; on other devices, a tile of their own."""
    from attar.core.batching import device_class, resolve

    made_with, compute = manifest["prior"], manifest["compute"]
    alike = device_class(resolve(device, "auto")[0]) == compute["device"]
    prompting = {name: made_with[name] for name in ("prompt", "prompts", "negative_prompt") if name in made_with}
    return Spec(
        data=manifest["data"]["spec"],
        prior=prior or made_with["source"],
        codec=made_with["codec_source"],
        seed=manifest["seed"] if seed is None else seed,
        preprocess=manifest["preprocess"],
        output_size=manifest["output_size"],
        output_filter=manifest.get("output_filter", Spec.output_filter),
        device=device,
        dtype=compute["dtype"] if alike else "auto",
        tile=compute["tile"] if alike else None,
        **prompting,
    )


def _method(one: DistilledSet) -> D3HR:
    """The method that the set was made with, its fit brought to the one time whose statistics were kept."""
    from attar.methods import load_method

    def fields(values: Mapping[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in values.items() if name not in ("is", "name")}
        return {name: fields(value) if isinstance(value, Mapping) else value for name, value in plain.items()}

    manifest = one.manifest
    name, changes = manifest["method"]["name"], fields(manifest["method"])
    if teacher := manifest["selected_by"]:
        changes["select"] |= teacher["named"]
    try:
        made_by = load_method(name, changes)
    except AttarError as error:
        raise _damaged(one, f"method: {error}") from error
    if not getattr(made_by, "keeps_statistics", False):
        raise _damaged(one, f"method.name is {name}, which keeps no statistics")
    method = cast("D3HR", made_by)
    time = method.matched_time
    return replace(method, time=None, fit=replace(method.fit, times=(time,)))
