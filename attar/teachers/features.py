"""What a teacher makes of images: its last features, and how surely it knows their class."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attar.core.batching import in_batches
from attar.core.errors import AttarError
from attar.data.pixels import Pixels
from attar.teachers.teacher import Pretrained, SingleTeacher

BATCH = 64
"""Images in one call, the last call filled up: the number decides the last bits."""


@torch.inference_mode()
def features_and_losses(teacher: SingleTeacher, images: Pixels, label: int) -> tuple[Tensor, Tensor]:
    """The last layer's input (N, D) and the cross-entropy (N,) of images (N, S, S, 3) of one class.

    Both are float32 on the CPU. The cross-entropy is that of the class among all that the network knows, whether or not
    they are classes of the data.
    """
    last, column, inputs = last_layer(teacher.pretrained), teacher.logits[label], list[Tensor]()
    handle = last.register_forward_hook(lambda _layer, given, _output: inputs.append(given[0].flatten(1)))

    def losses_before_features(part: Tensor) -> Tensor:
        logits = teacher.network(_normalised(teacher.pretrained, part))
        losses = F.cross_entropy(logits, torch.full((len(part),), column, device=part.device), reduction="none")
        return torch.cat([losses[:, None], inputs.pop()], 1)

    try:
        pixels = torch.tensor(images, device=last.weight.device)
        rows = in_batches(losses_before_features, BATCH, pixels).float().cpu()
    finally:
        handle.remove()
    return rows[:, 1:].contiguous(), rows[:, 0].contiguous()


@torch.inference_mode()
def doubts(teacher: SingleTeacher, images: Pixels, label: int) -> Tensor:
    """How far a teacher is from knowing images (N, S, S, 3) of one class as such, (N,), float32 on the CPU.

    1 minus the probability of the class that it names, among all that the network knows; 1 more where that is another.
    """
    device = last_layer(teacher.pretrained).weight.device

    def of_part(part: Tensor) -> Tensor:
        shares = teacher.network(_normalised(teacher.pretrained, part)).float().softmax(1)
        surest = shares.max(1)
        return 1 - surest.values + (surest.indices != teacher.logits[label])

    return in_batches(of_part, BATCH, torch.tensor(images, device=device)).float().cpu()


def seconds_per_image(teacher: SingleTeacher) -> float:
    """How long it takes to look at one image: one call, timed."""
    images = np.zeros((BATCH, teacher.side, teacher.side, 3), np.uint8)
    features_and_losses(teacher, images, 0)
    begun = time.monotonic()
    features_and_losses(teacher, images, 0)
    return (time.monotonic() - begun) / BATCH


def last_layer(pretrained: Pretrained) -> nn.Linear:
    """The linear layer that gives a network's logits.

    Raises:
        AttarError: it has none, or the statistics of its input are not known.
    """
    if pretrained.mean is None:
        raise AttarError(f"`teacher` {pretrained.source}: say how its input is normalised with `teacher_normalise`")
    layers = [layer for layer in pretrained.network.modules() if isinstance(layer, nn.Linear)]
    ends = [layer for layer in layers if layer.out_features == pretrained.outputs]
    if not ends:
        raise AttarError(f"`teacher` {pretrained.source}: no linear layer gives its logits, so it has no last features")
    return ends[-1]


def _normalised(pretrained: Pretrained, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device) for values in (pretrained.mean, pretrained.std))
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)
