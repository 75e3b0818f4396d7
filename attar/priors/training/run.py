"""Making a prior from a data set: everything checked, encoded and measured, trained, and written as a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from attar.core.batching import device_class
from attar.core.errors import AttarError, suggestion
from attar.core.limits import SIDE, check_most
from attar.core.progress import Progress, duration, silent
from attar.core.rng import noise
from attar.core.store import Artefact, Store
from attar.data import PREPROCESSING, ImageSet, load_data, readable
from attar.data.places import check_place
from attar.priors.folder import check_out, linear_scheduler, publish, write_card, write_pipeline
from attar.priors.latents import Latents
from attar.priors.shared_embedders import TiedDiT, untrained
from attar.priors.training.latent_set import LatentSet, held_in_memory, load_latents
from attar.priors.training.monitor import Monitor, Report
from attar.priors.training.optimise import Moment, accelerator
from attar.priors.training.train import Denoising, Training, check_patch, step_seconds, train_network
from attar.priors.training.vae import Autoencoding, open_codec, train_vae

if TYPE_CHECKING:
    from attar.priors.codec import Codec

Say = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """The data of a training, and where it runs."""

    data: str
    preprocess: str = "adm"
    """How images are brought to the codec's size: adm, resize-crop or squash."""
    flip: bool = True
    """Mirror half of the images; off for images that mirroring changes, such as digits."""
    on_bad_image: Literal["error", "skip"] = "error"
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """Of mixed precision: auto, float32 or bfloat16."""
    report: Report = Report()
    """What is looked at as it goes."""

    def __post_init__(self) -> None:
        if self.preprocess not in PREPROCESSING:
            hint = suggestion(self.preprocess, PREPROCESSING)
            raise AttarError(f"preprocess {self.preprocess!r}{hint}: choose one of {', '.join(PREPROCESSING)}")


