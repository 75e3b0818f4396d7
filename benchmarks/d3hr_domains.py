"""The paper's argument on one's own data: a class's latents are nearer to a Gaussian at the matched time than at t = 0.

    python benchmarks/d3hr_domains.py parquet:../shared/data/cifar10@train ../shared/priors/cifar10-dit \\
        --class-name cat --images 200 --set fit.guidance=1 --out domains.png

Real latents and what d3hr's starts became at t = 0; inverted latents and the starts at the matched time; each pair in
the two principal components of the real ones. Normality: the mean Shapiro-Wilk W of the real ones' first 20 principal
components (1 is Gaussian), and on how many of these the test rejects normality at 5 %; the same of as many latents
drawn from their Gaussian, for comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

COMPONENTS = 20


def domains(job: Any, method: Any, label: int, images: int, ipc: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Title -> (real, generated) latents (N, C, H, W) of a class at t = 0 and at the matched time."""
    from attar.core.progress import Meter, silent
    from attar.diffusion import sample
    from attar.methods.d3hr.moments import Moments

    fit, prior = method.fit, job.prior
    z = torch.cat([shard.sampled(fit.seed, job.classes[label]) for shard in job.latents.shards(label, images)])
    real, _ = fit.inverted_at_times(
        prior, z, job.conditions([label]).expand(len(z)), Meter(silent, "", len(z), "images")
    )
    moments = Moments.of(real)
    start = method.start(job, {"mean": moments.mean, "variance": moments.variance()}, label, ipc)
    made = sample(prior, start.z.to(prior.device), start.t, job.conditions([label]).expand(ipc), method.sampler)
    inverted = real[:, fit.times.index(method.matched_time)]
    return {"t = 0": (z, made.cpu()), f"t = {method.matched_time}": (inverted, start.z)}


def normality(z: Tensor) -> str:
    """Of latents (N, C, H, W), in words."""
    from scipy.stats import shapiro
    from sklearn.decomposition import PCA

    rows = PCA(min(COMPONENTS, len(z) - 1), svd_solver="full").fit_transform(z.flatten(1).numpy())
    tests = [shapiro(column) for column in rows.T]
    rejected = sum(test.pvalue < 0.05 for test in tests)
    return f"W {np.mean([test.statistic for test in tests]):.3f}, {rejected} of {len(tests)} rejected"


def draw(found: dict[str, tuple[Tensor, Tensor]], name: str, out: Path) -> None:
    """Writes the figure and prints the measures."""
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, (title, (real, generated)) in zip(figure.subplots(1, 2), found.items(), strict=True):
        plane = PCA(2, svd_solver="full").fit(real.flatten(1).numpy())
        for z, label, style in ((real, "real", {"s": 8, "alpha": 0.5}), (generated, "d3hr", {"s": 36, "marker": "^"})):
            axes.scatter(*plane.transform(z.flatten(1).numpy()).T, label=f"{label}, {len(z)}", **style)
        gaussian = torch.randn(real.shape, generator=torch.Generator().manual_seed(0)) * real.std(0) + real.mean(0)
        shown, drawn = normality(real), normality(gaussian)
        print(f"{name}, {title}: {shown}; as many from its Gaussian: {drawn}")
        axes.set(title=f"{name}, {title}\n{shown}", xlabel="first component", ylabel="second component")
        axes.legend()
    figure.savefig(out, dpi=130)
    print(f"wrote {out.resolve()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("prior")
    parser.add_argument("--class-name", required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], help="a field of d3hr, as of attar distill")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("domains.png"))
    given = parser.parse_args()
    from attar.cli.flags import parsed_assignments
    from attar.job import Job, Spec
    from attar.methods import load_method

    job = Job(Spec(given.data, given.prior, classes=(given.class_name,), device=given.device))
    method = load_method("d3hr", {"subsets": 10_000, **parsed_assignments(given.set)})
    draw(domains(job, method, 0, given.images, given.ipc), given.class_name, given.out)


if __name__ == "__main__":
    main()
