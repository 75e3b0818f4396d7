"""How seconds and memory grow with the number of images, of classes, and of images made for each class.

    python -m benchmarks.growth --out runs/growth

Makes synthetic photographs of 64 pixels and a small random latent prior, as benchmarks/large.py, and runs `distill`
on one thread with an empty cache for each point. Kept in docs/growth.json, from which `python -m benchmarks --write`
makes a table: processor seconds and peak memory at both ends, and the exponents of a line through all points on log
axes. What a command takes at its start, whatever its work, bends that line down; the exponent of the last two points is
beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.large import made, prior

RESULTS = Path(__file__).parent.parent / "docs" / "growth.json"
STEPS = ["--set", "sampler.steps=10"]
METHODS = {
    "random": [],
    "d4m": STEPS,
    "d3hr": [*STEPS, "--set", "fit.steps=4", "--set", "fit.times=500", "--set", "subsets=200"],
    "exemplars": [*STEPS, "--set", "fit.steps=4", "--set", "fit.time=500"],
}
AXES = {
    "images": [(5_000, 10, 10), (10_000, 10, 10), (20_000, 10, 10), (40_000, 10, 10)],
    "classes": [(10_000, 10, 10), (10_000, 20, 10), (10_000, 40, 10), (10_000, 80, 10)],
    "images of a class that are made": [(5_000, 10, 10), (5_000, 10, 20), (5_000, 10, 40), (5_000, 10, 80)],
}
"""Images, classes and IPC of each point."""


def used(words: Sequence[str], cache: Path) -> tuple[float, int]:
    """Processor seconds of a command, and the most bytes of memory that it held, libraries included."""
    program = "import resource, runpy, sys; sys.argv = ['attar', *sys.argv[1:]]\n"
    program += "try: runpy.run_module('attar', run_name='__main__')\n"
    program += "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "ATTAR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"attar {' '.join(words)}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, 1024 * int(done.stderr.split()[-1])


def point(out: Path, method: str, images: int, classes: int, ipc: int) -> tuple[float, int]:
    """One distillation from an empty cache."""
    data, cache, folder = made(out / f"data-{images}-{classes}", images, classes), out / "cache", out / "set"
    words = ["distill", "--data", f"parquet:{data}@train", "--method", method, "--ipc", str(ipc), *METHODS[method]]
    words += [] if method == "random" else ["--prior", str(prior(out / f"prior-{classes}", classes))]
    for place in (cache, folder):
        shutil.rmtree(place, ignore_errors=True)
    return used([*words, "--device", "cpu", "--quiet", "--out", str(folder)], cache)


def exponents(sizes: Sequence[float], found: Sequence[float]) -> tuple[float, float]:
    """The slope of a line on log axes through all points, and that between the last two."""
    x, y = np.log(sizes), np.log(found)
    return float(np.polyfit(x, y, 1)[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])


def table(found: dict[str, list[list[float]]]) -> str:
    """Markdown of what was found: for each method and axis both ends, and exponents."""
    head = ["method", "with", "processor seconds", "exponent (last two)", "GiB", "exponent (last two)"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, points in found.items():
        method, axis = name.split("/")
        column = list(AXES).index(axis)
        sizes = [size[column] for size in AXES[axis]]
        seconds, memory = ([own[i] for own in points] for i in (0, 1))
        (s, s_last), (m, m_last) = exponents(sizes, seconds), exponents(sizes, memory)
        cells = [method, f"{axis}: {sizes[0]:,} to {sizes[-1]:,}", f"{seconds[0]:.0f} to {seconds[-1]:.0f}"]
        cells += [f"{s:.2f} ({s_last:.2f})", f"{memory[0] / 2**30:.2f} to {memory[-1] / 2**30:.2f}"]
        lines.append(f"| {' | '.join([*cells, f'{m:.2f} ({m_last:.2f})'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(given.json.read_text()) if given.json.exists() else {}
    for method in given.only.split(","):
        for axis, sizes in AXES.items():
            measured = [point(given.out, method, *size) for size in sizes]
            found[f"{method}/{axis}"] = measured
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(table({f"{method}/{axis}": measured}), flush=True)


if __name__ == "__main__":
    main()
