"""Class- or text-conditional diffusion models behind one contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from attar.core.arguments import checked
from attar.core.errors import AttarError, suggestion
from attar.core.files import at_home, expand_user
from attar.core.hub_ids import check_there
from attar.core.progress import Progress, silent
from attar.core.registry import Registry

if TYPE_CHECKING:
    import torch

    from attar.core.store import Store
    from attar.priors.codec import Codec
    from attar.priors.prior import Prior
    from attar.priors.prompts import Prompts


class PriorForm(NamedTuple):
    """One form that priors come in."""

    latent_space: Callable[[str], tuple[tuple[int, int, int], str]]
    """(C, H, W) of the latents, and the codec unless another is given, as `attar.priors.codec.load_codec` takes it."""
    load: Callable[..., Prior]
    """Called with the source, device, dtype, codec and, if it is `prompted`, the prompts."""
    prompted: bool = False


TRAIN = "train"
"""In place of a prior, to `attar distill`: one is trained on the images first (attar.distillation.prior_first)."""
_HOME = "attar.priors.forms"

PRIORS = Registry[PriorForm](
    "prior",
    {
        "digits": (
            f"{_HOME}:DIT",
            "a small DiT of handwritten digits, built in; trained when first asked for",
        ),
        "DiTPipeline": (
            f"{_HOME}:DIT",
            "a folder or hub id of a class-conditional DiT of diffusers",
        ),
        "StableDiffusionPipeline": (
            f"{_HOME}:STABLE_DIFFUSION",
            "a folder or hub id of a Stable Diffusion of diffusers, its classes named by prompts",
        ),
        "StableDiffusionImg2ImgPipeline": (f"{_HOME}:STABLE_DIFFUSION", "the same"),
        "DiT.pt": (f"{_HOME}:ORIGINAL_DIT", "a checkpoint file of the original DiT's or Minimax's code"),
    },
)
"""The forms that priors come in: `digits` is a name, the others are places."""


@checked
def load_prior(
    source: str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tile: int | Literal["likely"] | None = None,
    codec: str | Codec | None = None,
    prompts: Prompts | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Prior:
    """The prior named by `source`: `digits`, a diffusers folder or hub id, or an original DiT checkpoint file.

    A Stable Diffusion needs the `prompts` of its classes. `codec` is an open one, or as in `load_prior_codec`. `tile`
    is the fixed batch size of its network (attar.core.batching): chosen by probing, and probed too where it is
    given; or "likely": the one that probing most likely finds, for a dry run.

    Raises:
        AttarError: it cannot be loaded or takes no prompts, or the device, dtype or tile is not usable.
        NotFinite: its weights, or what it makes of noise, are NaN or infinite.
    """
    from attar.core.batching import Probe, resolve
    from attar.core.fingerprints import Named
    from attar.core.finite import check_weights, naming
    from attar.core.store import Store

    place, number_format = resolve(str(device), str(dtype).removeprefix("torch."))
    store = store or Store()
    if prompts is not None and not takes_prompts(source):
        raise AttarError(f"`prior` {source}: knows its classes by label, so it takes no prompts; Stable Diffusion does")
    kind = form_of(folder := _folder(source, store, progress))
    if codec is None or isinstance(codec, str):
        opening: dict[str, Any] = {"device": device, "dtype": dtype, "store": store, "progress": progress}
        codec = load_prior_codec(folder, tile=tile, codec=codec, **opening)
    with naming(f"`prior` {source}"):
        prior = kind.load(folder, place, number_format, codec, *([prompts] if kind.prompted else []))
    check_weights(prior.network, f"`prior` {source}")
    probe = Probe({"prior": Named(source, prior.key)}, prior, place, number_format, store, progress)
    with naming(f"`prior` {source}"):
        return prior.with_batch_size(probe.of(tile))


@checked
def load_prior_codec(
    source: str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tile: int | Literal["likely"] | None = None,
    codec: str | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Codec:
    """The codec of the prior named by `source`; of its network no more is read than the shape of its latents.

    `codec` replaces the prior's own: "pixel", or a folder or hub id of an AutoencoderKL or AutoencoderTiny. Its batch
    size is chosen by probing the device, and is not above `tile`. `digits` is trained first, if it is not there yet.

    Raises:
        AttarError: nothing of that name can be loaded, or its latents have other channels than the prior's.
    """
    from attar.core.batching import Probe, resolve
    from attar.core.finite import naming
    from attar.core.store import Store
    from attar.priors.codec import load_codec

    place, number_format = resolve(str(device), str(dtype).removeprefix("torch."))
    if codec is not None and codec != "pixel":
        check_there(codec, "`codec`", ["pixel"])
    store = store or Store()
    folder = _folder(source, store, progress)
    shape, own = form_of(folder).latent_space(folder)
    opened = load_codec(codec or own, shape, place, number_format)
    probe = Probe({"codec": opened.key, "latents": shape}, opened, place, number_format, store, progress)
    with naming(f"`codec` {codec or own}"):
        return opened.with_batch_size(probe.likely() if tile == "likely" else probe.chosen(most=tile))


def takes_prompts(source: str) -> bool:
    """Whether a prior takes its classes as prompts.

    Raises:
        AttarError: there is no prior of that name.
    """
    return source != "digits" and form_of(at_home(source)).prompted


def known_classes(source: str) -> tuple[str, ...] | None:
    """The class names of a prior that are known before it is trained or loaded: of `digits`, and of a DiTPipeline.

    None where its files name none.
    """
    from attar.data.class_names import named
    from attar.data.digits import Digits
    from attar.priors.diffusers_pipeline import read_index

    if source == "digits":
        return Digits.classes
    if expand_user(source).is_file() or takes_prompts(source):
        return None
    id2label = read_index(at_home(source)).get("id2label") or None
    return None if id2label is None else named(id2label, len(id2label), f"`prior` {source}: model_index.json")


def known_side(source: str | None, codec: str | None = None) -> int | None:
    """The side of a prior's images, in pixels, where it is known before the prior is trained or loaded; else None."""
    from attar.data.digits import Digits

    return Digits.side if source == "digits" and codec in (None, "pixel") else None


def _folder(source: str, store: Store, progress: Progress) -> str:
    """The source, or the folder of a built-in prior, which is trained if it is not there yet."""
    from attar.priors.digits import digits_prior

    if source == "digits":
        return str(digits_prior(store, progress))
    return at_home(source)


def form_of(source: str) -> PriorForm:
    """The form that a prior comes in.

    Raises:
        AttarError: there is no such file or folder, or it is no prior.
    """
    from attar.priors.diffusers_pipeline import read_index
    from attar.priors.original_dit import SUFFIXES

    file = expand_user(source)
    if file.suffix in SUFFIXES or file.is_file():
        return PRIORS.open("DiT.pt")
    if source == TRAIN and not file.exists():
        raise AttarError(
            f"`prior` {source}: `attar distill` alone trains one first, and not to explain; name the folder of one, "
            "such as the OUT.prior that it wrote, or train one with `attar train-prior`"
        )
    check_there(source, "`prior`", ["digits"])
    name = read_index(source).get("_class_name")
    pipelines = [pipeline for pipeline in PRIORS if pipeline.endswith("Pipeline")]
    if name not in pipelines:
        hint = suggestion(str(name), pipelines)
        raise AttarError(f"`prior` {source}: a {name}{hint}; it must be one of {', '.join(pipelines)}")
    return PRIORS.open(str(name))
