"""docs/performance.md, made from the timings."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import equality, growth, profile
from benchmarks.__main__ import PATHS
from benchmarks.fullsize import NAMES, PLAIN, ROWS, beside_plain, name_of, rows_of

HEAD = """# Speed

Made by `python -m benchmarks --write` from [performance.json](performance.json); do not edit it. `python -m benchmarks`
times each hot path in turns, in one process, with two others that are in `benchmarks/paths/`:

    a  a plain loop over the installed library's network at its best batch and number format; of what is trained or
       labelled, the recipe's batch
    b  the straightforward way of the reference codes: float32, one image at a time, guidance always doubled, images
       encoded at each step, PIL and a DataLoader

A number is how many times as fast Attar is, the median of interleaved rounds, and in brackets the spread; below 1
Attar is slower. On one thread of a CPU the seconds are the processor's, workers' included, so that other work on the
machine does not enter. The ceiling is a product of large matrices in Attar's number format, or a large copy, on the
same machine and threads. Networks have random weights: tiny ones for tests, small ones as for CIFAR-10, full ones
DiT-XL/2 at 256 pixels and the like, few steps of them.
"""

LEVERS = """
## The levers, one by one

AMD EPYC with AVX-512 and bfloat16 instructions, one thread, the CIFAR-10 prior (10.7 M parameters), 26 November 2026;
128 rows through the network, ten interleaved rounds beside other work; times as fast as float32 in calls of 16:

| | 16 rows a call | 32 | 64 | 128 |
|---|---:|---:|---:|---:|
| float32 | 1 | 1.08 (0.67 to 1.19) | | 0.99 (0.96 to 1.09) |
| bfloat16 under autocast | 1.50 (1.42 to 1.68) | | | |
| bfloat16 weights | 1.57 (1.49 to 1.70) | **1.77** (1.67 to 1.85) | 1.92 (1.68 to 2.15) | 2.00 (1.85 to 2.23) |

- **Weights cast once.** In place of autocast wherever the number format is bfloat16 or float16.
- **32 rows a call** of half precision on a CPU: 64 would be a tenth faster for large sets, but ten guided images, 20
  rows, would be padded to 64. In float32 larger calls are not faster beyond the spread: 16 rows and their bytes stay.
- **Both passes of a guided step fill the same batches**, in every format: the bytes are those of two calls, and there
  are never more calls than of two passes apart.
- **Batches are filled across classes**, and only the last call is padded; guides that look back at the images of
  a class make one of each class at a time.
- **Conditioning computed once for all blocks** is not built: 1.04 (0.97 to 1.18) in float32 and 1.07 in bfloat16 at
  16 rows, 1.02 in bfloat16 at 64; at 32 it was not measured, nor was conditioning kept for a whole grid of times.
- **`auto` is bfloat16 on CPUs that multiply it.** Five paired runs on sets of CIFAR-10 (prior samples at guidance 4,
  IPC 10, quick, all test images), bfloat16 less float32 in points with 95 % t intervals, on convnet3-w48 /
  resnet10-bn-w16: sampled in bfloat16 +0.04 ± 0.12 / +0.02 ± 0.63, evaluated in it -0.13 ± 0.17 / +0.07 ± 0.25, both
  0.00 ± 0.40 / +0.03 ± 0.59. `--dtype float32` and `--set precision=float32` are not changed by it. 27 November 2026.
- **Compiled networks** (`--set compile=true` of a recipe): a ConvNet-3 of width 48 learns in 20.5 ms a batch of 50 in
  place of 25.0 in float32, 12.5 in place of 20.2 in bfloat16, for 8 to 15 s once; a ResNet-10 with batch norm is no
  faster (83 ms beside 75 a batch of 100 in float32, 50 beside 50 in bfloat16), so it is off unless asked for. The row
  `evaluate, small` in bfloat16 asks for it, and was timed after those seconds; (a) and (b) are not compiled.
- **Compiled priors** are not built for sampling: block by block 1.10 to 1.15 in bfloat16 at 32 rows of the CIFAR-10
  prior, 1.10 to 1.18 at 4 rows of a DiT-XL/2 of seven blocks, for 14 to 23 s for each number of rows.
- **Parts of a batch that fit the cache** are not built: once memory is kept between batches, a ConvNet's step on
  parts of 50 in place of 100 is 1.07 times as fast, of 10 no faster, and a ResNet's slower.
- **Seeds trained together** (torch.func over stacked weights) are not built: a step of three ConvNets of width 48 on
  100 images each is 0.50 (0.36 to 0.54) times as fast as three steps, in bfloat16 0.45. A GPU has room that this would
  fill: on an H100 a step of a small network takes 8.5 to 12 ms, which its calls take and not their arithmetic
  (four layers at 64 pixels take 9.2 ms, three at 32 pixels 8.5). **CUDA graphs** would save that and are not built.
  Processes side by side fill it: where fifteen share the H100 and 16 cores, each trains at two fifths of its speed, so
  that six times as much is done.
