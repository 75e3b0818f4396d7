"""A ConvNet trained on a distilled set by a plain PyTorch loop, which imports nothing of Attar.

    python examples/train_on_a_set.py runs/herding TEST --steps 600

A set that holds fixed soft labels (`attar distill --labels fixed`) is learnt from with these.

TEST has a folder of images for each class; they sort as the set's classes do (000_airplane, 001_automobile ...).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from pyarrow import parquet
from torch import nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

STATISTICS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALISED = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*STATISTICS)])


def pictures(folder: Path) -> Iterator[tuple[Image.Image, int]]:
    """The set's images with their labels; of a formation K the K x K parts of each, row by row, as large as it."""
    grid = json.loads((folder / "manifest.json").read_text()).get("formation", 1)
    for file, label in ImageFolder(folder / "images").samples:
        image = Image.open(file).convert("RGB")
        side = image.width // grid
        for top, left in ((side * row, side * column) for row in range(grid) for column in range(grid)):
            part = image.crop((left, top, left + side, top + side))
            yield part.resize(image.size, Image.Resampling.BILINEAR), label


def targets(folder: Path, classes: torch.Tensor) -> torch.Tensor:
    """The probabilities of each picture: of the set's fixed labels at temperature 2, or all of them its class's."""
    file = folder / "images" / "metadata.parquet"
    if not file.exists():
        return F.one_hot(classes).float()
    logits = torch.tensor(parquet.read_table(file)["logits"].to_pylist())
    return (logits.view(len(classes), -1) / 2).softmax(1)


def convnet(classes: int, side: int, width: int = 48, depth: int = 3) -> nn.Sequential:
    """Blocks of convolution, instance norm, ReLU and average pooling, then a linear head."""
    layers: list[nn.Module] = []
    for block in range(depth):
        convolution = nn.Conv2d(width if block else 3, width, 3, padding=1)
        layers += [convolution, nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (side >> depth) ** 2, classes))


def trained(train: list[tuple[Image.Image, torch.Tensor]], steps: int, flip: float) -> nn.Module:
    """A ConvNet trained by AdamW on random crops, half of the batches mixed by CutMix."""
    side, classes = train[0][0].width, len(train[0][1])
    crop = v2.RandomResizedCrop(side, scale=(0.5, 1))
    view, cutmix = v2.Compose([crop, v2.RandomHorizontalFlip(flip), NORMALISED]), v2.CutMix(num_classes=classes)
    network = convnet(classes, side)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=min(0.25, 50 / steps))
    batches = DataLoader(
        train,
        batch_size=64,
        sampler=RandomSampler(train, num_samples=64 * steps),
        collate_fn=lambda rows: (torch.stack([view(image) for image, _ in rows]), torch.stack([y for _, y in rows])),
    )
    for images, labels in batches:
        x, y = cutmix(images, labels) if torch.rand(()) < 0.5 else (images, labels)
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def main() -> None:
    """Trains, tests, and prints the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-flip", action="store_true", help="for images that a flip changes, such as digits")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    images, classes = zip(*pictures(args.set), strict=True)
    train = list(zip(images, targets(args.set, torch.tensor(classes)), strict=True))
    test = ImageFolder(args.test, NORMALISED)
    network = trained(train, args.steps, flip=0.0 if args.no_flip else 0.5)
    with torch.no_grad():
        right = sum(int((network(x).argmax(1) == y).sum()) for x, y in DataLoader(test, 250))
    print(f"{len(train)} images: {100 * right / len(test):.1f} % of {len(test)} test images")


if __name__ == "__main__":
    main()
