"""Small stand-ins for what an experiment needs: its data, priors, codecs, teachers and networks, and one step of each.

Sizes and counts are replaced, never which methods, evaluations and settings there are.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from toys import original_weights, save_tiny_dit, save_tiny_sd

from attar.core.rng import numpy_generator
from attar.data.class_names import imagenet_names
from attar.data.imagenet import SUBSETS
from attar.evaluation import named_recipe
from attar.experiments.spec import Experiment, _experiment
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CIFAR = ("airplane", "automobile", "bird", "cat")
FEW = SUBSETS["imagenette"][:4]
"""Of the files that name no classes of ImageNet or Tiny-ImageNet."""
EACH, FOR_MOSAICS = 9, 18
"""Training images of a class: for a tenth that is held out, shares of the rest, and two mosaics of four."""
SIDE = 12
"""Pixels, wherever the file gives a size."""
STEPS: dict[str, dict[str, Any]] = {
    "prior": {"sampler.steps": 2},
    "d4m-noise": {"sampler.steps": 5},
    "d4m": {"sampler.steps": 5},
    "mgd3": {"sampler.steps": 5, "guide.until": 2},
    "tgdd": {"sampler.steps": 5, "guide.until": 2, "fit.anchors": 2},
    "cao2": {"sampler.steps": 2, "refine.steps": 1},
    "igd": {
        "sampler.steps": 5,
        "guide.first": 3,
        "guide.last": 2,
        "guide.real": 2,
        "fit.network": "convnet3-w8",
        "fit.epochs": 1,
        "fit.kept": [1],
    },
    "ot": {"sampler.steps": 5, "guide.first": 3, "guide.last": 1, "fit.count": 5},
    "dmgd": {"sampler.steps": 5, "guide.first": 3, "guide.last": 1},
    "dap": {"sampler.steps": 5},
    "cgs": {"sampler.steps": 5},
    "minimax": {"sampler.steps": 2, "fit.max_steps": 1, "fit.batch": 2, "fit.monitor.times": 0, "select.pool": 2},
    "rsm": {"sampler.steps": 2, "fit.max_steps": 1, "fit.batch": 2, "fit.monitor.times": 0, "select.pool": 2},
    "d3hr": {"sampler.steps": 10, "fit.steps": 10, "fit.per_class": 2, "subsets": 20},
    "exemplars": {"sampler.steps": 25, "fit.steps": 25},
    "rded": {"crops": 1},
}
"""By method: all that is long, made short. Their grids have the times of the files."""


class StandIns:
    """Made when first asked for, in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def data(self, classes: tuple[str, ...], each: int, wide: bool) -> str:
        """Noisy images of a colour for each class, 16 pixels high, with a test split; wide ones are no squares."""
        folder = self.root / f"data-{len(classes)}-{classes[0]}-{each}{'-wide' * wide}"
        if not folder.exists():
            for split, count in (("train", each), ("test", 1)):
                for number, name in enumerate(classes):
                    (folder / split / name).mkdir(parents=True)
                    for index in range(count):
                        pixels = self._picture(number / len(classes), (split, name, index), 20 if wide else 16)
                        Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
        return f"imagefolder:{folder}@train"

    def prior(self, named: str, classes: tuple[str, ...]) -> str:
        """A tiny prior of the kind that is named: an original checkpoint, Stable Diffusion, or a folder of DiT's."""
        kind = "sd" if "stable-diffusion" in named else "original.pt" if named.endswith(".pt") else "dit"
        names = list(CIFAR) if set(classes) <= set(CIFAR) else list(imagenet_names())
        place = self.root / f"{len(names)}-{kind}"
        if place.exists():
            return str(place)
        if kind == "sd":
            save_tiny_sd(place)
        elif kind == "dit":
            save_tiny_dit(place, names)
        else:
            torch.save(original_weights(hidden=48, depth=2, classes=len(names)), place)
            place.with_suffix(".json").write_text(json.dumps({"num_heads": 2}))
        return str(place)

    def codec(self) -> str:
        """An autoencoder for original checkpoints."""
        return self.prior("dit", FEW) + "/vae"

    def teacher(self, data: str) -> str:
        """Of the data's classes; it knows them all."""
        place = self.root / f"teacher-{Path(data).name}"
        if not place.exists():
            spec = TeacherTraining(
                data, network="convnet3-bn-w16", size=SIDE, epochs=12, batch=8, lr=0.1, shift=0, device="cpu"
            )
            train_teacher(spec, place, say=lambda text: None)
        return str(place)

    @staticmethod
    def _picture(hue: float, key: Iterable[Any], width: int) -> np.ndarray:
        colour = np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.9)) * 200
        noise = numpy_generator("stand-in", *key).integers(0, 50, (16, width, 3))
        return (colour + noise).astype(np.uint8)


