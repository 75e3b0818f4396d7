"""The file of an evaluation's records, read, checked and written.

In it, a JSON list, a record is flat: the fields of `Record`, then those of `Trial`. Old records may lack "test",
"changes", "seed", "best", "learnt", "chance" and "precision".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.files import write_json, writing
from attar.core.json_shapes import (
    FLAG,
    TABLE,
    TEXT,
    WHOLE,
    Many,
    Maybe,
    Shape,
    ValueKind,
    mistake,
    number,
    read_json,
    whole,
)
from attar.core.store import Artefact, Store
from attar.evaluation.records import ALL_DATA, Record, Result, Trial

_PER_CENT = number(0, 100)

_TEST = ValueKind(
    "an epoch and an accuracy",
    lambda x: isinstance(x, list) and len(x) == 2 and whole(1).holds(x[0]) and _PER_CENT.holds(x[1]),
)

_RESULT: dict[str, Shape] = {
    "accuracies": Many(_PER_CENT, least=1),
    "best?": Maybe(Many(_PER_CENT)),
    "curves?": Many(Many(_TEST, least=1)),
    "learnt?": Many(_PER_CENT),
    "chance?": _PER_CENT,
    "mean": _PER_CENT,
    "std?": Maybe(number(0)),
    "seconds": number(0),
    "n_train": whole(1),
    "n_test": whole(1),
}

_SOURCE = ValueKind(
    "a text, or a list of texts", lambda x: mistake(x if isinstance(x, list) else [x], Many(TEXT, 1)) is None
)

_RECORD: dict[str, Shape] = {
    **dict.fromkeys(("set", "method", "recipe", "network", "device"), TEXT),
    **{f"{name}?": TEXT for name in ("test", "label", "item", "layout", "precision")},
    **_RESULT,
    "ipc?": Maybe(number(0)),
    "seed?": Maybe(WHOLE),
    "seeds?": Many(WHOLE),
    "formation?": whole(1),
    "reduced_by?": whole(1),
    "weighted?": FLAG,
    "changes?": TABLE,
    "teacher?": Maybe({"source": _SOURCE, "digest": TEXT}),
    "labels?": Maybe({"scheme": TEXT, "bytes": whole(0)}),
    "baseline?": Maybe(_RESULT),
}

_TRIAL: Shape = {
    **dict.fromkeys(("judged", "item", "label"), TEXT),
    "seed": WHOLE,
    "seeds": Many(WHOLE),
    "distilling": number(0),
    "bytes": whole(0),
    "pixels?": Maybe(whole(0)),
}


def read_records(file: Path) -> list[Record]:
    """The records that `attar evaluate --json` wrote to `file`.

    Raises:
        AttarError: the file cannot be read or is not such a list.
    """
    return [_record(entry) for entry in _entries(file)]


def write_record(file: Path, record: Record, remedy: str = "choose another `out`") -> None:
    """Adds a record to the end of `file`; one with the same identity goes.

    The file is replaced whole, and processes that write to it take turns. The other records stay as they are written.

    Args:
        remedy: what else helps where the file cannot be written.

    Raises:
        AttarError: the file is there but holds something else.
    """
    with writing(file, remedy):
        file.parent.mkdir(parents=True, exist_ok=True)
        with Store().lock(Artefact("writing", {"file": os.path.realpath(file)})):
            entries = {_record(entry).identity: entry for entry in (_entries(file) if file.exists() else [])}
            entries.pop(record.identity, None)
            entries[record.identity] = record.as_json()
            write_json(file, list(entries.values()))


def _entries(file: Path) -> list[dict[str, Any]]:
    """The records of a file as JSON objects, each of them checked."""
    hint = "name a file of records that `attar evaluate` wrote, or a new one"
    try:
        records = read_json(file)
    except AttarError as error:
        raise AttarError(f"{error}; {hint}") from error
    if not isinstance(records, list):
        raise AttarError(f"{file} is not a list of results; {hint}")
    for position, record in enumerate(records):
        if wrong := _wrong(record):
            raise AttarError(f"{file}: entry {position} is not a result ({wrong}); {hint}")
    return records


def _record(entry: Mapping[str, Any]) -> Record:
    """A checked JSON object as a record; keys that no field has are left out."""
    common = {name: entry[name] for name in ("recipe", "network", "device")} | {"ipc": entry.get("ipc") or 0}
    baseline = None if entry.get("baseline") is None else Result(**_known(Result, {**common, **entry["baseline"]}))
    trial = Trial(**_known(Trial, entry)) if "judged" in entry else None
    return Record(**_known(Record, {**entry, **common, "baseline": baseline, "trial": trial}))


def _known(kind: type[Result] | type[Trial], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass that an entry has, lists as tuples; what old files lack is empty."""
    values = {**entry, "best": entry.get("best") or (), "std": entry.get("std") or 0.0}
    named = {field.name: values[field.name] for field in fields(kind) if field.name in values}
    return {name: _frozen(value) for name, value in named.items()}


def _frozen(value: Any) -> Any:
    """Lists, and lists within them, as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _wrong(record: Any) -> str | None:
    """What is wrong with a record read from a file, or None."""
    if wrong := mistake(record, _RECORD):
        return wrong
    if record["method"] != ALL_DATA and record.get("ipc") is None:
        return "ipc is missing"
    if record["method"] != ALL_DATA and (wrong := mistake(record, {"ipc": whole(1)})):
        return wrong
    if "judged" in record and (wrong := mistake(record, _TRIAL)):
        return wrong
    for name, result in (("", record), ("baseline.", record.get("baseline"))):
        if result and len(result["accuracies"]) > 1 and result.get("std") is None:
            return f"{name}std is missing"
        if result and _differ(result.get("curves") or [], len(result["accuracies"])):
            return f"{name}curves are not of the same epochs, one for each of the accuracies"
    if len(record.get("seeds", record["accuracies"])) != len(record["accuracies"]):
        return f"seeds lists {len(record['seeds'])}, and accuracies {len(record['accuracies'])}"
    return None


def _differ(curves: Sequence[Sequence[Sequence[float]]], seeds: int) -> bool:
    """Whether curves are not one for each seed, tested after the same epochs."""
    epochs = {tuple(epoch for epoch, _ in curve) for curve in curves}
    return len(curves) not in (0, seeds) or len(epochs) > 1
