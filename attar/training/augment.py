"""draw(keys) -> parameters, apply(images, parameters) -> views: in batches, one draw an image, replayable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from attar.core.copies import sent
from attar.core.rng import Part, numpy_generator

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation of each channel, for pixels from 0 to 1."""

GREY = (0.299, 0.587, 0.114)
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order. Each part is off by default."""

    size: int
    """Side of the views, in pixels."""
    shuffle: int = 1
    """Rows and columns that the image is cut into, which are shuffled (RDED); 1: it is not."""
    crop: float | None = None
    """Random resized crop (bilinear, antialiased, aspect ratio 3/4 to 4/3): the least share of the area, at most 1."""
    shift: int = 0
    """The most pixels that the image is moved by, each way, the border mirrored."""
    flip: bool = False
    """Left-right flip of half of the images."""
    jitter: float = 0.0
    """Brightness, contrast and saturation, factors 1 - jitter ... 1 + jitter, in random order; nothing is clipped."""
    lighting: float = 0.0
    """Deviation of the noise along the principal colours of ImageNet (Krizhevsky et al., 2012)."""
    normalise: Literal["imagenet", "cifar", "half"] = "imagenet"
    """Mean and deviation of the input: of ImageNet, of CIFAR-10, or 0.5 and 0.5."""
    dsa: bool = False
    """DSA's colours, then one of shift, scale and rotation for the whole batch, as IDC uses it; no cutout."""
    mix: Literal["none", "cutmix", "mixup"] = "none"
    """How two images become one."""
    mix_probability: float = 1.0
    """Share of the batches that are mixed."""
    mix_alpha: float = 1.0
    """Both parameters of the mixing weight's beta distribution; 1: uniform."""


@dataclass(frozen=True)
class Draw:
    """The parameters of one batch of n images, on the CPU, whatever sizes these have; None: that part is not done."""

    rows: Tensor | None = None
    """(n, shuffle): the order of the bands of rows, and the same for the columns."""
    columns: Tensor | None = None
    """(n, shuffle): the order of the bands of columns."""
    tries: Tensor | None = None
    """(n, 10, 2): shares of the area and aspect ratios of a crop, of which the first that fits the image is taken."""
    place: Tensor | None = None
    """(n, 2): where it stands, from 0 at the top (left) to 1 at the bottom (right)."""
    shift: Tensor | None = None
    """(n, 2): pixels down and across."""
    flip: Tensor | None = None
    """(n,), bool."""
    jitter: Tensor | None = None
    """(n, 3): the factors of brightness, contrast and saturation."""
    order: Tensor | None = None
    """(n, 3): in which order these three are applied."""
    lighting: Tensor | None = None
    """(n, 3): weights of the principal colours."""
    dsa: Tensor | None = None
    """(n, 3): brightness, saturation and contrast of DSA, uniform in 0 ... 1."""
    affine: Tensor | None = None
    """(n, 2, 3): DSA's shift, scale or rotation, as for torch's affine_grid."""
    partner: Tensor | None = None
    """(n,): which image each one is mixed with."""
    own: Tensor | None = None
    """(n, 1), or (1, 1) for all: the weight of the image itself in the mixture, and of its label in the loss."""
    cut: Tensor | None = None
    """(n, 4), or (1, 4) for all: CutMix's box in the views: top, bottom, left, right; None with a partner is mixup."""

    def of(self, index: Tensor | slice) -> Draw:
        """The parameters of some of the images; partners keep their numbers."""
        return Draw(**{name: value[index] for name, value in vars(self).items() if value is not None})


def draw(how: Augmentation, n: int, *key: Part) -> Draw:
    """Parameters for `n` images: equal keys, equal parameters."""
    rng = numpy_generator(*key)
    parts: dict[str, Any] = {}
    if how.shuffle > 1:
        parts["rows"], parts["columns"] = _orders(rng, n, how.shuffle), _orders(rng, n, how.shuffle)
    if how.crop is not None:
        ratios = rng.uniform(how.crop, 1, (n, 10)), np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), (n, 10)))
        parts["tries"], parts["place"] = torch.from_numpy(np.stack(ratios, 2)), torch.from_numpy(rng.random((n, 2)))
    if how.shift:
        parts["shift"] = torch.from_numpy(rng.integers(-how.shift, how.shift + 1, (n, 2)))
    if how.flip:
        parts["flip"] = torch.from_numpy(rng.random(n) < 0.5)
    if how.jitter:
        parts["jitter"] = _float(rng.uniform(1 - how.jitter, 1 + how.jitter, (n, 3)))
        parts["order"] = _orders(rng, n, 3)
    if how.lighting:
        parts["lighting"] = _float(rng.normal(0, how.lighting, (n, 3)))
    if how.dsa:
        parts["dsa"], parts["affine"] = _float(rng.random((n, 3))), _affine(rng, n, how.size)
    if how.mix == "none" or rng.random() >= how.mix_probability:
        return Draw(**parts)
    parts["partner"] = torch.from_numpy(rng.permutation(n))
    return Draw(**parts, **mixing(how, rng, 1))


