"""Writes docs/reproduction.md: what is published, from experiments/*.toml, against what was measured here.

Command: python docs/reproduction.py
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from attar.experiments.spec import Experiment, Published, read_experiment

DOCS = Path(__file__).parent
EXPERIMENTS = DOCS.parent / "experiments"

INTRODUCTION = """# Published against measured

Written by `python docs/reproduction.py` from `experiments/*.toml` (published numbers, and where they were read) and
`docs/reproduction.toml` (measured ones, which stand in [results.md](results.md) with their commands); a test holds this
page to both. Accuracy is top-1 in per cent. Published numbers are as their papers print them, most of them of the epoch
that was best on the test set; ours are of the last epoch. Each experiment is one resumable command, and its `--dry-run`
tells what it takes on your machine.

One line is measured under its published protocol: random images of ImageNette at IPC 10. For the others there was no
ImageNet, no pretrained prior and a GPU for minutes only. Where a line says "measured", its reason says what differs.

## What others report of reproducing them

| method | number | published | others got | where |
|---|---|---:|---:|---|
| Minimax | ImageWoof, IPC 10, ResNetAP-10 | 39.2 | 36.2 | issue 11 of vimar-gu/MinimaxDiffusion |
| RDED | CIFAR-100, IPC 50, ResNet-18 | 62.6 | 54.7 | issue 6 of LINs-lab/RDED |
| RDED | CIFAR-10, IPC 10, ConvNet-3 | 50.2 | 23 | issue 3 of LINs-lab/RDED |
| D4M | ImageNet-1k, IPC 10, ResNet-18 | 27.9 | 10 to 19 | issue 5 of suduo94/D4M |
| D4M | the same, for 400 epochs in batches of 50 | 27.9 | 45.4 | arXiv 2509.19743, in a public summary |

The last line is what `attar waterfall` is for: one method, evaluated otherwise, and 17 points.
"""

DEPARTURES = """## Departures

What Attar still does otherwise than the codes that the papers' authors published, read line by line; written from
`docs/departures.toml`.
"""
HEAD = "| system | what the reference does | what Attar does | why |\n|---|---|---|---|\n"


def page() -> str:
    """The whole page."""
    told = tomllib.loads((DOCS / "reproduction.toml").read_text(encoding="utf-8"))
    files = sorted(EXPERIMENTS.glob("*.toml"))
    experiments = [read_experiment(file) for file in files]
    sections = [section(one, told) for one in experiments if one.published]
    return "\n".join([INTRODUCTION, departures(), *sections])


def departures() -> str:
    """The table of what is done otherwise than in the published codes, distilling first, then evaluating."""
    told = tomllib.loads((DOCS / "departures.toml").read_text(encoding="utf-8"))
    parts = [DEPARTURES]
    for part, title in (("distillation", "Distilling"), ("evaluation", "Evaluating")):
        rows = (_row(one["system"], one["reference"], one["attar"], one["why"]) for one in told[part])
        parts.append(f"### {title}\n\n{HEAD}" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def section(experiment: Experiment, told: dict[str, Any]) -> str:
    """One experiment: its command, cost and status, and a line for each published or measured entry."""
    name = experiment.file.stem
    head = experiment.file.read_text(encoding="utf-8").split("\n\n")[0]
    cost = re.search(r"^# Cost: +(.+)$", head, re.MULTILINE)
    sources = list(dict.fromkeys(one.source for one in experiment.published))
    lines = [
        f"## {experiment.title}\n",
        f"`attar compare experiments/{name}.toml`; cost: {cost[1] if cost else 'unknown'}.\n",
        "| method | network | recipe | IPC: accuracy | n | source or reason |",
        "|---|---|---|---|---:|---|",
    ]
    for one in experiment.published:
        lines.append(
            _row(one.method, one.network, one.recipe, _accuracy(one), "", f"[{sources.index(one.source) + 1}]")
        )
        measured = [own for own in told["measured"] if (own["experiment"], own["method"]) == (name, one.method)]
        if measured and one is _first(experiment, one.method):
            lines += [_measured(own) for own in measured]
    reason = told["missing"][name]
    ending = [f"\nNot yet measured as published: {reason}.\n"]
    return "\n".join([*lines, *ending, *(f"{k}. {source}" for k, source in enumerate(sources, 1)), ""])


def _first(experiment: Experiment, method: str) -> Published:
    return next(one for one in experiment.published if one.method == method)


def _measured(own: dict[str, Any]) -> str:
    accuracy = ", ".join(f"{ipc}: {value}" for ipc, value in own["accuracy"].items())
    reason = f"{own['reason']} ({own['cost']}; `{own['command']}`)"
    return _row(f"{own['method']}, **measured**", own["network"], own["recipe"], accuracy, str(own["n"]), reason)


def _accuracy(one: Published) -> str:
    words = {
        ipc: f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}" for ipc, (mean, std) in one.accuracy.items()
    }
    return ", ".join(f"{ipc}: {text}" for ipc, text in words.items())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    (DOCS / "reproduction.md").write_text(page(), encoding="utf-8")
