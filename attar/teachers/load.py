"""Loading what teaches: a folder of ours, a pretrained network of timm or torchvision, or a checkpoint."""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from attar.core.errors import AttarError, suggestion
from attar.core.files import expand_user
from attar.core.hub_ids import near, why_not_on_hub
from attar.core.store import file_digest
from attar.core.weights import damaged_weights
from attar.data.class_names import imagenet_names
from attar.networks import build, check
from attar.teachers.record import RECORD, read_record
from attar.teachers.teacher import Pretrained
from attar.training.augment import STATISTICS

FORMS = (
    "a folder of `attar train-teacher`, timm/NAME or torchvision/NAME (pretrained), or NETWORK:FILE (the weights of a "
    "network of `attar list networks`)"
)


def load_pretrained(
    source: str, class_list: Path | None, count: int, size: int, normalise: str | None = None
) -> Pretrained:
    """The classifier that `source` names, in eval mode on the CPU.

    `source`: a folder of `attar train-teacher`; `timm/NAME` or `torchvision/NAME`, with pretrained weights; or
    `NETWORK:FILE`, a .safetensors, or a .pt or .pth with a state dict and perhaps the arguments of its training
    (argparse.Namespace), but no other object. The network of such a file is built for `size`-pixel images and `count`
    classes, or as many as `class_list`, a file with its class list, names; its input is normalised by `normalise`.

    Raises:
        AttarError: there is no such teacher, its weights do not fit, or its class list does not.
    """
    names = None if class_list is None else read_classes(class_list)
    name, colon, file = source.partition(":")
    if normalise is not None and normalise not in STATISTICS:
        hint = suggestion(normalise, STATISTICS)
        raise AttarError(f"`teacher_normalise` {normalise}{hint}: choose one of {', '.join(STATISTICS)}")
    if expand_user(source).is_dir():
        own = _from_folder(expand_user(source))
    elif source.startswith("timm/") and (not colon or name == "timm/local-dir"):
        own = _from_timm(source)
    elif source.startswith("torchvision/") and not colon:
        own = _from_torchvision(source)
    elif colon:
        own = _from_file(source, name, expand_user(file), len(names or ()) or count, size)
    else:
        raise AttarError(f"`teacher` {_absent(source)}")
    mean, std = (own.mean, own.std) if normalise is None else STATISTICS[normalise]
    if names is not None and len(names) != own.outputs:
        raise AttarError(
            f"`teacher_classes` {class_list}: {len(names)} names, and the teacher has {own.outputs} classes"
        )
    network, classes = own.network.eval(), names or own.classes
    sure = own.sure and normalise is None
    return replace(own, source=source, network=network, classes=classes, mean=mean, std=std, sure=sure)


def check_form(source: str, name: str) -> None:
    """Raises AttarError, of the option `name`, for a teacher that is neither a folder that is there nor of a form."""
    if not expand_user(source).is_dir() and ":" not in source and not source.startswith(("timm/", "torchvision/")):
        raise AttarError(f"{name} {_absent(source)}")


def _absent(source: str) -> str:
    single = " of one teacher" if "," in source else ""
    return f"{source}{near(source)}: there is no such folder{single}; give {FORMS}"


