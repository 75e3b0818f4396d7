"""The contract of a prior: a class-conditional diffusion model and every convention that it was trained with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attar.core.batching import exact, in_batches
from attar.core.flops import flops_of
from attar.core.rng import noise
from attar.diffusion import Schedule
from attar.priors.codec import Codec
from attar.priors.prompts import Prompts


@dataclass(frozen=True, eq=False)
class Prior:
    """Whoever holds one needs to know nothing else of where it came from.

    Calling it with latents (N, C, H, W) in scaled units, a time and prior labels (N,) gives the network's raw output
    (N, C or 2C, H, W) in float32, computed in batches of a fixed size, so that a row's bytes do not depend on others.
    """

    key: str
    """Fingerprint of the weights, the schedule and the conventions; the codec has its own."""
    network: nn.Module
    """Called with latents, times (N,) and prior labels (N,), or what its `embedded` makes of labels."""
    schedule: Schedule
    """Noise of each time."""
    codec: Codec
    """Images to latents and back."""
    classes: tuple[str, ...] | None
    """Names by prior label, synonyms separated by commas; None where the files do not say."""
    n_classes: int
    """Number of classes, without the null label."""
    null: int
    """The label that stands for no class."""
    device: torch.device
    """Where it computes."""
    dtype: torch.dtype
    """Number format of the network's weights and products."""
    batch_size: int = 1
    """Rows in one call of the network."""
    prompts: Prompts | None = None
    """The prompt of each class, if it is conditioned on text."""

    @property
    def weights(self) -> torch.dtype:
        """The number format of the network's weights."""
        return self.dtype

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        times = torch.full((len(z),), t, device=self.device)
        return in_batches(self._forward, self.batch_size, z, times, y)

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs for the labels and for the null label: of N rows, 2N fill batches of the fixed size."""
        null = torch.full((len(y),), self.null, device=y.device)
        labels = torch.cat([y, self.embedded(null) if y.is_floating_point() else null])
        labelled, empty = self(torch.cat([z, z]), t, labels).chunk(2)
        return labelled, empty

    @torch.inference_mode()
    def embedded(self, y: Tensor) -> Tensor:
        """What prior labels (N,) are to the network (N, ...), float32; it takes that in their place, changed or not."""
        network: Any = self.network
        embeddings: Tensor = network.embedded(y)
        return embeddings.float()

    def with_batch_size(self, batch_size: int) -> Prior:
        """The same prior, its network called with `batch_size` rows at a time; the codec has its own."""
        return replace(self, batch_size=batch_size)

    @torch.inference_mode()
    def exact_at(self, batch_size: int) -> bool:
        """Whether a row's bytes do not depend on the others in its batch."""
        z = noise((batch_size, *self.codec.shape), "tile", "z").to(self.device)
        times = torch.full((batch_size,), len(self.schedule) // 2, device=self.device)
        y = torch.arange(batch_size, device=self.device) % (self.n_classes + 1)
        return exact(self._forward, z, times, y)

    def row_flops(self) -> int:
        """FLOPs of the network for one row."""
        y = torch.zeros(1, dtype=torch.long, device="meta")
        return flops_of(self.network, torch.zeros(1, *self.codec.shape, device="meta"), y, y)

    def _forward(self, z: Tensor, times: Tensor, y: Tensor) -> Tensor:
        output: Tensor = self.network(z.to(self.dtype), times, y)
        return output.float()
