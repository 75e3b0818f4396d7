"""Which of torch's operations the hot paths spend their time in, Attar's way and the plain loop's.

    python -m benchmarks.profile --only sample,invert --dtype bfloat16

Kept in docs/profiles.json, from which `python -m benchmarks --write` makes a table.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from attar.core.batching import resolve
from benchmarks.models import named
from benchmarks.timing import Where, Work

RESULTS = Path(__file__).parent.parent / "docs" / "profiles.json"
PATHS = "sample,invert,encode,decode,finetune,train_prior,relabel,evaluate"
SHOWN = 5


def shares(way: Work) -> dict[str, float]:
    """The share of the time of the operations that take most, each without those that it calls."""
    way()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        way()
    spent = dict[str, float]()
    for row in seen.key_averages():
        name = "compiled kernels" if "CompiledFxGraph" in row.key else row.key.removeprefix("aten::")
        spent[name] = spent.get(name, 0.0) + row.self_cpu_time_total
    most = sorted(spent, key=lambda name: spent[name], reverse=True)[:SHOWN]
    return {name: spent[name] / sum(spent.values()) for name in most}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: of each path what takes most."""
    lines = ["| path | Attar | the plain loop |", "|---|---|---|"]
    for name, ways in found.items():
        cells = [", ".join(f"{op} {share:.0%}" for op, share in ways[who].items()) for who in ("ours", "best")]
        lines.append(f"| {' | '.join([name.replace('/', ', '), *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--only", default=PATHS)
    parser.add_argument("--size", default="small")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    where = Where(*resolve("cpu", given.dtype))
    timed = json.loads(RESULTS.with_name("performance.json").read_text())
    found = json.loads(given.json.read_text()) if given.json.exists() else {}
    for path in given.only.split(","):
        case = import_module(f"benchmarks.paths.{path}").case(given.size, where)
        key = f"{path}/{given.size}/cpu/{named(where.dtype)}"
        best = timed[key]["best"] if key in timed else next(reversed(case.best))
        try:
            name = f"{path}/{given.size}/{named(where.dtype)}"
            found[name] = {"ours": shares(case.ours), "best": shares(case.best[best])}
        finally:
            case.close()
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(table({name: found[name]}), flush=True)


if __name__ == "__main__":
    main()
