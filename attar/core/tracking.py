"""What a training notes of how it goes, for a tracker of accelerate: tensorboard, wandb, trackio and others.

`note` does nothing unless a command tracks. Nothing that is stored depends on a tracker, nor on whether there is one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError, suggestion
from attar.core.processes import rank

PROJECT = "attar"
"""What trackers call the project, or the run."""
RISING = ("wandb",)
"""Trackers that drop what comes after a later step, as each next seed does: they get the step as one of the values."""
_waiting: list[Callable[[], Any]] = []
_trackers: list[Any] = []
_parts: list[str] = []


def note(step: int, **values: float) -> None:
    """Values after a step of the part of the work that is on, under its name."""
    for tracker in list(_trackers):
        told = values | {"step": step} if tracker.name in RISING else values
        named = {"/".join([*_parts, name]): float(value) for name, value in told.items()}
        try:
            tracker.log(named, step=None if tracker.name in RISING else step)
        except Exception as error:
            logging.getLogger("attar").warning("the tracker %s failed, and is left out: %s", tracker.name, error)
            _trackers.remove(tracker)
            _finish(tracker)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Within it what is noted stands under a name."""
    _parts.append(name)
    try:
        yield
    finally:
        _parts.pop()


def beside(place: Path) -> Path:
    """Where a tracker that writes files writes those of a work: beside what that makes, or judges."""
    named = place.resolve() if place.name in ("", "..") else place
    return named.parent / f"{named.name}.tracker"


def check_tracker(name: str) -> Any:
    """The class of a tracker, if it can be used here.

    Raises:
        AttarError: accelerate has none of this name, or its package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = [str(each) for each in LOGGER_TYPE_TO_CLASS]
    if name not in known:
        raise AttarError(f"`tracker` {name}: accelerate has none of this name{suggestion(name, known)}")
    if name in LoggerType.list() and name not in map(str, get_available_trackers()):
        raise AttarError(f"`tracker` {name}: not installed; pip install {name}, or leave `tracker` out")
    return LOGGER_TYPE_TO_CLASS[name]


@contextmanager
def tracking(name: str | None, folder: Path, settings: Mapping[str, Any], dry_run: bool = False) -> Iterator[None]:
    """Within it, after `begin_tracking`, `note` goes to the tracker of this name, of the main process; None: nowhere.

    `folder` is for trackers that write files; `settings` are kept with the run. A dry run starts nothing.

    Raises:
        AttarError: as `check_tracker`.
    """
    if name is None:
        yield
        return
    kind = check_tracker(name)
    if dry_run or rank() > 0:
        yield
        return
    _waiting.append(partial(_started, kind, name, folder, settings))
    try:
        yield
    finally:
        _waiting.clear()
        while _trackers:
            _finish(_trackers.pop())


def begin_tracking() -> None:
    """Starts what `tracking` has named, once all else was checked and before any long work; often is as good as once.

    Raises:
        AttarError: it does not start.
    """
    while _waiting:
        _trackers.append(_waiting.pop()())


def _started(kind: Any, name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate import tracking as accelerates

    # accelerate's own logger, and what runs on the main process alone, would make its state, which is the training's
    accelerates.logger = logging.getLogger(accelerates.__name__)
    try:
        tracker = kind(PROJECT, str(folder)) if kind.requires_logging_directory else kind(PROJECT)
        tracker.main_process_only = False
        tracker.start()
        tracker.store_init_configuration({key: _plain(value) for key, value in settings.items()})
    except Exception as error:
        raise AttarError(f"`tracker` {name}: it does not start: {error}") from error
    return tracker


def _finish(tracker: Any) -> None:
    """Ends a tracker; what was made does not hang on it."""
    try:
        tracker.finish()
    except Exception as error:
        logging.getLogger("attar").warning("the tracker %s did not end well: %s", tracker.name, error)


def _plain(value: Any) -> str | float:
    return value if isinstance(value, bool | int | float | str) else str(value)
