"""Every method on a colour prior in pixels: a set that verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_methods import CLASSES, FAST, TAUGHT
from toys import save_folder, save_tiny_dit

from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.sets.distilled import open_distilled, verify
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

REFINED = {"refine": "true", "refine.steps": 2, "refine.real": 4, "refine.networks": "convnet3-w8"}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, FAST.get(name, {})) for name in METHODS},
    "exemplars, refined": ("exemplars", {**FAST["exemplars"], **REFINED}),
    "exemplars, exact": ("exemplars", {**FAST["exemplars"], "fit.exact": "true"}),
    "minimax, watched": (
        "minimax",
        {
            **FAST["minimax"],
            "fit.monitor.times": 2,
            "fit.monitor.samples": 6,
            "fit.monitor.real": 6,
            "fit.monitor.steps": 2,
        },
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pixels")
    save_folder(root / "data", CLASSES, each=12, size=8)
    save_tiny_dit(root / "dit", CLASSES, vae=False)
    new = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


@pytest.mark.parametrize("run", RUNS)
def test_every_method_makes_a_set_of_a_colour_prior_in_pixels(
    world: Path, tmp_path: Path, store: Store, run: str
) -> None:
    name, settings = RUNS[run]
    teacher = {TAUGHT[name]: str(world / "teacher")} if name in TAUGHT else {}
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), codec="pixel", device="cpu")
    method = load_method(name, {**settings, **teacher})
    for ipc, folder in zip((1, 3), distill_sets(Job(spec, store), name, method, (1, 3), tmp_path / "out"), strict=True):
        assert verify(folder) == []
        files = open_distilled(folder).files()
        assert [len(of_class) for of_class in files] == [ipc] * len(CLASSES)
        assert all(np.asarray(Image.open(file)).std() > 0 for of_class in files for file in of_class)
