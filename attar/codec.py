"""Codecs: images in [-1, 1] to latents in scaled units and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from attar.keys import noise
from attar.tile import exact, in_tiles


class Codec(Protocol):
    """What every codec offers. Encoding gives the mean and deviation of a posterior; samples are drawn by key."""

    @property
    def key(self) -> str:
        """The fingerprint of its weights and conventions."""
        ...

    @property
    def size(self) -> int:
        """Height and width of its images, in pixels."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its latents."""
        ...

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [-1, 1] to the mean and deviation (N, C, h, w) of their latents, scaled, float32."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w), scaled, to images (N, 3, H, W) in [-1, 1], float32."""
        ...

    def with_tile(self, tile: int) -> Codec:
        """The same codec, its network called with `tile` images at a time."""
        ...

    def exact_at(self, tile: int) -> bool:
        """Whether an image's bytes do not depend on the others in its tile (attar.tile)."""
        ...


@dataclass(frozen=True)
class PixelCodec:
    """No codec: latents are the pixels themselves, grey or RGB."""

    size: int
    channels: int = 3

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

    def with_tile(self, tile: int) -> PixelCodec:
        return self

    def exact_at(self, tile: int) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class AutoencoderCodec:
    """diffusers' AutoencoderKL: z = (latent - shift) * scale."""

    vae: nn.Module
    key: str
    size: int
    shape: tuple[int, int, int]
    device: torch.device
    dtype: torch.dtype
    scale: float = 1.0
    shift: float = 0.0
    tile: int = 1

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        moments = in_tiles(self._encode, self.tile, images)
        mean, deviation = moments.chunk(2, dim=1)
        return (mean - self.shift) * self.scale, deviation * self.scale

    @torch.inference_mode()
    def decode(self, z: Tensor) -> Tensor:
        return in_tiles(self._decode, self.tile, z / self.scale + self.shift).clamp(-1, 1)

    def with_tile(self, tile: int) -> AutoencoderCodec:
        return replace(self, tile=tile)

    @torch.inference_mode()
    def exact_at(self, tile: int) -> bool:
        images = noise((tile, 3, self.size, self.size), "tile", "images").clamp(-1, 1)
        return exact(self._encode, images) and exact(self._decode, noise((tile, *self.shape), "tile", "latents"))

    def _encode(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            posterior: Any = self.vae.encode(images.to(self.device)).latent_dist  # type: ignore[operator]
        return torch.cat([posterior.mean, posterior.std], dim=1).float().cpu()

    def _decode(self, z: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            images: Tensor = self.vae.decode(z.to(self.device)).sample  # type: ignore[operator]
        return images.float().cpu()


def to_float(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """float (N, 3, H, W) in [-1, 1] to uint8 (N, H, W, 3), rounded to the nearest."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
