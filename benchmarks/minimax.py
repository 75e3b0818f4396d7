"""Minimax Diffusion against a straightforward implementation of it, on the same network, interleaved.

    python benchmarks/minimax.py parquet:../shared/data/cifar10@train ../shared/priors/cifar10-dit

The straightforward one opens and encodes a batch's images at every step, keeps its memories in lists and goes over the
classes in Python, averages all weights, and samples one image at a time, labelled and empty label in one call. Latents
are cached before Attar's steps are timed, as they are in all runs but the first.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attar.data import load_pixels
from attar.diffusion import Sampler, grid, sample
from attar.diffusion.loss import Forward
from attar.distillation.denoising import step_noise
from attar.job import Job, Spec
from attar.methods.minimax.criteria import CriterionMeans, Memory
from attar.methods.minimax.finetune import Tune
from attar.methods.minimax.loss import MinimaxLoss
from attar.priors.codec import to_float
from attar.priors.shared_embedders import share_embedders
from attar.priors.training.adaptors import DiffFit
from attar.priors.training.optimise import Session, optimise
from attar.training.processes import accelerator

BATCH, MEMORY = 8, 64


class Straightforward:
    """Fine-tuning and sampling, written down as they are described."""

    dtype = torch.float32
    """Of the products."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job, prior = job, job.prior
        self.network = share_embedders(prior.network.transformer, "").requires_grad_(False)
        self.device = prior.device
        adaptor = DiffFit.of(self.network)
        stack.enter_context(adaptor.attached(self.network))
        self.optimiser = torch.optim.AdamW(adaptor.parameters(), lr=1e-3, weight_decay=0.0)
        self.average = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self.forward = Forward(prior.schedule.betas.to(prior.device), prior.schedule.prediction)
        self.real: dict[int, list[Tensor]] = defaultdict(list)
        self.generated: dict[int, list[Tensor]] = defaultdict(list)

    def tune(self, steps: int) -> None:
        images, device = self.job.images, self.device
        for _ in range(steps):
            picked = torch.randint(len(images), (BATCH,))
            mean, std = self.latents(picked)
            z = (mean + std * torch.randn_like(std)).to(device)
            y = torch.from_numpy(images.labels[picked.numpy()].copy()).to(device)
            t, drawn = torch.randint(1000, (BATCH,), device=device), torch.randn_like(z)
            noisy = self.forward.noised(z, t, drawn).float()
            given = torch.where(torch.rand(BATCH, device=device) < 0.1, self.job.prior.null, y)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                output = self.network(noisy, t, given).float()
            clean = self.forward.clean(output, noisy, t)
            loss = self.forward.terms(output, z, noisy, drawn, t).loss.mean() + self._criteria(clean, z, y)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            with torch.no_grad():
                for name, value in self.network.named_parameters():
                    if name in self.average:
                        self.average[name].mul_(0.9999).add_(value, alpha=0.0001)

    @torch.no_grad()
    def latents(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Posteriors of these images, encoded anew."""
        whole = self.job.prior.codec
        codec = whole.with_batch_size(min(BATCH, whole.batch_size))  # no rows that only fill a batch
        return codec.encode(to_float(load_pixels(self.job.images, picked.numpy(), codec.size, "adm")))

    def _criteria(self, clean: Tensor, z: Tensor, y: Tensor) -> Tensor:
        total, classes = torch.zeros((), device=z.device), y.unique().tolist()
        for label in classes:
            mine = clean[y == label].flatten(1)
            for memory, weight, farthest in ((self.real, 0.002, True), (self.generated, 0.008, False)):
                if memory[label]:
                    kept = torch.stack(memory[label]).flatten(1)
                    cosines = F.cosine_similarity(mine[:, None], kept[None], dim=2)
                    total = total + weight * (1 - cosines.min() if farthest else cosines.max()) / len(classes)
        for memory, latents in ((self.real, z), (self.generated, clean)):
            for latent, label in zip(latents.detach(), y.tolist(), strict=True):
                memory[label] = [*memory[label], latent][-MEMORY:]
        return total

    @torch.no_grad()
    def sampled(self, labels: list[int], steps: int) -> None:
        prior = self.job.prior
        times = grid(steps, "linspace")[::-1]
        for label in labels:
            z = torch.randn(1, *prior.codec.shape)
            for t, below in zip(times, [*times[1:], -1], strict=True):
                y = torch.tensor([label, prior.null])
                output = self.network(z.repeat(2, 1, 1, 1), torch.tensor([t, t]), y)[:, : z.shape[1]]
                guided = output[1:] + 4 * (output[:1] - output[1:])
                at, to = prior.schedule.abar(t), prior.schedule.abar(below)
                beta = 1 - at / to
                clean = (z - (1 - at) ** 0.5 * guided) / at**0.5
                z = beta * to**0.5 / (1 - at) * clean + (1 - to) * (1 - beta) ** 0.5 / (1 - at) * z
                z = z + (beta * (1 - to) / (1 - at)) ** 0.5 * torch.randn_like(z)


class Attars:
    """The same by this package."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self.job, fit = job, Tune(batch=BATCH, memory=MEMORY)
        prior, classes = job.prior, len(job.classes)
        self.data = fit.data(job, list(job.labels))
        network = share_embedders(job.master().network.transformer, "").requires_grad_(False)
        self.adaptor = DiffFit.of(network)
        self.helper = accelerator(str(prior.device), str(prior.dtype).removeprefix("torch."))
        stack.enter_context(self.adaptor.attached(network))
        real, generated = (Memory.empty(classes, MEMORY, math.prod(self.data.shape), prior.device) for _ in range(2))
        self.loss = MinimaxLoss(
            network=network,
            forward=Forward(prior.schedule.betas.to(prior.device), prior.schedule.prediction),
            data=self.data,
            y=job.conditions(list(job.labels)),
            null=prior.null,
            fit=fit,
            real=real,
            generated=generated,
            means=CriterionMeans(torch.zeros(3, device=prior.device)),
            helper=self.helper,
        )

    def tune(self, steps: int) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            optimise(
                self.adaptor.parameters(),
                self.loss,
                Tune().plan(steps),
                Session(Path(scratch), self.helper, "benchmark"),
            )

    def sampled(self, labels: list[int], steps: int) -> None:
        sampler = Sampler(solver="ddpm", steps=steps, spacing="linspace")
        z, y = torch.randn(len(labels), *self.job.prior.codec.shape), self.job.conditions(labels)
        rows = [(label, index) for index, label in enumerate(labels)]
        values = {name: value.detach() for name, value in self.adaptor.values.items()}
        with Tune().adapted(self.job.prior, values) as prior:
            sample(prior, z, 999, y, sampler, noise=partial(step_noise, self.job, rows))


def timed(work: Callable[[], Any]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("prior")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of fine-tuning in each round")
    parser.add_argument("--images", type=int, default=8, help="sampled one by one in each round; Attar makes 64")
    given = parser.parse_args()
    job = Job(Spec(given.data, given.prior, device="cpu"))
    with ExitStack() as stack:
        compare(Straightforward(job, stack), Attars(job, stack), given)


def compare(plain: Straightforward, ours: Attars, given: argparse.Namespace) -> None:
    """Prints the medians of both, interleaved."""
    labels = [index % len(ours.job.classes) for index in range(64)]
    for one in (plain, ours):
        one.tune(3)
        one.sampled(labels[:1], 2)
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(given.rounds):
        pairs["fine-tuning, steps/s"].append(
            (
                given.steps / timed(lambda: plain.tune(given.steps)),
                given.steps / timed(lambda: ours.tune(given.steps)),
            )
        )
        pairs["sampling, images/s"].append(
            (
                given.images / timed(lambda: plain.sampled(labels[: given.images], 50)),
                64 / timed(lambda: ours.sampled(labels, 50)),
            )
        )
    for name, found in pairs.items():
        first, second = (statistics.median(values) for values in zip(*found, strict=True))
        ratios = sorted(b / a for a, b in found)
        print(
            f"{name}: straightforward {first:.2f}, Attar {second:.2f}; ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}, {given.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
