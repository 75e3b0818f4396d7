"""Priors: class-conditional diffusion models behind one contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attar.errors import AttarError
from attar.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from attar.priors.prior import Prior
    from attar.store import Store


def load_prior(
    source: str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tile: int | None = None,
    codec: str | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Prior:
    """The prior named by `source`: `digits`, a diffusers DiTPipeline folder or hub id, or an original checkpoint file.

    `codec` replaces the prior's own: "pixel", or a folder or hub id of an AutoencoderKL or AutoencoderTiny. Without a
    `tile`, one is chosen by probing the device (attar.tile); one that is given is probed too. The store remembers both.

    Raises:
        AttarError: nothing of that name can be loaded, the device or dtype is not usable, or at the given tile a row's
            bytes would depend on the others.
    """
    from attar.priors.checkpoint import SUFFIXES, load_checkpoint
    from attar.priors.digits import digits_prior
    from attar.priors.dit import load_dit
    from attar.store import Store
    from attar.tile import resolve

    place, number_format = resolve(str(device), str(dtype).removeprefix("torch."))
    store = store or Store()
    file = Path(source).expanduser()
    if file.suffix in SUFFIXES or file.is_file():
        prior = load_checkpoint(file, place, number_format, codec)
    else:
        folder = str(digits_prior(store, progress)) if source == "digits" else source
        prior = load_dit(folder, place, number_format, codec)
    return prior.with_tile(_chosen_tile(prior, store) if tile is None else _proved_tile(prior, tile, store))


def known_classes(source: str) -> tuple[str, ...] | None:
    """The class names of a prior that are known before it is trained or loaded: those of `digits`; else None."""
    from attar.data.digits import Digits

    return Digits.classes if source == "digits" else None


def _chosen_tile(prior: Prior, store: Store) -> int:
    from attar.tile import choose

    return _remembered(prior, store, lambda: choose(prior.device, prior.exact_at))


def _proved_tile(prior: Prior, tile: int, store: Store) -> int:
    import torch

    from attar.tile import device_class

    if tile < 1:
        raise AttarError(f"--tile {tile}: at least 1")
    try:
        if tile == 1 or _remembered(prior, store, lambda: int(prior.exact_at(tile)), tile):
            return tile
        why = "a row's bytes would depend on the rows beside it"
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        why = "it does not fit in memory"
    chosen = _chosen_tile(prior, store)
    raise AttarError(f"--tile {tile}: {why} on {device_class(prior.device)}; leave it out, and {chosen} is chosen")


def _remembered(prior: Prior, store: Store, find: Callable[[], int], *asked: int) -> int:
    """What `find` tells of the prior's tiles, found once for each kind of device, dtype and version."""
    import torch

    from attar.store import fingerprint
    from attar.tile import device_class

    about = [prior.key, prior.codec.key, device_class(prior.device), str(prior.dtype), torch.__version__, *asked]

    def make(scratch: Path) -> None:
        (scratch / "tile").write_text(str(find()))

    return int((store.once("tile", fingerprint(*about), make, about=about) / "tile").read_text())
