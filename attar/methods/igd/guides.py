"""IGD's two guides: away from what is finished of the class, and to images that teach as the class's real ones do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from attar.core.errors import AttarError
from attar.core.rng import numpy_generator
from attar.data import load_pixels
from attar.diffusion import Move
from attar.job import Job
from attar.methods.energy import given, gradients
from attar.methods.guided_steps import GuidedSteps


@dataclass(frozen=True)
class Guidance(GuidedSteps):
    """Moves each latent by both guides while first >= i >= last, of the steps' index i = steps - 1 ... 0:

        mean -= deviation * dG_D / dz + influence * sigma_i * g / |g|,    g = dG_I / dx0

    G_D is the cosine of z and the nearest finished latent of the class (equation 8); this is all that the guide does by
    itself. G_I is minus the influence (equation 7, `Influence`). That g is brought to length 1 and weighed by sigma_i,
    DDPM's deviation at that step, is our choice: the summaries do not say how rho_t depends on the step.
    """

    influence: float = 5.0
    """Weight of the influence, k; 0: no surrogate is asked."""
    deviation: float = 120.0
    """Weight gamma of the deviation, as in the code's example for ImageWoof at IPC 50."""
    memory: int = 64
    """The most finished latents that an image is kept away from, the last ones."""
    real: int = 200
    """Real images of a class, drawn by the seed, whose mean gradient is followed."""

    looks_back = True
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        if not self.guides(move) or not finished.shape[1]:
            return torch.zeros_like(move.z)
        others = given(finished[:, -self.memory :])
        pulls = [similarity_gradient(z, before) for z, before in zip(given(move.z), others, strict=True)]
        return -self.deviation * torch.stack(pulls).to(move.z)

    # Checks of the settings

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("influence", "deviation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise AttarError(f"guide.{name} {getattr(self, name)}: a number of 0 or more")
        for name in ("memory", "real"):
            if getattr(self, name) < 1:
                raise AttarError(f"guide.{name} {getattr(self, name)}: at least 1")


def similarity_gradient(z: Tensor, finished: Tensor) -> Tensor:
    """The gradient at z (C, H, W) of its cosine with the nearest of these latents (K, C, H, W): (v - c u) / |z|."""
    u, others = F.normalize(z.flatten(), dim=0), F.normalize(finished.flatten(1))
    cosines = (others * u).sum(1)
    c, v = cosines.max(), others[cosines.argmax()]
    return ((v - c * u) / z.norm()).view_as(z)


@dataclass(frozen=True, eq=False)
class Influence:
    """IGD's guidance with its surrogate opened.

    An image's influence (TracIn) is the mean over the kept epochs e of

        cos(gradient in theta_e of the image's loss, that of the class's real images, their mean)

    and its gradient goes through the surrogate, twice, and through the codec's decoder; each image by itself.
    """

    how: Guidance
    job: Job
    network: nn.Module
    """The surrogate, with any weights."""
    weights: Tensor
    """theta_e (E, P), on the prior's device."""
    followed: dict[int, Tensor] = field(default_factory=dict)
    """By label, the mean gradient of real images at each epoch (E, P): found when it is first asked for."""

    looks_back = True
    together = False

    def __call__(self, move: Move, aims: Tensor | None, finished: Tensor) -> Tensor:
        assert aims is not None, "the starts say each image's class"
        moved = self.how(move, None, finished)
        if not self.how.guides(move):
            return moved
        slopes = torch.stack([self.slope(clean, int(label)) for clean, label in zip(move.clean, aims, strict=True)])
        return moved + self.how.influence * move.deviation * slopes

    def slope(self, clean: Tensor, label: int) -> Tensor:
        """The direction (C, H, W), of length 1, in which the influence of a clean latent rises most."""
        with gradients():
            x = clean.detach().clone().requires_grad_()
            (rise,) = torch.autograd.grad(self.influence(x, label), x)
        return F.normalize(rise.flatten(), dim=0).view_as(clean)

    def influence(self, clean: Tensor, label: int) -> Tensor:
        """The influence of the image that the codec makes of a clean latent (C, H, W)."""
        image = self.job.codec.with_batch_size(1).decode(clean[None])
        return F.cosine_similarity(self._gradients(image, label, through=True), self._followed(label), dim=1).mean()

    def _followed(self, label: int) -> Tensor:
        if label not in self.followed:
            job = self.job
            draw = numpy_generator(job.spec.seed, "influence", job.classes[label])
            numbers = draw.permutation(job.images.of_class(label))[: self.how.real]
            pixels = load_pixels(job.images, numbers, job.codec.size, job.spec.preprocess)
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
            parts = [self._gradients(part, label) * len(part) for part in images.split(50)]
            self.followed[label] = torch.stack(parts).sum(0) / len(images)
        return self.followed[label]

    def _gradients(self, images: Tensor, label: int, through: bool = False) -> Tensor:
        """The gradients (E, P) of the mean loss of images (N, 3, S, S) in [-1, 1]; `through`: differentiable, too."""
        images = images.to(self.weights.device)
        labels = torch.full((len(images),), label, device=images.device)
        gradients = []
        for weights in self.weights:
            flat = weights.detach().clone().requires_grad_()
            logits = functional_call(self.network, _named(self.network, flat), (images,))
            gradients += torch.autograd.grad(F.cross_entropy(logits, labels), flat, create_graph=through)
        return torch.stack(gradients)


def _named(network: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """The parameters of a network by name, out of one vector (P,)."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
