"""Class- or text-conditional diffusion models behind one contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from attar.core.errors import AttarError
from attar.core.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from attar.core.store import Store
    from attar.priors.codec import Codec
    from attar.priors.prior import Prior
    from attar.priors.prompts import Prompts


class Kind(NamedTuple):
    """One form that priors come in."""

    latent_space: Callable[[str], tuple[tuple[int, int, int], str]]
    """(C, H, W) of the latents, and the codec unless another is given, as `attar.priors.codec.load_codec` takes it."""
    load: Callable[..., Prior]
    """Called with the source, device, dtype, codec and, if it is `prompted`, the prompts."""
    prompted: bool = False


def load_prior(
    source: str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tile: int | None = None,
    codec: str | Codec | None = None,
    prompts: Prompts | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Prior:
    """The prior named by `source`: `digits`, a diffusers folder or hub id, or an original DiT checkpoint file.

    A folder or hub id is a DiTPipeline, or a Stable Diffusion, which needs the `prompts` of its classes. `codec` is an
    open one, or as in `load_prior_codec`. Without a `tile`, one is chosen by probing the device (attar.core.batching);
    one that is given is probed too. The store remembers both.

    Raises:
        AttarError: nothing of that name can be loaded, the device or dtype is not usable, at the given tile a row's
            bytes would depend on the others, or there are prompts for a prior that takes none.
        NotFinite: its weights, or what it makes of noise, are NaN or infinite.
    """
    from attar.core.batching import Probe, resolve
    from attar.core.finite import check_weights, naming
    from attar.core.store import Store

    place, number_format = resolve(str(device), str(dtype).removeprefix("torch."))
    store = store or Store()
    if prompts is not None and not takes_prompts(source):
        raise AttarError(f"--prior {source}: knows its classes by label, so it takes no prompts; Stable Diffusion does")
    folder = _folder(source, store, progress)
    kind = _kind(folder)
    if codec is None or isinstance(codec, str):
        codec = load_prior_codec(folder, device=device, dtype=dtype, tile=tile, codec=codec, store=store)
    with naming(f"--prior {source}"):
        prior = kind.load(folder, place, number_format, codec, *([prompts] if kind.prompted else []))
    check_weights(prior.network, f"--prior {source}")
    probe = Probe(prior.key, prior.exact_at, place, number_format, store)
    with naming(f"--prior {source}"):
        return prior.with_tile(probe.chosen() if tile is None else probe.proved(tile))


def load_prior_codec(
    source: str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tile: int | None = None,
    codec: str | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Codec:
    """The codec of the prior named by `source`; of its network no more is read than the shape of its latents.

    `codec` replaces the prior's own: "pixel", or a folder or hub id of an AutoencoderKL or AutoencoderTiny. Its tile is
    chosen by probing the device, and is not above `tile`. `digits` is trained first, if it is not there yet.

    Raises:
        AttarError: nothing of that name can be loaded, or its latents have other channels than the prior's.
    """
    from attar.core.batching import Probe, resolve
    from attar.core.finite import naming
    from attar.core.store import Store, fingerprint
    from attar.priors.codec import load_codec

    place, number_format = resolve(str(device), str(dtype).removeprefix("torch."))
    store = store or Store()
    folder = _folder(source, store, progress)
    shape, own = _kind(folder).latent_space(folder)
    opened = load_codec(codec or own, shape, place, number_format)
    probe = Probe(fingerprint(opened.key, shape), opened.exact_at, place, number_format, store)
    with naming(f"--codec {codec or own}"):
        return opened.with_tile(probe.chosen(most=tile))


def takes_prompts(source: str) -> bool:
    """Whether a prior is told its classes by text.

    Raises:
        AttarError: there is no prior of that name.
    """
    return source != "digits" and _kind(source).prompted


def known_classes(source: str) -> tuple[str, ...] | None:
    """The class names of a prior that are known before it is trained or loaded: those of `digits`; else None."""
    from attar.data.digits import Digits

    return Digits.classes if source == "digits" else None


def _folder(source: str, store: Store, progress: Progress) -> str:
    """The source itself, or the folder of a built-in prior, which is trained if it is not there yet."""
    from attar.priors.digits import digits_prior

    return str(digits_prior(store, progress)) if source == "digits" else source


def _kind(source: str) -> Kind:
    from attar.priors import dit, original_dit, stable_diffusion
    from attar.priors.pipeline import read_index

    file = Path(source).expanduser()
    if file.suffix in original_dit.SUFFIXES or file.is_file():
        return Kind(original_dit.latent_space, original_dit.load_checkpoint)
    prompted = Kind(stable_diffusion.latent_space, stable_diffusion.load_stable_diffusion, prompted=True)
    kinds = {"DiTPipeline": Kind(dit.latent_space, dit.load_dit), **dict.fromkeys(stable_diffusion.PIPELINES, prompted)}
    name = read_index(source).get("_class_name")
    if name not in kinds:
        raise AttarError(f"--prior {source}: a {name}; it must be one of {', '.join(kinds)}")
    return kinds[name]
