"""Draws the README's picture: a row of each set for each of some classes.

    attar distill --data parquet:cifar10@train --method random --ipc 5 --out runs/random
    attar distill --data parquet:cifar10@train --prior priors/cifar10-dit --method prior --ipc 5 --out runs/prior
    attar train-teacher --data parquet:cifar10@train --network convnet3-bn-w16 --epochs 2 --out runs/teacher
    attar distill --data parquet:cifar10@train --prior priors/cifar10-dit --method exemplars \\
        --set fit.select.teacher=runs/teacher --ipc 5 --out runs/exemplars
    python docs/wall.py runs/random runs/prior runs/exemplars --out docs/images/wall.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from attar.sets.distilled import evenly, open_distilled


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    sets = [open_distilled(folder) for folder in asked.sets]
    labels = evenly(range(len(sets[0].classes)), asked.classes)
    figure = Figure(figsize=(9, 0.25 + 9 / len(sets) / asked.images * len(labels) * 0.94), layout="constrained")
    for block, one in zip(figure.subfigures(1, len(sets), squeeze=False, wspace=0.04)[0], sets, strict=True):
        block.suptitle(one.manifest["method"]["name"], fontsize=10)
        files = one.files()
        axes = block.subplots(len(labels), asked.images, squeeze=False)
        for row, label in zip(axes, labels, strict=True):
            for cell, file in zip(row, files[label], strict=False):
                cell.imshow(Image.open(file), interpolation="nearest")
            for cell in row:
                cell.set_axis_off()
    figure.savefig(asked.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
