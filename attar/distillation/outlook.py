"""What distilling would cost from an empty cache: counted on the meta device, timed on a small part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attar.core.flops import on_meta, structure
from attar.distillation.device_speed import block_rate, passes_per_image, passes_per_second
from attar.job import Job
from attar.methods.base import Fit, LatentMethod, Method
from attar.priors.codec import AutoencoderCodec
from attar.priors.prior import Prior
from attar.priors.shared_embedders import SharedDiT
from attar.priors.training.adaptors import DiffFit
from attar.training.memory import kept_for_gradient


@dataclass(frozen=True)
class Measures:
    """What a prior's networks take, for one image where nothing else is said; memory in bytes."""

    network: int
    """FLOPs of one pass of the network."""
    encoder: int
    decoder: int
    weights: int
    sampling: int
    """Activations of a batch in the network or in the decoder, whichever is more."""
    master: int
    """Weights in float32 that a fine-tuning has beside those in half precision."""
    training: int
    """Activations that are kept for the gradient of the trained weights."""
    trained: int
    """Numbers that a fine-tuning trains."""
    latent: int
    """Bytes of a latent on disk: mean and deviation in bfloat16."""
    per_second: float
    """FLOPs that this device does in a second."""
    how: str
    """How that was measured."""


_COUNTED: dict[Hashable, Measures] = {}


@dataclass(frozen=True)
class Outlook:
    """What a method takes for one IPC, from an empty cache; other IPCs and methods share parts of it."""

    groups: int
    """Groups of classes that are fitted independently."""
    latents: int
    """Images to encode."""
    steps: int
    """Training steps."""
    passes: int
    """Passes of the network, in images; a training step counts as three of its batch."""
    memory: int
    """Bytes on the device, about."""
    parts: Mapping[Hashable, tuple[float, float]]
    """What for -> (FLOPs, seconds): equal parts are done once."""

    def seeded(self, part: Hashable) -> bool:
        """Whether a part is done anew for each distillation seed."""
        return isinstance(part, tuple) and part[0] in ("candidates", "images")


def outlook(
    job: Job, method: Method, counts: Sequence[int], ipc: int, measures: Measures | None, refining: float = 0.0
) -> Outlook:
    """The cost of the set of one IPC, for classes with this many images; real images (no measures) cost nothing.

    Args:
        refining: seconds that the refinement of a class takes; its FLOPs are not counted.
    """
    if measures is None:
        return Outlook(0, 0, 0, 0, 0, {})
    assert isinstance(method, LatentMethod), "only these have measures"
    method, made = method.for_ipc(ipc), method.select.candidates(ipc)
    fit = method.fit
    groups = [[counts[label] for label in group] for group in fit.groups(range(len(counts)))] if fit.learns else []
    fitting, steps = (sum(map(count, groups)) for count in (fit.passes, fit.training_steps))
    sampling = made * len(counts) * passes_per_image(job, method)
    latents = sum(map(fit.encodings, groups))
    flops: dict[tuple[Any, ...], float] = {
        ("latents", latents): latents * measures.encoder,
        ("fit", fit): fitting * measures.network,
        ("candidates", method, made): sampling * measures.network,
        ("images", method, ipc): ipc * len(counts) * measures.decoder,
    }
    other: dict[tuple[Any, ...], float] = {
        ("fit", fit): sum(fit.seconds(job, group) for group in groups),
        ("candidates", method, made): len(counts) * method.start_seconds(job, made),
        ("images", method, ipc): len(counts) * refining,
    }
    parts: dict[Hashable, tuple[float, float]] = {
        (*part, job.spec): (n, n / measures.per_second + other.get(part, 0.0)) for part, n in flops.items()
    }
    return Outlook(len(groups), latents, steps, fitting + sampling, _memory(fit, measures, steps), parts)


