"""Times each hot path of Attar in turns with plain loops, and writes docs/performance.md from the timings.

python -m benchmarks                                   # all paths at the sizes tiny and small
python -m benchmarks --only sample,invert --sizes full --dtype bfloat16
python -m benchmarks --write                           # docs/performance.md, from docs/performance.json
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

PATHS = (
    "sample",
    "few_steps",
    "invert",
    "encode",
    "finetune",
    "train_prior",
    "relabel",
    "evaluate",
    "kmeans",
    "matching",
    "decode",
    "startup",
)
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "performance.json"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=_Raw)
    parser.add_argument("--only", default=",".join(PATHS), help=f"of {', '.join(PATHS)}")
    parser.add_argument("--sizes", default="tiny,small", help="of tiny, small, full (DiT-XL/2 and the like)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="of Attar; the plain loops take the faster one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where timings are kept; others there stay")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md beside the JSON, time nothing")
    given = parser.parse_args()
    if given.write:
        from benchmarks.page import page

        given.json.with_suffix(".md").write_text(page(json.loads(given.json.read_text())), encoding="utf-8")
        return
    run(given)


_Raw = argparse.RawDescriptionHelpFormatter


def run(given: argparse.Namespace) -> None:
    """Times what is asked for, and keeps each case as soon as it is done."""
    import torch

    from attar.core.batching import resolve
    from benchmarks.models import named
    from benchmarks.timing import Where, measured, product_rate

    if given.threads:
        torch.set_num_threads(given.threads)
    where = Where(*resolve(given.device, given.dtype))
    print(f"ceiling: {product_rate(where.device, where.dtype) / 1e9:,.0f} GFLOP/s in {named(where.dtype)}")
    for path in given.only.split(","):
        module = import_module(f"benchmarks.paths.{path}")
        for size in (size for size in module.SIZES if size in given.sizes.split(",")):
            torch.manual_seed(0)
            found = measured(module.case(size, where), where, given.rounds)
            found |= {"dtype": named(where.dtype), "device": where.device.type, "machine": machine(where)}
            keep(given.json, f"{path}/{size}/{where.device.type}/{named(where.dtype)}", found)
            print(in_words(path, size, found), flush=True)


def machine(where: Any) -> dict[str, Any]:
    """What the timings hold for."""
    import diffusers
    import torch

    from attar.core.batching import device_class
    from attar.core.machine import _processor_name
    from benchmarks.timing import copy_rate, product_rate

    return {
        "processor": _processor_name(),
        "device": device_class(where.device),
        "half precision": torch.cpu._is_avx512_bf16_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "date": date.today().isoformat(),
        "GFLOP/s": round(product_rate(where.device, where.dtype) / 1e9),
        "copied GB/s": round(copy_rate(where.device) / 1e9, 1),
    }


def keep(file: Path, name: str, found: dict[str, Any]) -> None:
    """Puts a case among the others of the file."""
    all_found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**all_found, name: found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def in_words(path: str, size: str, found: dict[str, Any]) -> str:
    """A case in one line."""
    share = found["of the ceiling"]
    against = ", ".join(
        "{:.2f} times as fast as {} ({:.2f} to {:.2f})".format(
            found[f"against {who}"][0], what, *found[f"against {who}"][1:]
        )
        for who, what in (("best", f"the plain loop ({found['best']})"), ("straight", "the straightforward one"))
    )
    of = "" if share is None else f"; {share:.0%} of the ceiling"
    return f"{path}, {size}: {found['work']}, {found['seconds']['ours']:.3g} s: {against}{of}"


if __name__ == "__main__":
    main()
