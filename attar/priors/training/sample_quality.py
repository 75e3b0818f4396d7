"""How good samples are, cheaply: a small classifier of the real data, and a Frechet distance on its features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attar.core.batching import device_class
from attar.core.finite import naming, save_finite
from attar.core.progress import Progress, silent, timed
from attar.core.rng import numpy_generator, seed_of
from attar.core.store import Artefact, Store
from attar.data import ImageSet, at_side, load_pixels
from attar.networks import build
from attar.priors.training.lesson import MOST
from attar.training import Plan, Step, train
from attar.training.augment import Augmentation, arithmetic, normalised

NETWORK = "convnet3-bn-w32"
NORMALISE: Literal["half"] = "half"
CPU = torch.device("cpu")
LIMIT = 20_000
"""The most real images that the classifier is trained on."""
REVISION = 2
"""Raise it when a change of code changes the classifier."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier trained on real images, and what it sees in held-out ones."""

    network: nn.Module
    side: int
    """Side of the images that it sees, in pixels."""
    features: Tensor
    """(M, D) of the held-out real images."""
    accuracy_real: float
    """Top-1 in per cent on them."""
    frechet_real: float
    """Distance of M training images from them: what sampling alone gives."""

    def __call__(self, pixels: Tensor, labels: Tensor) -> tuple[float, float]:
        """Top-1 in per cent and the Frechet distance of images (N, S, S, 3) in uint8 with labels (N,)."""
        features, logits = _features_and_logits(self.network, torch.from_numpy(at_side(pixels.numpy(), self.side)))
        return 100 * float((logits.argmax(1) == labels).float().mean()), frechet(features, self.features)


@dataclass(frozen=True)
class ClassifierTraining:
    """How the classifier is trained: on images that a prior of `size` pixels could make."""

    size: int
    """Side of the prior's images, in pixels; the classifier sees them at 16, 32 or 64."""
    preprocess: str
    """How images are brought to that size."""
    flip: bool
    """Whether half of them are mirrored."""
    steps: int = 800
    """Batches of 64."""
    device: torch.device = CPU


def open_classifier(
    train_images: ImageSet, held: ImageSet, how: ClassifierTraining, store: Store, progress: Progress = silent
) -> Classifier:
    """The classifier of a data set, trained once and stored."""
    side = _side(how.size)

    def make(scratch: Path) -> None:
        pixels, labels = _random_images(train_images, how.size, how.preprocess)
        network = _untrained(len(train_images.classes), side).to(how.device)
        _train(network, pixels.to(how.device), labels.to(how.device), how, progress)
        tensors = _tensors(network, *_random_images(held, how.size, how.preprocess), pixels)
        save_finite(tensors, scratch / "judge.safetensors", "the classifier that measures samples")

    folder = store.once(classifier_artefact(train_images, held, how), make)
    tensors = load_file(folder / "judge.safetensors")
    network = _untrained(len(train_images.classes), side).eval()
    network.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    return Classifier(network.to(how.device), side, tensors["features"], float(tensors["right"]), float(tensors["gap"]))


def classifier_artefact(train_images: ImageSet, held: ImageSet, how: ClassifierTraining) -> Artefact:
    """What the store keeps it as."""
    shown = {"size": how.size, "preprocess": how.preprocess, "flip": how.flip, "images at most": LIMIT}
    inputs = {"images": train_images.identities, "held out": held.identities, **shown}
    inputs |= {"network": NETWORK, "steps": how.steps, "torch": torch.__version__, "revision": REVISION}
    if how.device != CPU:
        inputs |= {"device": device_class(how.device), **arithmetic(_augmentation(how), how.device)}
    return Artefact("judge", inputs)


def classifier_seconds(classes: int, how: ClassifierTraining) -> float:
    """How long its training takes here: a batch forth and back is timed, its gradients thrown away."""
    side = _side(how.size)
    network = _untrained(classes, side).to(how.device)
    images = torch.zeros(_plan(how.steps).batch, 3, side, side, device=how.device)

    def step() -> None:
        loss = network(images).sum()
        loss.backward()
        float(loss.detach())

    return how.steps * timed(step)


def quality_in_words(measures: Mapping[str, Any], classes: int) -> str:
    """What the measures say of a prior as it is written, beside real images and chance; a warning where it is weak."""
    own, real, chance = measures["accuracy"] / 100, measures["accuracy_real"] / 100, 1 / classes
    beside = f"real images {real:.1%}, chance {chance:.1%}"
    measured = f"a small classifier gives {own:.1%} of its samples their class ({beside}){_kept(measures)}"
    measured += _taught(measures)
    if classes > 1 and own <= chance + 3 * math.sqrt(chance * (1 - chance) / measures["samples"]):
        return f"{measured}: no better than chance; train it longer with `steps`, or adapt a trained one"
    worth = ""
    if own < (real + chance) / 2:
        worth = "a weak prior, whose images may be worth less than random real ones"
    elif measures.get("taught", math.inf) <= measures.get("taught_real", 0):
        worth = "no more than random real images teach, which may be the better set"
    if not worth:
        return measured
    worsened = measures.get("last_step", 0) > measures.get("step", 0)
    remedy = "lower `learning_rate`" if worsened else "train it longer with `steps`"
    return f"{measured}: {worth}; {remedy}, or adapt a trained one (`attar finetune-prior`)"


