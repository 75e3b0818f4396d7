"""Evaluation networks by name: the published ones, and any of torchvision and timm."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from attar.core.errors import AttarError, suggestion

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {
    "convnet3": "ConvNet of width 128 and depth 3 with instance norm (DC, DSA, IDC); 32 pixels",
    "convnet4": "the same, depth 4; 64 pixels",
    "convnet5": "the same, depth 5; 128 pixels",
    "convnet6": "the same, depth 6; 224 and 256 pixels",
    "convnet3-bn": "ConvNet with batch norm (RDED); also convnet4-bn, convnet5-bn and convnet6-bn",
    "convnet3-w48": "ConvNet of another width; any depth, norm and width, for example convnet4-bn-w64",
    "resnetap10": "ResNetAP-10 with instance norm: average pooling in place of strides (IDC, Minimax)",
    "resnet18-in": "ResNet-18 with instance norm (IDC, Minimax)",
    "resnet18-idc": "the 2.8 M ResNet-18 with instance norm that IDC uses on CIFAR",
    "resnet10-bn-w16": "IDC's small ResNet of another depth (10 or 18), norm (-bn) and width: cheap enough for a CPU",
    "resnet18-modified": "the 11.2 M ResNet-18 with a 3x3 stem and no max pooling (RDED), batch norm; to 64 pixels",
    "resnet50-modified": "ResNet-50 with the same stem (D3HR)",
    "resnet101-modified": "ResNet-101 with the same stem (RDED, D3HR)",
    "densenet-cifar": "DenseNet of 121 layers and growth 12 with batch norm (Minimax); 32 pixels",
    "airbench": "airbench94's small network with fixed whitening and batch norm, quick to train; also airbench-w32",
    "torchvision/NAME": "any classifier of torchvision.models, for example torchvision/mobilenet_v2",
    "timm/NAME": "any network of timm, for example timm/efficientnet_b0; the prefix may be left out",
}
"""Names and what they stand for; importing this module loads no torch."""

_CONVNET = re.compile(r"convnet([3-6])(-bn)?(?:-w([1-9][0-9]{0,3}))?")
_RESNET = re.compile(r"resnet(10|18)(-bn)?-w([1-9][0-9]{0,3})")
_MODIFIED = re.compile(r"resnet(18|50|101)-modified")
_AIRBENCH = re.compile(r"airbench(?:-w([1-9][0-9]{0,3}))?")


def build(name: str, classes: int, size: int, seed: int) -> nn.Module:
    """A network with fresh weights for `size` by `size` RGB images and `classes` logits.

    The weights depend on `seed` alone (take it from `attar.core.rng.seed_of`); no global generator is left changed.

    Raises:
        AttarError: an unknown name, with names close to it; or a network that cannot take images of this size.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _named(name, classes, size)


def check(name: str) -> None:
    """Raises AttarError if no network has this name; loads neither weights nor, for our own names, torch."""
    if name in NETWORKS or any(ours.fullmatch(name) for ours in (_CONVNET, _RESNET, _AIRBENCH)):
        return
    library, _, inner = name.rpartition("/")
    if inner not in {"torchvision": _torchvision_names, "timm": _timm_names, "": _timm_names}.get(library, list)():
        ours = [ours for ours in NETWORKS if "NAME" not in ours]
        others = _timm_names() if not library else []
        others += [f"torchvision/{other}" for other in _torchvision_names()]
        others += [f"timm/{other}" for other in _timm_names()]
        hint = suggestion(name, [*ours, *others])
        raise AttarError(f"no network is called {name!r}{hint}; `attar list networks` shows them")


@functools.cache
def check_size(name: str, classes: int, size: int) -> None:
    """Raises AttarError unless the network gives logits for `size` by `size` images: tries two, on the CPU."""
    import torch

    try:
        network = build(name, classes, size, seed=0).eval()
        with torch.no_grad():
            shape = tuple(network(torch.zeros(2, 3, size, size)).shape)
    except AttarError:
        raise
    except Exception as error:
        other = "; convnet3-bn-w48 can" if size >= 8 else "; none of ours takes fewer than 8"
        raise AttarError(f"network {name} cannot take {size}-pixel images{other}") from error
    if shape != (2, classes):
        raise AttarError(f"network {name} gives {shape} for two images; {(2, classes)} is needed")


def _named(name: str, classes: int, size: int) -> nn.Module:
    from attar.networks import published

    check(name)
    if match := _CONVNET.fullmatch(name):
        norm: published.Norm = "batch" if match[2] else "instance"
        depth = int(match[1])
        if size < 2**depth:
            other = f"; convnet{size.bit_length() - 1} would fit" if size >= 8 else ""
            raise AttarError(
                f"{name} halves the image {depth} times: {size} pixels are too few, {2**depth} are needed{other}"
            )
        return published.ConvNet(classes, size, depth=depth, width=int(match[3] or 128), norm=norm)
    if match := _RESNET.fullmatch(name):
        blocks, block = 1 if match[1] == "10" else 2, published.StridingBlock
        return published.resnet(classes, size, blocks, block, "batch" if match[2] else "instance", int(match[3]))
    if match := _AIRBENCH.fullmatch(name):
        from attar.networks.airbench import Airbench

        return Airbench(classes, int(match[1] or 64))
    if name == "resnetap10":
        return published.resnet(classes, size, blocks=1, block=published.PoolingBlock, norm="instance")
    if name == "resnet18-in":
        return published.resnet(classes, size, blocks=2, block=published.StridingBlock, norm="instance")
    if name == "resnet18-idc":
        return published.resnet(classes, 32, blocks=2, block=published.StridingBlock, norm="instance", width=32)
    if match := _MODIFIED.fullmatch(name):
        return published.resnet_modified(int(match[1]), classes)
    if name == "densenet-cifar":
        from attar.networks.densenet import DenseNet

        return DenseNet(classes)
    if name.startswith("torchvision/"):
        return _torchvision(name.removeprefix("torchvision/"), classes, size)
    return _timm(name.removeprefix("timm/"), classes, size)


def _torchvision_names() -> list[str]:
    from torchvision import models

    with_auxiliary_heads = ("googlenet", "inception_v3")
    return [name for name in models.list_models(module=models) if name not in with_auxiliary_heads]


def _torchvision(name: str, classes: int, size: int) -> nn.Module:
    from torchvision import models

    sized = {"image_size": size} if name.startswith("vit_") else {}
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **sized)
    except ValueError as error:
        raise AttarError(f"torchvision/{name} cannot take {size}-pixel images: {error}") from error
    return network


def _timm_names() -> list[str]:
    import timm

    names: list[str] = timm.list_models()
    return names


def _timm(name: str, classes: int, size: int) -> nn.Module:
    import timm

    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    sized = {"img_size": size} if known is not None and known.fixed_input_size else {}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **sized)
    except (AssertionError, ValueError) as error:
        raise AttarError(f"timm/{name} cannot take {size}-pixel images: {error}") from error
    return network
