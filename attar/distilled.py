"""The product on disk: images that other tools read as they are, a manifest that says how they came about, a card."""

from __future__ import annotations

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.errors import AttarError
from attar.store import file_digest, write_json

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
SPLIT_WORDS = frozenset(
    ["train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval", "evaluation"]
)


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set opened from its folder."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Original class names in label order."""
        return tuple(self.manifest["classes"])

    def files(self) -> list[list[Path]]:
        """The image files of each class, in order."""
        names = [folder_name(label, name, len(self.classes)) for label, name in enumerate(self.classes)]
        files: dict[str, list[Path]] = {name: [] for name in names}
        for relative in sorted(self.manifest["images"]):
            files[Path(relative).parent.name].append(self.folder / relative)
        return [files[name] for name in names]


def open_distilled(folder: Path) -> DistilledSet:
    """The distilled set in `folder`.

    Raises:
        AttarError: there is none, or a newer Attar wrote it.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        inside = sorted(child.parent.name for child in folder.glob("*/manifest.json"))
        hint = f"; there are sets inside it: {', '.join(inside)}" if inside else ""
        raise AttarError(f"{folder}: holds no distilled set (no manifest.json){hint}")
    manifest = json.loads(file.read_text(encoding="utf-8"))
    if manifest.get("format", 0) > FORMAT:
        raise AttarError(
            f"{folder}: written by a newer Attar ({manifest.get('attar')}); this one reads format {FORMAT}"
        )
    return DistilledSet(folder, manifest)


def find_distilled(folder: Path) -> list[DistilledSet]:
    """The set in `folder`, or the sets one folder below it (one an IPC), in order of their IPC.

    Raises:
        AttarError: there is none.
    """
    if (folder / "manifest.json").is_file():
        return [open_distilled(folder)]
    inside = [open_distilled(file.parent) for file in folder.glob("*/manifest.json")]
    return sorted(inside, key=lambda one: int(one.manifest["ipc"])) or [open_distilled(folder)]


def folder_name(label: int, name: str, classes: int) -> str:
    """`<nnn>_<safe class name>`: ASCII, sorting in label order, never a path, never taken for the name of a split."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", plain)
    safe = "_".join(word + "x" if word.lower() in SPLIT_WORDS else word for word in words)[:60] or "class"
    return f"{label:0{max(3, len(str(classes - 1)))}d}_{safe}"


def write_distilled(
    folder: Path,
    classes: Sequence[str],
    images: Iterable[tuple[int, int, np.ndarray[Any, np.dtype[np.uint8]]]],
    manifest: dict[str, Any],
) -> None:
    """Writes a distilled set atomically: `folder` appears, whole, when its last image is written.

    Args:
        images: (label, index within the class, uint8 (H, W, 3)).
        manifest: everything but the images' digests, which are added here.

    Raises:
        AttarError: something stands where `folder` would go.
    """
    from PIL import Image

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    digests = {}
    try:
        for label, index, pixels in images:
            relative = f"images/{folder_name(label, classes[label], len(classes))}/{index:04d}.png"
            file = partial / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            digests[relative] = file_digest(file)
        whole = {"format": FORMAT, **manifest, "classes": list(classes), "images": dict(sorted(digests.items()))}
        (partial / "README.md").write_text(card(whole), encoding="utf-8")
        write_json(partial / "manifest.json", whole)
        try:
            os.rename(partial, folder)
        except OSError as error:
            raise AttarError(f"{folder}: cannot be written, something else is there ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify(folder: Path) -> list[str]:
    """What is wrong with a distilled set: missing, extra and altered files, one line each; an empty list if nothing."""
    distilled = open_distilled(folder)
    expected: dict[str, str] = distilled.manifest["images"]
    allowed = {"manifest.json", "README.md"}
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    problems = [f"missing: {name}" for name in expected if name not in found]
    problems += [f"extra: {name}" for name in sorted(found) if name not in expected and name not in allowed]
    problems += [
        f"altered: {name}" for name, digest in expected.items() if name in found and file_digest(found[name]) != digest
    ]
    return problems + [f"missing: {name}" for name in sorted(allowed - found.keys())]


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
    )


def _facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [("method", manifest["method"]["name"]), ("seed", manifest["seed"]), ("data", manifest["data"]["spec"])]
    if manifest["prior"] is not None:
        facts.append(("prior", manifest["prior"]["source"]))
    return [(name, _escaped(str(value))) for name, value in facts]


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text.replace("\n", " "))


CARD = """---
{front}
---

# A distilled data set

{count} images of {classes} classes, {ipc} per class, made by [Attar](https://pypi.org/project/attar/).

| | |
|---|---|
{rows}

Every setting, seed, version and file digest is in `manifest.json`; `attar verify` checks the files against it.

```python
from torchvision.datasets import ImageFolder
train = ImageFolder("images")                                # labels in the order below

from datasets import load_dataset
train = load_dataset("imagefolder", data_dir=".", split="train")
```

## Classes

{names}
"""
