"""Images that two sets share: the same bytes, whatever they are called and wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from attar.core.store import Artefact, Store, digest
from attar.data.imageset import ImageSet
from attar.data.source_contract import Ints
from attar.data.threads import in_threads


def shared(images: ImageSet, others: ImageSet, store: Store) -> int:
    """How many of some images are also among others."""
    return int(np.isin(_digests(images, store), _digests(others, store)).sum())


def _digests(images: ImageSet, store: Store) -> Ints:
    """A number (N,) for each image's bytes; read once, and kept under the digests of the classes."""

    def of(index: int) -> int:
        try:
            content = images.content(index)
        except OSError:  # `readable` says why it cannot be read
            content = images.name(index).encode()
        return int.from_bytes(bytes.fromhex(digest(content))[:8], "little", signed=True)

    def make(scratch: Path) -> None:
        np.save(scratch / "digests.npy", np.fromiter(in_threads(of, range(len(images))), np.int64, len(images)))

    artefact = Artefact("image-digests", {"images": images.identities})
    numbers: Ints = np.load(store.once(artefact, make) / "digests.npy", allow_pickle=False)
    return numbers
