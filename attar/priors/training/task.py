"""A training of a prior whose material is open, and the network that it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import Tensor, nn

from attar.core.batching import device_class
from attar.core.progress import Progress, Say, silent
from attar.core.store import Artefact, Store
from attar.data import ImageSet, load_data, readable_parts
from attar.priors.latents import Latents
from attar.priors.shared_embedders import SharedDiT
from attar.priors.training.latent_set import Joined, LatentSet, load_latents, load_maps
from attar.priors.training.sample_quality import ClassifierTraining, classifier_artefact
from attar.priors.training.settings import Denoising, Material
from attar.training.processes import accelerator

if TYPE_CHECKING:
    from attar.priors.codec import Codec, Encoder
    from attar.priors.training.align import Alignment, Maps


@dataclass(eq=False)
class TrainingRun:
    """A training whose material is open: images, a tenth of them held out, the device, the store."""

    material: Material
    store: Store = field(default_factory=Store)
    progress: Progress = silent
    say: Say = print
    dry: bool = False
    """Whether some of the images are looked at in the place of all."""

    @cached_property
    def helper(self) -> Any:
        """The Accelerator."""
        return accelerator(self.material.device, self.material.dtype)

    @cached_property
    def images(self) -> tuple[ImageSet, ImageSet]:
        """The images to train on, and the fixed tenth."""
        material = self.material
        return readable_parts(load_data(material.data), material.on_bad_image, self.store, self.progress, self.dry)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.images[0].classes

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the networks' products."""
        return torch.bfloat16 if self.helper.mixed_precision == "bf16" else torch.float32

    def classifier(self, codec: Codec) -> ClassifierTraining:
        """How the classifier that measures the samples is trained."""
        material = self.material
        steps, device = material.report.judge_steps, self.helper.device
        return ClassifierTraining(codec.size, material.preprocess, material.flip, steps, device)

    def artefact(self, codec: Codec, **begun_from: Any) -> Artefact:
        """The prior that a training makes: of what it begins from, the images and the material's settings.

        How it is reported is a part of it where that decides which average is kept.
        """
        train_images, held = self.images
        inputs = {**begun_from, "codec": codec.key, "settings": self.material.keyed}
        if self.material.keep == "best":
            inputs["classifier"] = classifier_artefact(train_images, held, self.classifier(codec))
        inputs |= {"images": train_images.identities, "held out": held.identities}
        inputs |= {"device": device_class(self.helper.device), "dtype": str(self.dtype).removeprefix("torch.")}
        inputs |= {"processes": self.helper.num_processes, "torch": torch.__version__}
        if self.helper.device.type == "cpu" and self.dtype == torch.bfloat16:
            inputs["attention"] = "products of few tokens"
        return Artefact("prior", inputs)

    def encoded(self, codec: Codec) -> LatentSet:
        """All latents of the images to train on."""
        latents = self._latents(codec, codec.calls)
        with self.helper.main_process_first():
            return load_latents(latents, self.material.flip, self.progress)

    def maps(self, teacher: Maps) -> Tensor | Joined:
        """A teacher's maps of the images to train on, in the order of their latents."""
        latents = self._latents(teacher, {})
        with self.helper.main_process_first():
            return load_maps(latents, self.material.flip, self.progress)

    def maps_missing(self, teacher: Maps) -> int:
        """How many images the teacher is yet to see."""
        latents = self._latents(teacher, {})
        missing = sum(latents.missing(label) for label in range(len(self.classes)))
        return missing * (2 if self.material.flip else 1)

    def _latents(self, encoder: Encoder, calls: Mapping[str, Any]) -> Latents:
        compute = {
            "device": device_class(self.helper.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            **calls,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        }
        return Latents(self.images[0], encoder, self.material.preprocess, self.store, compute)


@dataclass(eq=False)
class TrainingTask:
    """The network that a run trains, and what becomes of it."""

    title: str
    network: SharedDiT
    parameters: Sequence[nn.Parameter] | None
    """The parameters to train; None: all."""
    codec: Codec
    scheduler: Any
    training: Denoising
    finished: Callable[[Path], SharedDiT]
    """Called with the folder when the training is done: the network to write, which may add files."""
    align: Alignment | None = None
    """What aligns it with a teacher, if anything does; its head is among the parameters."""

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters to train, in a fixed order."""
        return list(self.network.parameters() if self.parameters is None else self.parameters)
