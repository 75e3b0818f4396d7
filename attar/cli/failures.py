"""How a command ends that does not come to its end: stopped by a signal, wrong input, a full place, a bug."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from attar.cli.naming import Names
from attar.core.processes import rank

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
SHOWN = 3
"""How many of a kind are named; others are counted."""


@dataclass
class Running:
    """What is known of the command that runs."""

    begun: float = field(default_factory=time.time)
    process: int = field(default_factory=os.getpid)
    options: dict[str, Any] = field(default_factory=dict)
    """The options as they were understood; empty before that."""
    names: Names = field(default_factory=Names)
    """What its fields are called on the command line."""
    stage: str = ""
    """What the progress said last."""
    quiet: bool = False
    """Whether nothing is said but warnings and errors."""
    stats: Path | None = None
    """Where what is done is kept, for programs."""
    stopped: int | None = None
    """The signal that came."""
    reported: bool = False
    """Whether the user has seen it."""

    def spoken(self, text: str) -> str:
        """A text from below, its fields called by their flags."""
        return self.names.spoken(text, self.options)


running = Running()


def watch() -> None:
    """Takes over SIGINT and SIGTERM for the rest of the process, unless they are ignored, as under nohup."""
    global running
    running = Running()
    for number in WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """The first signal lets the command clean up behind it; the next one ends it at once; workers end silently."""
    if os.getpid() != running.process:
        os._exit(128 + number)
    if running.stopped is not None:
        if not running.reported:
            cursor = "\x1b[?25h" if os.isatty(2) else ""
            os.write(2, f"{cursor}\n{_stopped()}\n".encode(errors="replace"))
        os._exit(128 + running.stopped)
    running.stopped = number
    raise KeyboardInterrupt


def report(error: BaseException) -> int:
    """Tells the user how the command ended; returns its exit status."""
    try:
        status = _report(error)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        return 1
    return status


def _report(error: BaseException) -> int:
    if running.stopped is None and isinstance(error, KeyboardInterrupt):
        running.stopped = signal.SIGINT
    if running.stopped is not None:  # whatever a library made of the interruption
        text = _stopped()
        running.reported = True
        print(text, file=sys.stderr)
        return 128 + running.stopped
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if text := _wrong(error):
        which = f" (process {rank()})" if rank() else ""
        print(f"error{which}: {text}", file=sys.stderr)
        return 2
    import traceback

    traceback.print_exception(error)
    print(_bug(), file=sys.stderr)
    return 1


def _wrong(error: BaseException) -> str:
    """What the user can mend, in words; nothing where it is none of that."""
    from attar.core.errors import AttarError

    text = " ".join(str(error).split())
    if isinstance(error, AttarError):
        return running.spoken(str(error))
    if isinstance(error, OSError):
        if error.errno is None or error.strerror is None:
            return str(error)
        if error.filename is None:
            return f"{error.strerror}, {_written_to()}"
        names = (os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes)))
        return f"{' -> '.join(names) or error.filename}: {error.strerror}"
    if type(error).__name__ == "SafetensorError" and "os error" in text:
        return f"{text}, {_written_to()}"
    if isinstance(error, RuntimeError) and "inline_container" in text:
        return f"a checkpoint could not be written; is the disk full? It happened {_written_to()}"
    if _is_memory(error, text):
        return f"not enough memory ({text}): fewer images at a time, smaller ones, or another --device"
    return ""


def _is_memory(error: BaseException, text: str) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in text


def _written_to() -> str:
    from attar.core.store import cache_folder

    named = [running.spoken(f"`{name}` {place}") for name, place in places_to_write()]
    return f"while writing to {' or '.join([*named, f'the cache {cache_folder()}'])}"


def places_to_write() -> list[tuple[str, Path]]:
    """What the command is to write: (option, file or folder)."""
    named = {"out": "out", "json_file": "json"}
    return [(option, Path(value)) for name, option in named.items() if (value := running.options.get(name))]


def _bug() -> str:
    import platform
    from importlib.metadata import version

    from attar import __version__

    where = f"attar {__version__}, Python {platform.python_version()}, torch {version('torch')}, {platform.platform()}"
    return f"This is a bug of Attar. Please report it with the lines above, the command and: {where}"


def _stopped() -> str:
    """What was under way, what of it is kept, and how to go on."""
    from attar.core.store import cache_folder

    while_ = f" while {running.stage}" if running.stage else ""
    results = [*map(_counted, places_to_write()), _cached(cache_folder())]
    return (
        f"{WORDS[signal.Signals(running.stopped or signal.SIGINT)]}{while_}\n"
        f"kept: {'; '.join(filter(None, results)) or 'what was there before; nothing new was finished'}\n"
        "to go on: the same command; it does nothing twice"
    )


def _counted(place: tuple[str, Path]) -> str:
    """What stands in a place that the command writes to: sets, records, the beginning of a set."""
    import json

    from attar.core.wording import counted

    option, path = place
    parts = [f"the teacher that chooses ({teacher})"] if (teacher := _teacher(path)) else []
    sets = [file.parent for file in _glob(path, "manifest.json", "[!.]*/manifest.json", "sets/*/*/*/manifest.json")]
    if sets:
        parts.append(f"{counted(len(sets), 'finished set')} ({_some(sets)})")
    unfinished = _glob(path.parent, f".{path.name}.*.partial") or _glob(path, ".*.partial", "sets/*/*/.*.partial")
    if begun := [folder for folder in unfinished if folder.is_dir()]:  # the files are halves that a kill left
        parts.append(f"what was written so far of {len(begun)} more ({_some(begun)})")
    for file in [path] if path.is_file() else _glob(path, "results.json"):
        try:
            parts.append(f"{counted(len(json.loads(file.read_text(encoding='utf-8'))), 'record')} ({file})")
        except (OSError, ValueError, TypeError):
            continue
    return f"in --{option}, {', '.join(parts)}" if parts else ""


def _teacher(out: Path) -> Path | None:
    """The teacher that a run without a method has trained, if it is there."""
    if running.options.get("method", "") is not None:
        return None
    from attar.distillation.run_without_method import teacher_of

    return teacher if (teacher := teacher_of(out)).is_dir() else None


def _glob(folder: Path, *patterns: str) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern)) if folder.is_dir() else []


def _some(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:SHOWN])) + (", ..." if len(paths) > SHOWN else "")


def _cached(root: Path) -> str:
    """What this command has finished in the cache, and the checkpoints that it left there."""
    done, begun = Counter[str](), []
    for made in (made for kind in _glob(root, "[!.]*") for made in _glob(kind, "*")):
        try:
            written = made if made.name.startswith(".") else made / "meta.json"  # a finished folder's time is its use
            recent = made.is_dir() and written.stat().st_mtime >= running.begun - 1
        except OSError:
            continue
        if recent and not made.name.startswith("."):
            done[made.parent.name] += 1
        elif recent and _glob(made, ".*"):
            begun.append(made)
    parts = [f"{kind} {count}" for kind, count in done.items()]
    parts += [f"the last checkpoint in {_some(begun)}"] if begun else []
    return f"in the cache {root}, {', '.join(parts)}" if parts else ""
