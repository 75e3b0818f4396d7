"""Augmentation in batches, held to torchvision's functionals image by image."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandomResizedCrop, functional

from attar.core.rng import numpy_generator
from attar.training import augment
from attar.training.augment import STATISTICS, Augmentation, Draw, apply, boxes, draw, mixed, mixing, normalised

PLAIN = Augmentation(size=32, normalise="half")


def images(n: int = 6, height: int = 32, width: int = 32, low: int = 0, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(low, high, (n, height, width, 3), generator=generator, dtype=torch.uint8)


def unit(x: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in 0 ... 1."""
    return x.permute(0, 3, 1, 2).float() / 255


def undone(view: Tensor) -> Tensor:
    """Undoes the normalisation "half"."""
    return view * 0.5 + 0.5


def test_nothing_is_normalisation() -> None:
    x = images()
    mean, std = (list(values) for values in STATISTICS["imagenet"])
    expected = functional.normalize(unit(x), mean, std)
    torch.testing.assert_close(apply(x, Draw(), replace(PLAIN, normalise="imagenet")), expected)
    torch.testing.assert_close(normalised(x, "imagenet"), expected)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (140, 96, 32), (24, 20, 48)])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip(height: int, width: int, size: int, flip: bool) -> None:
    how = replace(PLAIN, size=size, crop=0.08, flip=flip)
    x = images(16, height, width)
    drawn = draw(how, len(x), 0, "view")
    views = undone(apply(x, drawn, how))
    for i, box in enumerate(boxes(drawn, height, width).tolist()):
        expected = functional.resized_crop(unit(x)[i], *box, [size, size], antialias=True)
        if drawn.flip is not None and drawn.flip[i]:
            expected = functional.horizontal_flip(expected)
        torch.testing.assert_close(views[i], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (140, 96, 32), (24, 20, 48), (9, 224, 112)])
def test_crops_of_a_batch_at_once_are_those_of_each_image(height: int, width: int, size: int) -> None:
    drawn = draw(replace(PLAIN, size=size, crop=0.02), 24, "crops")
    crops, x = boxes(drawn, height, width), unit(images(24, height, width))
    each = [functional.resized_crop(x[i], *box, [size, size], antialias=True) for i, box in enumerate(crops.tolist())]
    torch.testing.assert_close(augment.cropped_at_once(x, crops, size), torch.stack(each), rtol=0, atol=2e-6)


def test_crops_of_a_batch_at_once_stay_in_float32_under_mixed_precision() -> None:
    crops, x = torch.tensor([[0, 0, 20, 20], [3, 5, 9, 7]]), unit(images(2))
    with torch.autocast("cpu", torch.bfloat16):
        views = augment.cropped_at_once(x, crops, 16)
    torch.testing.assert_close(views, augment.cropped_at_once(x, crops, 16), rtol=0, atol=0)


def test_gradients_pass_what_was_first_normalised_without_them() -> None:
    augment._constant.cache_clear()
    with torch.inference_mode():
        normalised(images(1), "imagenet")
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    augment._standardised(x, "imagenet").pow(2).sum().backward()
    assert x.grad is not None


def test_crops_are_those_of_pil_but_for_its_rounding() -> None:
    how = replace(PLAIN, size=24, crop=0.08)
    x = images(16, 90, 120)
    drawn = draw(how, len(x), 0, "view")
    views = undone(apply(x, drawn, how))
    for i, (top, left, height, width) in enumerate(boxes(drawn, 90, 120).tolist()):
        picture = Image.fromarray(x[i].numpy()).crop((left, top, left + width, top + height))
        expected = functional.pil_to_tensor(picture.resize((24, 24), Image.Resampling.BILINEAR))
        torch.testing.assert_close(255 * views[i], expected.float(), rtol=0, atol=1.01)


def test_images_of_differing_sizes_are_seen_as_each_alone() -> None:
    how = Augmentation(24, 2, 0.3, 2, True, 0.4, 0.1, "cifar", True)
    pictures = [images(1, height, width)[0] for height, width in ((40, 30), (31, 64), (24, 24))]
    drawn = draw(how, 3, "sizes")
    together = apply(pictures, drawn, how)
    for i, picture in enumerate(pictures):
        torch.testing.assert_close(together[i : i + 1], apply(picture[None], drawn.of(torch.tensor([i])), how))
    same = torch.stack([pictures[2]] * 3)
    torch.testing.assert_close(apply(list(same), drawn, how), apply(same, drawn, how))


