"""Priors of one data set side by side: how a small classifier of the real images sees their samples.

    python benchmarks/priors.py parquet:../shared/data/cifar10@train ../shared/priors/cifar10-dit runs/cifar10-prior

The classifier, the held-out tenth, the noise and the sampler are those that `attar train-prior` reports with.
"""

from __future__ import annotations

import argparse

import torch

from attar.core.rng import noise
from attar.core.store import Store
from attar.data import load_data
from attar.diffusion import Sampler, grid, sample
from attar.priors import load_prior
from attar.priors.codec import to_uint8
from attar.priors.training.sample_quality import open_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("priors", nargs="+")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--guidance", type=float, default=2.0)
    given = parser.parse_args()
    images, held = load_data(given.data).held_out()
    sampler = Sampler(steps=25, guidance=given.guidance)
    for source in given.priors:
        prior = load_prior(source)
        classifier = open_classifier(images, held, prior.codec.size, "adm", True, Store())
        labels = torch.arange(given.samples) % len(images.classes)
        z = noise((given.samples, *prior.codec.shape), 0, "measured").to(prior.device)
        made = prior.codec.decode(sample(prior, z, grid(25)[-1], labels.to(prior.device), sampler))
        accuracy, distance = classifier(torch.from_numpy(to_uint8(made)), labels)
        print(
            f"{source}: guidance {given.guidance}, n = {given.samples}: {accuracy:.1f} % given their own class "
            f"(real {classifier.accuracy_real:.1f} %), Frechet distance {distance:.3f} "
            f"(real {classifier.frechet_real:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