def memory_of(job: Job, method: LatentMethod, ipcs: Sequence[int]) -> int:
    """Bytes on the device, about, that sets of some IPCs take."""
    fit = method.for_ipc(max(ipcs)).fit
    counts = [len(job.images.of_class(label)) for label in job.labels]
    steps = sum(fit.training_steps([counts[label] for label in group]) for group in fit.groups(job.labels))
    return _memory(fit, measured(job.prior, rate=1.0), steps)


def _memory(fit: Fit, measures: Measures, steps: int) -> int:
    tuning = 0
    if steps:
        tuning = measures.master + getattr(fit, "batch", 1) * measures.training + 20 * measures.trained
    return measures.weights + max(measures.sampling, tuning)


def measured(prior: Prior, block: nn.Module | None = None, rate: float | None = None) -> Measures:
    """The measures of a prior; with a `block`, of one whose networks are on the meta device, timed by that block.

    With a `rate`, the FLOPs in a second are this, and nothing is timed.
    """
    found = _counted(prior)
    if rate is not None:
        return replace(found, per_second=rate, how="not timed")
    if block is None:
        return replace(found, per_second=found.network * passes_per_second(prior), how="one pass of the network timed")
    return replace(found, per_second=block_rate(prior, block), how="estimated from the FLOP rate of one block")


def _counted(prior: Prior) -> Measures:
    """The measures of a prior, nothing timed; counted once in a process for networks of one structure."""
    codec = prior.codec
    vae = structure(codec.vae) if isinstance(codec, AutoencoderCodec) else None
    key = (structure(prior.network), prior.dtype, prior.batch_size, vae, codec.size, codec.shape, codec.batch_size)
    if key not in _COUNTED:
        _COUNTED[key] = _count(prior)
    return _COUNTED[key]


def _count(prior: Prior) -> Measures:
    network = on_meta(prior.network).float()
    z, times, y = (
        torch.zeros(1, *shape, dtype=kind, device="meta")
        for shape, kind in ((prior.codec.shape, torch.float32), ((), torch.long), ((), torch.long))
    )
    half = 1 if prior.dtype == torch.float32 else 2
    encoder = decoder = decoding = 0
    weights = [prior.network]
    if isinstance(codec := prior.codec, AutoencoderCodec):
        vae = on_meta(codec.vae).float()
        weights.append(codec.vae)
        encoder, decoder = codec.encoding_flops(), codec.decoding_flops()
        decoding = codec.batch_size * _peak(vae, lambda: vae.decode(z))
    trained, activations = _training(network, z, times, y)
    return Measures(
        network=prior.row_flops(),
        encoder=encoder,
        decoder=decoder,
        weights=sum(p.numel() * p.element_size() for part in weights for p in part.parameters()),
        sampling=max(prior.batch_size * _peak(network, lambda: network(z, times, y)), decoding) // half,
        master=4 * sum(p.numel() for p in network.parameters()) * (half - 1),
        training=activations // half,
        trained=trained,
        latent=4 * z.numel(),
        per_second=1.0,
        how="not timed",
    )


def _peak(network: nn.Module, call: Callable[[], Any]) -> int:
    """Bytes of the largest layer's input and output, and as much for what stands beside them."""
    sizes = [0]

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        sizes.append(sum(x.numel() * x.element_size() for x in (*inputs, output) if isinstance(x, Tensor)))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    with torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return 2 * max(sizes)


def _training(network: nn.Module, z: Tensor, times: Tensor, y: Tensor) -> tuple[int, int]:
    """(numbers that DiffFit trains, bytes of activations kept for one image); nothing for networks but DiTs."""
    transformer = getattr(network, "transformer", None)
    if transformer is None:
        return 0, 0
    shared = SharedDiT(copy.deepcopy(transformer)).requires_grad_(False)
    adaptor = DiffFit.of(shared)
    with adaptor.attached(shared):
        kept = kept_for_gradient(lambda: shared(z, times, y), rows=1)
    return sum(p.numel() for p in adaptor.parameters()), kept
