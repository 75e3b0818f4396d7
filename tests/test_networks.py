"""The evaluation networks: published parameter counts, keyed weights, clear errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch
from toys import GOLDEN

from attar.core.errors import AttarError
from attar.networks import NETWORKS, build, check, check_size
from attar.networks.published import InstanceNorm

COUNTS: dict[str, int] = json.loads((GOLDEN / "networks.json").read_text())["counts"]


def named(published: str) -> tuple[str, int, int]:
    """Our name, the classes and the size of an entry such as "minimax convnet depth=3 ... size=32 classes=10"."""
    values = dict(re.findall(r"(\w+)=(\w+)", published))
    classes, size = int(values["classes"]), int(values.get("size", 224))
    if published.startswith("torchvision"):
        return f"torchvision/{published.split()[1]}", classes, size
    if "cifar" in published:
        return "resnet18-idc", classes, 32
    if "resnet18_modified" in published:
        return "resnet18-modified", classes, 32
    norm = "-bn" if values["norm"] == "batch" else ""
    names = {"convnet": f"convnet{values['depth']}{norm}", "resnet_ap": "resnetap10", "resnet": "resnet18-in"}
    return names[published.split()[1]], classes, size


@pytest.mark.golden
@pytest.mark.parametrize("published", COUNTS)
def test_published_parameter_counts(published: str) -> None:
    name, classes, size = named(published)
    with torch.device("meta"):
        network = build(name, classes, size, seed=0)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == COUNTS[published]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet3", 8),
        ("convnet3-bn-w16", 28),
        ("convnet4-w8", 50),
        ("resnetap10", 32),
        ("resnetap10", 96),
        ("resnet18-in", 96),
        ("resnet18-idc", 32),
        ("resnet10-bn-w16", 32),
        ("resnet18-modified", 32),
        ("resnet50-modified", 32),
        ("densenet-cifar", 32),
        ("vgg11-bn-w16", 64),
        ("vit6-w96", 32),
        ("vit2-w32", 28),
        ("timm/vit_tiny_patch16_224", 32),
        ("mobilenetv3_small_050", 64),
        ("torchvision/vit_b_16", 32),
    ],
)
def test_logits(name: str, size: int) -> None:
    network = build(name, 7, size, seed=1).eval()
    with torch.no_grad():
        logits = network(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_a_modified_resnet_has_torchvisions_weights_but_for_its_stem(depth: int) -> None:
    with torch.device("meta"):
        ours, theirs = (build(name, 10, 32, 0) for name in (f"resnet{depth}-modified", f"torchvision/resnet{depth}"))
    shapes = [{name: tuple(p.shape) for name, p in network.named_parameters()} for network in (ours, theirs)]
    assert shapes[0] == {**shapes[1], "conv1.weight": (64, 3, 3, 3)}


def test_the_weights_of_densenet_by_a_second_count() -> None:
    growth, channels, count = 12, 24, 3 * 9 * 24
    for block, layers in enumerate((6, 12, 24, 16)):
        for layer in range(layers):
            inner = channels + growth * layer
            count += 2 * inner + inner * 48 + 2 * 48 + 48 * 9 * growth
        channels += growth * layers
        if block < 3:
            count += 2 * channels + channels * (channels // 2)
            channels //= 2
    count += 2 * channels + channels * 10 + 10
    assert sum(p.numel() for p in build("densenet-cifar", 10, 32, 0).parameters()) == count == 1_000_618


def test_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (build("convnet3-w8", 4, 32, seed) for seed in (3, 3, 4))
    torch.manual_seed(99)
    later = build("convnet3-w8", 4, 32, 3)
    for one, two, three, four in zip(*(n.parameters() for n in (first, again, other, later)), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, four)
        if one.ndim > 1:
            assert not torch.equal(one, three)
    torch.random.set_rng_state(before)
    build("convnet3-w8", 4, 32, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_instance_norm_is_instance_norm() -> None:
    network = build("convnet3-w8", 4, 32, 0)
    norm = torch.nn.InstanceNorm2d(8)
    x = torch.randn(2, 8, 9, 9)
    layer = next(m for m in network.modules() if isinstance(m, torch.nn.GroupNorm))
    torch.testing.assert_close(layer(x), norm(x))


@pytest.mark.parametrize("shape", [(3, 8, 9, 7), (2, 8, 1, 1), (1, 5, 4, 4)])
def test_instance_norm_is_the_same_in_both_layouts(shape: tuple[int, ...]) -> None:
    """The channels-last code against torch's group norm, values and all gradients."""
    generator = torch.Generator().manual_seed(0)
    x, pull = (torch.randn(shape, generator=generator) + 2 for _ in range(2))
    layer = InstanceNorm(shape[1], shape[1])
    torch.nn.init.normal_(layer.weight, generator=generator)
    torch.nn.init.normal_(layer.bias, generator=generator)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        own = x.clone(memory_format=layout).requires_grad_()
        y = layer(own)
        assert y.is_contiguous(memory_format=layout)
        found.append((y, *torch.autograd.grad(y, [own, layer.weight, layer.bias], pull)))
    assert shape[2] == 1 or "ChannelsLast" in type(y.grad_fn).__name__
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_instance_norm_of_bfloat16_images_is_that_of_float32_rounded() -> None:
    generator = torch.Generator().manual_seed(0)
    x, pull = (torch.randn((3, 8, 9, 7), generator=generator).bfloat16() for _ in range(2))
    layer, found = InstanceNorm(8, 8), []
    for own in (x, x.float()):
        own = own.to(memory_format=torch.channels_last).detach().requires_grad_()
        y = layer(own)
        assert "ChannelsLast" in str([type(node[0]).__name__ for node in y.grad_fn.next_functions] + [y.grad_fn])
        found.append((y, *torch.autograd.grad(y, [own, layer.weight], pull.to(y.dtype))))
    assert found[0][0].dtype == torch.bfloat16
    for half, whole in zip(*found, strict=True):
        torch.testing.assert_close(half, whole.to(half.dtype), rtol=1e-2, atol=1e-5)


