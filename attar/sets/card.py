"""The dataset card of a distilled set, as the Hugging Face hub reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from attar.core.portable_paths import last_name
from attar.sets.races import races_in_words

SHOWN = 1000
"""Images of a set at most whose real images the card lists; of larger ones only manifest.json does."""


def card(manifest: dict[str, Any]) -> str:
    """A Hugging Face dataset card for the set, without the folders of this machine."""
    count = len(manifest["images"])
    size = (
        "n<1K" if count < 1000 else "1K<n<10K" if count < 10_000 else "10K<n<100K" if count < 100_000 else "100K<n<1M"
    )
    front = {
        "pretty_name": f"{manifest['method']['name']}, {manifest['ipc']} images per class",
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": ["dataset-distillation", "attar", manifest["method"]["name"]],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "images/**"}]}],
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(manifest))
    names = "\n".join(f"{label}. {escaped(name)}" for label, name in enumerate(manifest["classes"]))
    return CARD.format(
        front=json.dumps(front, indent=1),
        count=count,
        classes=len(manifest["classes"]),
        ipc=manifest["ipc"],
        rows=rows,
        names=names,
        notes="".join(_notes(manifest)),
        real=_real_images(manifest),
    )


def _notes(manifest: dict[str, Any]) -> Iterator[str]:
    if "formation" in manifest:
        yield MOSAICS.format(formation=manifest["formation"])
    if "labelled_by" in manifest:
        yield OWN_LABELS.format(of=_of_image(manifest))


def _of_image(manifest: dict[str, Any]) -> str:
    """Of what each of them is, in words."""
    if "formation" not in manifest:
        return "one number for each class"
    return f"a row for each of its {manifest['formation'] ** 2} parts, with one number for each class"


def _real_images(manifest: dict[str, Any]) -> str:
    """Which real images each image is, or was made of; nothing where the manifest does not say."""
    if "real_images" not in manifest:
        return ""
    if len(manifest["images"]) > SHOWN:
        return REAL.format(rows="They stand in `manifest.json`, class by class, under `real_images`.")
    names = [own for of_class in manifest["real_images"] for own in of_class]
    rows = [
        f"| {image} | {escaped(', '.join(map(last_name, own)))} |"
        for image, own in zip(sorted(manifest["images"]), names, strict=True)
    ]
    return REAL.format(rows="\n".join(["| image | real images |", "|---|---|", *rows]))


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("method", manifest["method"]["name"]), ("seed", manifest["seed"]), ("data", manifest["data"]["spec"])]
    facts += [("formation", manifest["formation"])] if "formation" in manifest else []
    if "weights" in manifest:
        facts.append(
            ("weights", "each image has one, in manifest.json; attar.DistilledDataset(DIR).weights gives them")
        )
    if "labelled_by" in manifest:
        facts.append(("soft labels", f"{manifest['label_scheme']}, by {last_name(manifest['labelled_by']['teacher'])}"))
    if manifest["prior"] is not None:
        facts.append(("prior", manifest["prior"]["source"]))
    told = [(name, escaped(last_name(str(value)))) for name, value in facts]
    return told + ([("choice", escaped(raced))] if (raced := races_in_words(manifest)) else [])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.splitlines()))


MOSAICS = """Each is a mosaic of {formation} x {formation} images, row by row. Networks learn from each of these,
enlarged to the size of the mosaic (bilinear): `attar.DistilledDataset(DIR)` gives them so, `attar expand` writes them.

"""
OWN_LABELS = """Each image has a fixed soft label: a teacher's logits, up to a constant, {of}. They are the column
`logits` below, and lie in `labels` (docs/soft-labels.md of Attar).

"""
REAL = """## Real images

Each image is one of the data, or was made of one or several. Files are named relative to the folder of the data.

{rows}

"""
CARD = """---
{front}
---

# A distilled data set

{count} images of {classes} classes, {ipc} per class, made by [Attar](https://pypi.org/project/attar/).

| | |
|---|---|
{rows}

{notes}Every setting, seed, version and file digest is in `manifest.json`; `attar verify` checks the files against it.

```python
from torchvision.datasets import ImageFolder
train = ImageFolder("images")                                # labels in the order below

from datasets import load_dataset
train = load_dataset("imagefolder", data_dir=".", split="train")
```

{real}## Classes

{names}
"""
