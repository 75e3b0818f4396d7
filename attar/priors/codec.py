"""Codecs: images in [-1, 1] to latents in scaled units and back."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import huggingface_hub
import numpy as np
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor, nn

from attar.core.batching import calls, exact, in_batches
from attar.core.errors import AttarError
from attar.core.files import at_home, expand_user
from attar.core.finite import check_weights, finite
from attar.core.flops import flops_of
from attar.core.hub_ids import check_there, unloaded
from attar.core.rng import noise
from attar.core.store import fingerprint
from attar.core.weights import damaged_weights

SCALES = (1e-4, 1e4)
"""The least and the largest scale, 1 / the deviation of an autoencoder's latents; Stable Diffusion's is 0.18215."""


class Encoder(Protocol):
    """What makes latents of images: a codec, or a teacher with its feature maps."""

    @property
    def key(self) -> str:
        """The fingerprint of its weights and conventions."""
        ...

    @property
    def size(self) -> int:
        """Height and width of its images, in pixels."""
        ...

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to the mean and deviation (N, C, h, w) of their latents, scaled, float32."""
        ...


class Codec(Encoder, Protocol):
    """What every codec offers. Encoding gives the mean and deviation of a posterior; samples are drawn by key."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its latents."""
        ...

    @property
    def batch_size(self) -> int:
        """The number of images that its network is called with."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w), scaled, to images (N, 3, H, W) in [-1, 1], float32; with gradients, if z has."""
        ...

    def with_batch_size(self, batch_size: int) -> Codec:
        """The same codec, its network called with `batch_size` images at a time."""
        ...

    def exact_at(self, batch_size: int) -> bool:
        """Whether an image's bytes do not depend on the others in its batch (attar.core.batching)."""
        ...

    def row_flops(self) -> int:
        """FLOPs of encoding or of decoding an image, whichever are more."""
        ...

    @property
    def weights(self) -> torch.dtype:
        """The number format of its network's weights."""
        ...

    @property
    def calls(self) -> dict[str, Any]:
        """What the last bits of its output depend on in how it is called (attar.core.batching)."""
        ...


@dataclass(frozen=True)
class PixelCodec:
    """No codec: latents are the pixels themselves, grey or RGB."""

    size: int
    """Side of the images, in pixels."""
    channels: int = 3
    """3: RGB; 1: grey."""

    batch_size = 1
    weights = torch.float32

    @property
    def key(self) -> str:
        return f"pixel-{self.channels}x{self.size}"

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.size, self.size)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = images.mean(1, keepdim=True) if self.channels == 1 else images
        return mean.float(), torch.zeros_like(mean)

    def decode(self, z: Tensor) -> Tensor:
        return z.float().clamp(-1, 1).expand(-1, 3, -1, -1)

    def with_batch_size(self, batch_size: int) -> PixelCodec:
        return self

    def exact_at(self, batch_size: int) -> bool:
        return True

    def row_flops(self) -> int:
        return 0

    @property
    def calls(self) -> dict[str, Any]:
        return {"tile": 1}