def mixing(how: Augmentation, rng: Generator, n: int) -> dict[str, Tensor]:
    """The part of a draw that says how images are mixed with their partners: `n` weights, with their boxes.

    A box covers about 1 - own of the area around a uniform centre, clipped at the border (Yun et al., 2019); `own` then
    follows the box.
    """
    own = rng.random((n, 1)) if how.mix_alpha == 1 else rng.beta(how.mix_alpha, how.mix_alpha, (n, 1))
    if how.mix == "mixup":
        return {"own": _float(own)}
    half = (how.size * np.sqrt(1 - own)).astype(int) // 2
    centre = rng.integers(0, how.size, (n, 2))
    first, last = np.maximum(centre - half, 0), np.minimum(centre + half, how.size)
    own = 1 - (last - first).prod(1, keepdims=True) / how.size**2
    cut = np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], 1)
    return {"own": _float(own), "cut": torch.from_numpy(cut)}


def apply(images: Tensor | Sequence[Tensor], drawn: Draw, how: Augmentation) -> Tensor:
    """Views (n, 3, size, size), normalised, not yet mixed, of images in uint8, on the images' device.

    Images are (n, H, W, 3), or n times (H, W, 3), each of another size.
    """
    if isinstance(images, Tensor):
        x = _placed(images, drawn, how.size)
    else:
        unmixed = replace(drawn, partner=None, own=None, cut=None)
        each = (unmixed.of(torch.tensor([i])) for i in range(len(images)))
        x = torch.cat([_placed(image[None], own, how.size) for image, own in zip(images, each, strict=True)])
    if drawn.flip is not None:
        x = torch.where(sent(drawn.flip, x.device)[:, None, None, None], x.flip(3), x)
    if drawn.jitter is not None and drawn.order is not None:
        x = _jittered(x, drawn.jitter, drawn.order)
    if drawn.lighting is not None:
        colours = torch.tensor(_EIGENVECTORS) * torch.tensor(_EIGENVALUES)
        x = x + sent(drawn.lighting @ colours.T, x.device)[:, :, None, None]
    x = _standardised(x, how.normalise)
    if drawn.dsa is not None and drawn.affine is not None:
        x = _dsa(x, drawn.dsa, drawn.affine)
    return x


def mixed(views: Tensor, drawn: Draw, others: Tensor | None = None) -> Tensor:
    """The views mixed as drawn, by CutMix or mixup; themselves if no mixing was drawn.

    `others` are the partners' views, taken from among the views if not given.
    """
    if drawn.partner is None or drawn.own is None:
        return views
    others = views[sent(drawn.partner, views.device)] if others is None else others
    if drawn.cut is None:
        own = sent(drawn.own, views.device)[:, :, None, None]
        return own * views + (1 - own) * others
    top, bottom, left, right = sent(drawn.cut, views.device)[:, :, None].unbind(1)
    place = torch.arange(views.shape[2], device=views.device)
    down, across = (top <= place) & (place < bottom), (left <= place) & (place < right)
    return torch.where((down[:, :, None] & across[:, None, :])[:, None], others, views)


def normalised(images: Tensor, statistics: str) -> Tensor:
    """Images (n, H, W, 3) in uint8 as a network sees them in a test: (n, 3, H, W), normalised."""
    return _standardised(images.permute(0, 3, 1, 2).float() / 255, statistics)


def _standardised(x: Tensor, statistics: str) -> Tensor:
    mean, std = (_constant(values, x.device).view(1, 3, 1, 1) for values in STATISTICS[statistics])
    return (x - mean) / std


@lru_cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # gradients may pass it later
        return torch.tensor(values, device=device)


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _orders(rng: Generator, n: int, length: int) -> Tensor:
    return torch.from_numpy(rng.random((n, length)).argsort(1))


def boxes(drawn: Draw, height: int, width: int) -> Tensor:
    """(n, 4): top, left, height and width of the crops of images of `height` by `width` pixels.

    As torchvision's RandomResizedCrop: the first of ten tries that fits, else the middle.
    """
    assert drawn.tries is not None
    assert drawn.place is not None
    share, ratio = drawn.tries.unbind(2)
    area = height * width * share
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    any_fits, first = fits.any(1), fits.int().argmax(1, keepdim=True)
    h = torch.where(any_fits, h.gather(1, first)[:, 0], min(height, round(width / (3 / 4))))
    w = torch.where(any_fits, w.gather(1, first)[:, 0], min(width, round(height * (4 / 3))))
    place = torch.where(any_fits[:, None], drawn.place, 0.5 - 1e-9)
    top, left = (place * torch.stack([height - h + 1, width - w + 1], 1)).floor().unbind(1)
    return torch.stack([top, left, h, w], 1).long()


