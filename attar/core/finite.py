"""Numbers that are numbers: no NaN and no infinity passes these doors, so none is stored or made into an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from attar.core.errors import AttarError, NotFinite

DIVERGED = 1e4
"""No loss here is so large while anything is learnt: to guess costs a denoiser about 1, a classifier log(classes)."""


def finite(values: Tensor, what: str) -> Tensor:
    """The values themselves (N, ...).

    Raises:
        NotFinite: `what` holds a NaN or an infinity.
    """
    good = values.isfinite()
    if not good.all():
        if values.numel() == 1:
            raise NotFinite(f"{what} is {float(values)}")
        rows = (~good.flatten(1).all(1)).nonzero().flatten().tolist() if values.ndim > 1 else ()
        raise NotFinite(f"{what}: {int((~good).sum()):,} of {good.numel():,} numbers are NaN or infinite", rows)
    return values


def bounded(loss: Tensor, what: str) -> float:
    """A loss (), as a number.

    Raises:
        NotFinite: it is NaN or infinite, or above `DIVERGED`.
    """
    value = float(finite(loss, what))
    if value > DIVERGED:
        raise NotFinite(f"{what} is {value:.3g}")
    return value


def check_weights(network: nn.Module, what: str) -> None:
    """Raises AttarError where every weight is 0; NotFinite, which names the tensor, where one is NaN or infinite."""
    weights = list(network.parameters())
    if weights and not any(values.any() for values in weights):
        raise AttarError(f"{what}: all of its weights are 0; give other files")
    for name, values in (*network.named_parameters(), *network.named_buffers()):
        if not values.isfinite().all():
            bad, all_of_it = int((~values.isfinite()).sum()), values.numel()
            raise NotFinite(
                f"{what}: its weights are damaged, or their training diverged: {bad:,} of the {all_of_it:,} numbers of "
                f"{name} are NaN or infinite; give other files"
            )


def save_finite(tensors: Mapping[str, Tensor], file: Path, what: str) -> None:
    """Writes a safetensors file, its arrays laid out contiguously.

    Raises:
        NotFinite: an array holds a NaN or an infinity; nothing is written.
    """
    save_file({name: finite(values, f"{what} ({name})").contiguous() for name, values in tensors.items()}, file)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Puts `what` before the text of a NotFinite: the stage, the class, the file."""
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{what}: {error}", error.rows) from error
