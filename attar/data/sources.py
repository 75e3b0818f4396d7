"""The words for data: `digits`, `parquet:PATH`, `imagefolder:PATH`, `hf:REPO`, `torchvision:NAME`, and `@SPLIT`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from attar.core.errors import AttarError, suggestion
from attar.core.hub_ids import near
from attar.core.registry import Registry
from attar.core.wording import listed
from attar.data.folder import beside_splits, linked
from attar.data.source_contract import Source, shown

TEST_SPLITS = ("test", "validation", "valid", "val")


class Form(Protocol):
    """What the module of each form offers; that of folders also `beside_splits`."""

    def splits(self, where: str) -> tuple[str, ...]:
        """The splits there are; none if the data is not split."""

    def load(self, where: str, split: str | None) -> Source:
        """The images of a split, or all of them where there are no splits."""


SOURCES = Registry[Form](
    "data source",
    {
        "digits": ("attar.data.digits", "scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, always at hand"),
        "parquet": (
            "attar.data.parquet",
            "parquet:PATH, a file or folder of parquet files in Hugging Face layout",
        ),
        "imagefolder": ("attar.data.folder", "imagefolder:PATH or just PATH, a folder of images for each class"),
        "hf": ("attar.data.hub", "hf:REPO, a data set of the Hugging Face hub"),
        "torchvision": ("attar.data.torchvision_sets", "torchvision:NAME, a data set of torchvision"),
    },
)
"""Each module is a `Form`. @SPLIT behind a spec names a split."""


def canonical_spec(spec: str) -> str:
    """The canonical form of a spec: with its kind, an absolute path, and its split where there are splits.

    Raises:
        AttarError: the spec has no known form, its path is missing, it names a split that is not there, or it names
            none where there are several.
    """
    kind, where, split = _parse(spec)
    if shown(where) != where:
        raise AttarError(f"{shown(spec)}: the path is not UTF-8, and no record could hold it; rename it, or link to it")
    splits = SOURCES.open(kind).splits(where)
    if split is None and kind == "digits":
        split = "train"
    if split is None and kind == "imagefolder":
        _refuse_mixture(spec, where, splits)
    if split is None and len(splits) > 1:
        example = _written(kind, where, "train" if "train" in splits else splits[0])
        raise AttarError(
            f"{spec} has the splits {', '.join(splits)}: name one, for example {example}, so that test images "
            "never slip into training"
        )
    if split is not None and split not in splits:
        raise AttarError(f"{spec}: no split {split!r}{suggestion(split, splits)}; there {_listed(splits)}")
    return _written(kind, where, split or (splits[0] if splits else None))


def open_source(resolved: str) -> Source:
    """The images of a resolved spec."""
    kind, where, split = _parse(resolved)
    return SOURCES.open(kind).load(where, split)


def places(spec: str) -> list[Path]:
    """The file or folder that a spec names, whatever the split, and the folders that links in it lead to.

    Nothing where it names none on this machine.
    """
    try:
        kind, where, _ = _parse(spec)
    except AttarError:
        return []
    if kind == "imagefolder":
        return [Path(where), *linked(Path(where))]
    return [Path(where)] if kind in ("parquet", "hf") and os.path.exists(where) else []


def test_spec(spec: str) -> str:
    """The spec of the test split that belongs to a training spec: its test, validation, valid or val split.

    Raises:
        AttarError: there is none, or the spec already holds test images.
    """
    kind, where, split = _parse(canonical_spec(spec))
    if split is None and kind in ("parquet", "imagefolder"):  # one split's own file or folder: look beside it
        own = os.path.basename(where).removesuffix(".parquet").split("-0")[0]
        where = os.path.dirname(where)
        split = own if own in SOURCES.open(kind).splits(where) else None
    splits = SOURCES.open(kind).splits(where) if split and split.lower() not in ("test", "all") else ()
    for wanted in TEST_SPLITS:
        for name in splits:
            if name.lower() == wanted and name != split:
                return _written(kind, where, name)
    raise AttarError(f"{spec} has no test split beside it; name the test images with `test`")


test_spec.__test__ = False  # type: ignore[attr-defined]  # its name is not that of a test


def _refuse_mixture(spec: str, where: str, splits: tuple[str, ...]) -> None:
    """Raises an AttarError where folders that look like splits lie among class folders."""
    if classes := beside_splits(where) if splits else ():
        raise AttarError(
            f"{spec}: {listed(splits)} may be a split, for class folders are in it, or a class, for the class folders "
            f"{listed(classes, 5)} are beside it; for the split write {_written('imagefolder', where, splits[0])}, "
            "for a class put its images into the folder itself, not below it"
        )


def _written(kind: str, where: str, split: str | None) -> str:
    return kind + (f":{where}" if where else "") + (f"@{split}" if split else "")


def _listed(splits: tuple[str, ...]) -> str:
    return f"are {', '.join(splits)}" if splits else "are no splits, so name none"


def _parse(spec: str) -> tuple[str, str, str | None]:
    """Kind, place (a path made absolute) and split of a spec."""
    head, _, split = spec.partition("@")
    if head == "digits":
        return "digits", "", split or None
    kind, colon, rest = spec.partition(":")
    if not (colon and kind in SOURCES and kind != "digits"):
        kind, rest = "", spec
    if not rest.strip():
        raise AttarError(f"{spec!r} names no data; known forms are {_forms()}")
    path, named = (None, None) if kind == "torchvision" else _path_and_split(rest)
    if path is None and kind in ("torchvision", "hf"):
        where, _, split = rest.partition("@")
        return kind, where, split or None
    if path is None:
        raise AttarError(_unknown(spec, kind, rest))
    return kind or ("parquet" if path.endswith(".parquet") else "imagefolder"), path, named


def _path_and_split(text: str) -> tuple[str | None, str | None]:
    """An existing absolute path and the split after it; a path that itself holds an @ is a path first."""
    text = os.path.expanduser(text)
    if os.path.exists(text):
        return os.path.abspath(text), None
    head, at, tail = text.rpartition("@")
    if at and tail and "/" not in tail and os.path.exists(head):
        return os.path.abspath(head), tail
    return None, None


def _unknown(spec: str, kind: str, rest: str) -> str:
    head, _, tail = rest.rpartition("@")
    hint = near(head if head and "/" not in tail else rest)
    if kind:
        return f"{spec}: no file or folder {os.path.abspath(os.path.expanduser(rest))}{hint}"
    head = spec.partition(":")[0].partition("@")[0]
    return f"{spec}: neither a folder nor a known form of data{suggestion(head, SOURCES) or hint}; known are {_forms()}"


def _forms() -> str:
    return (
        "digits, parquet:PATH, imagefolder:PATH, hf:REPO, torchvision:NAME, each with @SPLIT, or the path of a folder"
    )
