"""Attar's evaluation against the loop that one would write with PIL and a DataLoader, of the same recipe, interleaved.

    python benchmarks/evaluate.py --recipe minimax-hard --size 32 --ipc 10 --network convnet3-w48 --workers 0

The other loop is a process of its own. It reads the distilled set as an image folder and the test set as arrays, as
torchvision's CIFAR10 does, augments by torchvision's transforms, and mixes each batch as the published codes do. Prints
the median seconds of making an epoch's views, of a training epoch (views included) and of testing 10,000 images; and
what the whole recipe with its tests takes by these (not all of its epochs are run).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from attar.evaluation import RECIPES, LabelledImages, modified
from attar.evaluation.evaluator import training_plan
from attar.networks import build
from attar.training import Plan, Step, batches, rate, top1, train
from attar.training.augment import STATISTICS, Augmentation, apply, draw, mixed

PARTS = ("views", "training", "testing")


class Lighting:
    """AlexNet's noise along the principal colours of ImageNet."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation
        vectors = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
        self.colours = torch.tensor(vectors) * torch.tensor([0.2175, 0.0188, 0.0045])

    def __call__(self, x: Tensor) -> Tensor:
        return x + (self.colours @ (torch.randn(3) * self.deviation))[:, None, None]


class ArrayDataset(Dataset[tuple[Tensor, int]]):
    """Arrays that become PIL images one by one."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform: transforms.Compose) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def transform(how: Augmentation) -> transforms.Compose:
    """The recipe's augmentation of single images."""
    colours = transforms.ColorJitter(how.jitter, how.jitter, how.jitter)
    steps = [
        how.crop is not None and transforms.RandomResizedCrop(how.size, scale=(how.crop, 1.0)),
        how.flip and transforms.RandomHorizontalFlip(),
        how.jitter and colours,
        transforms.ToTensor(),
        how.lighting and Lighting(how.lighting),
        transforms.Normalize(*STATISTICS[how.normalise]),
    ]
    return transforms.Compose([step for step in steps if step])


def dsa(x: Tensor) -> Tensor:
    """Colours for each image, then one of shift, scale and rotation, on the batch, as in DSA's code."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1)
    x = x + brightness - 0.5
    x = torch.lerp(x.mean(1, keepdim=True), x, 2 * saturation)
    x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, contrast + 0.5)
    theta = torch.eye(2, 3).repeat(len(x), 1, 1)
    kind = np.random.choice(["shift", "scale", "rotate"])
    if kind == "shift":
        theta[:, :, 2] = (torch.rand(len(x), 2) - 0.5) / 2
    elif kind == "scale":
        theta[:, 0, 0], theta[:, 1, 1] = 1.2 ** (2 * torch.rand(2, len(x)) - 1)
    else:
        angle = (torch.rand(len(x)) - 0.5) * np.pi / 6
        theta[:, 0, 0] = theta[:, 1, 1] = angle.cos()
        theta[:, 0, 1], theta[:, 1, 0] = -angle.sin(), angle.sin()
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def mix(x: Tensor, how: Augmentation) -> tuple[Tensor, Tensor, float]:
    """The batch mixed by CutMix or mixup, the partners, and the share of the images themselves."""
    partner, own = torch.randperm(len(x)), np.random.beta(1, 1)
    if how.mix == "none" or np.random.rand() >= how.mix_probability:
        return x, partner, 1.0
    if how.mix == "mixup":
        return own * x + (1 - own) * x[partner], partner, own
    size = x.shape[2]
    side = int(size * np.sqrt(1 - own))
    middle = np.random.randint(size, size=2)
    (top, left), (bottom, right) = np.clip([middle - side // 2, middle + side // 2], 0, size)
    x[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
    return x, partner, 1 - (bottom - top) * (right - left) / size**2


def views(data: DataLoader[tuple[Tensor, int]], how: Augmentation) -> None:
    for x, _ in data:
        mix(dsa(x) if how.dsa else x, how)


def epochs(network: nn.Module, data: DataLoader[tuple[Tensor, int]], plan: Plan, how: Augmentation) -> None:
    """The straightforward loop."""
    optimiser: torch.optim.Optimizer
    if plan.optimiser == "sgd":
        optimiser = torch.optim.SGD(network.parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay)
    else:
        optimiser = torch.optim.AdamW(network.parameters(), plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: rate(plan, epoch))
    network.train()
    for _ in range(plan.epochs or 0):
        for x, y in data:
            x, partner, own = mix(dsa(x) if how.dsa else x, how)
            logits = network(x)
            loss = own * F.cross_entropy(logits, y) + (1 - own) * F.cross_entropy(logits, y[partner])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()


@torch.no_grad()
def accuracy(network: nn.Module, data: DataLoader[tuple[Tensor, int]]) -> float:
    network.eval()
    correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in data)
    return 100 * correct / len(data.dataset)  # type: ignore[arg-type]


def straightforward(
    asked: Connection, args: argparse.Namespace, folder: str, test: LabelledImages, plan: Plan, how: Augmentation
) -> None:
    """The other process: whenever it is asked, it runs the loop and answers the seconds of each part."""
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu else time.perf_counter
    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*STATISTICS[how.normalise])])
    data = DataLoader(ImageFolder(folder, transform(how)), plan.batch, shuffle=True, num_workers=args.workers)
    held = DataLoader(ArrayDataset(test.pixels, test.labels, plain), plan.batch, num_workers=args.workers)
    network = build(args.network, 10, how.size, 0)
    while asked.recv():
        times = [clock()]
        for _ in range(args.epochs):
            views(data, how)
        times.append(clock())
        epochs(network, data, plan, how)
        times.append(clock())
        accuracy(network, held)
        asked.send(np.diff([*times, clock()]))


def attar(
    args: argparse.Namespace, train_set: LabelledImages, test: LabelledImages, plan: Plan, how: Augmentation
) -> np.ndarray:
    """The seconds of each part in Attar, on the CPU, as `evaluate` runs them."""
    clock = time.process_time if args.cpu else time.perf_counter
    x, y, test_x, test_y = map(torch.from_numpy, (train_set.pixels, train_set.labels, test.pixels, test.labels))
    times = [clock()]
    for step, (_, _, index) in enumerate(batches(len(x), plan, 0)):
        drawn = draw(how, len(index), 0, step)
        mixed(apply(x[index], drawn, how), drawn)
    network = build(args.network, 10, how.size, 0).to(memory_format=torch.channels_last)
    times.append(clock())

    def after(step: Step) -> None:
        if step.done == step.total:
            times.append(clock())
            top1(network, test_x, test_y, how.normalise)
            times.append(clock())

    train(network, x, y, plan, how, 0, after=after)
    return np.diff(times)


def pictures(n: int, size: int, seed: int) -> LabelledImages:
    """Smooth random images, which PNG packs about as well as photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, max(1, size // 4), max(1, size // 4), 3), dtype=np.uint8)
    pixels = np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse]
    )
    return LabelledImages(pixels, np.arange(n) % 10, tuple("0123456789"))