@dataclass(frozen=True)
class NewPrior(Material):
    """`attar train-prior` in words: a class-conditional DiT from nothing."""

    codec: str = "pixel"
    """pixel, grey, a folder or hub id of an AutoencoderKL or of a DiTPipeline with one, or train."""
    size: int | None = None
    """Side of the images in pixels; none: what the codec was trained on."""
    training: Training = Training()
    vae: Autoencoding = Autoencoding()
    """Of `codec = "train"`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and self.size < 1:
            raise AttarError(f"--size {self.size}: at least 1")
        check_most("--size", self.size, SIDE)


@dataclass(eq=False)
class Workshop:
    """A material opened: images, a tenth of them held out, the device, the store."""

    material: Material
    store: Store = field(default_factory=Store)
    progress: Progress = silent
    say: Say = print

    @cached_property
    def helper(self) -> Any:
        """The Accelerator."""
        return accelerator(self.material.device, self.material.dtype)

    @cached_property
    def images(self) -> tuple[ImageSet, ImageSet]:
        """Those to train on, and the fixed tenth (attar.data.load_held_out), whichever images cannot be read."""
        found, bad = load_data(self.material.data), self.material.on_bad_image
        if bad == "error":
            return readable(found, bad, self.store, self.progress).held_out()
        train, held = (readable(part, bad, self.store, self.progress) for part in found.held_out())
        return train, held

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.images[0].classes

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks' products."""
        return torch.bfloat16 if self.helper.mixed_precision == "bf16" else torch.float32

    def artefact(self, **begun_from: Any) -> Artefact:
        """The prior that a training makes: of what it begins from, the images and the material's settings."""
        train_images, held = self.images
        inputs = {**begun_from, "settings": replace(self.material, data="", device="", dtype="")}
        inputs |= {"images": train_images.identities, "held out": held.identities}
        inputs |= {"device": device_class(self.helper.device), "dtype": str(self.dtype).removeprefix("torch.")}
        inputs |= {"processes": self.helper.num_processes, "torch": torch.__version__}
        return Artefact("prior", inputs)

    def encoded(self, codec: Codec) -> LatentSet:
        """All latents of the images to train on."""
        import diffusers

        compute = {
            "device": device_class(self.helper.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "tile": getattr(codec, "tile", 1),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        }
        how = self.material.preprocess

        def opened(images: ImageSet) -> Latents:
            return Latents(images, codec, how, self.store, compute)

        with self.helper.main_process_first():
            return load_latents(self.images[0], opened, self.material.flip, self.progress)


@dataclass(eq=False)
class Work:
    """A network to train, and what becomes of it."""

    title: str
    network: TiedDiT
    parameters: Sequence[nn.Parameter] | None
    """Those to train; None: all."""
    codec: Codec
    scheduler: Any
    training: Denoising
    finished: Callable[[Path], TiedDiT]
    """Called with the folder when the training is done: the network to write, which may add files."""


def train_new_prior(
    spec: NewPrior,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
) -> None:
    """Trains a prior and writes its folder; run again, it goes on where it was, and a finished one is left as it is.

    Raises:
        AttarError: any input is wrong, or `out` holds something else; before any long work.
    """
    check_place(out, "--out", [spec.data])
    shop = Workshop(spec, store or Store(), progress, say)
    codec = _codec(spec, shop, dry_run)
    check_patch(spec.training.patch, codec.shape[-1])
    check_batch(spec.training.batch, shop)
    artefact = shop.artefact(codec=codec.key)
    if check_out(out, artefact.key):
        say(f"{out} is already there, and is this prior: nothing to do")
        return
    network = untrained(codec.shape, len(shop.classes), spec.training, spec.training.seed, "train-prior", "weights")
    title = f"A DiT of {len(shop.classes)} classes"
    work = Work(title, network, None, codec, linear_scheduler(), spec.training, lambda folder: network)
    say(estimate(shop, work))
    if not dry_run:
        produce(shop, work, artefact, out)


def _codec(spec: NewPrior, shop: Workshop, dry_run: bool) -> Codec:
    device, source = shop.helper.device, spec.codec
    if source == "train":
        if spec.size is None or spec.size % spec.vae.shrink:
            raise AttarError(f"--codec train needs --size, in pixels, a multiple of {spec.vae.shrink}")
        if dry_run:
            raise AttarError("--dry-run: with --codec train the autoencoder comes first; it cannot be tried dry")
        train_images, how = shop.images[0], spec.preprocess
        common = (spec.size, how, spec.flip, spec.vae, shop.helper, shop.store, shop.progress)
        source = str(train_vae(train_images, *common))
    return open_codec(source, spec.size, device, shop.dtype)


def check_batch(batch: int, shop: Workshop) -> None:
    """Raises AttarError where the processes cannot share a batch evenly."""
    if batch % shop.helper.num_processes:
        raise AttarError(f"batch {batch}: must be divisible by the number of processes, {shop.helper.num_processes}")


def estimate(shop: Workshop, work: Work) -> str:
    """What is about to be done, and about how long it takes here: one step is timed."""
    images, plan = len(shop.images[0]), work.training
    z = noise((1, plan.batch, *work.codec.shape), "estimate")
    data = held_in_memory(z[0], torch.zeros(plan.batch, dtype=torch.int64))
    seconds = plan.steps * step_seconds(work.network, data, work.scheduler, plan, shop.helper, work.parameters)
    size = sum(p.numel() for p in work.network.parameters())
    trained = size if work.parameters is None else sum(p.numel() for p in work.parameters)
    seen = plan.steps * plan.batch
    return (
        f"{images:,} images of {len(shop.classes)} classes, {len(shop.images[1]):,} held out; a DiT of {size:,} "
        f"parameters ({trained:,} trained); {plan.steps:,} steps of {plan.batch}: {seen:,} images, "
        f"{seen / images:.1f} epochs, about {duration(seconds)} on {device_class(shop.helper.device)}"
    )


def produce(shop: Workshop, work: Work, artefact: Artefact, out: Path) -> None:
    """Trains in the store's scratch folder, resuming what is there, and copies the finished folder to `out`."""
    helper, store = shop.helper, shop.store
    scratch = store.scratch(artefact)
    finished = store.has(artefact)
    helper.wait_for_everyone()
    if not finished and not helper.is_main_process:
        _trained(shop, work, scratch, None)
    if helper.is_main_process:
        shop.say(f"progress pictures: {scratch}")
        made = store.once(artefact, lambda folder: _made(shop, work, artefact.key, folder))
        publish(made, out)
        shop.say(f"wrote {out.resolve()}")
    helper.wait_for_everyone()


def _trained(shop: Workshop, work: Work, scratch: Path, after: Callable[[Moment], None] | None) -> float:
    return train_network(
        work.network,
        shop.encoded(work.codec),
        work.scheduler,
        len(shop.classes),
        work.training,
        scratch,
        shop.helper,
        shop.progress,
        work.parameters,
        after,
    )


def _made(shop: Workshop, work: Work, key: str, folder: Path) -> None:
    from attar.diffusion import Schedule
    from attar.priors.training.measures import open_judge

    material, plan, begun = shop.material, work.training, time.monotonic()
    train_images, held = shop.images
    size = work.codec.size
    settings = (size, material.preprocess, material.flip, shop.store, shop.progress, material.report.judge_steps)
    judge = open_judge(train_images, held, *settings)
    monitor = Monitor(
        folder,
        material.report,
        plan.steps,
        work.network,
        list(work.network.parameters()) if work.parameters is None else work.parameters,
        Schedule(work.scheduler.alphas_cumprod, work.scheduler.config.prediction_type),
        work.codec,
        shop.classes,
        judge,
        shop.helper.device,
        plan.seed,
        shop.progress,
    )
    spent = [0.0]

    def after(moment: Moment) -> None:
        spent[0] = moment.seconds
        monitor(moment)

    loss = _trained(shop, work, folder, after)
    network = work.finished(folder)
    vae = getattr(work.codec, "vae", None)
    write_pipeline(folder, network.untied().cpu(), work.scheduler, shop.classes, vae)
    record = {
        "key": key,
        "data": material.data,
        "classes": list(shop.classes),
        "settings": asdict(material),
        "codec": work.codec.key,
        "vae": vae is not None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "images": len(train_images),
        "images_seen": plan.steps * plan.batch,
        "steps": plan.steps,
        "seconds": round(spent[0] or time.monotonic() - begun, 1),
        "device": device_class(shop.helper.device),
        "loss": loss,
        "measures": monitor.measures(),
    }
    write_card(folder, work.title, record)
