"""Evaluation: a training on a distilled set by `minimax-hard`, and a test."""

from __future__ import annotations

import tempfile
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from attar.core.compiler import compile_network
from attar.evaluation import RECIPES, modified
from attar.evaluation.evaluator import training_plan
from attar.evaluation.precision import resolve_precision
from attar.networks import build
from attar.training import Step, top1, train
from attar.training.augment import STATISTICS, Augmentation
from benchmarks.evaluate import ArrayDataset, Lighting, accuracy, as_folder, epochs, pictures, transform
from benchmarks.models import named
from benchmarks.timing import Case, Where

SIZES = {
    "tiny": ("convnet3-w8", 32, 1, 20, 1),
    "small": ("convnet3-w48", 32, 10, 500, 20),
    "full": ("resnet18", 224, 2, 40, 4),
}
"""Network, side in pixels, images a class, test images, epochs."""


def case(size: str, where: Where) -> Case:
    name, side, ipc, tested, count = SIZES[size]
    train_set, test = pictures(10 * ipc, side, 0), pictures(tested, side, 1)
    recipe = modified(RECIPES.open("minimax-hard"), {"size": side, "epochs": count})
    device, precision = resolve_precision(str(where.device), named(where.dtype))
    compiled = precision == "bfloat16" and name.startswith("convnet")
    plan, how = training_plan(recipe, train_set, name, precision)
    x, y, test_x, test_y = (
        torch.from_numpy(array).to(device) for array in (train_set.pixels, train_set.labels, test.pixels, test.labels)
    )

    def attar() -> None:
        network = build(name, 10, side, 0).to(device, memory_format=torch.channels_last)
        if compiled:
            compile_network(network)

        def after(step: Step) -> None:
            if step.done == step.total:
                top1(network, test_x, test_y, how.normalise, precision=precision)

        train(network, x, y, plan, how, 0, after=after)

    root = tempfile.TemporaryDirectory()
    as_folder(train_set, root.name)

    def straight() -> None:
        """PIL and DataLoader."""
        network = build(name, 10, side, 0)
        plain = v2.Compose(
            [v2.PILToTensor(), v2.ToDtype(torch.float32, True), v2.Normalize(*STATISTICS[how.normalise])]
        )
        epochs(network, DataLoader(ImageFolder(root.name, transform(how)), plan.batch, shuffle=True), plan, how)
        accuracy(network, DataLoader(ArrayDataset(test.pixels, test.labels, plain), plan.batch))  # type: ignore[arg-type]

    tensors = [t.permute(0, 3, 1, 2) if t.ndim == 4 else t for t in (x, y, test_x, test_y)]
    return Case(
        ours=attar,
        best={
            named(dtype): partial(loop, name, side, tensors, plan.batch, count, how, dtype) for dtype in where.formats
        },
        straight=straight,
        work=f"{name}{', compiled' * compiled}, {10 * ipc} images of {side} pixels, {count} epochs, {tested} tested",
        close=root.cleanup,
    )


def by_torchvision(how: Augmentation) -> v2.Compose:
    """The augmentation of one image, a tensor uint8 (3, H, W), without the mix."""
    steps = [
        v2.RandomResizedCrop(how.size, (how.crop or 1.0, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, True),
        how.jitter and v2.ColorJitter(how.jitter, how.jitter, how.jitter),
        how.lighting and Lighting(how.lighting),
        v2.Normalize(*STATISTICS[how.normalise]),
    ]
    return v2.Compose([step for step in steps if step])


def loop(
    name: str, side: int, tensors: list[Tensor], batch: int, count: int, how: Augmentation, dtype: torch.dtype
) -> None:
    """A plain loop over tensors in memory: the recipe by torchvision, image by image, and CutMix of a batch."""
    x, y, test_x, _ = tensors
    network = build(name, 10, side, 0).to(x.device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=5e-4)
    augment, cutmix = by_torchvision(how), v2.RandomApply([v2.CutMix(num_classes=10)], how.mix_probability)
    half = partial(torch.autocast, x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    for _ in range(count):
        for picked in torch.randperm(len(x)).split(batch):
            views, labels = cutmix(torch.stack([augment(x[i]) for i in picked]), y[picked.to(x.device)])
            with half():
                logits = network(views.contiguous(memory_format=torch.channels_last))
            F.cross_entropy(logits.float(), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
    network.eval()
    with torch.inference_mode(), half():
        for images in test_x.split(256):
            network((images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)).argmax(1)
