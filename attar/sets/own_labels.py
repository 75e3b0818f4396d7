"""The fixed soft labels that a distilled set holds itself: as safetensors, and as a column that `datasets` reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.files import replacing
from attar.core.store import file_digest

if TYPE_CHECKING:
    from torch import Tensor

    from attar.teachers.soft_labels import StoredLabels

LABELS = "labels"
"""The folder within a set, as `attar relabel` writes one: a file of logits, and who gave them."""
COLUMN = "images/metadata.parquet"
"""What `datasets` reads beside the images: of each its class's number, and its logits; of a mosaic, those of its
parts, row by row."""
LABEL_FILES = (COLUMN, f"{LABELS}/labels-00000.safetensors", f"{LABELS}/labels.json")
"""All files of a set that hold labels."""


def stored_labels(folder: Path) -> StoredLabels:
    """The labels of the set in `folder`, which has some.

    Raises:
        AttarError: they are damaged.
    """
    from attar.teachers.soft_labels import StoredLabels

    return StoredLabels(folder / LABELS)


def logits_of(folder: Path) -> Tensor:
    """(N, classes), float32: the logits of all that networks learn from, in order, each row up to a constant.

    Raises:
        AttarError: they are damaged.
    """
    import torch

    stored = stored_labels(folder)
    return stored(0, torch.arange(stored.count))


def add_column(folder: Path, files: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> dict[str, str]:
    """Writes the column of a set whose labels are in `folder`; the digests of all files that hold labels, by name.

    Args:
        files: the images, by their names within the set, in the order of the labels.
        labels: the number of each image's class.
        names: what `datasets` calls the classes, in label order.
    """
    import pyarrow as pa
    from pyarrow import parquet

    logits = logits_of(folder).numpy()
    rows = logits if len(logits) == len(files) else logits.reshape(len(files), -1, logits.shape[1])
    row = pa.list_(pa.float32())
    of_image = row if rows.ndim == 2 else pa.list_(row)
    known = {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}
    table = pa.table(
        {
            "file_name": [Path(file).relative_to("images").as_posix() for file in files],
            "label": pa.array(labels, pa.int64()),
            "logits": pa.array(rows.tolist(), of_image),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": known})})
    with replacing(folder / COLUMN) as temporary:
        parquet.write_table(table, temporary)
    return {name: file_digest(folder / name) for name in LABEL_FILES}


def take_over(folder: Path, origin: Path) -> None:
    """Copies the labels of another set of the same pictures."""
    shutil.copytree(origin / LABELS, folder / LABELS, dirs_exist_ok=True)
