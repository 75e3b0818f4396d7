"""Records of evaluations: the file that keeps them, and their words for terminals and documents.

A record is what one distilled set, recipe and network came to: "set" (its folder), "method", "seed", "recipe",
"changes" (the fields that differ from the recipe that it is named after), "network", "test" (the test images' spec),
"ipc", "n_train", "n_test", "accuracies" (top-1 after the last epoch, per cent, one a training seed), "best" (the best
epoch of each), "mean", "std", "seconds", "device", "precision" (what was used, where the device lacks the recipe's),
and "baseline": the same of random real images, or None. A record with the method "all data" and no set is of a network
trained on the whole training set. Of soft labels there are also "teacher" ("source", a list where several label,
"digest", "accuracy" on real images ...) and "labels" ("scheme", "epochs", "bytes" ...); of a set that another code
wrote its "layout". Older records lack "changes", "test", "precision" and these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.files import write_json, writing
from attar.core.json_shapes import TABLE, TEXT, WHOLE, Kind, Many, Maybe, Shape, mistake, number, read_json, whole
from attar.core.progress import duration
from attar.evaluation.recipes import MODIFIED

Record = dict[str, Any]

ALL_DATA = "all data"

_PER_CENT = number(0, 100)
_RESULT: dict[str, Shape] = {
    "accuracies": Many(_PER_CENT, least=1),
    "best?": Maybe(Many(_PER_CENT)),
    "mean": _PER_CENT,
    "std?": Maybe(number(0)),
    "seconds": number(0),
    "n_train": whole(1),
    "n_test": whole(1),
}
_SOURCE = Kind(
    "a text, or a list of texts", lambda x: mistake(x if isinstance(x, list) else [x], Many(TEXT, 1)) is None
)
_RECORD: dict[str, Shape] = {
    **dict.fromkeys(("set", "method", "recipe", "network", "device"), TEXT),
    **{f"{name}?": TEXT for name in ("test", "label", "item", "layout")},
    **_RESULT,
    "ipc?": Maybe(whole(1)),
    "seed?": Maybe(WHOLE),
    "seeds?": Many(WHOLE),
    "changes?": TABLE,
    "teacher?": Maybe({"source": _SOURCE, "digest": TEXT}),
    "labels?": Maybe({"scheme": TEXT, "bytes": whole(0)}),
    "baseline?": Maybe(_RESULT),
}
_OF_AN_EXPERIMENT: Shape = {
    **dict.fromkeys(("judged", "item", "label"), TEXT),
    "seed": WHOLE,
    "seeds": Many(WHOLE),
    "distilling": number(0),
    "bytes": whole(0),
}


def read_records(file: Path) -> list[Record]:
    """The records that `attar evaluate --json` wrote to `file`.

    Raises:
        AttarError: the file cannot be read or is not such a list.
    """
    hint = "name a file that `attar evaluate --json` wrote, or a new one"
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


def write_record(file: Path, record: Record) -> None:
    """Adds a record to `file`, in the place of the one with the same identity if there is one.

    The file is replaced whole, and processes that write to it take turns.

    Raises:
        AttarError: the file is there but holds something else.
    """
    import filelock

    with writing(file, "name another file with --json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(file.with_name(f".{file.name}.lock")):
            records = {identity(one): one for one in (read_records(file) if file.exists() else [])}
            records[identity(record)] = record
            write_json(file, list(records.values()))


def identity(record: Record) -> tuple[str, ...]:
    """What a record is of: (the set's absolute path, what judged it, training seeds where an experiment chose them).

    A later record replaces an earlier one.
    """
    path = str(Path(record["set"]).resolve()) if record["set"] else ""
    return path, *judged_by(record), ",".join(map(str, record.get("seeds", [])))


def judged_by(record: Record) -> tuple[str, ...]:
    """(recipe, its changes as JSON, network, test images' spec, teacher): results of equal ones share a table."""
    changes = json.dumps(record.get("changes", {}), sort_keys=True)
    teacher = (record.get("teacher") or {}).get("digest", "")
    return original(record), changes, record["network"], record.get("test", ""), teacher


def original(record: Record) -> str:
    """The name of the recipe that the changes were made to; of older records, the recipe's own."""
    name: str = record["recipe"]
    return name.removesuffix(MODIFIED) if "changes" in record else name


def assignments(record: Record) -> list[str]:
    """The changes of the recipe as `--set` takes them, by field: "flip=false", "steps=300"."""
    return [f"{name}={_word(value)}" for name, value in sorted(record.get("changes", {}).items())]


def terms(record: Record) -> str:
    """The recipe with its changes, and the test images: "quick with flip=false, steps=300; tested on digits@test"."""
    changed = f" with {', '.join(assignments(record))}" if assignments(record) else ""
    tested = f"; tested on {record['test']}" if record.get("test") else ""
    return f"{original(record)}{changed}{_labelled(record)}{tested}"


def _labelled(record: Record) -> str:
    """Who labelled, and how that is stored: ", labels of teachers/airbench, int8, 360,000 bytes"."""
    if not record.get("teacher") or not record.get("labels"):
        return ""
    labels = record["labels"]
    stored = f"{labels['scheme']}, {labels['bytes']:,} bytes" if labels["bytes"] else "online"
    source = record["teacher"]["source"]
    return f", labels of {source if isinstance(source, str) else ', '.join(source)}, {stored}"


def row(record: Record) -> str:
    """A record in one line for the terminal."""
    parts = [record["set"] or ALL_DATA, record["method"]] if record["method"] != ALL_DATA else [ALL_DATA]
    if record["method"] != ALL_DATA:
        parts.append(f"IPC {record['ipc']}")
    parts += [record["network"], f"{accuracy(record)} % (n = {len(record['accuracies'])}, last epoch)"]
    gain = difference(record)
    if gain is not None:
        parts.append(f"random {accuracy(record['baseline'])} %, difference {signed(gain)}")
    return "  ".join([*parts, duration(record["seconds"])])


def markdown_table(records: Iterable[Record]) -> str:
    """A table for documents, ordered by recipe, network and IPC; accuracies in per cent after the last epoch."""
    head = ["method", "IPC", "network", "recipe", "accuracy", "n", "random", "difference", "time"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---|---|---:|---:|---:|---:|---:|"]
    for record in sorted(records, key=lambda one: (terms(one), one["network"], one.get("ipc") or math.inf)):
        gain = difference(record)
        cells = [
            record["method"],
            str(record["ipc"]) if record["method"] != ALL_DATA else "",
            record["network"],
            terms(record),
            accuracy(record),
            str(len(record["accuracies"])),
            "" if gain is None else accuracy(record["baseline"]),
            "" if gain is None else signed(gain),
            duration(record["seconds"]),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def accuracy(result: Record) -> str:
    """Mean and standard deviation over the training seeds, in per cent; the mean alone of a single seed."""
    spread = f" ± {result['std']:.1f}" if len(result["accuracies"]) > 1 else ""
    return f"{result['mean']:.1f}{spread}"


def difference(record: Record) -> float | None:
    """How many points the mean lies above that of random real images; None where these were not evaluated."""
    return None if record.get("baseline") is None else record["mean"] - record["baseline"]["mean"]


def signed(points: float) -> str:
    """A difference with its sign; the minus is the typographer's, and what rounds to zero has no sign."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}") if round(points, 1) else "0.0"


def _wrong(record: Any) -> str | None:
    """What is wrong with a record read from a file, or None."""
    if wrong := mistake(record, _RECORD):
        return wrong
    if record["method"] != ALL_DATA and record.get("ipc") is None:
        return "ipc is missing"
    if "judged" in record and (wrong := mistake(record, _OF_AN_EXPERIMENT)):
        return wrong
    for name, result in (("", record), ("baseline.", record.get("baseline"))):
        if result and len(result["accuracies"]) > 1 and result.get("std") is None:
            return f"{name}std is missing"
    if len(record.get("seeds", record["accuracies"])) != len(record["accuracies"]):
        return f"{len(record['seeds'])} seeds have {len(record['accuracies'])} accuracies"
    return None


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