@dataclass(frozen=True, eq=False)
class AutoencoderCodec:
    """diffusers' AutoencoderKL, or AutoencoderTiny, whose posterior has no deviation: z = (latent - shift) * scale."""

    vae: nn.Module
    """diffusers' network."""
    key: str
    """Fingerprint of the weights and their use, and of the images' size where it is not the autoencoder's own."""
    size: int
    """Side of the images, in pixels."""
    shape: tuple[int, int, int]
    """(C, H, W) of a latent."""
    device: torch.device
    """Where it computes."""
    dtype: torch.dtype
    """Number format of its products, and of its weights unless it is float16, in which Stable Diffusion's overflow."""
    scale: float = 1.0
    """Factor of the latents."""
    shift: float = 0.0
    """What is taken from the latents before they are scaled."""
    batch_size: int = 1
    """Rows in one call of the network."""

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        moments = finite(in_batches(self._encode, self.batch_size, images), "what the codec makes of images")
        mean, deviation = moments.chunk(2, dim=1)
        return (mean - self.shift) * self.scale, deviation * self.scale

    def decode(self, z: Tensor) -> Tensor:
        with torch.inference_mode(not z.requires_grad):
            images = in_batches(self._decode, self.batch_size, z / self.scale + self.shift)
            return finite(images, "the images that the codec makes of latents").clamp(-1, 1)

    def with_batch_size(self, batch_size: int) -> AutoencoderCodec:
        return replace(self, batch_size=batch_size)

    @torch.inference_mode()
    def exact_at(self, batch_size: int) -> bool:
        images = noise((batch_size, 3, self.size, self.size), "tile", "images").clamp(-1, 1)
        return exact(self._encode, images) and exact(self._decode, noise((batch_size, *self.shape), "tile", "latents"))

    def row_flops(self) -> int:
        return max(self.encoding_flops(), self.decoding_flops())

    def encoding_flops(self) -> int:
        return flops_of(self.vae, torch.zeros(1, 3, self.size, self.size, device="meta"), method="encode")

    def decoding_flops(self) -> int:
        return flops_of(self.vae, torch.zeros(1, *self.shape, device="meta"), method="decode")

    @property
    def weights(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    @property
    def calls(self) -> dict[str, Any]:
        return calls(self.batch_size, self.device, self.weights)

    def _encode(self, images: Tensor) -> Tensor:
        with self._mixed():
            encoded: Any = self.vae.encode(self._laid_out(images))  # type: ignore[operator]
        if not hasattr(encoded, "latent_dist"):
            return torch.cat([encoded.latents, torch.zeros_like(encoded.latents)], dim=1).float().cpu().contiguous()
        posterior = encoded.latent_dist
        return torch.cat([posterior.mean, posterior.std], dim=1).float().cpu().contiguous()

    def _decode(self, z: Tensor) -> Tensor:
        with self._mixed():
            images: Tensor = self.vae.decode(self._laid_out(z)).sample  # type: ignore[operator]
        return images.float().cpu().contiguous()

    def _mixed(self) -> torch.autocast:
        """Products in `dtype` where the weights are in another."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != self.weights)

    def _laid_out(self, rows: Tensor) -> Tensor:
        """On the device, channels last: convolutions are a third faster so (measured on a CPU)."""
        return rows.to(self.device, self.weights, memory_format=torch.channels_last)


def load_codec(source: str, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Codec:
    """The codec whose latents have this shape (C, H, W).

    `source`: "pixel", or a folder or hub id of an AutoencoderKL or AutoencoderTiny, or of a pipeline with one as `vae`.

    Raises:
        AttarError: nothing of that name can be loaded, or its latents have another number of channels.
    """
    channels, side, _ = shape
    if source == "pixel":
        if channels not in (1, 3):
            raise AttarError(f"`codec` pixel: the prior's latents have {channels} channels, so they are no pixels")
        return PixelCodec(size=side, channels=channels)
    vae = load_autoencoder(source)
    if vae.config.latent_channels != channels:
        raise AttarError(
            f"`codec` {source}: its latents have {vae.config.latent_channels} channels, the prior's {channels}; "
            "give the autoencoder that the prior was trained with"
        )
    return autoencoder_codec(vae, side, device, dtype)


def load_autoencoder(source: str) -> Any:
    """An AutoencoderKL or AutoencoderTiny: a folder or hub id of one, or of a pipeline that has one as its `vae`.

    Raises:
        AttarError: there is none, or its latents are scaled in a way that is not supported.
    """
    kind, _ = autoencoder_config(source)
    source = at_home(source)
    with _opening(source):
        vae = load_whole(kind, source, **_inside(source))
    check_weights(vae, f"`codec` {source}")
    return vae


def autoencoder_config(source: str) -> tuple[Any, Any]:
    """The class of an autoencoder and its configuration, checked; its weights are not read.

    Raises:
        AttarError: as `load_autoencoder`.
    """
    from diffusers import AutoencoderKL, AutoencoderTiny

    kinds = {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)}
    check_there(source, "`codec`", ("pixel", "grey", "train"))
    source = at_home(source)
    with _opening(source):
        config = AutoencoderKL.load_config(source, **_inside(source))
    name = config.get("_class_name")
    if name not in kinds:
        raise AttarError(f"`codec` {source}: a {name}; it must be an {' or '.join(kinds)}")
    if config.get("latents_mean") is not None:
        raise AttarError(f"`codec` {source}: latents scaled channel by channel (latents_mean) are not supported")
    _check_scale({"scaling_factor": _default(kinds[name], "scaling_factor"), **config}, source)
    return kinds[name], config


def _default(kind: Any, field: str) -> Any:
    return inspect.signature(kind.__init__).parameters[field].default


@contextmanager
def _opening(source: str) -> Iterator[None]:
    """Turns what is raised by files that are no autoencoder's into an AttarError."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        why = damaged_weights(source) or f"{unloaded(source, 'an autoencoder', error)}; give `codec` FOLDER"
        raise AttarError(f"`codec` {why}") from error


def _check_scale(config: Any, source: str) -> None:
    """Raises AttarError where latents cannot be divided by the scale of a configuration, or shifted as it says."""
    for field, least, most in (("scaling_factor", *SCALES), ("shift_factor", -SCALES[1], SCALES[1])):
        value = config.get(field)
        if value is None and field == "shift_factor":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise AttarError(
                f"`codec` {source}: its config.json says {field} {value}: "
                f"it must be a number from {least:g} to {most:g}"
            )


def load_whole(kind: Any, source: str, **inside: str) -> Any:
    """A diffusers model of this class, by `from_pretrained`, every weight of which is in its files.

    Raises:
        ValueError: lists the weights that are missing.
        OSError: the files cannot be read.
    """
    model, loading = kind.from_pretrained(source, output_loading_info=True, **inside)
    if loading["missing_keys"]:
        raise ValueError(f"its {kind.__name__} lacks the weights {', '.join(sorted(loading['missing_keys']))}")
    return model


def autoencoder_codec(vae: Any, side: int, device: torch.device, dtype: torch.dtype) -> AutoencoderCodec:
    """A codec of this autoencoder for latents of `side` x `side`, with the scale that its configuration gives."""
    vae = vae.eval().requires_grad_(False)
    scale, shift = float(vae.config.scaling_factor), float(vae.config.shift_factor or 0)
    size = side * 2 ** (len(vae.config.block_out_channels) - 1)
    other = () if size == vae.config.get("sample_size") else (size,)  # of its own size a key was always without
    codec = AutoencoderCodec(
        vae=vae,
        key=fingerprint(weights_key(vae), scale, shift, *other),
        size=size,
        shape=(vae.config.latent_channels, side, side),
        device=device,
        dtype=dtype,
        scale=scale,
        shift=shift,
    )
    nn.Module.to(vae, device, codec.weights)  # that of diffusers warns of nothing
    vae.to(memory_format=torch.channels_last)
    return codec


def weights_key(*modules: nn.Module) -> str:
    """The fingerprint of the modules' weights: names, shapes and bytes."""
    hashed = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, weight in sorted(module.state_dict().items()):
            hashed.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            hashed.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def _inside(source: str) -> dict[str, str]:
    """The subfolder that the autoencoder is in: a pipeline's `vae`, or none.

    Raises:
        LocalEntryNotFoundError: it is neither in the hub's local cache nor can the hub be reached.
    """
    folder, vae = expand_user(source), {"subfolder": "vae"}
    if folder.is_dir():
        return vae if (folder / "model_index.json").is_file() else {}
    try:
        huggingface_hub.hf_hub_download(source, "config.json")
    except EntryNotFoundError as error:
        unreachable = isinstance(error, LocalEntryNotFoundError)
        if unreachable and not isinstance(huggingface_hub.try_to_load_from_cache(source, "vae/config.json"), str):
            raise
        return vae
    return {}


def to_float(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def of_one_colour(images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The places of the images (N, S, S, 3) that are of a single colour, as no image of anything is."""
    flat = (images == images[:, :1, :1]).all((1, 2, 3)) & (images.shape[1] > 1)
    return flat.nonzero()[0]


def to_uint8(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3), rounded to the nearest.

    Raises:
        NotFinite: a pixel is NaN or infinite: it would become black.
    """
    pixels = ((finite(images, "images").float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