def _affine(rng: Generator, n: int, size: int) -> Tensor:
    """DSA's parameters: shifts to an eighth of the size, scales 1/1.2 to 1.2 for each axis, rotations to 15 degrees."""
    theta = np.tile(np.eye(2, 3), (n, 1, 1))
    kind = rng.integers(3)
    if kind == 0:
        most = int(size / 8 + 0.5)
        theta[:, :, 2] = rng.integers(-most, most + 1, (n, 2)) * 2 / size
    elif kind == 1:
        theta[:, [0, 1], [0, 1]] = rng.uniform(1 / 1.2, 1.2, (n, 2))
    else:
        angle = np.radians(rng.uniform(-15, 15, n))
        theta[:, 0, 0] = theta[:, 1, 1] = np.cos(angle)
        theta[:, 0, 1], theta[:, 1, 0] = -np.sin(angle), np.sin(angle)
    return _float(theta)


def _band_index(order: Tensor, length: int) -> Tensor:
    """(n, length): where each row (or column) comes from, the bands in this order; the last band takes the rest."""
    count = order.shape[1]
    first = torch.arange(count) * (length // count)
    bands = [torch.arange(int(f), length if i == count - 1 else int(f) + length // count) for i, f in enumerate(first)]
    return torch.stack([torch.cat([bands[i] for i in row]) for row in order.tolist()])


def _moved(by: Tensor, length: int) -> Tensor:
    """(n, length): where each row (or column) comes from, moved by (n,) pixels; beyond the border it is mirrored."""
    place = torch.arange(length) - by[:, None]
    return (length - 1) - ((length - 1) - place.abs()).abs()


def _shuffled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    image = torch.arange(len(x), device=x.device)[:, None, None]
    rows, columns = sent(rows, x.device), sent(columns, x.device)
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _placed(images: Tensor, drawn: Draw, size: int) -> Tensor:
    """Images (n, H, W, 3) as (n, 3, H, W) from 0 to 1, shuffled, shifted and cropped to `size`."""
    x = images.permute(0, 3, 1, 2).float() / 255
    if drawn.rows is not None and drawn.columns is not None:
        x = _shuffled(x, _band_index(drawn.rows, x.shape[2]), _band_index(drawn.columns, x.shape[3]))
    if drawn.shift is not None:
        x = _shuffled(x, *(_moved(drawn.shift[:, axis], x.shape[2 + axis]) for axis in (0, 1)))
    if drawn.tries is None:
        return x
    crops = boxes(drawn, x.shape[2], x.shape[3])
    if x.device.type == "cuda" and len(x) > 1:
        return cropped_at_once(x, crops, size)
    return torch.cat([_resized(x[i : i + 1], box, size) for i, box in enumerate(crops.tolist())])


def arithmetic(how: Augmentation, device: torch.device) -> dict[str, str]:
    """What keys say of how views are computed on a device; nothing where it is as it ever was."""
    return {"views": "crops of a batch at once"} if how.crop is not None and device.type == "cuda" else {}


def cropped_at_once(x: Tensor, crops: Tensor, size: int) -> Tensor:
    """The boxes (n, 4) of images (n, C, H, W) resized to `size` as `_resized` does it, but for rounding.

    Two products for the whole batch, in the place of a call for each image, which is what a GPU would wait for.
    """
    top, left, height, width = sent(crops.float(), x.device).unbind(1)
    with torch.autocast(x.device.type, enabled=False):
        return _shares(top, height, x.shape[2], size) @ x @ _shares(left, width, x.shape[3], size).mT


def _shares(first: Tensor, length: Tensor, whole: int, size: int) -> Tensor:
    """(n, 1, size, whole): what each row of a resized crop takes of each row of the image; bilinear and antialiased."""
    scale = (length / size)[:, None, None]
    middle = torch.arange(size, device=first.device) + 0.5
    place = torch.arange(whole, device=first.device) + 0.5
    apart = (place - first[:, None, None] - scale * middle[:, None]) / scale.clamp(min=1)
    within = (place > first[:, None, None]) & (place < (first + length)[:, None, None])
    shares = (1 - apart.abs()).clamp(min=0) * within
    return (shares / shares.sum(2, keepdim=True))[:, None]


def _resized(x: Tensor, box: Sequence[int], size: int) -> Tensor:
    """One image's box resized to `size` as torchvision does it: bilinear and antialiased, from its own pixels alone."""
    top, left, height, width = box
    part = x[:, :, top : top + height, left : left + width]
    return F.interpolate(part, (size, size), mode="bilinear", align_corners=False, antialias=True)


def _jittered(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Each of the three is a blend of the image with black, with its mean grey, or with its grey."""
    weights = _constant(GREY, x.device).view(1, 3, 1, 1)
    factors, order = sent(factors, x.device), sent(order, x.device)
    for kind in order.unbind(1):
        own = factors.gather(1, kind[:, None])[:, :, None, None]
        grey = (x * weights).sum(1, keepdim=True)
        to_mean, to_grey = ((kind == k)[:, None, None, None].float() for k in (1, 2))
        x = own * x + (1 - own) * (to_mean * grey.mean((2, 3), keepdim=True) + to_grey * grey)
    return x


def _dsa(x: Tensor, uniform: Tensor, affine: Tensor) -> Tensor:
    """DSA's colours on normalised images, then its affine map with zeros outside (Zhao and Bilen, ICML 2021)."""
    brightness, saturation, contrast = sent(uniform, x.device)[:, :, None, None, None].unbind(1)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean
    grid = F.affine_grid(sent(affine, x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
