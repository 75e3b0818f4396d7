"""A ConvNet trained on a distilled set by a plain PyTorch loop, which imports nothing of Attar.

    python examples/train_on_a_set.py runs/herding TEST --steps 600

TEST has a folder of images for each class; they sort as the set's classes do (000_airplane, 001_automobile ...).
A set that holds fixed soft labels (`attar distill --labels fixed`) is learnt from with these, at the temperature that
it names.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from pyarrow import parquet
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

STATISTICS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALISED = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*STATISTICS)])


def learnt_from(folder):
    """The set's pictures, and their targets (N, classes); of a formation K, the K x K parts of each image, enlarged."""
    manifest, images, classes = json.loads((folder / "manifest.json").read_text()), [], []
    grid, advice = manifest.get("formation", 1), manifest.get("labelled_by", {}).get("advice", {})
    for file, label in ImageFolder(folder / "images").samples:
        image = Image.open(file).convert("RGB")
        side = image.width // grid
        for top, left in [(side * row, side * column) for row in range(grid) for column in range(grid)]:
            part = image.crop((left, top, left + side, top + side))
            images.append(part.resize(image.size, Image.Resampling.BILINEAR))
            classes.append(label)
    if "labels" not in manifest or advice.get("temperature") == "none":
        return images, one_hot(torch.tensor(classes)).float()
    logits = torch.tensor(parquet.read_table(folder / "images" / "metadata.parquet")["logits"].to_pylist())
    return images, (logits.view(len(images), -1) / advice.get("temperature", 2)).softmax(1)


def trained(images, targets, steps, flip, width=48, depth=3):
    """A ConvNet with instance norm, trained by AdamW on random crops, half of the batches mixed by CutMix."""
    side, classes, layers = images[0].width, targets.shape[1], []
    for channels in (3, *[width] * (depth - 1)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (side >> depth) ** 2, classes))
    view = v2.Compose([v2.RandomResizedCrop(side, scale=(0.5, 1)), v2.RandomHorizontalFlip(flip), NORMALISED])
    mixed = v2.RandomChoice([v2.CutMix(num_classes=classes), v2.Identity()])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=min(0.25, 50 / steps))
    shown = torch.cat([torch.randperm(len(images)) for _ in range(64 * steps // len(images) + 1)])[: 64 * steps]
    for batch in shown.split(64):
        x, y = mixed(torch.stack([view(images[number]) for number in batch]), targets[batch])
        optimiser.zero_grad()
        cross_entropy(network(x), y).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("test", type=ImageFolder)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--no-flip", action="store_true", help="for images that a flip changes, such as digits")
    parser.add_argument("--size", type=int, help="side that all images are brought to; none: that of the set's first")
    asked = parser.parse_args()
    images, targets = learnt_from(asked.set)
    side = asked.size or images[0].width
    square = v2.Compose([v2.Resize(side), v2.CenterCrop(side)])
    images = [square(image) for image in images]
    network = trained(images, targets, asked.steps, flip=0.0 if asked.no_flip else 0.5)
    with torch.no_grad():
        right = sum(int(network(NORMALISED(square(image))[None]).argmax() == label) for image, label in asked.test)
    print(f"{len(images)} images: {100 * right / len(asked.test):.1f} % of {len(asked.test)} test images")
