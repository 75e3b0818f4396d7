"""What this machine has: processor, memory, devices, disk, libraries; nothing is changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from attar.core.batching import resolve
from attar.core.errors import AttarError, reason
from attar.core.store import Store, cache_folder, check_writable

LIBRARIES = ("torch", "torchvision", "diffusers", "timm", "accelerate", "scikit-learn", "pyarrow")
EXTRAS = {"transformers": "sd", "datasets": "hf", "peft": "lora", "ray": "ray"}
"""Libraries of Attar's optional parts, and what each part is called."""
PARTS = {
    "sd": "Stable Diffusion as a prior",
    "hf": "data of the Hugging Face hub",
    "lora": "LoRA",
    "ray": "the workers of a Ray cluster",
}
UNKNOWN = 2**33
"""How many bytes of memory are taken for granted where the system does not say."""
CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may use, in its new and its old way."""
ROOM = 2**32
"""Bytes of the disk below which room is scarce."""
SCARCE = "little room: make some with `attar cache prune`, or set ATTAR_CACHE to a folder elsewhere"
SIDE = 1024
"""Rows and columns of the matrices that a device multiplies to show that it works."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    about: str
    """Which thing."""
    state: str
    """What it is, in words."""
    advice: str = ""
    """What to do about it; empty where nothing is wrong."""


def memory() -> int:
    """Bytes of this machine's memory, or of what its container may use; what is free differs from run to run."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        machine = -1
    limits = [file.read_text(encoding="ascii").strip() for file in CONTAINER if file.is_file()]
    return min(machine if machine > 0 else UNKNOWN, *map(int, filter(str.isdigit, limits)), sys.maxsize)


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def examined(version: str) -> list[Finding]:
    """All that Attar needs of a machine, looked at in a few seconds; `version` is Attar's own."""
    return [
        Finding("attar", version),
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(Finding(name, _version(name) or "missing") for name in LIBRARIES),
        *map(_extra, EXTRAS),
        _processor(),
        threads(),
        *map(_device, _devices()),
        _auto(),
        Finding("memory", f"{_gib(memory())} for this process and its children"),
        _cache(),
        _hub(),
    ]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _extra(name: str) -> Finding:
    installed, part = _version(name), EXTRAS[name]
    if installed is not None:
        return Finding(name, f"{installed}, for {PARTS[part]}")
    return Finding(name, "not installed", f"for {PARTS[part]}: pip install 'attar[{part}]'")


def _processor() -> Finding:
    return Finding("processor", f"{_processor_name()}, {cores()} cores, {torch.backends.cpu.get_cpu_capability()}")


def _processor_name() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines() if table.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def threads() -> Finding:
    """Threads that wait for a busy core slow all others down: two can be slower than one."""
    count, load, usable = torch.get_num_threads(), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, cores()
    state = f"{count} a process; load {load:.1f} on {usable} cores"
    fitting = min(usable, max(1, round((os.cpu_count() or usable) - load)))
    if count <= fitting:
        crowded = load >= (os.cpu_count() or usable) + count
        return Finding("threads", state, "other work has all cores: wait for its end, or end it" if crowded else "")
    return Finding("threads", state, f"other work runs beside Attar's: OMP_NUM_THREADS={fitting} may be faster")


def _devices() -> list[torch.device]:
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    mps = [torch.device("mps")] if torch.backends.mps.is_available() else []
    return [*gpus, *mps, torch.device("cpu")]


def _device(device: torch.device) -> Finding:
    """Whether a device multiplies matrices, and how fast in each number format."""
    rates, failures = [], []
    for dtype in (torch.float32, torch.bfloat16):
        try:
            rates.append(f"{_rate(device, dtype):,.0f} GFLOP/s in {str(dtype)[6:]}")
        except (RuntimeError, TypeError) as error:
            failures.append(f"{str(dtype)[6:]}: {(reason(error).splitlines() or ['no reason given'])[0]}")
    if not rates:
        return Finding(str(device), "does not work", "; ".join(failures))
    speeds = ", ".join([*rates, *(f"not in {failure}" for failure in failures)])
    if device.type != "cuda":
        return Finding(str(device), f"works: {speeds}")
    about = torch.cuda.get_device_properties(device)
    return Finding(str(device), f"{about.name}, {_gib(about.total_memory)}, works: {speeds}")


def _auto() -> Finding:
    """What `auto` means of `device` and of `dtype`."""
    try:
        device, dtype = resolve("auto", "auto")
    except AttarError as error:
        return Finding("auto", "not usable", str(error))
    return Finding("auto", f"{device}, {str(dtype)[6:]}")


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two matrices, the best of three."""
    a = torch.ones((SIDE, SIDE), device=device, dtype=dtype)

    def product() -> None:
        float((a @ a)[0, 0])

    product()
    return 2 * SIDE**3 / min(_seconds(product) for _ in range(3)) / 1e9


def _seconds(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _cache() -> Finding:
    from attar.core.cache import contents

    root = cache_folder()
    above = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(above).free
    try:
        Store(root)
        check_writable(root / "new", "the cache")
        state = f"{root}: {_gib(contents().bytes)} used, {_gib(free)} free"
    except AttarError as error:
        return Finding("cache", str(root), str(error))
    return Finding("cache", state, SCARCE if free < ROOM else "")


def _hub() -> Finding:
    from huggingface_hub import constants

    state = "offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "asked where a hub id is named"
    return Finding("hub", f"{state}; its files are kept in {constants.HF_HUB_CACHE}")


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
