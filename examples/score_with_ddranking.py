"""A distilled set, scored by DD-Ranking's own package (arXiv 2505.13300; `pip install ddranking`, written for 0.2.0).

    python examples/score_with_ddranking.py runs/cifar --dataset CIFAR10 --network ConvNet-3 --full 86.5 --real datasets

The set's classes must be those of the data set, in its order, and all of them. The package trains with hard labels, on
the set and on random real images, which it downloads to --real. Of most networks it does not know what all of the data
gives: measure that, and say it with --full.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from attar.core.errors import AttarError
from attar.evaluation import named_recipe
from attar.evaluation.load_images import images_of_set
from attar.sets.distilled import DistilledSet, open_distilled
from attar.training.augment import normalised

STATISTICS = {"CIFAR10": "cifar", "CIFAR100": "cifar", "TinyImageNet": "imagenet"}
"""What the package normalises each data set by."""


def tensors(one: DistilledSet, dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, H, W), normalised as the package normalises the data set, and hard labels (N,)."""
    images = images_of_set(one, named_recipe("quick"))
    return normalised(torch.from_numpy(images.pixels), STATISTICS[dataset]), torch.from_numpy(images.labels)


def main() -> None:
    """Prints what the package says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--dataset", choices=list(STATISTICS), default="CIFAR10")
    parser.add_argument("--real", default="datasets")
    parser.add_argument("--network", default="ConvNet-3")
    parser.add_argument("--full", type=float, help="accuracy with all of the data, in per cent")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        from ddranking.metrics import LabelRobustScoreHard
        from ddranking.utils import REAL_DATA_ACC_CACHE
    except ImportError as error:
        raise SystemExit(f"{error}: pip install ddranking") from error
    try:
        one = open_distilled(args.set)
    except AttarError as error:
        raise SystemExit(f"error: {error}") from error
    known = f"{args.dataset}-{args.network}"
    if args.full is not None:
        REAL_DATA_ACC_CACHE[known] = args.full
    if known not in REAL_DATA_ACC_CACHE:
        raise SystemExit(f"error: the package knows {', '.join(REAL_DATA_ACC_CACHE)}; for {known} give --full")
    images, labels = tensors(one, args.dataset)
    score = LabelRobustScoreHard(
        dataset=args.dataset,
        real_data_path=args.real,
        ipc=one.manifest["ipc"],
        model_name=args.network,
        im_size=tuple(images.shape[2:]),
        device=args.device,
    )
    print(score.compute_metrics(image_tensor=images, hard_labels=labels))


if __name__ == "__main__":
    main()
