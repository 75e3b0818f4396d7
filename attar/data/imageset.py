"""ImageSet: one labelled set of images, and the views of it that are worked on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attar.core.arguments import checked
from attar.core.errors import AttarError, BadImage, explained, suggestion
from attar.core.rng import numpy_generator
from attar.core.store import Artefact, Store, digest, fingerprint
from attar.core.wording import counted, listed
from attar.data.decode import decoding_error, upright
from attar.data.imagenet import SUBSETS
from attar.data.source_contract import Ints, Source, is_no_file
from attar.data.sources import canonical_spec, open_source
from attar.data.threads import in_threads

_SOURCES: dict[str, Source] = {}


@checked
def load_data(spec: str) -> ImageSet:
    """The images that a spec names (its forms: see `attar.data.sources`); only labels and names are read yet.

    Raises:
        AttarError: an unknown form, a missing path, several splits with none named, an unknown split, a class
            without images, labels that do not fit.
    """
    resolved = canonical_spec(spec)
    source = _SOURCES[resolved] = open_source(resolved)
    return ImageSet(resolved, source, np.arange(len(source.labels)), tuple(range(len(source.classes))))


class ImageSet:
    """One labelled set of images: immutable, and pickled as a spec and row numbers.

    Attributes:
        spec: the canonical spec of the data it is a view of, `parquet:/data/cifar10@train`.
        classes: original class names in label order, unique.
        labels: int64 (N,), read-only.
        skipped: names of unreadable images that were left out.
    """

    def __init__(
        self, spec: str, source: Source, rows: Ints, source_labels: tuple[int, ...], skipped: tuple[str, ...] = ()
    ) -> None:
        """`rows` (N,) are the source's images that are in the set, `source_labels` its classes' labels there."""
        self.spec, self.skipped = spec, skipped
        self._source, self._rows, self._source_labels = source, rows, source_labels
        self.classes = tuple(source.classes[label] for label in source_labels)
        relabelled = np.full(len(source.classes), -1, np.int64)
        relabelled[list(source_labels)] = np.arange(len(source_labels))
        self.labels = relabelled[source.labels[rows]]
        self.labels.setflags(write=False)
        self._digests: dict[int, str] = {}

    def __reduce__(self) -> tuple[Callable[..., ImageSet], tuple[object, ...]]:
        whole = len(self._rows) == len(self._source.labels)
        rows = None if whole else self._rows.astype(np.uint32)
        return _reopened, (self.spec, len(self._source.labels), rows, self._source_labels, self.skipped)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"ImageSet({self.spec!r}, {counted(len(self), 'image')}, {counted(len(self.classes), 'class')})"

    def open(self, index: int) -> Image.Image:
        """The image, upright, as RGB, in its original size (see `attar.data.decode.upright`).

        Raises:
            BadImage: it cannot be decoded; names the image and says why.
        """
        try:
            return upright(self._source.image(int(self._rows[index])))
        except Exception as error:
            raise BadImage(f"{self.name(index)}: {decoding_error(error)}") from error

    def name(self, index: int) -> str:
        """What a message calls the image: "train.parquet, row 17", or its path relative to the folder."""
        return self._source.name(int(self._rows[index]))

    def content(self, index: int) -> bytes:
        """The bytes that identify the image, wherever it lies."""
        return self._source.content(int(self._rows[index]))

    def of_class(self, label: int) -> Ints:
        """Indices (n,) of the images of a class, in the source's order: sorted file names, or rows."""
        return np.flatnonzero(self.labels == label)

    def digest(self, label: int) -> str:
        """A content hash of a class's images, in order; neither other classes, nor place, nor file times matter.

        Of large sets it is remembered in the default store, by path, size and times of the files.
        """
        if label not in self._digests:
            self._digests[label] = self._digest(label, self._rows[self.of_class(label)])
        return self._digests[label]

    def identity(self, label: int) -> dict[str, Any]:
        """A class's images as keys hold them: how many there are, and their digest."""
        return {"count": len(self.of_class(label)), "digest": self.digest(label)}

    @property
    def identities(self) -> list[dict[str, Any]]:
        """The identities of all classes, with their names, in label order."""
        return [{"class": name, **self.identity(label)} for label, name in enumerate(self.classes)]

    def restricted(self, names: Sequence[str]) -> ImageSet:
        """Only these classes, relabelled from 0 in the data's own order.

        Raises:
            AttarError: no name at all, or unknown ones: all of them are listed, with close matches.
        """
        unknown = [name for name in dict.fromkeys(names) if name not in self.classes]
        if unknown or not names:
            raise AttarError(_no_such_classes(unknown, self.classes) if unknown else "no class is named")
        pairs = zip(self._source_labels, self.classes, strict=True)
        source_labels = tuple(label for label, name in pairs if name in set(names))
        return self._view(np.isin(self._source.labels[self._rows], source_labels), source_labels=source_labels)

    def long_tailed(self, factor: float, seed: int) -> ImageSet:
        """Class c of C keeps the largest class's count times factor ** (-c / (C - 1)), rounded down, as in CIFAR-LT.

        Which images are kept depends on the seed and the class's name alone, and a larger factor keeps fewer of the
        same ones. At least one image of each class is kept, and no class grows.

        Raises:
            AttarError: the factor is below 1.
        """
        if not factor >= 1:
            raise AttarError(f"the imbalance factor is the largest class over the smallest, at least 1, not {factor}")
        counts = np.bincount(self.labels, minlength=len(self.classes))
        keep = np.zeros(len(self), bool)
        for label, name in enumerate(self.classes):
            share = factor ** (-label / max(len(self.classes) - 1, 1))
            order = numpy_generator(seed, "long-tailed", name).permutation(counts[label])
            wanted = max(1, int(counts.max() * share + 1e-9))
            keep[self.of_class(label)[order[:wanted]]] = True
        return self._view(keep)

    def held_out(self, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Nine tenths of each class, and the other tenth (rounded, at least one image), by seed and class name.

        Raises:
            AttarError: a class has a single image.
        """
        out = np.zeros(len(self), bool)
        for label, name in enumerate(self.classes):
            indices = self.of_class(label)
            if len(indices) < 2:
                raise AttarError(f"class {name!r} has a single image: none can be held out")
            order = numpy_generator(seed, "held-out", name).permutation(len(indices))
            out[indices[order[: max(1, round(len(indices) / 10))]]] = True
        return self._view(~out), self._view(out)

    def without(self, bad: Iterable[int]) -> ImageSet:
        """All images but those of the given indices, which are named in `skipped`."""
        bad = sorted(bad)
        keep = np.ones(len(self), bool)
        keep[bad] = False
        return self._view(keep, skipped=(*self.skipped, *(self.name(index) for index in bad)))

    def chosen(self, indices: Sequence[int]) -> ImageSet:
        """Only the images of these indices, in this order, of the same classes."""
        return self._view(np.asarray(indices, np.int64))

    def _view(
        self, keep: np.ndarray, source_labels: tuple[int, ...] | None = None, skipped: tuple[str, ...] | None = None
    ) -> ImageSet:
        source_labels, skipped = source_labels or self._source_labels, self.skipped if skipped is None else skipped
        return ImageSet(self.spec, self._source, self._rows[keep], source_labels, skipped)

    def _digest(self, label: int, rows: Ints) -> str:
        def row_hash(row: int) -> str:
            try:
                return digest(self._source.content(row))
            except OSError as error:
                if not is_no_file(error):
                    raise
                return digest(b"")  # counts as empty; `readable` says why it cannot be read

        def content_hash() -> str:
            whole = hashlib.blake2b(digest_size=16)
            for part in in_threads(row_hash, rows.tolist()):
                whole.update(bytes.fromhex(part))
            return whole.hexdigest()

        def make(scratch: Path) -> None:
            (scratch / "digest.txt").write_text(content_hash())

        with explained(f"{self.spec} cannot be read", OSError):
            signature = self._source.signature(rows)
            if signature is None:
                return content_hash()
            files = {"data": self.spec, "class": self.classes[label], "images": len(rows)}
            artefact = Artefact("digests", {**files, "names, sizes and times": fingerprint(signature)})
            return (Store().once(artefact, make) / "digest.txt").read_text()


def _reopened(
    spec: str, length: int, rows: Ints | None, source_labels: tuple[int, ...], skipped: tuple[str, ...]
) -> ImageSet:
    source = _SOURCES.get(spec)
    if source is None:
        source = _SOURCES[spec] = open_source(spec)
    if len(source.labels) != length:
        raise AttarError(f"{spec} has changed while it was in use: {length} images before, {len(source.labels)} now")
    rows = np.arange(length) if rows is None else rows.astype(np.int64)
    return ImageSet(spec, source, rows, source_labels, skipped)


def _no_such_classes(unknown: Sequence[str], classes: Sequence[str]) -> str:
    names = [f"{name!r}{suggestion(name, (*classes, *SUBSETS))}" for name in unknown]
    return f"the data has no class {', '.join(names)}; it has {listed(classes, 10)}"