def read_classes(file: Path) -> tuple[str, ...]:
    """A class list, in the order of the logits: lines of a text file, a JSON list, or `classes = [...]` in TOML.

    Raises:
        AttarError: the file cannot be read as such, or names a class twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            names = json.loads(text)
        elif file.suffix == ".toml":
            names = tomllib.loads(text).get("classes")
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise AttarError(f"`teacher_classes` {file}: cannot be read ({error})") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise AttarError(f"`teacher_classes` {file}: must be class names: one a line, a JSON list, or classes = [...]")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise AttarError(f"`teacher_classes` {file}: {twice!r} stands there more than once")
    return tuple(names)


def _from_folder(folder: Path) -> Pretrained:
    try:
        record = read_record(folder)
    except AttarError as error:
        raise AttarError(f"`teacher` {folder}: holds no teacher ({error}); give {FORMS}") from error
    name, classes, size = record["network"], tuple(record["classes"]), record["size"]
    mean, std = (tuple(map(float, record[statistic])) for statistic in ("mean", "std"))
    weights = checked_weights(folder, record)
    network = build(name, len(classes), size, seed=0)
    _load(network, load_file(weights), f"{weights} as {name} for {len(classes)} classes and {size}-pixel images")
    return Pretrained(str(folder), network, classes, size, mean, std, len(classes), sure=True)  # type: ignore[arg-type]


def checked_weights(folder: Path, record: Mapping[str, Any]) -> Path:
    """The file with the weights of a teacher in a folder; raises AttarError where they are not those of its record."""
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_digest(weights) != record.get("weights"):
        raise AttarError(
            f"{weights} is missing or not what {RECORD} says: copy the teacher again, or remove {folder} and train it"
        )
    return weights


def _from_timm(source: str) -> Pretrained:
    import timm

    name = source.removeprefix("timm/")
    known, local = [*timm.list_models(), *timm.list_pretrained()], name.startswith("local-dir")
    if name not in known and not local:
        hint = suggestion(source, [f"timm/{name}" for name in known])
        raise AttarError(f"`teacher` {source}{hint}: timm has no network, or no weights, of this name")
    repository = None if local else getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None)
    if repository and (why := why_not_on_hub(repository)):
        raise AttarError(f"`teacher` {source}: its weights are {repository} of the hub, and {why}")
    try:
        network: Any = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise AttarError(f"`teacher` {source}: timm cannot load it with pretrained weights ({error})") from error
    about: dict[str, Any] = network.pretrained_cfg
    outputs = int(network.num_classes)
    names = about.get("label_names") or (imagenet_names() if outputs == 1000 else None)
    classes = tuple(names) if names is not None and len(names) == outputs else None
    size = int(about["input_size"][1])
    return Pretrained(source, network, classes, size, tuple(about["mean"]), tuple(about["std"]), outputs)


def _from_torchvision(source: str) -> Pretrained:
    from torchvision import models

    name = source.removeprefix("torchvision/")
    if name not in (known := models.list_models()):
        hint = suggestion(source, [f"torchvision/{name}" for name in known])
        raise AttarError(f"`teacher` {source}{hint}: torchvision has no network of this name")
    try:
        weights = models.get_model_weights(name).DEFAULT
        network: nn.Module = models.get_model(name, weights=weights)
    except Exception as error:
        raise AttarError(f"`teacher` {source}: torchvision cannot load it with weights ({error})") from error
    shown = weights.transforms()
    classes = tuple(weights.meta["categories"])
    return Pretrained(source, network, classes, shown.crop_size[0], tuple(shown.mean), tuple(shown.std), len(classes))


def _from_file(source: str, name: str, file: Path, count: int, size: int) -> Pretrained:
    check(name)
    if not file.is_file():
        raise AttarError(f"`teacher` {source}: there is no file {file}{near(str(file))}; give {FORMS}")
    network = build(name, count, size, seed=0)
    _load(network, _state(file), f"{file} as {name} for {count} classes and {size}-pixel images")
    return Pretrained(source, network, None, size, None, None, count)


def _state(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, taken from under the usual names, out of DataParallel and torch.compile."""
    if why := damaged_weights(file):
        raise AttarError(f"`teacher` {why}")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        raise AttarError(
            f"{file}: cannot be read as a state dict without running code in it ({error}); is it whole?"
        ) from error
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise AttarError(f"{file}: holds no state dict, a table of tensors by name")
    return _renamed({re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)): value for name, value in state.items()})


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """RDED's and D3HR's ConvNets by the names of ours, where each block is convolution, norm, ReLU and pooling."""
    block = re.compile(r"layers\.(conv|norm)\.(\d+)\.")
    depth = len({match[2] for name in state if (match := block.match(name))})

    def ours(name: str) -> str:
        if match := block.match(name):
            return f"{4 * int(match[2]) + (match[1] == 'norm')}.{name[match.end() :]}"
        return name.replace("classifier.", f"{4 * depth + 1}.")

    return {ours(name): value for name, value in state.items()} if depth else state


def _load(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise AttarError(f"{where}: these are not the weights of this network ({why})") from error
