"""What dry runs foretell, beside what the same commands then take: a chain of commands on CIFAR-10.

    python benchmarks/forecasts.py --data .../cifar10 --prior .../cifar10-dit --out runs/forecasts

Each command runs dry first, in a process of its own. Told is the time that it says, with looking at images and the
start; taken are the seconds of the whole command. Prints a line for each, and adds it to forecasts.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def commands(data: Path, prior: Path, out: Path) -> dict[str, list[str]]:
    """By a name: the words of each command; later ones use what earlier ones made."""
    train, teacher, made = ["--data", f"parquet:{data}@train"], str(out / "teacher"), str(out / "distill-prior")
    four = [*train, "--classes", "airplane,cat,ship,truck", "--ipc", "10"]
    own = [*train, "--codec", "pixel", "--size", "16", "--steps", "150", "--batch", "64", "--report-samples", "50"]
    own += ["--set", "training.hidden=96"]
    network, labels = ["--network", "convnet3-w48"], ["--recipe", "fkd-soft-cifar"]
    chain = {
        "train-teacher": ["train-teacher", *train, "--network", "convnet3-w32", "--epochs", "3", "--out", teacher],
        "train-prior": ["train-prior", *own, "--out", str(out / "own")],
        "evaluate": ["evaluate", made, *network, "--seeds", "2", "--json", str(out / "results.json")],
        "relabel": ["relabel", made, *labels, "--set", "epochs=200", "--teacher", teacher, "--out", str(out / "soft")],
        "nearest": ["nearest", made, "--features", "pixels,latents"],
        "waterfall": [
            "waterfall",
            made,
            *network,
            "--change",
            "flip=false",
            "--seeds",
            "1",
            "--out",
            str(out / "fall"),
        ],
    }
    methods = {
        "prior": [],
        "d3hr": ["fit.steps=10", "sampler.steps=20", "fit.per_class=100"],
        "minimax": ["fit.max_steps=150", "sampler.guided_channels=none"],
        "exemplars": [],
        "d4m": [],
        "rded": [f"teacher={teacher}"],
    }
    for name, settings in methods.items():
        words = ["distill", *four, "--method", name, "--out", str(out / f"distill-{name}")]
        words += [] if name == "rded" else ["--prior", str(prior)]
        chain[f"distill {name}"] = words + [word for setting in settings for word in ("--set", setting)]
    return chain


ORDER = (
    "train-teacher,train-prior,distill prior,distill d3hr,distill minimax,distill exemplars,distill d4m,distill rded,"
)
ORDER += "evaluate,relabel,nearest,waterfall"


def ran(words: list[str], cache: Path) -> tuple[str, float]:
    begun = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "attar", *words],
        env={**os.environ, "ATTAR_CACHE": str(cache)},
        capture_output=True,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"attar {' '.join(words)}\n{run.stderr}")
    return run.stdout, time.monotonic() - begun


def told(text: str) -> float | None:
    """The first time in a text, and what it says of looking at images and of the start, in seconds; None: nothing."""
    first = re.search(r"about ([\d.,]+) (s|min|h)\b", text)
    others = (rf"{words} ([\d.,]+) (s|min|h)\b" for words in ("looked at, about", "read and check took"))
    found = [first, *(re.search(pattern, text) for pattern in others)]
    if first is None:
        return None
    return sum(float(each[1].replace(",", "")) * SECONDS[each[2]] for each in found if each)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=ORDER)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    chain, file = commands(asked.data, asked.prior, asked.out), asked.out / "forecasts.json"
    kept = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else {}
    about = {"cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    for name in asked.only.split(","):
        text, dry = ran([*chain[name], "--dry-run"], asked.out / "cache")
        seconds, load = told(text), os.getloadavg()[0]
        _, taken = ran(chain[name], asked.out / "cache")
        factor = max(taken / seconds, seconds / taken) if seconds else None
        kept[name] = {"told": seconds, "taken": taken, "factor": factor, "dry": dry, "load": load, "says": text.strip()}
        print({word: value for word, value in {"command": name, **kept[name]}.items() if word != "says"}, flush=True)
        file.write_text(json.dumps({**about, "torch": torch.__version__, "rows": kept}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