def stood_in(file: Path, written: dict[str, Any], made: StandIns, out: Path) -> Experiment:
    """The experiment that a file describes, with what it needs at hand, two IPCs and one seed."""
    names = written.get("classes")
    photographs = "imagenet" in written["data"] or "imagewoof" in written["data"]
    large = photographs and "tiny" not in written["data"]
    classes = SUBSETS[names] if names else FEW if photographs else CIFAR
    mosaics = large and any(own.get("method", label) == "rded" for label, own in written["methods"].items())
    each = FOR_MOSAICS if mosaics else 2 if len(classes) == 100 else EACH
    data = made.data(classes, each, wide=large)
    ipcs = {ipc: 1 if ipc == min(_list(written["ipc"])) else 2 for ipc in _list(written["ipc"])}

    def counted(values: Any) -> list[int]:
        return sorted({ipcs[ipc] for ipc in _list(values)})

    top = {**written, "data": data, "out": str(out), "ipc": counted(written["ipc"]), "device": "cpu"}
    top["prior"] = made.prior(written["prior"], classes)
    if "codec" in written:
        top["codec"] = made.codec()
    if "imbalance_factor" in written:
        top["imbalance_factor"] = 2.0
    top["seeds"], top["distillation_seeds"] = written["seeds"] if written["seeds"] == "paired" else 1, 1
    top["methods"] = {label: _method(label, own, made, data, large) for label, own in written["methods"].items()}
    judging = written["evaluations"]
    named = dict.fromkeys(name for own in judging.values() for name in own["networks"])
    tiny = {name: f"convnet3-w{4 + number}" for number, name in enumerate(named)}
    top["evaluations"] = {label: _judging(label, own, made, data, tiny) for label, own in judging.items()}
    for own in (*top["methods"].values(), *top["evaluations"].values(), top):
        own |= {"ipc": counted(written["ipc"] if own is top else own["ipc"])} if "ipc" in own and own is not top else {}
        own |= {"output_size": SIDE} if "output_size" in own else {}
        own |= {"codec": made.codec()} if "codec" in own else {}
    top["published"] = [
        {
            **own,
            "network": tiny[own["network"]],
            "accuracy": {ipcs[int(ipc)]: value for ipc, value in own["accuracy"].items()},
        }
        for own in written.get("published", [])
    ]
    return _experiment(file, top)


def _method(label: str, written: dict[str, Any], made: StandIns, data: str, large: bool) -> dict[str, Any]:
    name = written.get("method", label)
    fields = {**written.get("set", {}), **STEPS.get(name, {})}
    if fields.get("refine") == "none":
        fields = {field: value for field, value in fields.items() if not field.startswith("refine.")}
    for field, value in list(fields.items()):
        if field.rpartition(".")[2] == "teacher":
            fields[field] = made.teacher(data)
        elif field == "refine" and value == "diver":
            fields |= {"refine.sampler.steps": 2, "refine.noised": 1, "refine.first": 1, "refine.last": 0}
        elif field == "refine" and value is True:
            fields |= {"refine.steps": 1, "refine.networks": ["convnet3-w8"], "refine.real": 2}
        elif field == "select.pool":
            fields[field] = 3
    if written.get("set", {}).get("sampler.solver") == "dpm++":
        fields["sampler.steps"] = 2
    if name == "rded" and large:
        fields |= {"size": SIDE, "factor": 2}
    return {**written, "set": fields}


def _judging(label: str, written: dict[str, Any], made: StandIns, data: str, tiny: dict[str, str]) -> dict[str, Any]:
    recipe = named_recipe(written.get("recipe", label))
    once = {"epochs": 1} if recipe.views == "image" else {"epochs": "none", "steps": 1}
    fields = {**written.get("set", {}), **once, "batch": 4, "test_every": "none", "test_from": 0}
    if recipe.size or "size" in fields:
        fields["size"] = SIDE
    networks = [tiny[name] for name in written["networks"]]
    taught = {"teacher": made.teacher(data)} if "teacher" in written else {}
    seeds = {"seeds": 1} if "seeds" in written else {}
    return {**written, **taught, **seeds, "set": fields, "networks": networks}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
