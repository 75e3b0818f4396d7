"""A teacher's last feature map: what a prior's tokens are aligned with (attar.priors.training.align)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attar.core.batching import in_batches
from attar.core.errors import AttarError
from attar.core.store import fingerprint
from attar.teachers.features import BATCH, last_layer
from attar.teachers.load import load_pretrained
from attar.teachers.teacher import Pretrained, digest_of


@dataclass(frozen=True, eq=False)
class TeacherMaps:
    """A teacher as an encoder of images, whose latents are its last feature map."""

    pretrained: Pretrained
    """The network, in eval mode, with its statistics."""
    key: str
    """The fingerprint of its weights and statistics."""
    named: str
    """What a prior's key names it by: this, or the key of its training."""
    size: int
    """Side of the images that it is shown, in pixels."""
    shape: tuple[int, int, int]
    """(D, h, w) of its map."""

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps (N, D, h, w) of images (N, 3, S, S) in [-1, 1], float32 on the CPU, and their deviations, all 0."""
        maps = in_batches(lambda part: _last_map(self.pretrained, part), BATCH, images).float().cpu()
        return maps, torch.zeros(len(maps), 1, 1, 1)


def open_maps(source: str) -> TeacherMaps:
    """The maps of a teacher: a folder of `attar train-teacher`, timm/NAME or torchvision/NAME.

    Raises:
        AttarError: there is no such teacher, it does not say what images it takes, or it makes no map.
    """
    return as_maps(load_pretrained(source, None, 1000, 224))


def as_maps(pretrained: Pretrained, named: str | None = None) -> TeacherMaps:
    """The maps of a network, in eval mode; `named`: by the key of its training, not by its weights.

    Raises:
        AttarError: it does not say what images it takes, or it makes no map.
    """
    source = pretrained.source
    if pretrained.size is None:
        raise AttarError(f"`align` {source}: the size of its images is not known; give one of `attar train-teacher`")
    features = last_layer(pretrained).in_features
    blank = torch.zeros(1, 3, pretrained.size, pretrained.size)
    with torch.inference_mode():
        made = _last_map(pretrained, blank)
    _, channels, height, width = made.shape
    if features not in (channels, channels * height * width):
        raise AttarError(
            f"`align` {source}: its logits are not made of its last map, {channels} x {height} x {width}, but of "
            f"{features} features; give a convolutional network"
        )
    key = fingerprint(digest_of(pretrained.network), pretrained.mean, pretrained.std, pretrained.size, "map")
    return TeacherMaps(pretrained, key, named or key, pretrained.size, (channels, height, width))


def _last_map(pretrained: Pretrained, images: Tensor) -> Tensor:
    """The last output (N, D, h, w) of more than one place that any part of the network gives for images in [-1, 1].

    Raises:
        AttarError: there is none, or tokens come after it.
    """
    found: list[Tensor] = []

    def note(_part: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and (output.ndim == 3 or (output.ndim == 4 and output.shape[-1] > 1)):
            found[:] = [output]

    hooks = [part.register_forward_hook(note) for part in pretrained.network.modules()]
    try:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pretrained.mean, pretrained.std))
        pretrained.network(((images + 1) / 2 - mean) / std)
    finally:
        for hook in hooks:
            hook.remove()
    if not found or found[0].ndim != 4:
        raise AttarError(f"`align` {pretrained.source}: it makes no feature map; give a convolutional network")
    return found[0]
