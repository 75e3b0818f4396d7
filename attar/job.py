"""What is to be distilled, with which prior, where. Each is opened when first asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.fingerprints import Named
from attar.core.limits import SIDE, TILE, check_most, check_seed
from attar.core.progress import Progress, silent
from attar.core.store import Store, canonical, fingerprint

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


@dataclass(frozen=True)
class Spec:
    """A job in words: everything that decides its result but the method and the IPC."""

    data: str
    """Images to distill: digits, parquet:PATH (Hugging Face layout), imagefolder:PATH or just PATH, hf:REPO,
    torchvision:NAME; @SPLIT names a split."""
    prior: str | None = None
    """The diffusion model: digits, a folder or hub id of a DiTPipeline or StableDiffusionPipeline, or an original
    DiT.pt; none: methods of real images need none."""
    codec: str | None = None
    """The autoencoder instead of the prior's own: pixel, or a folder or hub id of an AutoencoderKL or
    AutoencoderTiny."""
    classes: tuple[str, ...] | None = None
    """Only these classes, by name: cat,dog; or an ImageNet subset: imagewoof; none: all classes of the data."""
    class_map: str | None = None
    """A TOML or JSON file, data class = class name or label of the prior; classes that it does not hold match by
    name."""
    prompt: str = "{name}"
    """What a text-conditioned prior (Stable Diffusion) is told of a class, {name} being its name."""
    prompts: str | None = None
    """A TOML or JSON file with a prompt for each class, class name = prompt, instead of `prompt`."""
    negative_prompt: str | None = None
    """What no image of a text-conditioned prior shall be; none: "cartoon, anime, painting", as in D4M."""
    imbalance_factor: float | None = None
    """Take a long-tailed view of the data: images of the largest class over those of the smallest (exponential
    profile)."""
    hold_out: bool = False
    """Leave out a fixed tenth of the data, to choose settings on (`attar evaluate` tests on it where its test images
    are held-out)."""
    seed: int = 0
    """Seed of all randomness."""
    keep_statistics: bool = False
    """Keep the mean and deviation of each class with the set (d3hr), which `attar regenerate` makes sets of any IPC
    from."""
    preprocess: str = "adm"
    """How images are brought to the prior's size: adm, resize-crop or squash."""
    formation: int = 1
    """Save mosaics of K x K images, each at 1/K of its size (IDC): the method makes K^2 times as many, and its settings
    that depend on the IPC go by how many it makes."""
    output_size: int | None = None
    """Side of the saved images, in pixels; none: the prior's own (of real images in a formation, the data's)."""
    output_filter: Literal["lanczos", "bicubic"] = "lanczos"
    """How images are brought to `output_size`, and to the size that they have in a formation."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with images that cannot be read."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    dtype: str = "auto"
    """Number format of the networks: auto, float32, bfloat16 or float16."""
    tile: int | None = None
    """Images in one call of the prior's network; none: found by probing, as the codec's (attar.core.batching)."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_seed("`seed`", self.seed)
        for name in ("prior", "codec", "class_map", "prompts"):
            if getattr(self, name) == "":
                raise AttarError(f"`{name}` is empty: name one, or leave it out")
        for name, value in (("tile", self.tile), ("output_size", self.output_size), ("formation", self.formation)):
            if value is not None and value < 1:
                raise AttarError(f"`{name}` {value}: at least 1")
        if self.output_filter != "lanczos" and self.output_size is None and self.formation == 1:
            raise AttarError(f"`output_filter` {self.output_filter}: needs an `output_size`, which it brings images to")
        if self.imbalance_factor is not None and not 1 <= self.imbalance_factor < math.inf:
            raise AttarError(f"`imbalance_factor` {self.imbalance_factor}: a number of 1 or more")
        check_most("`tile`", self.tile, TILE)
        check_most("`output_size`", self.output_size, SIDE)

    def made(self, ipc: int) -> int:
        """Images of a class that are made for a set of this IPC: as many as its mosaics have parts."""
        return ipc * self.formation**2


FOR_PRIOR = ("codec", "class_map", "prompt", "prompts", "negative_prompt", "tile")
"""Fields of a Spec that are of a prior, and have no effect without one."""


def named_classes(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The data's classes that these names stand for: a class by its name, or the members of an ImageNet subset.

    Raises:
        AttarError: the data lacks some of a subset's classes.
    """
    from attar.data.imagenet import SUBSETS, members

    return [
        own for name in names for own in (members(name, known) if name in SUBSETS and name not in known else (name,))
    ]


class Job:
    """What methods see: images, latents, prior, keys and the store, each made from the spec when first asked for."""

    def __init__(self, spec: Spec, store: Store | None = None, progress: Progress = silent, dry: bool = False) -> None:
        self.spec = spec
        self.store = store or Store()
        self.progress = progress
        self.dry = dry
        """Nothing is trained: a built-in prior that is still to be trained is counted and timed as it is before."""
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
        """The images to distill, every one of them known to be readable."""
        from attar.data import readable

        return readable(self.picked, self.spec.on_bad_image, self.store, self.progress)

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
        """What the prior is told of each class; None of a prior that knows its classes by label."""
        from attar.priors import takes_prompts
        from attar.priors.prompts import class_prompts

        spec = self.spec
        given = (spec.prompt, spec.prompts, spec.negative_prompt) != (Spec.prompt, Spec.prompts, Spec.negative_prompt)
        taken = takes_prompts(self._prior_name)
        if not taken and not given:
            return None
        if taken and spec.class_map is not None:
            raise AttarError(f"`class_map`: {spec.prior} is told its classes by prompts; give them with `prompts` FILE")
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
