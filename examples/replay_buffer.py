"""Class-incremental learning with a distilled set as the replay buffer.

    attar distill --data digits --method herding --ipc 1 --out runs/herding-1
    python examples/replay_buffer.py runs/herding-1

The classes come two at a time. A network learns those of each task from all of their images, and replays, of the
classes before, nothing, as many random real images, or the distilled ones. The accuracy on all classes in the end is
printed. Try several sets: the one that trains a network best from scratch need not be the one that is best replayed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attar.data import ImageSet, load_data, load_pixels, test_spec
from attar.evaluation import named_recipe
from attar.evaluation.load_images import images_of_set
from attar.networks import build
from attar.sets.distilled import DistilledSet, open_distilled

TASK = 2
"""Classes that come at a time."""


def tensors(images: ImageSet, numbers: np.ndarray, side: int) -> Tensor:
    """Some images as `scaled` gives them."""
    return scaled(load_pixels(images, list(numbers), side, "adm"))


def scaled(pixels: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) as float32 (N, 3, H, W), from -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def buffers(one: DistilledSet, images: ImageSet, seed: int) -> dict[str, list[Tensor]]:
    """What is replayed of each class: nothing, random real images, the set's."""
    own = images_of_set(one, named_recipe("quick"))
    side, ipc = own.pixels.shape[1], one.manifest["ipc"]
    distilled = scaled(own.pixels)
    draw = np.random.default_rng(seed)
    labels = range(len(one.classes))
    random = [draw.choice(images.of_class(label), ipc, replace=False) for label in labels]
    return {
        "nothing": [distilled[:0] for _ in labels],
        "random": [tensors(images, numbers, side) for numbers in random],
        "distilled": [distilled[torch.from_numpy(own.labels) == label] for label in labels],
    }


def learn(network: torch.nn.Module, x: Tensor, y: Tensor, steps: int, draw: torch.Generator) -> None:
    """Trains with batches of 64, drawn anew at every step."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(x), (64,), generator=draw)
        loss = F.cross_entropy(network(x[chosen]), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def final_accuracy(one: DistilledSet, images: ImageSet, replayed: list[Tensor], steps: int, seed: int) -> float:
    """Per cent of the test images of all classes that a network names after the last task."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    classes = len(one.classes)
    side = replayed[0].shape[-1]
    network = build("convnet3-bn-w32", classes, side, seed=seed)
    for first in range(0, classes, TASK):
        new = [(tensors(images, images.of_class(k), side), k) for k in range(first, min(first + TASK, classes))]
        old = [(replayed[k], k) for k in range(first)]
        # each class counts alike, however few of its images there are
        most = max(len(x) for x, _ in new)
        even = [(x[torch.arange(most) % len(x)] if len(x) else x, k) for x, k in new + old]
        x = torch.cat([x for x, _ in even])
        y = torch.cat([torch.full((len(x),), k) for x, k in even])
        learn(network, x, y, steps, draw)
    test = load_data(test_spec(one.manifest["data"]["spec"])).restricted(one.classes)
    network.eval()
    right = total = 0
    with torch.no_grad():
        for label in range(classes):
            x = tensors(test, test.of_class(label), side)
            right += int((network(x).argmax(1) == label).sum())
            total += len(x)
    return 100 * right / total


def main(words: list[str] | None = None) -> dict[str, float]:
    """Prints and returns the mean final accuracy by what is replayed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--steps", type=int, default=100, help="of each task")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args(words)
    one = open_distilled(asked.set)
    images = load_data(one.manifest["data"]["spec"]).restricted(one.classes)
    means = {}
    for name in ("nothing", "random", "distilled"):
        values = [
            final_accuracy(one, images, buffers(one, images, seed)[name], asked.steps, seed)
            for seed in range(asked.seeds)
        ]
        means[name] = float(np.mean(values))
        print(f"replaying {name:10} {means[name]:5.1f} % ({' '.join(f'{value:.1f}' for value in values)})")
    return means


if __name__ == "__main__":
    main()
