"""Bytes and accuracy of each way to store soft labels, paired over training seeds with labels stored as fp16.

    python benchmarks/soft_labels.py                                     # the digits, 10 classes
    python benchmarks/soft_labels.py --classes 100                       # a synthetic set; also 1000
    python benchmarks/soft_labels.py --set runs/random --teacher teachers/airbench --network convnet3-w48

Every scheme is given as many label epochs as a twentieth of fp16's bytes pays for (at most all of them); `int8` and
`int4` stand there with all epochs, too. The loss is fp16's accuracy less the scheme's, in points, with its 95 %
interval (Student's t) over the seeds.

Measured on one shared core, 2026-11-21, temperature 20, 4-bit logits of a seventh of the epochs, used again and again:

    digits, convnet3-bn-w48, 100 epochs, n = 10     int4, 14 epochs, 1/20.4 of the bytes: -0.14 (-0.55 to +0.28)
    100 synthetic classes, IPC 5, 40 epochs, n = 6  int4, 7 epochs, 1/22.0: +0.50 (-0.42 to +1.42)
                                                    top10-int4, 21 epochs, 1/20.1: +28.87 (+27.52 to +30.21)
    CIFAR-10, random, convnet3-w48, n = 10          int4, 14 epochs, 1/20.4: +0.53 (+0.26 to +0.81)

At this temperature the small logits carry most of what is learnt: the largest alone do not do.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor, nn

from attar.core.rng import numpy_generator
from attar.core.store import Store
from attar.data import load_data
from attar.evaluation import RECIPES, LabelledImages, Recipe, Students, evaluate, modified
from attar.evaluation.labelled_images import resized
from attar.networks import build
from attar.teachers.check import Examples, check_teacher
from attar.teachers.label_schemes import Scheme
from attar.teachers.load import load_pretrained
from attar.teachers.teacher import Pretrained, SingleTeacher
from attar.training import Plan, top1, train
from attar.training.augment import Augmentation

SHARE = 20


def digits() -> tuple[LabelledImages, LabelledImages]:
    """All training and test digits."""
    from attar.evaluation.load_images import all_images

    found = [all_images(load_data(spec), 8, "resize-crop", Store()) for spec in ("digits@train", "digits@test")]
    return found[0], found[1]


def synthetic(classes: int, each: int, seed: int, size: int = 16) -> LabelledImages:
    """Smooth patterns, one a class, under smooth and rough noise of about twice their deviation."""
    rng = numpy_generator("synthetic", seed)
    patterns = numpy_generator("patterns", classes).normal(size=(classes, 1, 4, 4, 3))
    smooth = (patterns + 1.5 * rng.normal(size=(classes, each, 4, 4, 3))).reshape(-1, 4, 4, 3)
    whole = smooth.repeat(size // 4, 1).repeat(size // 4, 2) + rng.normal(size=(classes * each, size, size, 3))
    pixels = np.clip(127 + 30 * whole, 0, 255).astype(np.uint8)
    return LabelledImages(pixels, np.repeat(np.arange(classes), each), tuple(map(str, range(classes))))


def of_each(images: LabelledImages, ipc: int) -> LabelledImages:
    """The first `ipc` images of each class."""
    rows = np.concatenate([np.flatnonzero(images.labels == label)[:ipc] for label in range(len(images.classes))])
    return LabelledImages(images.pixels[rows], images.labels[rows], images.classes)


def trained_teacher(images: LabelledImages, test: LabelledImages, recipe: Recipe, epochs: int) -> nn.Module:
    """A ConvNet trained on all images; says what it reached."""
    size, classes = images.pixels.shape[1], len(images.classes)
    network = build("convnet3-bn-w64", classes, size, 0)
    plan = Plan(epochs=epochs, batch=128, lr=0.1, nesterov=True, label_smoothing=0.1)
    how = Augmentation(size, shift=1, flip=recipe.flip, normalise=recipe.normalise)
    x, y = torch.tensor(images.pixels), torch.tensor(images.labels)
    train(network, x, y, plan, how, 0)
    held = torch.tensor(test.pixels), torch.tensor(test.labels)
    reached = top1(network, *held, recipe.normalise)
    print(f"teacher: convnet3-bn-w64, {epochs} epochs on {len(y):,} images; {reached:.1f} % right on test images")
    own = Pretrained("own", network.eval(), None, None, None, None, classes)
    return SingleTeacher(own, recipe.normalise, range(classes))


def chosen(args: argparse.Namespace) -> tuple[LabelledImages, LabelledImages, Recipe, nn.Module]:
    """Training set, test set, recipe and teacher."""
    recipe = modified(RECIPES.open("fkd-soft-cifar"), {"epochs": args.epochs})
    if args.set is not None:
        from attar.evaluation.load_images import all_images, images_of_set, teacher_examples
        from attar.sets.distilled import open_distilled
        from attar.sets.source_data import tested_images

        one = open_distilled(args.set)
        images = images_of_set(one, recipe)
        side = images.pixels.shape[1]
        test = all_images(tested_images(one, None, Store(), lambda *_: None), side, "resize-crop", Store())
        real, of = teacher_examples(one, images, Store())
        loaded = load_pretrained(args.teacher, None, len(one.classes), side)
        pixels: Tensor = torch.tensor(resized(real.pixels, side))
        examples = Examples(pixels, torch.tensor(real.labels), one.classes, of)
        found = check_teacher(loaded, examples, recipe.normalise)
        print(f"teacher: {args.teacher}, {found.accuracy:.1f} % on {len(real.labels)} {of}")
        return images, test, recipe, found
    if args.classes == 10:
        recipe = modified(recipe, {"flip": False, "crop": 0.5})
        every, test = digits()
        return of_each(every, args.ipc), test, recipe, trained_teacher(every, test, recipe, 20)
    every, test = synthetic(args.classes, max(10, 5_000 // args.classes), 0), synthetic(args.classes, 5, 1)
    recipe = modified(recipe, {"crop": 0.5, "flip": False})
    return of_each(every, args.ipc), test, recipe, trained_teacher(every, test, recipe, 8)


def contenders(classes: int, epochs: int) -> list[dict[str, str | int]]:
    """fp16, then whole sets of labels in fewer bits, then what a twentieth of fp16's bytes buys."""
    full = Scheme.named("fp16").row_bytes(classes) * epochs
    found: list[dict[str, str | int]] = [{"scheme": "fp16"}, {"scheme": "int8"}, {"scheme": "int4"}]
    top = [name for k in (10, 20) if 4 * k < classes for name in (f"top{k}-int8", f"top{k}-int4")]
    for name in ("fp16", "int8", "int4", *top):
        count = full // SHARE // Scheme.named(name).row_bytes(classes)
        found.append({"scheme": name, "label_epochs": int(min(count, epochs))})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", type=Path, help="a distilled set")
    parser.add_argument("--teacher", help="its teacher, as for `attar evaluate`")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--network", default="convnet3-bn-w48")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", help="schemes to measure, as int4:42,int8:300; fp16 is always measured")
    args = parser.parse_args()
    images, test, recipe, teacher = chosen(args)
    classes = len(images.classes)
    tried = contenders(classes, args.epochs)
    if args.only:
        pairs = [word.partition(":") for word in args.only.split(",")]
        tried = [tried[0], *({"scheme": scheme, "label_epochs": int(count)} for scheme, _, count in pairs)]
    print(f"{len(images.labels):,} images of {classes} classes, {args.network}, {args.epochs} epochs, n = {args.seeds}")
    print("| scheme | label epochs | bytes a view | bytes | of fp16 | accuracy | loss, 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    first = None
    for changes in tried:
        students = Students(images, test, modified(recipe, changes), args.network, teacher=teacher, store=Store())
        result = evaluate(students, range(args.seeds))
        assert result.labels is not None
        first = first or result
        assert first.labels is not None
        lost = [a - b for a, b in zip(first.accuracies, result.accuracies, strict=True)]
        spread = statistics.stdev(lost) if len(lost) > 1 else float("nan")
        half = float(student_t.ppf(0.975, len(lost) - 1)) * spread / len(lost) ** 0.5
        mean = statistics.fmean(lost)
        gap = "" if result is first else f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"
        size, row = result.labels["bytes"], Scheme.named(str(changes["scheme"])).row_bytes(classes)
        cells = [changes["scheme"], result.labels["epochs"], row, f"{size:,}", f"1/{first.labels['bytes'] / size:.1f}"]
        cells += [f"{result.mean:.2f} ± {result.std:.2f}", gap]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
