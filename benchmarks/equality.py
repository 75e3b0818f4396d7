"""How far Attar's fast ways are from the plain ones: one row at a time through the library's networks in float32.

    python -m benchmarks.equality ../shared/priors/cifar10-dit

On a trained DiT: latents sampled from noise in 25 steps of DDIM at guidance 4, latents inverted in 25 calls, and images
encoded and decoded; and what a ConvNet-3 says of images. Kept in docs/equality.json, from which `python -m benchmarks
--write` makes a table: the root mean square of the difference and its largest value, over that of the plain result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch import Tensor, nn

from attar.diffusion import Sampler, invert, sample, sampling_times
from attar.networks import build
from attar.priors import load_prior
from attar.training import autocast

RESULTS = Path(__file__).parent.parent / "docs" / "equality.json"
GUIDANCE = 4.0
SAMPLER = Sampler(steps=25, guidance=GUIDANCE)


class Plain:
    """The library's networks, one row at a time, and DDIM written down."""

    def __init__(self, folder: Path, prior: Any) -> None:
        self.network = DiTTransformer2DModel.from_pretrained(folder / "transformer").eval()
        self.vae: Any = AutoencoderKL.from_pretrained(folder / "vae").eval()
        self.abar, self.null, self.channels = prior.schedule.abar, prior.null, prior.codec.shape[0]

    def noise(self, z: Tensor, t: int, y: int) -> Tensor:
        found: Tensor = self.network(z[None], timestep=torch.tensor([t]), class_labels=torch.tensor([y])).sample
        return found[0, : self.channels]

    def moved(self, z: Tensor, y: Tensor, times: list[int], guidance: float) -> Tensor:
        """Every latent along the times, by the noise that is predicted at the later of a step's two."""
        rows = []
        for row, label in zip(z, y.tolist(), strict=True):
            for t, following in pairwise(times):
                noise = self.noise(row, max(t, following) if guidance == 1 else t, label)
                if guidance != 1:
                    empty = self.noise(row, t, self.null)
                    noise = empty + guidance * (noise - empty)
                at, to = self.abar(t), self.abar(following)
                row = to**0.5 * (row - (1 - at) ** 0.5 * noise) / at**0.5 + (1 - to) ** 0.5 * noise
            rows.append(row)
        return torch.stack(rows)

    def encoded(self, images: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        return torch.cat([self.vae.encode(image[None]).latent_dist.mean * scale for image in images])

    def decoded(self, z: Tensor) -> Tensor:
        scale = self.vae.config.scaling_factor
        return torch.cat([self.vae.decode(row[None] / scale).sample for row in z]).clamp(-1, 1)


def ways(folder: Path, rows: int) -> dict[str, tuple[Tensor, Callable[[Any], Tensor]]]:
    """By what is compared: the plain result, and ours by a prior."""
    prior = load_prior(str(folder), device="cpu", dtype="float32")
    plain, noise = Plain(folder, prior), torch.Generator().manual_seed(0)
    z = torch.randn(rows, *prior.codec.shape, generator=noise)
    y = torch.arange(rows) % prior.n_classes
    down = [*reversed(sampling_times(SAMPLER, prior)), -1]
    made = plain.moved(z, y, down, GUIDANCE)
    images, up = plain.decoded(made), sorted(down)
    network = build("convnet3-w48", 10, 32, 0)

    def seen(prior: Any) -> Tensor:
        with autocast(torch.device("cpu"), "bfloat16" if prior.dtype == torch.bfloat16 else "float32"):
            logits: Tensor = network.to(memory_format=torch.channels_last)(images).float()
        return logits

    return {
        "sampled latents": (made, lambda prior: sample(prior, z, down[0], y, SAMPLER)),
        "inverted latents": (plain.moved(made, y, up, 1.0), lambda prior: invert(prior, made, y, up[1:])),
        "encoded means": (plain.encoded(images), lambda prior: prior.codec.encode(images)[0]),
        "decoded images": (images, lambda prior: prior.codec.decode(made)),
        "logits of a ConvNet-3": (alone(network, images), seen),
    }


def alone(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(image[None].contiguous()) for image in images])


def apart(plain: Tensor, ours: Tensor) -> tuple[float, float]:
    """Root mean square and largest value of the difference, over the root mean square of the plain one."""
    size = plain.square().mean().sqrt()
    off = (ours - plain).abs()
    return float(off.square().mean().sqrt() / size), float(off.max() / size)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    head = ["", *(f"{dtype}: {what}" for dtype in ("float32", "bfloat16") for what in ("root mean square", "largest"))]
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * 4 + "|"]
    for name, rows in found.items():
        cells = [f"{value:.1e}" for dtype in ("float32", "bfloat16") for value in rows[dtype]]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.equality", description=__doc__)
    parser.add_argument("prior", type=Path)
    parser.add_argument("--rows", type=int, default=20, help="latents that are compared")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    compared = ways(given.prior, given.rows)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in compared}
    for dtype in ("float32", "bfloat16"):
        prior = load_prior(str(given.prior), device="cpu", dtype=dtype)
        for name, (plain, ours) in compared.items():
            found[name][dtype] = list(apart(plain, ours(prior).float()))
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
