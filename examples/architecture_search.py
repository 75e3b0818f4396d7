"""Architecture search on a distilled set: do networks rank on it as they rank on all of the data?

    attar distill --data digits --method herding --ipc 10 --out runs/herding
    python examples/architecture_search.py runs/herding

Each network is trained on the set, on as many random real images, and on all of the data; the rank correlation of
either with the last says which is the better stand-in for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scipy.stats import spearmanr

from attar.core.progress import lines
from attar.evaluation import modified, named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.records import Record
from attar.evaluation.run import evaluate_all, evaluate_sets
from attar.sets.distilled import open_distilled

NETWORKS = (
    "convnet3-w8",
    "convnet3-w32",
    "convnet3-bn-w8",
    "convnet3-bn-w32",
    "resnet10-w8",
    "resnet10-bn-w16",
)
"""What is chosen among."""


def searched(folder: Path, networks: tuple[str, ...], steps: int, seeds: int) -> tuple[list[Record], list[Record]]:
    """Each network's record on the set, with random images beside it, and on all of the data."""
    one = open_distilled(folder)
    recipe = modified(named_recipe("quick"), {"steps": steps, "flip": False})
    conditions = Conditions(networks, tuple(range(seeds)))
    with lines() as progress:
        on_set = list(evaluate_sets([one], recipe, conditions, progress=progress))
        return on_set, list(evaluate_all(one.manifest["data"]["spec"], recipe, conditions, progress=progress))


def main(words: list[str] | None = None) -> tuple[float, float]:
    """Prints the ranking; returns the rank correlations of the set and of random images with all of the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args(words)
    on_set, on_all = searched(asked.set, tuple(asked.networks.split(",")), asked.steps, asked.seeds)
    print(f"{'network':24}{'set':>8}{'random':>8}{'all':>8}")
    own, random, whole = [], [], []
    for few, all_of_it in sorted(zip(on_set, on_all, strict=True), key=lambda pair: -pair[1].mean):
        assert few.network == all_of_it.network
        assert few.baseline is not None
        print(f"{few.network:24}{few.mean:8.1f}{few.baseline.mean:8.1f}{all_of_it.mean:8.1f}")
        for values, result in ((own, few), (random, few.baseline), (whole, all_of_it)):
            values.append(result.mean)
    ranks = float(spearmanr(own, whole).statistic), float(spearmanr(random, whole).statistic)
    seconds = sum(record.seconds for record in on_set), sum(record.seconds for record in on_all)
    print(f"rank correlation with all of the data: the set {ranks[0]:.2f}, random images {ranks[1]:.2f}")
    print(f"trainings took {seconds[0]:.0f} s on the set, {seconds[1]:.0f} s on all of the data")
    return ranks


if __name__ == "__main__":
    main()
