"""D3HR, sections 3.2 and 3.3: a class's latents are inverted by DDIM, and their mean and variance are kept.

z_0 -> z_T              by DDIM inversion, without noise     3.2, domain mapping: `inverted_at_times`
z_T ~ N(mu, sigma^2)    mu and sigma^2 of the class's z_T    3.3, distribution matching: `run`
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from attar.core.files import replacing, resumed
from attar.core.progress import Meter
from attar.core.store import note_seconds
from attar.diffusion import FixedPoint, Sampler, inverted, sample
from attar.job import Job
from attar.methods.base import Group, Tensors
from attar.methods.d3hr.moments import Moments, error_of_mean
from attar.methods.d3hr.planes import planes
from attar.methods.d3hr.settings import RETURNED, InvertSettings
from attar.priors.latents import Shard
from attar.priors.prior import Prior


@dataclass(frozen=True)
class Invert(InvertSettings):
    """DDIM inversion of each class's latents, kept as count, mean and variance at some times."""

    def run(self, job: Job, group: Group, scratch: Path) -> Tensors:
        """Inverts one class, shard by shard; a finished shard's moments survive an interruption.

        `mean` and `variance` are (T, C, H, W), float64, one for each of `times`. `error_of_mean` is the standard error
        that per_class costs each component of the means, in that component's deviations: the same at every time. Of
        exact inversion, `unconverged` is the share of the images of which some step was not solved, and `round_trip`
        the mean relative error of those that were sampled back. What shows where starts lie is of the first shard's
        latents (planes.py).
        """
        (label,) = group
        whole = len(job.images.of_class(label))
        total = self.inverted_images(whole)
        error, text = error_of_mean(total, whole), f"inverting {job.classes[label]}"
        if total < whole:
            text += f" ({total:,} of {whole:,}: standard error of the mean {error:.2g} deviations)"
        meter = Meter(job.progress, text, total, "images")
        moments = Moments.of(torch.empty(0, len(self.times), *job.prior.codec.shape))
        unconverged, errors, shown = torch.zeros(()), [], Tensors()
        for number, shard in enumerate(job.latents.shards(label, total, job.progress)):
            of_shard = self._shard(job, label, shard, number == 0, scratch / f".{number}", meter)
            unconverged += of_shard.pop("unconverged")
            errors.append(of_shard.pop("errors"))
            shown |= {name: of_shard.pop(name) for name in ("axes", "shares", "places") if name in of_shard}
            moments = moments.merged(Moments(**of_shard))
        fitted = {"count": moments.count, "mean": moments.mean, "variance": moments.variance()}
        fitted["error_of_mean"] = torch.tensor(error)
        if self.exact:
            fitted |= {"unconverged": unconverged / total, "round_trip": torch.cat(errors).mean()}
        return {**fitted, **shown}

    def _shard(self, job: Job, label: int, shard: Shard, first: bool, checkpoint: Path, meter: Meter) -> Tensors:
        """The moments of a shard, how many images did not converge; of the first its round-trip errors and planes."""
        if (earlier := resumed(checkpoint, load_file)) is not None:
            meter.add(len(shard.positions))
            return earlier
        begun = time.monotonic()
        moments = Moments.of(torch.empty(0, len(self.times), *job.prior.codec.shape))
        unconverged, errors, seen = torch.zeros(()), torch.empty(0), []
        for z in shard.sampled(self.seed, job.classes[label]).split(4 * job.prior.batch_size):
            y = job.conditions([label]).expand(len(z))
            latents, residual = self.inverted_at_times(job.prior, z, y, meter)
            moments = moments.merged(Moments.of(latents))
            seen += [latents] if first else []
            unconverged += (~(residual <= self.tolerance)).sum()
            if self.exact and first and not len(errors):
                errors = self.round_trip(job.prior, z[:RETURNED], latents[:RETURNED, -1], y[:RETURNED])
        of_shard = {**vars(moments), "unconverged": unconverged, "errors": errors}
        of_shard |= planes(torch.cat(seen)) if first else {}
        with replacing(checkpoint) as temporary:
            save_file(of_shard, temporary)
        note_seconds(checkpoint.parent, time.monotonic() - begun)
        return of_shard

    def inverted_at_times(self, prior: Prior, z: Tensor, y: Tensor, meter: Meter) -> tuple[Tensor, Tensor]:
        """Clean latents (N, C, H, W) at each of `times`, (N, T, C, H, W), and the largest residual of each, (N,).

        A step is  z_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,  where  x_0 = (z - sqrt(1 - abar) eps) / sqrt(abar).
        Plain inversion takes eps = eps(z, t, y), of the latents it comes from; exact inversion eps = eps(z_t, t, y).
        """
        path, latents = self.path(), []
        advance = meter.within(len(z), len(path))
        residual = torch.zeros(len(z))
        exact = FixedPoint(self.tolerance, self.iterations) if self.exact else None
        steps = inverted(
            prior, z.to(prior.device), y, path, guidance=self.guidance, clean_time=self.clean_time, exact=exact
        )
        for step in steps:
            if step.t in self.times:
                latents.append(step.z.cpu())
            if step.residual is not None:
                residual = torch.maximum(residual, step.residual.cpu())
            advance(step.t)
        meter.add(len(z))
        return torch.stack(latents, 1), residual

    def round_trip(self, prior: Prior, z: Tensor, noisy: Tensor, y: Tensor) -> Tensor:
        """Relative errors (N,) of latents sampled back from the last time, with the inversion's own guidance."""
        sampler = Sampler(steps=self.steps, guidance=self.guidance, clean_time=self.clean_time)
        back = sample(prior, noisy.to(prior.device), self.times[-1], y, sampler).cpu()
        return (back - z).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
