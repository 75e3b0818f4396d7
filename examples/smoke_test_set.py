"""A distilled set as the smoke test of a training pipeline: any sound one learns it in seconds, a broken one does not.

    attar distill --data digits --method herding --ipc 10 --out runs/herding
    python examples/smoke_test_set.py runs/herding

Random images of the same count tell nothing reliable; a set whose classes are told apart easily does. Here the pipeline
is plain PyTorch on torchvision's ImageFolder, once as it should be and once for each of three bugs that leave the loss
falling. Put `check` into your tests, and your own training function in the place of `train`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import datasets, transforms

BUGS = ("none", "labels of another order", "frozen layers", "images not scaled")
SIDE = 16


def loaded(folder: Path, bug: str) -> tuple[Tensor, Tensor]:
    """The set's images (N, 3, 16, 16) and labels, as a pipeline reads them."""
    steps = [transforms.Resize((SIDE, SIDE)), transforms.ToTensor()]
    if bug != "images not scaled":
        steps.append(transforms.Normalize([0.5] * 3, [0.5] * 3))
    images = datasets.ImageFolder(str(folder / "images"), transforms.Compose(steps))
    x = torch.stack([image for image, _ in images])
    if bug == "images not scaled":
        x = (255 * x).byte().float()
    y = torch.tensor(images.targets)
    return x, y.flip(0).roll(1) if bug == "labels of another order" else y


def train(folder: Path, bug: str, steps: int) -> nn.Module:
    """A small network, trained on the set."""
    torch.manual_seed(0)
    x, y = loaded(folder, bug)
    network = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * (SIDE // 4) ** 2, int(y.max()) + 1)),
    )
    if bug == "frozen layers":
        network.requires_grad_(False)
        network[0].requires_grad_(True)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for _ in range(steps):
        chosen = torch.randint(len(x), (32,))
        optimiser.zero_grad()
        F.cross_entropy(network(x[chosen]), y[chosen]).backward()
        optimiser.step()
    return network


@torch.no_grad()
def check(network: nn.Module, folder: Path, least: float = 95.0) -> tuple[bool, float]:
    """Whether a trained network names at least so many per cent of the set's images, and how many it names."""
    x, y = loaded(folder, "none")
    right = 100 * float((network(x).argmax(1) == y).float().mean())
    return right >= least, right


def main(words: list[str] | None = None) -> dict[str, bool]:
    """Prints and returns which pipelines pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args(words)
    passed = {}
    for bug in BUGS:
        passed[bug], right = check(train(asked.set, bug, asked.steps), asked.set)
        print(f"bug: {bug:26} names {right:5.1f} % of the set: {'passes' if passed[bug] else 'FAILS'}")
    return passed


if __name__ == "__main__":
    main()
