"""Adapting a prior to a new data set: all of its weights, DiffFit, BitFit, or LoRA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import nn

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.files import expand_user
from attar.core.fingerprints import Named
from attar.core.progress import Progress, Say, silent
from attar.core.store import Store
from attar.data.class_names import matches
from attar.data.output_places import check_place
from attar.priors import load_prior, load_prior_codec
from attar.priors.codec import PixelCodec, autoencoder_codec
from attar.priors.digits import digits_prior, is_trained, untrained_digits
from attar.priors.folder import linear_scheduler
from attar.priors.shared_embedders import SharedDiT, share_embedders
from attar.priors.training.adaptors import DiffFit, add_lora, merge_lora
from attar.priors.training.estimate import estimate
from attar.priors.training.run import already_there, produce
from attar.priors.training.settings import AdaptedPrior
from attar.priors.training.task import TrainingRun, TrainingTask
from attar.priors.training.vae import filling
from attar.training.processes import check_shared

if TYPE_CHECKING:
    from attar.priors.codec import Codec
    from attar.priors.prior import Prior


@checked
def finetune_prior(
    spec: AdaptedPrior,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
) -> None:
    """Adapts a prior and writes a plain DiTPipeline folder; run again, it goes on where it was.

    Raises:
        AttarError: any input is wrong, or `out` holds something else; before any long work.
    """
    check_place(out, "`out`", [spec.data])
    run = TrainingRun(spec, store or Store(), progress, say, dry_run)
    instead = untrained_digits() if dry_run and spec.prior == "digits" and not is_trained(run.store) else None
    if spec.prior == "digits" and instead is None and run.helper.num_processes > 1 and not is_trained(run.store):
        raise AttarError("`prior` digits is trained by one process: run `attar describe-prior digits` before this")
    source = spec.prior if instead is None else instead.name
    prior, codec = _opened(spec, source, run)
    if codec.size == prior.codec.size:
        run.material = replace(spec, size=None)
    check_shared(spec.training.batch, run.helper)
    artefact = run.artefact(codec, prior=Named(spec.prior, prior.key))
    if instead is not None:
        say("the prior digits is trained before that")
    elif already_there(run, artefact, out):
        return
    network, known = adapted_network(prior, run.classes, spec.prior)
    network.take_side(codec.shape[-1])
    say(f"{len(known)} of {len(run.classes)} classes keep the prior's label embedding, the others begin at the mean")
    with ExitStack() as stack:
        parameters, finished = _adaptation(spec, network, stack)
        scheduler = _scheduler(prior, source, run.store)
        title = f"{Path(spec.prior).name}, adapted to {len(run.classes)} classes ({spec.adapt})"
        task = TrainingTask(title, network, parameters, codec, scheduler, spec.training, finished)
        say(estimate(run, task))
        if not dry_run:
            produce(run, task, artefact, out)


def adapted_network(prior: Prior, classes: Sequence[str], source: str) -> tuple[SharedDiT, dict[str, int]]:
    """The prior's network with a label table for these classes, and which of them took a row of the prior's.

    A class that the prior knows by name, and once, keeps its row; the others begin at the mean of the prior's classes;
    the null label keeps its own.

    Raises:
        AttarError: the network is no diffusers DiT, or its embedders differ between blocks.
    """
    transformer: Any = getattr(prior.network, "transformer", None)
    if transformer is None:
        raise AttarError(f"`prior` {source}: a {type(prior.network).__name__}; only DiTs can be fine-tuned")
    network = share_embedders(transformer, source)
    known = {}
    if prior.classes is not None or prior.n_classes == len(classes):
        labels = matches(classes, prior.classes, prior.n_classes, classes)
        known = {name: rows[0] for name, rows in labels.items() if len(rows) == 1}
    old = network.table.weight.detach()
    mean = old[: prior.n_classes].mean(0)
    rows = [old[known[name]] if name in known else mean for name in classes]
    table = network.embedder.class_embedder
    table.embedding_table = nn.Embedding.from_pretrained(torch.stack([*rows, old[prior.null]]), freeze=False)
    table.num_classes = len(classes)
    network.transformer.register_to_config(num_embeds_ada_norm=len(classes))
    return network, known


def _opened(spec: AdaptedPrior, source: str, run: TrainingRun) -> tuple[Prior, Codec]:
    """The prior in float32, and its codec for images of the size that is asked for.

    Raises:
        AttarError: its network cannot cut such images into patches.
    """
    opening: dict[str, Any] = {"device": str(run.helper.device), "tile": 1, "store": run.store}
    codec: Any = load_prior_codec(source, dtype=run.dtype, **opening)
    prior = load_prior(source, dtype="float32", codec=codec, **opening)
    if spec.size is not None:
        codec = _of_size(codec, spec.size, getattr(prior.network, "transformer", None))
    return prior, filling(codec, run.helper.device, run.dry)


def _of_size(codec: Any, size: int, transformer: Any) -> Any:
    """The codec for images of `size` pixels."""
    factor = codec.size // codec.shape[-1]
    whole = factor * (1 if transformer is None else transformer.config.patch_size)
    if size % whole:
        raise AttarError(f"`size` {size}: must be a multiple of {whole}, the side of the prior's patches in pixels")
    if isinstance(codec, PixelCodec):
        return replace(codec, size=size)
    return autoencoder_codec(codec.vae, size // factor, codec.device, codec.dtype)


def _adaptation(
    spec: AdaptedPrior, network: SharedDiT, stack: ExitStack
) -> tuple[list[nn.Parameter] | None, Callable[[Path], SharedDiT]]:
    """What is trained (None: all), and how it becomes a plain network in the end."""
    if spec.adapt == "all":
        return None, lambda folder: network
    network.requires_grad_(False)
    if spec.adapt == "lora":
        matrices = add_lora(network, spec.rank, spec.training.seed, "lora")

        def without_lora(folder: Path) -> SharedDiT:
            merge_lora(network)
            return network

        return matrices, without_lora
    adaptor = DiffFit.of(network, scaled=spec.adapt == "difffit")
    attached = stack.enter_context(ExitStack())
    attached.enter_context(adaptor.attached(network))

    def with_adaptor_merged(folder: Path) -> SharedDiT:
        attached.close()
        adaptor.save(folder / "adaptor.safetensors")
        adaptor.merge(network)
        return network

    return adaptor.parameters(), with_adaptor_merged


def _scheduler(prior: Prior, source: str, store: Store) -> Any:
    if expand_user(source).is_file():
        return linear_scheduler()
    kind: Any = diffusers.FlowMatchEulerDiscreteScheduler if prior.schedule.straight else diffusers.DDIMScheduler
    return kind.from_pretrained(str(digits_prior(store)) if source == "digits" else source, subfolder="scheduler")
