"""Evaluation networks by name: the published ones, and any of torchvision and timm."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from attar.core.errors import AttarError, suggestion
from attar.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[[str, int, int], nn.Module]
    """Called with the network's name, the number of classes and the side of the images in pixels."""

_HOME = "attar.networks.builders"

_TABLE: dict[str, tuple[Builder | str, str]] = {
    "convnet3": (f"{_HOME}:convnet", "ConvNet of width 128 and depth 3 with instance norm (DC, DSA, IDC); 32 pixels"),
    "convnet4": (f"{_HOME}:convnet", "the same, depth 4; 64 pixels"),
    "convnet5": (f"{_HOME}:convnet", "the same, depth 5; 128 pixels"),
    "convnet6": (f"{_HOME}:convnet", "the same, depth 6; 224 and 256 pixels"),
    "convnet3-bn": (
        f"{_HOME}:convnet",
        "ConvNet with batch norm (RDED); also convnet4-bn, convnet5-bn and convnet6-bn",
    ),
    "convnet3-w48": (
        f"{_HOME}:convnet",
        "ConvNet of another width; any depth, norm and width, for example convnet4-bn-w64",
    ),
    "resnetap10": (
        f"{_HOME}:resnetap10",
        "ResNetAP-10 with instance norm: average pooling in place of strides (IDC, Minimax)",
    ),
    "resnet18-in": (f"{_HOME}:resnet18_in", "ResNet-18 with instance norm (IDC, Minimax)"),
    "resnet18-idc": (f"{_HOME}:resnet18_idc", "the 2.8 M ResNet-18 with instance norm that IDC uses on CIFAR"),
    "resnet10-bn-w16": (
        f"{_HOME}:resnet_of_width",
        "IDC's small ResNet of another depth (10 or 18), norm (-bn) and width: cheap enough for a CPU",
    ),
    "resnet18-modified": (
        f"{_HOME}:resnet_modified",
        "the 11.2 M ResNet-18 with a 3x3 stem and no max pooling (RDED), batch norm; to 64 pixels",
    ),
    "resnet50-modified": (f"{_HOME}:resnet_modified", "ResNet-50 with the same stem (D3HR)"),
    "resnet101-modified": (f"{_HOME}:resnet_modified", "ResNet-101 with the same stem (RDED, D3HR)"),
    "densenet-cifar": (
        f"{_HOME}:densenet",
        "DenseNet of 121 layers and growth 12 with batch norm (Minimax); 32 pixels",
    ),
    "airbench": (
        f"{_HOME}:airbench",
        "airbench94's small network with fixed whitening and batch norm, quick to train; also airbench-w32",
    ),
    "vgg11-bn-w16": (
        f"{_HOME}:vgg_of_width",
        "VGG-11 with batch norm and one linear layer (DC), of any width, 64 being the usual; from 32 pixels",
    ),
    "vit6-w96": (
        "attar.networks.vision_transformer:build",
        "a small vision transformer of 8 x 8 patches, of any depth and width (a multiple of 32)",
    ),
    "torchvision/NAME": (
        "attar.networks.torchvision_models:build",
        "any classifier of torchvision.models, for example torchvision/mobilenet_v2",
    ),
    "timm/NAME": (
        "attar.networks.timm_models:build",
        "any network of timm, for example timm/efficientnet_b0; the prefix may be left out",
    ),
}
"""name -> (who builds it, what it is)"""

_PATTERNS = {
    r"convnet[3-6](-bn)?(-w[1-9][0-9]{0,3})?": "convnet3-w48",
    r"resnet(10|18)(-bn)?-w[1-9][0-9]{0,3}": "resnet10-bn-w16",
    r"airbench(-w[1-9][0-9]{0,3})?": "airbench",
    r"vgg11-bn-w[1-9][0-9]{0,3}": "vgg11-bn-w16",
    r"vit[1-9][0-9]?-w[1-9][0-9]{0,3}": "vit6-w96",
}


class Networks(Registry["Builder"]):
    """The registry of networks. Names of other libraries are looked up there, so only those load torch."""

    def find(self, name: object) -> str | None:
        if not isinstance(name, str):
            return None
        library, _, inner = name.rpartition("/")
        if inner == "NAME":
            return None
        if own := super().find(name):
            return own
        if library in ("", "torchvision", "timm") and inner in _library_names(library or "timm"):
            return f"{library or 'timm'}/NAME"
        return None

    def unknown(self, name: str) -> AttarError:
        others = {library: _library_names(library) for library in ("timm", "torchvision")}
        prefixed = [f"{library}/{other}" for library in ("torchvision", "timm") for other in others[library]]
        known = [own for own in self if "NAME" not in own] + ([] if "/" in str(name) else others["timm"]) + prefixed
        hint = suggestion(str(name), known)
        return AttarError(f"no network is called {name!r}{hint}; `attar list networks` shows them")


NETWORKS = Networks("network", _TABLE, _PATTERNS)

check = NETWORKS.check


def build(name: str, classes: int, size: int, seed: int) -> nn.Module:
    """A network with fresh weights for `size` by `size` RGB images and `classes` logits.

    The weights depend on `seed` alone (take it from `attar.core.rng.seed_of`); no global generator is left changed.

    Raises:
        AttarError: an unknown name, with names close to it; or a network that cannot take images of this size.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return NETWORKS.open(name)(name, classes, size)


def suited_convnet(size: int) -> str:
    """The ConvNet that papers use for images of this size, in pixels."""
    deepest = {32: 3, 64: 4, 128: 5}
    return f"convnet{next((depth for side, depth in deepest.items() if size <= side), 6)}"


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


def _library_names(library: str) -> list[str]:
    module = importlib.import_module(f"attar.networks.{library}_models")
    return cast("list[str]", module.names())