- **On a GPU** the crops of a batch are two products in the place of a call for each image, and a step with hard
  labels waits for no copy: one of 64 images takes ConvNet-4 (48) at 64 pixels 9.2 ms in place of 10.5, ResNet-10 (16)
  12.1 in place of 15.3, ConvNet-3 (48) at 32 pixels 8.5 in place of 11.4 (bfloat16, medians of three rounds in turns,
  H100, 27 November 2026). Batches of a prior's training are drawn in a thread while the last is trained on: 1.03, 1.08
  and 1.10 times as fast beside thirteen other processes; by itself it was not timed.
- **Relabelling** in the recipe's bfloat16, with memory kept and each partner drawn once, is 1.29 times as fast as (a)
  for a ConvNet and 1.07 times for a ResNet-18; before that change it was 0.50 and 0.48 times (two rounds). Default
  recipes of soft labels stay in float32.
- **Reading beside encoding**: the next 64 images are read and decoded while the last are encoded. PNG files are
  written after their class: 9 ms an image of 256 pixels, where a guided sample of DiT-XL/2 in 50 steps took 64 ms of
  an H200; writing them in threads lost finished images to an interruption.
- **Training of priors in bfloat16** takes attention of at most 64 tokens as plain products: gradients of torch's fused
  one take 39 % of a step of 16 tokens. A step is then 1.05, 1.48, 1.29 and 1.11 times as fast with 4, 16, 16 (of a
  wider network) and 64 tokens, with 256 0.90 (medians of four rounds). Minimax's fine-tuning keeps the fused one.
- **The search of D3HR** scores six groups of 4,096 numbers at once, which the cache holds, in place of a hundred: 1.6
  to 2.6 times as fast.
- **Attention** otherwise is torch's scaled dot product (diffusers' default), evaluation networks and codecs are
  channels-last, and a step whose guidance is 1, or whose time is outside `guided_times`, takes one pass.
- **Views** are drawn from keys on the CPU and made on the device, a batch at a time. **Threads** are torch's own;
  `attar doctor` names fewer where other work holds the cores.
- **12 calls of DPM-Solver++** are the default of our own method alone ([exemplars.md](exemplars.md)).
"""

FULL = """## Full-size priors on a CPU

Random weights in their hub layout, two classes at IPC 1 in 2 steps, by every method that suits them: `python -m
benchmarks.fullsize --out DIR`, which goes on where it was; bfloat16, one thread, n = 1. Seconds are the processor's,
since other work took the cores: of the whole command, loading, the digest of the weights, the trial pass of its
forecast and the check of its images included, and of a step of one image, guided, its method's own guide included,
the shortest of the two. In brackets is how many times diffusers' step that is. Each row has a cache of its own with
the latents of the six images alone, which `herding` makes.

On 26 November 2026, on two free threads, Stable Diffusion took Attar 72.5 s (131 s of the processor) and 6.5 GB at
most, diffusers' StableDiffusionPipeline 53.2 s (99 s) and 4.2 GB (n = 1). `minimax` and `rsm` tune DiTs alone.
In their guided steps `igd` takes gradients through the decoder and `dap` through the prior's first blocks: theirs alone
are longer than diffusers' by more than a fifth.
"""

GPU = {
    "sample/full": "one H200, bfloat16, 26 November 2026, torch 2.11.0, diffusers 0.42.1, before weights were cast: "
    "0.79 times (a), 36 % of 794 TFLOP/s; (a) 46 %. Cast weights: 82 ms a call of 128 rows in place of 104",
    "encode/full": "one H200, as above: 128 images of 256 pixels in 0.31 s, without reading files",
    "decode/full": "one H200, as above: 128 images of 256 pixels in 0.76 s, without writing files",
}
"""What docs/results.md has of a GPU, by path and size."""


def page(found: dict[str, dict[str, Any]]) -> str:
    """The page of all timings of a results file."""
    parts = [HEAD]
    machines = sorted({_machine(case) for case in found.values()})
    parts += ["## Machines\n", *(f"- {machine}; {_ceilings(machine, found)}" for machine in machines), ""]
    parts += ["## Paths\n", "| path | work | dtype | against a | against b | of the ceiling | GPU |", "|---" * 7 + "|"]
    on_cpu = {name: case for name, case in found.items() if case["device"] == "cpu"}
    for path in PATHS:
        names = sorted((name for name in on_cpu if name.startswith(f"{path}/")), key=_order)
        parts += [_row(name, on_cpu[name], found) for name in names]
        parts += [_unmeasured(path, size, found) for size in _sizes(path) if not any(f"/{size}/" in n for n in names)]
    return "\n".join([*parts, *_tables(), LEVERS, FULL, *_full_rows(found), ""])


TABLES = {
    profile: """
## What limits them

The operations of torch that take most of each path's time, by `python -m benchmarks.profile`, on the same machine.
Where Attar is level with (a), both spend their time in the same operations: at full size at 51 to 96 % of a large
product's rate, in small networks from 13 %. Sampling is up to a tenth slower, for calls of a fixed number of rows, to
which an image's bytes are held: 32 where (a) has 64, and 1 of a full-size network where (a) has 2. Decoding small
images is an eighth slower, for group normalisation, a third of its time and a seventh of (a)'s. k-means calls
scikit-learn for each batch of as many latents as prototypes, the default of `d4m`, as (b) does and (a) does not; of
small ones that is a fifth of (a)'s speed, 0.06 s in all, and what it spends there was not profiled. The goals of 1.2
to 1.5 times (a) for sampling, inversion, encoding, fine-tuning, training and a ResNet-18 at 224 pixels are not met,
nor that of 4 times for 12 calls beside 50; on a CPU fewer calls save what faster ones cannot (`few_steps`).
""",
    equality: """