def _taught(measures: Mapping[str, Any]) -> str:
    """What its samples teach beside as many real images (attar/priors/training/lesson.py); "" where it is not known."""
    if "taught" not in measures or "taught_real" not in measures:
        return ""
    own, real = measures["taught"] / 100, measures["taught_real"] / 100
    learnt = f"a linear classifier that learns from {min(measures['samples'], MOST):,} of them"
    return f"; {learnt} is right on {own:.1%} of held-out images, from random real ones on {real:.1%}"


def _kept(measures: Mapping[str, Any]) -> str:
    """Of which step the best average is, and how much worse the last one was; "" where the last is written anyway."""
    if "last_step" not in measures:
        return ""
    if measures["step"] == measures["last_step"]:
        return f"; it is the average at step {measures['step']:,}, the last and the best"
    worse = f"{measures['last_accuracy'] / 100:.1%}, Frechet distance {measures['last_frechet']:.4f}"
    return (
        f"; it is the average at step {measures['step']:,} of {measures['last_step']:,}, for samples were worse at the "
        f"end ({worse} in the place of {measures['frechet']:.4f})"
    )


def _plan(steps: int) -> Plan:
    return Plan(steps=steps, optimiser="adamw", lr=2e-3, weight_decay=5e-4, schedule="cosine", warmup=steps // 20)


def _augmentation(how: ClassifierTraining) -> Augmentation:
    return Augmentation(size=_side(how.size), crop=0.5, flip=how.flip, normalise=NORMALISE)


def _train(network: Any, pixels: Tensor, labels: Tensor, how: ClassifierTraining, progress: Progress) -> None:
    def report(step: Step) -> None:
        if step.done % 20 == 0:
            progress(f"training a classifier to measure samples, step {step.done}/{step.total}", step.done / step.total)

    with naming("the classifier that measures samples"):
        train(network, pixels, labels, _plan(how.steps), _augmentation(how), "judge", after=report)
    network.eval()


def _tensors(network: Any, real: Tensor, labels: Tensor, train_pixels: Tensor) -> dict[str, Tensor]:
    """A trained judge as it is stored: weights, and features, accuracy and distance of the held-out real images."""
    features, logits = _features_and_logits(network, real)
    right = 100 * (logits.argmax(1) == labels).float().mean()
    gap = torch.tensor(frechet(_features_and_logits(network, train_pixels[: len(real)])[0], features))
    weights = {f"network.{name}": value.cpu() for name, value in network.state_dict().items()}
    return {**weights, "features": features, "right": right, "gap": gap}


def frechet(first: Tensor, second: Tensor) -> float:
    """The Frechet distance between Gaussians of the moments of features (N, D) and (M, D) (Heusel et al., 2017)."""
    a, b = (features.double().numpy() for features in (first, second))
    gap = a.mean(0) - b.mean(0)  # |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))
    covariances = [_covariance(features) for features in (a, b)]
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    return max(0.0, float(gap @ gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots))


def _covariance(features: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """That of features (N, D), (D, D); 0 of a single image, all that a small class has held out."""
    width = features.shape[1]
    return np.cov(features, rowvar=False).reshape(width, width) if len(features) > 1 else np.zeros((width, width))


def _random_images(images: ImageSet, size: int, how: str) -> tuple[Tensor, Tensor]:
    """At most LIMIT images (N, side, side, 3) and labels, in a fixed random order."""
    chosen = numpy_generator("judge", "images").permutation(len(images))[:LIMIT]
    parts = [
        torch.from_numpy(at_side(load_pixels(images, chosen[begin : begin + 512], size, how), _side(size)))
        for begin in range(0, len(chosen), 512)
    ]
    return torch.cat(parts), torch.from_numpy(images.labels[chosen].copy())


def _side(size: int) -> int:
    return next((side for side in (16, 32) if size <= side), 64)


def _untrained(classes: int, side: int) -> Any:
    return build(NETWORK, classes, side, seed_of("judge", "weights"))


@torch.inference_mode()
def _features_and_logits(network: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D), means over the pixels of the last block, and logits (N, classes), on the CPU."""
    device = next(network.parameters()).device
    body, head = nn.Sequential(*list(network)[:-2]), nn.Sequential(*list(network)[-2:])
    features, logits = [], []
    for part in pixels.split(256):
        maps = body(normalised(part.to(device), NORMALISE))
        features.append(maps.mean((2, 3)).cpu())
        logits.append(head(maps).cpu())
    return torch.cat(features), torch.cat(logits)
