"""How exactly inversion is undone by sampling, plain and exact, on real images; and what few-step sampling loses.

    python benchmarks/inversion.py parquet:../shared/data/cifar10@train ../shared/priors/cifar10-dit --class-name cat

A latent is inverted to the time of d3hr and sampled back by DDIM with the same guidance and grid; its error is relative
to its norm. Few-step samples from the time of d3hr are compared with very many steps of DDIM from the same starts.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor


class Counting:
    """A prior that counts the latents that it is asked for."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.calls = prior, 0
        self.schedule, self.null = prior.schedule, prior.null

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        self.calls += len(z)
        return self.prior(z, t, y)

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 2 * len(z)
        return self.prior.both(z, t, y)


def norms(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1)


def round_trips(prior: Any, z: Tensor, y: Tensor, steps: int, t: int) -> Tensor:
    """Prints both errors at both guidances; the latents inverted exactly at guidance 1."""
    from attar.diffusion import FixedPoint, Sampler, grid, inverted, sample

    there = z
    for guidance in (4.0, 1.0):
        for how in (None, FixedPoint()):
            counting, begun = Counting(prior), time.process_time()
            residual = torch.zeros(len(z))
            path = [time for time in grid(steps) if time <= t]
            for at in inverted(counting, z, y, path, guidance=guidance, exact=how):
                there = at.z
                residual = residual if at.residual is None else torch.maximum(residual, at.residual)
            seconds = time.process_time() - begun
            back = sample(prior, there, t, y, Sampler(steps=steps, guidance=guidance))
            error = norms(back - z) / norms(z)
            solved = (
                "plain" if how is None else f"exact, {float((residual > how.tolerance).float().mean()):.1%} unsolved"
            )
            print(
                f"guidance {guidance:g}, {solved}: relative round-trip error {error.mean():.1e}"
                f" (largest {error.max():.1e}), {counting.calls / len(z):.0f} passes and {seconds / len(z):.2f} s an"
                f" image, norm {norms(there).mean():.1f}",
                flush=True,
            )
    return there


def few_steps(prior: Any, start: Tensor, y: Tensor, t: int, guidance: float, fine_steps: int) -> None:
    """Prints how far few-step samples are from DDIM in very many steps."""
    from attar.diffusion import EVEN, Sampler, sample

    fine = sample(prior, start, t, y, Sampler(steps=fine_steps, guidance=guidance))
    samplers = [Sampler(guidance=guidance), Sampler(steps=20, guidance=guidance)]
    samplers += [Sampler("dpm++", steps, guidance, spacing=EVEN) for steps in (10, 12, 15)]
    for sampler in samplers:
        counting = Counting(prior)
        made = sample(counting, start, t, y, sampler)
        calls = counting.calls // len(start) // (1 if guidance == 1 else 2)
        gap = (norms(made - fine) / norms(fine)).mean()
        print(f"{sampler.solver}, {calls} calls: {gap:.3f} from the fine solution", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("prior")
    parser.add_argument("--class-name", required=True)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--time", type=int, default=600)
    parser.add_argument("--guidance", type=float, default=4.0, help="of the few-step samples")
    parser.add_argument("--fine", type=int, default=500, help="steps of DDIM that these are compared with")
    given = parser.parse_args()
    from attar.job import Job, Spec

    job = Job(Spec(given.data, given.prior, classes=(given.class_name,), device="cpu", dtype="float32"))
    z = torch.cat([shard.sampled(0, given.class_name) for shard in job.latents.shards(0, given.images)])
    y = job.conditions([0]).expand(len(z))
    start = round_trips(job.prior, z, y, given.steps, given.time)
    few_steps(job.prior, start, y, given.time, given.guidance, given.fine)


if __name__ == "__main__":
    main()