def as_folder(images: LabelledImages, folder: str) -> None:
    """Writes images as PNGs, a folder for each class."""
    for i, (image, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        path = Path(folder, str(label), f"{i}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    hard = [name for name in RECIPES if RECIPES.open(name).labels == "hard"]
    parser.add_argument("--recipe", default="minimax-hard", choices=hard)
    parser.add_argument("--network", default="convnet3-w48")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoaders")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4, help="in each round")
    parser.add_argument("--tested", type=int, default=1000, help="images tested in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="count CPU seconds: on a shared machine, without workers")
    args = parser.parse_args()
    if args.cpu and args.workers:
        parser.error("--cpu does not see what workers take: use --workers 0")
    return args


def in_turn(
    args: argparse.Namespace, train_set: LabelledImages, test: LabelledImages, plan: Plan, how: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """The seconds (rounds, parts) of Attar and of PIL with a DataLoader, by turns, the latter in a process of its own.

    The first round of each warms up, and does not count.
    """
    context = multiprocessing.get_context("spawn")
    asks, asked = context.Pipe()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        as_folder(train_set, folder)
        other = context.Process(target=straightforward, args=(asked, args, folder, test, plan, how))
        other.start()
        for _ in range(args.rounds + 1):
            ours.append(attar(args, train_set, test, plan, how))
            asks.send(True)
            theirs.append(asks.recv())
        asks.send(False)
        other.join()
    return np.stack(ours[1:]), np.stack(theirs[1:])


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    train_set, test = pictures(10 * args.ipc, args.size, 0), pictures(args.tested, args.size, 1)
    recipe = modified(RECIPES.open(args.recipe), {"size": args.size})
    whole, _ = training_plan(recipe, train_set, args.network)
    plan, how = training_plan(modified(recipe, {"epochs": args.epochs, "steps": None}), train_set, args.network)
    per_epoch = len(list(batches(len(train_set.labels), plan, 0))) // args.epochs
    all_epochs = whole.epochs or (whole.steps or 0) / per_epoch
    tests = {None: 1, "1%": 100, 1: 0.05 * all_epochs}[recipe.test_every]
    scale = np.array([1 / args.epochs, 1 / args.epochs, 10_000 / args.tested])
    ours, theirs = (seconds * scale for seconds in in_turn(args, train_set, test, plan, how))
    print(f"{recipe.name}, {args.network}, {len(train_set.labels)} images of {args.size} pixels, batch {plan.batch}")
    print(f"{args.threads} threads, {args.workers} workers, n = {args.rounds}, {'CPU' if args.cpu else 'wall'} time")
    for part, a, b in zip(PARTS, ours.T, theirs.T, strict=True):
        say_part(part, a, b)
    total = np.array([0, all_epochs, tests])
    say_part(f"whole recipe ({all_epochs:.0f} epochs, {tests:.0f} tests)", ours @ total, theirs @ total)


def say_part(part: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    ratios = theirs / ours
    print(f"{part}: attar {np.median(ours):.3g} s, PIL + DataLoader {np.median(theirs):.3g} s; ", end="")
    print(f"{statistics.median(ratios):.2f} times as fast ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
