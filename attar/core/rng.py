"""(seed, purpose, class, index) -> an independent generator: all randomness of Attar is drawn from such keys."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Part = str | int


def seed_of(*parts: Part) -> int:
    """A 63-bit seed from the parts of a key: equal parts give equal seeds, on every machine and in every version.

    Parts are integers and strings; `1` and `"1"` differ, and so do `("ab", "c")` and `("a", "bc")`.
    """
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: Part) -> torch.Generator:
    """A CPU generator of its own for this key, for example `generator(seed, "start", class_name, index)`."""
    import torch

    return torch.Generator("cpu").manual_seed(seed_of(*parts))


def numpy_generator(*parts: Part) -> np.random.Generator:
    """The same for NumPy and scikit-learn."""
    return np.random.default_rng(seed_of(*parts))


def noise(shape: tuple[int, ...], *parts: Part) -> torch.Tensor:
    """Standard normal noise of `shape`, float32 on the CPU, the same whatever device it is used on."""
    import torch

    return torch.randn(shape, generator=generator(*parts), dtype=torch.float32)