## Equality

Fast ways against the library's networks called with one row at a time in float32, by `python -m benchmarks.equality
../shared/priors/cifar10-dit`: the difference's root mean square and its largest value, over the plain root mean square.
""",
    growth: """
## Growth of cost

`attar distill` from an empty cache on synthetic photographs of 64 pixels, one thread, by `python -m benchmarks.growth`:
exponents of a line through four points on log axes, and of the last two points. Memory counts Python and its libraries.
""",
}
"""What stands before the table of each module that makes one, from a JSON file of its own in docs/."""


def _tables() -> list[str]:
    """Those that have been measured."""
    files: dict[Any, Path] = {module: module.RESULTS for module in TABLES}
    return [f"{TABLES[of]}\n{of.table(json.loads(file.read_text()))}" for of, file in files.items() if file.exists()]


def _full_rows(found: dict[str, dict[str, Any]]) -> list[str]:
    """The table of full-size priors: a row for each way, a column for each model."""
    rows = [f"| {row} | {' | '.join(_full(model, row, found) for model in NAMES)} |" for row in (PLAIN, *ROWS)]
    return [f"| | {' | '.join(NAMES.values())} |", "|---" * (1 + len(NAMES)) + "|", *rows]


def _full(model: str, row: str, found: dict[str, dict[str, Any]]) -> str:
    case = found.get(name_of(model, row))
    if case is None:
        return "not yet measured" if row in rows_of(model) else ""
    words = f"{case['processor']:.0f} s, {case['memory'] / 1e9:.1f} GB"
    if "stopped" in case:
        return f"{words}, ended: {case['stopped']}"
    against = beside_plain(model, row, found)
    if against is None:
        return words
    step = f"{words}, a step {min(case['steps']):.2f} s"
    return step if row == PLAIN else f"{step} ({against:.2f})"


def _sizes(path: str) -> list[str]:
    """The sizes of a path that have a row, measured or not."""
    return [size for size in import_module(f"benchmarks.paths.{path}").SIZES if size != "tiny"]


def _unmeasured(path: str, size: str, found: dict[str, dict[str, Any]]) -> str:
    command = f"not yet measured: `python -m benchmarks --only {path} --sizes {size}`"
    return f"| {path}, {size} | {command} | | | | | {_gpu(path, size, found)} |"


def _order(name: str) -> tuple[int, str]:
    _, size, _, dtype = name.split("/")
    return ["tiny", "small", "full"].index(size), dtype


def _row(name: str, case: dict[str, Any], found: dict[str, dict[str, Any]]) -> str:
    path, size, _, dtype = name.split("/")
    share = "" if case["of the ceiling"] is None else f"{case['of the ceiling']:.0%}"
    best = f"{_ratio(case['against best'])}, {case['best']}"
    cells = [
        f"{path}, {size}",
        case["work"],
        dtype,
        best,
        _ratio(case["against straight"]),
        share,
        _gpu(path, size, found),
    ]
    return f"| {' | '.join(cells)} |"


def _gpu(path: str, size: str, found: dict[str, dict[str, Any]]) -> str:
    measured = [case for name, case in found.items() if name.startswith(f"{path}/{size}/cuda/")]
    if measured:
        return f"{_ratio(measured[0]['against best'])}; {measured[0]['machine']['device']}"
    command = f"not yet measured: `python -m benchmarks --device cuda --only {path} --sizes {size}`"
    return GPU.get(f"{path}/{size}", command)


def _ratio(values: list[float]) -> str:
    middle, least, most = values
    return f"**{middle:.2f}** ({least:.2f} to {most:.2f})"


def _ceilings(machine: str, found: dict[str, dict[str, Any]]) -> str:
    """What a machine's cases were measured against: GFLOP/s by number format, and GB/s."""
    rates: dict[str, list[float]] = {}
    for case in found.values():
        if _machine(case) == machine:
            rates.setdefault(f"GFLOP/s in {case['dtype']}", []).append(case["machine"]["GFLOP/s"])
            rates.setdefault("GB/s copied", []).append(case["machine"]["copied GB/s"])
    spans = ((min(of), max(of), unit) for unit, of in sorted(rates.items()))
    return "ceilings " + ", ".join(f"{a:g}{f' to {b:g}' if b > a else ''} {unit}" for a, b, unit in spans)


def _machine(case: dict[str, Any]) -> str:
    about = case["machine"]
    half = ", with bfloat16 instructions" if about["half precision"] else ""
    return (
        f"{about['processor']}, {about['device']}{half}, {about['threads']} threads; torch {about['torch']}, "
        f"diffusers {about['diffusers']}, {about['date']}"
    )
