"""The dataset cards of a distilled set, as the Hugging Face hub reads them: the set's own, and a longer one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attar.core.places import portable_all

if TYPE_CHECKING:
    from attar.sets.distilled import DistilledSet
    from attar.sets.near_copies import Nearest


@dataclass(frozen=True)
class Score:
    """What a network came to that was trained on the set, in words."""

    judged: str
    """The network, the recipe, the test images."""
    accuracy: str
    """In per cent, with n."""
    random: str
    """The same of random real images, as many; nothing where these were not judged."""


def card(manifest: dict[str, Any]) -> str:
    """A Hugging Face dataset card for the set."""
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
    names = "\n".join(f"{label}. {_escaped(name)}" for label, name in enumerate(manifest["classes"]))
    return CARD.format(
        front=json.dumps(front, indent=1),
        count=count,
        classes=len(manifest["classes"]),
        ipc=manifest["ipc"],
        rows=rows,
        names=names,
        mosaics=MOSAICS.format(formation=manifest["formation"]) if "formation" in manifest else "",
    )


def hub_card(distilled: DistilledSet, licence: str | None, scores: Sequence[Score], nearest: Sequence[Nearest]) -> str:
    """The set's card with its licence, sizes, scores, near copies, settings and intended use."""
    manifest = distilled.manifest
    front, _, body = card(manifest).removeprefix("---\n").partition("\n---\n")
    meta = json.loads(front) | ({} if licence is None else {"license": licence})
    body, classes, names = body.partition("\n## Classes\n")
    settings = dict(_flat(portable_all(manifest["method"])))
    tables = "".join(
        [
            _section("What it holds", [*_sizes(distilled), ("licence of the source data", licence or UNLICENSED)]),
            _section("Scores", [(score.judged, _both(score)) for score in scores]) or UNSCORED,
            _section("Near copies", [(one.kind, str(one)) for one in nearest]) or UNMEASURED,
            _section("Settings", list(settings.items())),
        ]
    )
    return f"---\n{json.dumps(meta, indent=1)}\n---\n{body}{tables}{INTENDED}{classes}{names}"


def _sizes(distilled: DistilledSet) -> list[tuple[str, str]]:
    from PIL import Image

    pixels = size = 0
    for file in (file for files in distilled.files() for file in files):
        with Image.open(file) as image:
            pixels += image.width * image.height
        size += file.stat().st_size
    count = len(distilled.manifest["images"])
    return [("images", f"{count:,}"), ("pixels", f"{pixels:,}"), ("bytes of the images", f"{size:,}")]


def _both(score: Score) -> str:
    return f"{score.accuracy}; random real images {score.random}" if score.random else score.accuracy


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A heading with a table of two columns; nothing where there are no rows."""
    if not rows:
        return ""
    lines = "\n".join(f"| {_escaped(name)} | {_escaped(value)} |" for name, value in rows)
    return f"\n## {title}\n\n| | |\n|---|---|\n{lines}\n"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "is":
            yield prefix + name, "none" if value is None else str(value)


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("method", manifest["method"]["name"]), ("seed", manifest["seed"]), ("data", manifest["data"]["spec"])]
    facts += [("formation", manifest["formation"])] if "formation" in manifest else []
    if manifest["prior"] is not None:
        facts.append(("prior", manifest["prior"]["source"]))
    return [(name, _escaped(str(value))) for name, value in facts]


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.splitlines()))


MOSAICS = """Each is a mosaic of {formation} x {formation} images, row by row. Networks learn from each of these,
enlarged to the size of the mosaic (bilinear): `attar.DistilledDataset(DIR)` gives them so, `attar expand` writes them.

"""
CARD = """---
{front}
---

# A distilled data set

{count} images of {classes} classes, {ipc} per class, made by [Attar](https://pypi.org/project/attar/).

| | |
|---|---|
{rows}

{mosaics}Every setting, seed, version and file digest is in `manifest.json`; `attar verify` checks the files against it.

```python
from torchvision.datasets import ImageFolder
train = ImageFolder("images")                                # labels in the order below

from datasets import load_dataset
train = load_dataset("imagefolder", data_dir=".", split="train")
```

## Classes

{names}
"""
UNLICENSED = "not stated: look it up before you use or pass on these images"
UNSCORED = """
## Scores

None were given: `attar evaluate` measures what a network learns from these images.
"""
UNMEASURED = """
## Near copies

Not measured. A distilled image may be close to a real one, or be one; `attar nearest` tells.
"""
INTENDED = """
## Intended use

Research on learning from few images: training and comparing networks, architecture search, replay, tests of a training
pipeline. A network that is trained on these images alone knows less than one trained on all of the data, and less
evenly: measure it on real images of your own before you rely on it. The images may show what the source data show,
people included, and are no way to make data anonymous. Scores hold for the network, recipe and number of images that
stand beside them.
"""