def test_small_resnets_are_idc_s_of_another_depth_norm_and_width() -> None:
    idc, wide = build("resnet18-idc", 10, 32, seed=0), build("resnet18-w32", 10, 32, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(idc.parameters(), wide.parameters(), strict=True))
    norms = {type(module).__name__ for module in build("resnet10-bn-w16", 10, 32, seed=0).modules()}
    assert "BatchNorm2d" in norms
    assert "InstanceNorm" not in norms
    counts = [sum(p.numel() for p in build(f"resnet{n}-bn-w16", 10, 32, seed=0).parameters()) for n in (10, 18)]
    assert counts == [308_826, 701_466]


def test_a_vgg_of_the_usual_width_has_torchvisions_convolutions() -> None:
    with torch.device("meta"):
        ours, theirs = (build(name, 10, 32, 0) for name in ("vgg11-bn-w64", "torchvision/vgg11_bn"))
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (ours, theirs)]
    assert shapes[0] == [*shapes[1][:-6], (10, 512), (10,)]


def test_a_small_transformer_is_of_the_depth_and_width_of_its_name() -> None:
    with torch.device("meta"):
        weights = dict(build("vit4-w64", 10, 32, 0).named_parameters())
    assert weights["pos_embed"].shape == (1, 64, 64)
    assert sum(name.endswith("attn.qkv.weight") for name in weights) == 4
    for name, size, said in (("vit6-w90", 32, "choose vit6-w96"), ("vit6-w96", 7, "7 pixels are too few")):
        with pytest.raises(AttarError, match=said):
            build(name, 10, size, 0)


@pytest.mark.parametrize("name", ["convnet3-w8", "resnet18-idc", "resnetap10"])
def test_networks_are_the_same_in_both_layouts(name: str) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, other = build(name, 4, 32, 0), build(name, 4, 32, 0).to(memory_format=torch.channels_last)
    torch.testing.assert_close(other(x), plain(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("convnet3-in", "convnet3"),
        ("resnet18-idk", "resnet18-idc"),
        ("torchvision/mobilenet_v7", "torchvision/mobilenet_v2"),
        ("timm/efficientnet_b00", "timm/efficientnet_b0"),
        ("nowhere/resnet18", "nowhere"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(AttarError, match=re.escape(name)) as caught:
        check(name)
    assert hint in str(caught.value)


def test_too_small_images() -> None:
    with pytest.raises(AttarError, match="8 pixels are too few"):
        build("convnet4", 10, 8, 0)


@pytest.mark.parametrize("name", ["torchvision/alexnet", "timm/inception_v4"])
def test_networks_that_cannot_take_the_images(name: str) -> None:
    with pytest.raises(AttarError, match=f"network {name} cannot take 16-pixel images; convnet3-bn-w48 can$"):
        check_size(name, 10, 16)


def test_a_network_must_give_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    check_size("convnet3-w8", 7, 16)
    monkeypatch.setattr("attar.networks.build", lambda *_, **__: torch.nn.Flatten())
    with pytest.raises(AttarError, match=r"convnet3-w9 gives \(2, 768\) for two images"):
        check_size("convnet3-w9", 7, 16)


def test_every_listed_name_is_known() -> None:
    for name in NETWORKS:
        if "NAME" not in name:
            check(name)


def test_listing_loads_no_torch() -> None:
    code = "import sys, attar.networks as n, attar.evaluation as e; assert n.NETWORKS.names() and e.RECIPES.names()"
    code += "; n.check('convnet3-w48'); assert not {'torch', 'torchvision', 'timm', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
