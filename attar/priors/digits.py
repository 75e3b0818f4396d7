"""The built-in prior `digits`: a small pixel-space DiT, trained on scikit-learn's digits when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from attar.core.batching import device_class
from attar.core.progress import Progress, silent
from attar.core.store import Artefact, Store
from attar.data import load_data, load_pixels
from attar.data.digits import Digits
from attar.priors.codec import to_float
from attar.priors.folder import linear_scheduler, write_pipeline
from attar.priors.shared_embedders import untrained
from attar.priors.training.settings import Training
from attar.priors.training.train import train_prior

RECIPE = Training(hidden=96, layers=3, heads=4, patch=2, steps=1500, batch=64, learning_rate=2e-3)


def digits_prior(store: Store, progress: Progress = silent) -> Path:
    """Its diffusers folder in the store; the first call trains it on the training split, a minute on two cores."""
    images = load_data("digits@train")

    def make(scratch: Path) -> None:
        pixels = to_float(load_pixels(images, range(len(images)), 8, "squash"))[:, :1]
        train_prior(pixels, images.labels, images.classes, RECIPE, scratch, progress)

    return store.once(digits_artefact(), make)


def is_trained(store: Store) -> bool:
    """Whether it is in the store."""
    return store.has(digits_artefact())


def untrained_digits() -> TemporaryDirectory[str]:
    """A folder of the same network without its training: what it would take can be counted and timed with it."""
    folder = TemporaryDirectory()
    network = untrained((1, 8, 8), len(Digits.classes), RECIPE, RECIPE.seed, "train-prior", "weights")
    write_pipeline(Path(folder.name), network.with_own_embedders(), linear_scheduler(), Digits.classes, None)
    return folder


def digits_artefact() -> Artefact:
    """What it is made of."""
    images = load_data("digits@train")
    where = {"device": device_class(torch.device("cpu")), "torch": torch.__version__}
    return Artefact("prior", {"built in": "digits", "training": RECIPE, "images": images.identities, **where})
