"""The columns of a table that hold images and labels, and whether they can."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pyarrow import types

from attar.core.errors import AttarError, suggestion
from attar.core.wording import counted


def columns(features: dict[str, Any], names: list[str], where: str) -> tuple[str, str, list[str] | None]:
    """The image column, the label column and the class names, from the Hugging Face features of a table.

    Images: the column whose feature is Image, else the one named `image` or `img`. Labels: `label`, else the only
    ClassLabel, else `fine_label`.

    Raises:
        AttarError: none of these is there, or several columns hold images.
    """
    features = {name: features[name] for name in names if name in features}
    images = [name for name, kind in features.items() if _kind(kind) == "Image"]
    images = images or [name for name in ("image", "img") if name in names]
    if len(images) != 1:
        raise AttarError(f"{where}: {'several columns' if images else 'no column'} of images among {', '.join(names)}")
    class_labels = [name for name, kind in features.items() if _kind(kind) == "ClassLabel"]
    chosen = ["label"] if "label" in names else class_labels if len(class_labels) == 1 else ["fine_label"]
    if chosen[0] not in names:
        raise AttarError(f"{where}: no column of labels (label, or a single ClassLabel) among {', '.join(names)}")
    return images[0], chosen[0], _class_names(features, chosen[0], where)


def features(schema: Any) -> dict[str, Any]:
    """The features that the `datasets` library writes into a table's metadata; empty if it did not write it."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        return dict(json.loads(text)["info"]["features"]) if text else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def agreed(file: Path, schema: Any, first: Path, needed: tuple[str, str], names: list[str] | None) -> list[str] | None:
    """The class names that a file shares with those before it, `names`; a file need not have any.

    Args:
        needed: the columns of images and of labels, as they are called in the file `first`.

    Raises:
        AttarError: the file has not these columns, or another list of classes.
    """
    for column in needed:
        if column not in schema.names:
            raise AttarError(
                f"{file}: no column {column!r}{suggestion(column, schema.names)}, which {first.name} has; "
                f"its columns are {', '.join(schema.names)}"
            )
    own = _class_names(features(schema), needed[1], str(file))
    if not own or not names or own == names:
        return names or own
    differing = (label for label, (own_name, name) in enumerate(zip(own, names, strict=False)) if own_name != name)
    label = next(differing, None)
    difference = (
        f"{counted(len(own), 'class')}, and not {len(names)}"
        if label is None
        else f"label {label} is {own[label]!r}, and not {names[label]!r}"
    )
    raise AttarError(
        f"{file}: its list of classes is not that of {first.name}: {difference}; write all shards with one list"
    )


def check_images(file: Path, table: Any, column: str) -> None:
    """Looks at a column's type and the file's statistics; of its rows, only the first is read, and only to be shown.

    Args:
        table: the file, as `pyarrow.parquet.ParquetFile`.

    Raises:
        AttarError: the column cannot hold encoded images, or there is none in any row.
    """
    rows, kind = table.metadata.num_rows, table.schema_arrow.field(column).type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if types.is_dictionary(kind):
        kind = kind.value_type
    encoded = types.is_binary(kind) or types.is_large_binary(kind)
    if not rows or (encoded and _nulls(table, column) < rows):
        return
    value = repr(next(table.iter_batches(1, columns=[column])).column(0)[0].as_py())
    value = value if len(value) < 80 else f"{value[:80]} ..."
    raise AttarError(
        f"{file}, row 0: column {column!r} holds no encoded image, but {value}; put the bytes of the image files into "
        "it, as `datasets` does, or read the files themselves with imagefolder:PATH"
    )


def groups(table: Any, column: str) -> list[Any]:
    """The metadata of each row group's bytes of images."""
    parts = []
    for group in map(table.metadata.row_group, range(table.metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        parts += [chunk for chunk in chunks if chunk.path_in_schema in (column, f"{column}.bytes")]
    return parts


def _nulls(table: Any, column: str) -> int:
    """How many rows are known to hold no bytes."""
    known = [chunk.statistics for chunk in groups(table, column) if chunk.is_stats_set]
    return sum(statistics.null_count for statistics in known if statistics.has_null_count)


def _class_names(features: dict[str, Any], label: str, where: str) -> list[str] | None:
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise AttarError(f"{where}: the class names of column {label!r} are no list of texts")
    if twice := next((name for name, count in Counter(names or ()).items() if count > 1), None):
        labels = ", ".join(str(place) for place, name in enumerate(names or ()) if name == twice)
        raise AttarError(
            f"{where}: the class names of column {label!r} have {twice!r} more than once, as labels {labels}; "
            "tell the classes apart by their names"
        )
    return names or None


def _kind(feature: object) -> object:
    return feature.get("_type") if isinstance(feature, dict) else None
