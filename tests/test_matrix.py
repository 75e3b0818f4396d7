"""Every method that asks a prior, on every kind of prior and codec, with a teacher and without: a set that verifies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import CLASSES, FAST, TAUGHT
from toys import original_weights, save_folder, save_tiny_dit, save_tiny_sd, with_flow

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.methods.base import LatentMethod
from attar.priors import PRIORS as LISTED
from attar.sets.distilled import open_distilled, verify
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

REFINED = {"refine": "true", "refine.steps": 1, "refine.real": 4, "refine.networks": "convnet3-w8"}
DIVER = {"refine": "diver", "refine.sampler.steps": 5, "refine.noised": 3, "refine.first": 3, "refine.last": 2}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "prior": ("prior", FAST["prior"]),
    "prior, in few steps": ("prior", {"sampler.solver": "dpm++", "sampler.steps": 3, "sampler.spacing": "log-snr"}),
    "minimax, as published": ("minimax", {k: v for k, v in FAST["minimax"].items() if "channels" not in k}),
    "minimax, LoRA": ("minimax", {**FAST["minimax"], "fit.adapt": "lora", "fit.rank": 2}),
    "rsm": ("rsm", FAST["rsm"]),
    "cao2": ("cao2", FAST["cao2"]),
    "d4m": ("d4m", FAST["d4m"]),
    "d4m-noise": ("d4m-noise", FAST["d4m-noise"]),
    "mgd3": ("mgd3", FAST["mgd3"]),
    "mgd3, DDIM": ("mgd3", {**FAST["mgd3"], "sampler.solver": "ddim"}),
    "tgdd": ("tgdd", FAST["tgdd"]),
    "igd": ("igd", FAST["igd"]),
    "ot": ("ot", FAST["ot"]),
    "dmgd": ("dmgd", FAST["dmgd"]),
    "dap": ("dap", FAST["dap"]),
    "cgs": ("cgs", FAST["cgs"]),
    "d3hr": ("d3hr", FAST["d3hr"]),
    "exemplars": ("exemplars", FAST["exemplars"]),
    "exemplars, refined": ("exemplars", {**FAST["exemplars"], **REFINED}),
    "minimax, DIVER": ("minimax", {**FAST["minimax"], **DIVER}),
}
CHOOSES = {"exemplars": "fit.select.teacher"}
"""Where a method may take a teacher."""


def with_scheduler(folder: Path, **fields: Any) -> Path:
    """The prior in `folder`, its scheduler's configuration changed."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def original(folder: Path) -> Path:
    """A checkpoint of the original code, of 8 x 8 latents of 4 channels and learned variance."""
    folder.mkdir()
    torch.save(original_weights(classes=len(CLASSES)), folder / "dit.pt")
    (folder / "dit.json").write_text(json.dumps({"num_heads": 2}))
    return folder / "dit.pt"


def tiny_autoencoder(folder: Path) -> Path:
    """An AutoencoderTiny of 16-pixel images and 8 x 8 latents of 4 channels."""
    from diffusers import AutoencoderTiny

    widths: dict[str, Any] = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks: dict[str, Any] = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderTiny(**widths, **blocks, latent_channels=4).save_pretrained(folder)
    return folder


Made = tuple[Path, str | None]
"""A prior, and the codec that is named beside it."""
PRIORS: dict[str, Callable[[Path], Made]] = {
    "grey pixels": lambda root: (save_tiny_dit(root / "dit", CLASSES, vae=False, channels=1), "pixel"),
    "colour pixels": lambda root: (save_tiny_dit(root / "dit", CLASSES, vae=False, learned_sigma=False), "pixel"),
    "AutoencoderKL, learned variance": lambda root: (save_tiny_dit(root / "dit", CLASSES), None),
    "AutoencoderKL, fixed variance": lambda root: (save_tiny_dit(root / "dit", CLASSES, learned_sigma=False), None),
    "AutoencoderTiny": lambda root: (save_tiny_dit(root / "dit", CLASSES), str(tiny_autoencoder(root / "tiny"))),
    "velocity": lambda root: (
        with_scheduler(save_tiny_dit(root / "dit", CLASSES, learned_sigma=False), prediction_type="v_prediction"),
        None,
    ),
    "rectified flow": lambda root: (with_flow(save_tiny_dit(root / "dit", CLASSES, learned_sigma=False)), None),
    "original checkpoint": lambda root: (original(root / "dit"), str(tiny_autoencoder(root / "tiny"))),
    "Stable Diffusion": lambda root: (save_tiny_sd(root / "sd"), None),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("matrix")
    save_folder(root / "data", CLASSES, each=12, size=16)
    teacher = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(teacher, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


@pytest.fixture(scope="module", params=PRIORS)
def prior(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return PRIORS[request.param](tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def cache(prior: Made, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What the methods share of one prior: latents and batch sizes."""
    return Store(tmp_path_factory.mktemp("cache"))


def test_no_method_and_no_form_of_prior_is_left_out() -> None:
    latent = {name for name in METHODS if isinstance(METHODS.open(name), LatentMethod)}
    assert {name for name, _ in RUNS.values()} == latent
    forms = {"DiTPipeline", "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "DiT.pt", "digits"}
    assert set(LISTED) == forms, "the Img2Img form loads as the other does; digits is a DiTPipeline"


@pytest.mark.parametrize(
    ("run", "taught"), [*((run, False) for run in RUNS), *((run, True) for run in RUNS if RUNS[run][0] in CHOOSES)]
)
def test_it_makes_a_set(world: Path, prior: Made, cache: Store, tmp_path: Path, run: str, taught: bool) -> None:
    name, settings = RUNS[run]
    field = CHOOSES[name] if taught else TAUGHT.get(name)
    chosen = {field: str(world / "teacher")} if field else {}
    where, codec = prior
    spec = Spec(data=str(world / "data"), prior=str(where), codec=codec, device="cpu")
    method = load_method(name, {**settings, **chosen})
    if name in ("minimax", "rsm") and where.name == "sd":
        with pytest.raises(AttarError, match="fit tunes DiTs only"):
            distill_sets(Job(spec, Store(tmp_path / "cache")), name, method, (2,), tmp_path / "out")
        assert not list(tmp_path.glob("cache/latents/*"))
        return
    (folder,) = distill_sets(Job(spec, cache), name, method, (2,), tmp_path / "out")
    assert verify(folder) == []
    files = open_distilled(folder).files()
    assert [len(of_class) for of_class in files] == [2] * len(CLASSES)
    assert all(np.asarray(Image.open(file)).std() > 0 for of_class in files for file in of_class)


def test_channels_beyond_those_of_the_prior_are_said_to_be_all(world: Path, tmp_path: Path, store: Store) -> None:
    where, codec = PRIORS["grey pixels"](tmp_path)
    said: list[str] = []
    job = Job(Spec(data=str(world / "data"), prior=str(where), codec=codec, device="cpu"), store, dry=True)
    distill_sets(job, "minimax", load_method("minimax"), (2,), tmp_path / "out", say=said.append)
    assert any("it has 1, fewer than `sampler.guided_channels=3` (the method's default" in line for line in said)
