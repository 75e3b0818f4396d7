"""Relabelling: a teacher's logits of a set's views, an epoch after the other, kept in half precision."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from attar.evaluation import RECIPES, modified
from attar.evaluation.evaluator import labelling, training_plan
from attar.networks import build
from attar.teachers.soft_labels import write_labels
from attar.teachers.teacher import Pretrained, SingleTeacher
from attar.training.augment import Augmentation
from benchmarks.evaluate import as_folder, mix, pictures, transform
from benchmarks.models import named
from benchmarks.paths.evaluate import by_torchvision
from benchmarks.timing import Case, Where

SIZES = {
    "tiny": ("convnet3-bn-w8", "fkd-soft-cifar", 32, 1, 1),
    "small": ("convnet3-bn-w64", "fkd-soft-cifar", 32, 10, 5),
    "full": ("resnet18", "fkd-soft", 224, 2, 1),
}
"""Teacher, recipe, side in pixels, images a class, epochs."""


def case(size: str, where: Where) -> Case:
    name, protocol, side, ipc, count = SIZES[size]
    recipe = modified(RECIPES.open(protocol), {"size": side, "epochs": count, "precision": named(where.dtype)})
    images, root = pictures(10 * ipc, side, 0), tempfile.TemporaryDirectory()
    out, folder = Path(root.name), Path(root.name, "images")
    folder.mkdir()
    as_folder(images, str(folder))
    network = build(name, 10, side, 0).to(where.device, memory_format=torch.channels_last).eval()
    own = Pretrained("own", network, None, side, None, None, 10)
    teacher = SingleTeacher(own, recipe.normalise, range(10)).to(where.device)
    wanted, shown = labelling(images, recipe, teacher, str(where.device))
    plan, how = training_plan(recipe, images, "any", "float32")
    x = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).to(where.device)

    def attar() -> None:
        with tempfile.TemporaryDirectory(dir=out) as labels:
            write_labels(Path(labels), wanted, shown, teacher)

    return Case(
        ours=attar,
        best={named(dtype): partial(loop, network, x, plan.batch, count, how, dtype, out) for dtype in where.formats},
        straight=partial(straight, network, str(folder), plan.batch, count, how, out),
        work=f"{name}, {count} epochs of {10 * ipc} images of {side} pixels",
        close=root.cleanup,
    )


@torch.inference_mode()
def loop(
    network: nn.Module, x: Tensor, batch: int, count: int, how: Augmentation, dtype: torch.dtype, out: Path
) -> None:
    """Images in memory, drawn by torchvision image by image, a batch mixed, a file of each epoch."""
    augment, cutmix = by_torchvision(how), v2.RandomApply([v2.CutMix(num_classes=10)], how.mix_probability)
    for epoch in range(count):
        rows = []
        for picked in torch.randperm(len(x)).split(batch):
            views, _ = cutmix(torch.stack([augment(x[i]) for i in picked]), torch.zeros_like(picked))
            with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                rows.append(network(views.contiguous(memory_format=torch.channels_last)).half().cpu())
        save_file({"logits": torch.cat(rows)}, out / f"{epoch}.safetensors")


@torch.inference_mode()
def straight(network: nn.Module, folder: str, batch: int, count: int, how: Augmentation, out: Path) -> None:
    """PIL and DataLoader, float32, a file of each batch with what was drawn."""
    data = DataLoader(ImageFolder(folder, transform(how)), batch, shuffle=True)
    device = next(network.parameters()).device
    for epoch in range(count):
        for number, (views, _) in enumerate(data):
            mixed, partner, own = mix(views, how)
            torch.save([partner, own, network(mixed.to(device)).half().cpu()], out / f"{epoch}-{number}.tar")
