"""How much this device does in a second of what a prior and its codec are asked for; each part is timed once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from attar.core.flops import counted_flops, structure
from attar.core.progress import timed, timed_on
from attar.diffusion import network_passes, times_from
from attar.job import Job
from attar.methods.base import LatentMethod
from attar.priors.codec import AutoencoderCodec, Codec
from attar.priors.prior import Prior

TIMED = 10**10
"""FLOPs of a batch that is timed on a CPU."""
WIDTH = 256
"""Channels of the convolution that stands for an unread codec's."""
_TIMED: dict[Hashable, float] = {}


def passes_per_image(job: Job, method: LatentMethod) -> int:
    """Network passes that the sampler takes for an image, guidance included."""
    sampler = method.sampler
    times = times_from(sampler, job.prior, method.start_time(job.prior))
    return sum(network_passes(sampler.guidance_at(t)) for t in times)


def passes_per_second(prior: Prior) -> float:
    """Network passes, in images, that this device does in a second: a small batch, timed, or a block of the network."""
    from attar.priors.unread import block_of

    flops = prior.row_flops()
    if is_unread(prior.network):
        return block_rate(prior, block_of(prior.network)) / flops
    rows = _rows(prior.device, prior.batch_size, flops)

    def call() -> None:
        z = torch.zeros(rows, *prior.codec.shape, device=prior.device)
        y = torch.zeros(rows, dtype=torch.long, device=prior.device)
        float(prior.with_batch_size(rows)(z, 500, y).sum())

    return rows / _once_timed(call, structure(prior.network), prior.codec.shape, rows, prior.device, prior.dtype)


def encoded_per_second(codec: Codec) -> float:
    """Images that this device encodes in a second."""
    return _codec_rate(codec, "encode", (3, codec.size, codec.size))


def decoded_per_second(codec: Codec) -> float:
    """Images that this device decodes in a second."""
    return _codec_rate(codec, "decode", codec.shape)


def _codec_rate(codec: Codec, method: str, shape: tuple[int, ...]) -> float:
    """Images in a second of a small batch, timed; of an unread codec, by the rate of a convolution of its own."""
    if not isinstance(codec, AutoencoderCodec):
        return codec.batch_size / timed(lambda: getattr(codec, method)(torch.zeros(codec.batch_size, *shape)))
    flops = codec.row_flops()
    if is_unread(codec.vae):
        return convolution_rate(codec) / flops
    rows = _rows(codec.device, codec.batch_size, flops)
    small = codec.with_batch_size(rows)
    asked = (structure(codec.vae), method, shape, rows, codec.device, codec.dtype)
    return rows / _once_timed(lambda: getattr(small, method)(torch.zeros(rows, *shape)), *asked)


def _once_timed(call: Callable[[], object], *what: Hashable) -> float:
    """Seconds of a call, timed when it is first asked for."""
    if what not in _TIMED:
        with torch.inference_mode():
            _TIMED[what] = timed(call)
    return _TIMED[what]


def is_unread(network: nn.Module) -> bool:
    """Whether a network has shapes and no numbers."""
    return any(parameter.is_meta for parameter in network.parameters())


def convolution_rate(codec: AutoencoderCodec) -> float:
    """FLOPs in a second of a 3 x 3 convolution at a quarter of a codec's size, which most of its work is."""
    channels, side = WIDTH, max(8, codec.size // 4)
    layer = nn.Conv2d(channels, channels, 3, padding=1, device=codec.device)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.zeros(1, channels, side, side, device=codec.device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(codec.device.type, codec.dtype, enabled=codec.dtype != torch.float32):
        return 2 * 9 * channels**2 * side**2 / timed(lambda: float(layer(x).sum()))


def _rows(device: torch.device, batch_size: int, flops: int) -> int:
    """The rows of a batch that is timed: all on a GPU, on a CPU as many as take about a tenth of a second."""
    return batch_size if device.type != "cpu" else min(batch_size, max(1, TIMED // max(1, flops)))


def block_rate(prior: Prior, block: nn.Module) -> float:
    """FLOPs in a second of one block of a network on the meta device, given numbers, inputs of its shapes and time."""
    n = 1 if prior.device.type == "cpu" else prior.batch_size
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = block.register_forward_pre_hook(lambda module, args, more: asked.append((args, more)), with_kwargs=True)
    with torch.no_grad():
        whole = torch.zeros(n, dtype=torch.long, device="meta")
        prior.network(torch.zeros(n, *prior.codec.shape, dtype=prior.dtype, device="meta"), whole, whole)
    hook.remove()
    args, more = asked[0]
    flops = counted_flops(lambda: block(*args, **more))
    real = copy.deepcopy(block).to_empty(device=prior.device)
    for parameter in real.parameters():
        nn.init.constant_(parameter, 0.01)
    args, more = tuple(_filled(x, prior) for x in args), {name: _filled(x, prior) for name, x in more.items()}
    with torch.inference_mode():
        return flops / timed_on(lambda: real(*args, **more), prior.device)


def _filled(value: Any, prior: Prior) -> Any:
    return torch.ones_like(value, device=prior.device) if isinstance(value, Tensor) else value
