"""Distilled sets as a page names them, each apart from the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from attar.core.portable_paths import portable
from attar.evaluation.records import Record
from attar.sets.distilled import DistilledSet
from attar.sets.mosaics import grid_words


def method_names(sets: Sequence[DistilledSet], records: Sequence[Record]) -> dict[str, str]:
    """A set's absolute path -> what it is called, and as much more as tells it from others of its IPC.

    It is called by its method's label in an experiment, or else by the method's name, and by its formation.
    """
    labels = {record.path: record.trial.label for record in records if record.trial}
    uses = [(path_of(s), s.manifest["method"]["name"], s.manifest["seed"], s.manifest["ipc"]) for s in sets]
    uses += [(record.path, record.method, record.seed, record.ipc) for record in records if not record.of_all_data]
    formations = {path_of(one): one.formation for one in sets} | {one.path: one.formation for one in records}
    uses = [(path, _named(labels.get(path, method), formations[path]), seed, ipc) for path, method, seed, ipc in uses]
    names: dict[str, str] = {}
    for method in dict.fromkeys(name for _, name, _, _ in uses):
        own = dict.fromkeys((path, seed, ipc) for path, name, seed, ipc in uses if name == method)
        for more in ("", ", seed {seed}", " ({stem})", " ({place})", " ({place}, {number})"):
            called = {
                path: method + more.format(seed=seed, stem=_stem(Path(path)), place=portable(path), number=number)
                for number, (path, seed, _) in enumerate(own, 1)
            }
            if len({(called[path], ipc) for path, _, ipc in own}) == len(own):
                break
        names |= called
    return names


def _named(method: str, formation: int) -> str:
    return f"{method} ({grid_words(formation)})" if formation > 1 else method


def path_of(distilled: DistilledSet) -> str:
    """The absolute path of a set's folder."""
    return str(distilled.folder.resolve())


def _stem(folder: Path) -> str:
    return folder.parent.name if re.fullmatch(r"ipc-\d+", folder.name) else folder.name
