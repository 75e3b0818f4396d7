"""Priors: class-conditional diffusion models behind one contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    `tile`, one is chosen by probing the device (attar.tile) and remembered in the store.

    Raises:
        AttarError: nothing of that name can be loaded, or the device or dtype is not usable.
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
    return prior.with_tile(tile or _chosen_tile(prior, store))


def _chosen_tile(prior: Prior, store: Store) -> int:
    import torch

    from attar.store import fingerprint
    from attar.tile import choose, device_class

    about = [prior.key, prior.codec.key, device_class(prior.device), str(prior.dtype), torch.__version__]

    def make(scratch: Path) -> None:
        (scratch / "tile").write_text(str(choose(prior.device, prior.exact_at)))

    return int((store.once("tile", fingerprint(*about), make, about=about) / "tile").read_text())
