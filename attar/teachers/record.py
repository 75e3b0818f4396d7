"""teacher.json: what the folder of `attar train-teacher` says of its network, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.json_shapes import DIGEST, TEXT, Many, Shape, mistake, number, read_json, whole

RECORD = "teacher.json"
_ACCURACY: dict[str, Shape] = {"accuracy": number(0, 100), "images": whole(1)}
_SHAPE: Shape = {
    "network": TEXT,
    "classes": Many(TEXT, least=1, unique=True),
    "size": whole(1),
    "mean": Many(number(), least=1),
    "std": Many(number(), least=1),
    "weights": DIGEST,
    "held_out?": _ACCURACY,
    "test?": {"data": TEXT, **_ACCURACY},
}


def read_record(folder: Path) -> dict[str, Any]:
    """What a teacher's folder says of it.

    Raises:
        AttarError: there is no such file, or it is not what `attar train-teacher` writes.
    """
    record: dict[str, Any] = read_json(folder / RECORD)
    if wrong := mistake(record, _SHAPE):
        raise AttarError(f"{folder / RECORD} is damaged: {wrong}")
    return record
