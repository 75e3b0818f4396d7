"""What a teacher makes of images: its last features, and how surely it knows their class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.batching import in_batches
from attar.core.errors import AttarError
from attar.core.store import fingerprint
from attar.teachers.teacher import Teacher, digest_of

BATCH = 64
"""Images in one call, the last call filled up: the number decides the last bits."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class Judge:
    """A teacher that has passed its checks."""

    teacher: Teacher
    columns: Sequence[int]
    """Which of its logits each class of the data is."""
    last: nn.Linear
    """The layer of its network that gives the logits."""
    size: int
    """Side of the images that it is shown, in pixels."""
    network: str
    """Fingerprint of its network, statistics and size."""
    accuracy: float
    """Top-1 in per cent on the images that it was tried on."""
    matched: str
    """How its classes were matched, in words."""

    @property
    def key(self) -> str:
        """Fingerprint of all that its judgement depends on: the network, and which logit each class is."""
        return fingerprint(self.network, self.columns)

    @torch.inference_mode()
    def looked(self, images: Pixels, label: int) -> tuple[Tensor, Tensor]:
        """Of images (N, S, S, 3) of one class: the input of the last layer (N, D), and the cross-entropy (N,).

        Both float32 on the CPU. The cross-entropy is that of the class among all that the teacher knows, whether or not
        they are classes of the data.
        """
        column, seen = self.columns[label], list[Tensor]()
        handle = self.last.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0].flatten(1)))

        def look(part: Tensor) -> Tensor:
            logits = self.teacher.network(self._normalised(part))
            losses = F.cross_entropy(logits, torch.full((len(part),), column, device=part.device), reduction="none")
            return torch.cat([losses[:, None], seen.pop()], 1)

        try:
            found = in_batches(look, BATCH, torch.tensor(images, device=self.last.weight.device)).float().cpu()
        finally:
            handle.remove()
        return found[:, 1:].contiguous(), found[:, 0].contiguous()

    def seconds(self) -> float:
        """How long it looks at one image: one call, timed."""
        images = np.zeros((BATCH, self.size, self.size, 3), np.uint8)
        self.looked(images, 0)
        begun = time.monotonic()
        self.looked(images, 0)
        return (time.monotonic() - begun) / BATCH

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, device=images.device) for values in (self.teacher.mean, self.teacher.std))
        return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def last_layer(teacher: Teacher) -> nn.Linear:
    """The linear layer that gives a teacher's logits.

    Raises:
        AttarError: it has none, or the statistics of its input are not known.
    """
    if teacher.mean is None:
        raise AttarError(f"--teacher {teacher.source}: say how its input is normalised with --teacher-normalise")
    layers = [layer for layer in teacher.network.modules() if isinstance(layer, nn.Linear)]
    ends = [layer for layer in layers if layer.out_features == teacher.outputs]
    if not ends:
        raise AttarError(f"--teacher {teacher.source}: no linear layer gives its logits, so it has no last features")
    return ends[-1]


def network_key(teacher: Teacher, size: int) -> str:
    """The fingerprint of a teacher's network, its statistics and the size of its images; not of its name."""
    return fingerprint(digest_of(teacher.network), teacher.mean, teacher.std, size)
