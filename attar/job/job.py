"""A job opened: its images, prior, latents and keys, each made from the spec when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attar.core.errors import AttarError
from attar.core.fingerprints import Named
from attar.core.progress import Progress, silent
from attar.core.store import Store, canonical, fingerprint
from attar.job.spec import Spec, named_classes

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from torch import Tensor

    from attar.data import ImageSet
    from attar.priors.codec import Codec
    from attar.priors.latents import Latents
    from attar.priors.prior import Prior
    from attar.priors.prompts import Prompts
    from attar.teachers.reference import TeacherReference
    from attar.teachers.teacher import SingleTeacher


REVISION = 3
"""Raise it when a change of code changes what is stored under a key."""


class Job:
    """What methods see: images, latents, prior, keys and the store, each made from the spec when first asked for."""

    def __init__(self, spec: Spec, store: Store | None = None, progress: Progress = silent, dry: bool = False) -> None:
        self.spec = spec
        self.store = store or Store()
        self.progress = progress
        self.dry = dry
        """Nothing is trained: a built-in prior that is still to be trained is counted and timed as it is before."""
        self.awaits_prior = False
        """Whether the prior stands in for one that is trained later (attar.distillation.prior_first)."""
        self.teachers: dict[tuple[TeacherReference, int | None], SingleTeacher] = {}
        """The teachers that were opened and tried (attar.selection.features.teacher_for)."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled in words: each process opens the job for itself, once."""
        return _reopened, (self.spec, self.store.root.absolute())

    @cached_property
    def everything(self) -> ImageSet:
        """The whole data set, before `classes` are picked and unreadable images left out."""
        from attar.data import load_view

        return load_view(self.spec.data, self.spec.imbalance_factor, self.spec.hold_out)

    @cached_property
    def picked(self) -> ImageSet:
        """The images of the classes to distill, unreadable ones among them."""
        if self.spec.classes is None:
            return self.everything
        return self.everything.restricted(named_classes(self.spec.classes, self.everything.classes))

    @cached_property
    def images(self) -> ImageSet:
        """The images to distill, every one of them known to be readable; in a dry run, those of a few looked at."""
        from attar.data import readable

        return readable(self.picked, self.spec.on_bad_image, self.store, self.progress, dry=self.dry)

    @property
    def half_seen(self) -> bool:
        """Whether more of the images may turn out to be left out than a dry run has looked at."""
        from attar.data import still_to_look_at

        return self.dry and self.spec.on_bad_image == "skip" and bool(still_to_look_at((self.picked,), self.store))

    @cached_property
    def side(self) -> int:
        """The usual size of the data's images, in pixels, whichever classes are picked."""
        from attar.data import usual_side

        return usual_side(self.everything)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.picked.classes

    @property
    def labels(self) -> range:
        """The labels of the job's classes."""
        return range(len(self.classes))

    @cached_property
    def prior(self) -> Prior:
        """The prior, on its device, its batch size chosen."""
        from attar.priors import load_prior

        prompts, tile = self.prompts, self.spec.tile
        if self.unread:
            from attar.priors.unread import unread_prior

            spec = self.spec
            return unread_prior(self._prior_name, spec.device, spec.dtype, tile, spec.codec, prompts)
        opening: dict[str, Any] = {"codec": self.codec, "prompts": prompts, **self._opening}
        if not self.dry:
            return load_prior(self._prior_name, tile=tile, **opening)
        prior = load_prior(self._prior_name, tile="likely", **opening)
        return prior if tile is None else prior.with_batch_size(tile)

    @cached_property
    def unread(self) -> bool:
        """Whether this is a dry run that leaves the prior's weights unread, for they are large."""
        from attar.priors.unread import is_large

        return self.dry and self.spec.prior is not None and is_large(self._prior_name)

    def master(self) -> Prior:
        """The prior with float32 weights, which a training needs; opened anew where the job's are of half precision."""
        from attar.priors import load_prior

        if self.prior.weights.itemsize == 4:
            return self.prior
        opening = {**self._opening, "dtype": "float32", "tile": 1}
        return load_prior(self._prior_name, codec=self.codec, prompts=self.prompts, **opening)

    @property
    def named_prior(self) -> Named:
        """The prior as keys hold it."""
        return Named(self._prior_name, self.prior.key)

    @cached_property
    def codec(self) -> Codec:
        """The prior's codec, its batch size chosen. Neither the prior's network nor a text encoder is loaded for it."""
        from attar.priors import load_prior_codec

        if self.unread:
            return self.prior.codec
        tile: Literal["likely"] | None = "likely" if self.dry else None
        return load_prior_codec(self._prior_name, tile=tile, codec=self.spec.codec, **self._opening)

    @cached_property
    def prompts(self) -> Prompts | None:
        """The prompt of each class; None of a prior that knows its classes by label."""
        from attar.priors import takes_prompts
        from attar.priors.prompts import class_prompts

        spec = self.spec
        given = (spec.prompt, spec.prompts, spec.negative_prompt) != (Spec.prompt, Spec.prompts, Spec.negative_prompt)
        taken = takes_prompts(self._prior_name)
        if not taken and not given:
            return None
        if taken and spec.class_map is not None:
            raise AttarError(f"`class_map`: {spec.prior} takes its classes as prompts; give them with `prompts` FILE")
        file = Path(spec.prompts) if spec.prompts else None
        return class_prompts(self.everything.classes, self.classes, spec.prompt, file, spec.negative_prompt)

    @cached_property
    def untrained(self) -> TemporaryDirectory[str] | None:
        """The folder of the built-in prior's network where a dry run finds it untrained."""
        from attar.priors.digits import is_trained, untrained_digits

        return untrained_digits() if self.dry and self.spec.prior == "digits" and not is_trained(self.store) else None

    @property
    def _prior_name(self) -> str:
        if self.spec.prior is None:
            raise AttarError("this method needs a prior: name one as `prior` (digits, a folder or a hub id)")
        return self.spec.prior if self.untrained is None else self.untrained.name

    @property
    def _opening(self) -> dict[str, Any]:
        spec = self.spec
        return {"device": spec.device, "dtype": spec.dtype, "store": self.store, "progress": self.progress}

    @cached_property
    def prior_labels(self) -> list[int]:
        """The prior's label of each class of the job."""
        return self.match(self.prior.classes, self.prior.n_classes)

    def match(self, known: Sequence[str] | None, count: int) -> list[int]:
        """The label of each class of the job among `count` classes of a prior, named as in `known`.

        Raises:
            AttarError: lists the classes that it does not know.
        """
        from attar.data.class_names import match, read_class_map

        mapping = read_class_map(Path(self.spec.class_map)) if self.spec.class_map else None
        return match(self.classes, known, count, self.everything.classes, mapping)

    @cached_property
    def latents(self) -> Latents:
        """The images' latents under the prior's codec."""
        from attar.priors.latents import Latents

        return Latents(self.images, self.codec, self.spec.preprocess, self.store, self.encoding)

    @cached_property
    def compute(self) -> dict[str, Any]:
        """What the last bits of the prior's output depend on beside its weights and inputs."""
        from attar.core.batching import calls

        return {**self.machine, **calls(self.prior.batch_size, self.prior.device, self.prior.weights)}

    @cached_property
    def encoding(self) -> dict[str, Any]:
        """The same of the codec's output."""
        return {**self.machine, **self.codec.calls}

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What the last bits of any network's output depend on beside its weights, its inputs and its batch size."""
        import diffusers
        import torch

        from attar.core.batching import device_class, resolve

        device, dtype = resolve(self.spec.device, self.spec.dtype)
        return {
            "device": device_class(device),
            "dtype": str(dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "revision": REVISION,
        }

    def about_data(self) -> dict[str, Any]:
        """What a manifest says of the images."""
        from attar.data.imagenet import which_imagewoof

        return {
            "spec": self.images.spec,
            "imbalance_factor": self.spec.imbalance_factor,
            "hold_out": self.spec.hold_out,
            "images": len(self.images),
            "counts": [len(self.images.of_class(label)) for label in self.labels],
            "known_as": which_imagewoof(len(self.images)) if len(self.classes) == 10 else None,
            "fingerprint": fingerprint([self.images.digest(label) for label in self.labels]),
            "skipped": list(self.images.skipped),
        }

    def named_condition(self, label: int) -> int | str | None:
        """A class's condition as keys hold it: the prior's own label, or the prompt."""
        prompts = self.prior.prompts
        return self.prior_labels[label] if prompts is None else prompts.texts[self.prior_labels[label]]

    def conditions(self, labels: Sequence[int]) -> Tensor:
        """The prior's labels (N,) of job labels, on the prior's device."""
        import torch

        return torch.tensor([self.prior_labels[label] for label in labels], device=self.prior.device)

    def noise(self, shape: tuple[int, ...], purpose: str, label: int, *parts: str | int) -> Tensor:
        """Standard normal noise, float32 on the CPU, of the key (seed, purpose, class, ...)."""
        from attar.core.rng import noise

        return noise(shape, self.spec.seed, purpose, self.classes[label], *parts)

    def to_config(self, thing: Any) -> Any:
        """A frozen object as keys and manifests hold it: parts that have an `identity` in this job, by that."""
        if hasattr(thing, "identity"):
            return thing.identity(self)
        if not is_dataclass(thing):
            return canonical(thing)
        parts = {field.name: self.to_config(getattr(thing, field.name)) for field in fields(thing)}
        return {"is": type(thing).__qualname__, **parts}


@lru_cache(maxsize=1)
def _reopened(spec: Spec, cache: Path) -> Job:
    return Job(spec, Store(cache))