def test_shifts_mirror_the_border() -> None:
    how = replace(PLAIN, shift=3)
    x = images(40)
    drawn = draw(how, 40, 1)
    assert drawn.shift is not None
    assert set(drawn.shift.flatten().tolist()) == set(range(-3, 4))
    views = undone(apply(x, drawn, how))
    for i, (down, across) in enumerate(drawn.shift.tolist()):
        padded = F.pad(unit(x)[i : i + 1], (3, 3, 3, 3), mode="reflect")[0]
        torch.testing.assert_close(views[i], padded[:, 3 - down : 35 - down, 3 - across : 35 - across])


def test_boxes_are_distributed_as_torchvisions() -> None:
    how = replace(PLAIN, crop=0.3)
    drawn = boxes(draw(how, 4000, 1), 30, 40).float()
    theirs = RandomResizedCrop(8, scale=(0.3, 1.0))
    torch.manual_seed(0)
    found = [theirs.make_params([torch.zeros(3, 30, 40)]) for _ in range(4000)]
    expected = torch.tensor([[f["top"], f["left"], f["height"], f["width"]] for f in found]).float()
    assert (drawn[:, 0] + drawn[:, 2] <= 30).all()
    assert (drawn[:, 1] + drawn[:, 3] <= 40).all()
    error = 5 * expected.std(0) * math.sqrt(2 / 4000)
    assert ((drawn.mean(0) - expected.mean(0)).abs() < error).all()
    torch.testing.assert_close(drawn.std(0), expected.std(0), rtol=0.1, atol=0.05)


def test_the_whole_area_is_the_image_itself() -> None:
    how = replace(PLAIN, crop=1.0)
    x = images()
    torch.testing.assert_close(undone(apply(x, draw(how, 6, 0), how)), unit(x), atol=1e-6, rtol=0)


def test_jitter_in_each_images_own_order() -> None:
    how = replace(PLAIN, jitter=0.4)
    x = images(48, low=115, high=145)  # far enough from black and white that torchvision clips nothing
    drawn = draw(how, len(x), 3)
    assert drawn.jitter is not None
    assert drawn.order is not None
    assert len({tuple(order) for order in drawn.order.tolist()}) == 6
    views = undone(apply(x, drawn, how))
    theirs = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for i, order in enumerate(drawn.order.tolist()):
        expected = unit(x)[i]
        for kind in order:
            expected = theirs[kind](expected, float(drawn.jitter[i, kind]))
        torch.testing.assert_close(views[i], expected, rtol=0, atol=3e-4)  # their grey has 0.2989 for red


def test_lighting_moves_along_the_principal_colours() -> None:
    how = replace(PLAIN, lighting=0.1)
    x = images()
    drawn = draw(how, 6, 4)
    assert drawn.lighting is not None
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    shift = torch.stack([sum((w * v * vectors[:, k] for k, (w, v) in enumerate(zip(row, values, strict=True))),
                             torch.zeros(3)) for row in drawn.lighting])  # fmt: skip
    torch.testing.assert_close(undone(apply(x, drawn, how)), unit(x) + shift[:, :, None, None], atol=1e-5, rtol=0)


def test_shuffled_bands() -> None:
    how = replace(PLAIN, shuffle=3)
    x = images(8, 32, 32)
    drawn = draw(how, 8, 5)
    assert drawn.rows is not None
    assert drawn.columns is not None
    views = undone(apply(x, drawn, how))
    for i in range(8):
        expected = unit(x)[i]
        for order, axis in ((drawn.rows[i], 1), (drawn.columns[i], 2)):
            bands = list(expected.split([10, 10, 12], axis))
            expected = torch.cat([bands[k] for k in order.tolist()], axis)
        torch.testing.assert_close(views[i], expected)


def test_dsa() -> None:
    how = replace(PLAIN, dsa=True)
    x = images()
    kinds = set()
    for step in range(20):
        drawn = draw(how, 6, 6, step)
        assert drawn.dsa is not None
        assert drawn.affine is not None
        views = apply(x, drawn, how)
        for i in range(6):
            brightness, saturation, contrast = drawn.dsa[i].tolist()
            y = (unit(x)[i] - 0.5) / 0.5 + brightness - 0.5
            y = torch.lerp(y.mean(0, keepdim=True).expand_as(y), y, 2 * saturation)
            y = torch.lerp(y.mean().expand_as(y), y, contrast + 0.5)
            theta = drawn.affine[i]
            expected, kind = _moved(y, theta)
            kinds.add(kind)
            torch.testing.assert_close(views[i], expected, rtol=1e-3, atol=2e-3)
    assert kinds == {"shift", "scale", "rotation"}


def _moved(y: Tensor, theta: Tensor) -> tuple[Tensor, str]:
    """One image under DSA's map, by a shift of pixels, torchvision's rotation, or two one-dimensional resamplings."""
    if torch.equal(theta[:, :2], torch.eye(2)):
        right, down = (round(v * 16) for v in theta[:, 2].tolist())
        padded = F.pad(y, (4, 4, 4, 4))
        return padded[:, 4 + down : 36 + down, 4 + right : 36 + right], "shift"
    if theta[0, 1] != 0:
        angle = math.degrees(math.asin(float(theta[1, 0])))
        return functional.rotate(y, angle, functional.InterpolationMode.BILINEAR), "rotation"
    weights = []
    for scale in (theta[1, 1], theta[0, 0]):
        place = (torch.arange(32) - 15.5) * scale + 15.5
        weights.append((1 - (place[:, None] - torch.arange(32)).abs()).clamp(min=0))
    return weights[0] @ y @ weights[1].T, "scale"


def test_cutmix() -> None:
    how = replace(PLAIN, mix="cutmix")
    views = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32).contiguous()
    shares = []
    for step in range(200):
        drawn = draw(how, 4, 7, step)
        assert drawn.partner is not None
        assert drawn.own is not None
        both = mixed(views, drawn)
        own = (both == views).float().mean((1, 2, 3))
        for i, partner in enumerate(drawn.partner.tolist()):
            assert own[i] == pytest.approx(1.0 if partner == i else float(drawn.own), abs=1e-6)
        shares.append(float(drawn.own))
    assert 0.55 < np.mean(shares) < 0.8  # a uniform share, more for boxes clipped at the border
    assert torch.equal(views[:, 0, 0, 0], torch.arange(4.0))


def test_mixup_and_its_probability() -> None:
    how = replace(PLAIN, mix="mixup", mix_probability=0.5)
    views = torch.randn(5, 3, 4, 4)
    draws = [draw(how, 5, 8, step) for step in range(200)]
    used = [d for d in draws if d.partner is not None]
    assert 70 < len(used) < 130
    for drawn in used[:5]:
        assert drawn.partner is not None
        assert drawn.own is not None
        torch.testing.assert_close(mixed(views, drawn), torch.lerp(views[drawn.partner], views, float(drawn.own)))
    assert mixed(views, Draw()) is views


def test_the_mixing_weight_is_beta_distributed() -> None:
    for alpha, deviation in ((1.0, 0.2887), (0.8, 0.3101)):  # of a beta: 1 / (2 sqrt(2 alpha + 1))
        own = mixing(replace(PLAIN, mix="mixup", mix_alpha=alpha), numpy_generator(0), 20_000)["own"]
        assert float(own.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(own.std()) == pytest.approx(deviation, abs=0.005)


def test_equal_keys_equal_views() -> None:
    how = Augmentation(24, 2, 0.3, 2, True, 0.4, 0.1, "cifar", True, "cutmix")
    x = images()
    one, two, other = (mixed(apply(x, d, how), d) for d in (draw(how, 6, "a", k) for k in (1, 1, 2)))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == (6, 3, 24, 24)


def test_keys_say_how_a_gpu_makes_crops_and_are_else_as_they_were() -> None:
    cropped = replace(PLAIN, crop=0.5)
    assert augment.arithmetic(cropped, torch.device("cpu")) == augment.arithmetic(PLAIN, torch.device("cuda")) == {}
    assert augment.arithmetic(cropped, torch.device("cuda", 1)) == {"views": "crops of a batch at once"}
