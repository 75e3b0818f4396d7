"""Every method on every kind of prior and codec, with a teacher and without: the cells, and what is to come of each.

Command: python tests/matrix.py, which writes their counts into docs/contracts.md
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from test_methods import CLASSES, FAST
from toys import PNDM, original_weights, save_tiny_dit, save_tiny_sd, with_flow

from attar.methods import METHODS, load_method
from attar.methods.base import LatentMethod

PAGE = Path(__file__).parent.parent / "docs" / "contracts.md"
PLACE = re.compile(r"(?<=<!-- matrix -->\n).*?(?=<!-- /matrix -->)", re.DOTALL)
REFINED = {"refine": "true", "refine.steps": 1, "refine.real": 4, "refine.networks": "convnet3-w8"}
DIVER = {"refine": "diver", "refine.sampler.steps": 5, "refine.noised": 3, "refine.first": 3, "refine.last": 2}
WATCHED = {f"fit.monitor.{name}": value for name, value in {"times": 2, "samples": 6, "real": 6, "steps": 2}.items()}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, FAST.get(name, {})) for name in METHODS},
    "herding, the prior's features": ("herding", {"select.features": "prior"}),
    "prior, in few steps": ("prior", {"sampler.solver": "dpm++", "sampler.steps": 3, "sampler.spacing": "log-snr"}),
    "prior, likelier": ("prior", {**FAST["prior"], "refine": "likelihood", "refine.steps": 2}),
    "minimax, as published": ("minimax", {k: v for k, v in FAST["minimax"].items() if "channels" not in k}),
    "minimax, LoRA": ("minimax", {**FAST["minimax"], "fit.adapt": "lora", "fit.rank": 2}),
    "minimax, watched": ("minimax", {**FAST["minimax"], **WATCHED}),
    "minimax, DIVER": ("minimax", {**FAST["minimax"], **DIVER}),
    "mgd3, DDIM": ("mgd3", {**FAST["mgd3"], "sampler.solver": "ddim"}),
    "exemplars, exact": ("exemplars", {**FAST["exemplars"], "fit.exact": "true"}),
    "exemplars, refined": ("exemplars", {**FAST["exemplars"], **REFINED}),
}
POOL = 4
"""Candidates that a teacher chooses two from."""
TEACHER = {"rded": "teacher", "exemplars": "fit.select.teacher"}
"""The field that names it, where it is not `select.teacher`."""
NEEDY = ("confident", "cao2", "rded")
TEACHERLESS = ("random", "herding, the prior's features")


def with_scheduler(folder: Path, **fields: Any) -> Path:
    """The prior in `folder`, its scheduler's configuration changed."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def original(folder: Path, channels: int = 4) -> Path:
    """A checkpoint of the original code, of 8 x 8 latents and learned variance."""
    folder.mkdir()
    torch.save(original_weights(classes=len(CLASSES), channels=channels), folder / "dit.pt")
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
VELOCITY = {"prediction_type": "v_prediction"}
PRIORS: dict[str, Callable[[Path], Made]] = {
    "grey pixels": lambda root: (save_tiny_dit(root / "dit", CLASSES, vae=False, channels=1), "pixel"),
    "colour pixels": lambda root: (save_tiny_dit(root / "dit", CLASSES, vae=False, learned_sigma=False), "pixel"),
    "AutoencoderKL, learned variance": lambda root: (save_tiny_dit(root / "dit", CLASSES), None),
    "AutoencoderKL, fixed variance": lambda root: (save_tiny_dit(root / "dit", CLASSES, learned_sigma=False), None),
    "AutoencoderTiny": lambda root: (save_tiny_dit(root / "dit", CLASSES), str(tiny_autoencoder(root / "tiny"))),
    "velocity, learned variance": lambda root: (with_scheduler(save_tiny_dit(root / "dit", CLASSES), **VELOCITY), None),
    "velocity, fixed variance": lambda root: (
        with_scheduler(save_tiny_dit(root / "dit", CLASSES, learned_sigma=False), **VELOCITY),
        None,
    ),
    "rectified flow": lambda root: (with_flow(save_tiny_dit(root / "dit", CLASSES, learned_sigma=False)), None),
    "original checkpoint": lambda root: (original(root / "dit"), str(tiny_autoencoder(root / "tiny"))),
    "original checkpoint, colour pixels": lambda root: (original(root / "dit", channels=3), "pixel"),
    "Stable Diffusion": lambda root: (save_tiny_sd(root / "sd"), None),
    "Stable Diffusion, velocity": lambda root: (save_tiny_sd(root / "sd", {**PNDM, **VELOCITY}), None),
}


class Cell(NamedTuple):
    """A run on a prior, with a teacher or without."""

    run: str
    prior: str
    taught: bool

    @property
    def refused(self) -> str | None:
        """What is said before any work, one of `REFUSED`; None where a set is made."""
        method, _ = RUNS[self.run]
        if self.run in NEEDY and not self.taught:
            return "it needs a teacher"
        if self.run in TEACHERLESS and self.taught:
            return "it asks no teacher"
        if method in ("minimax", "rsm") and self.prior.startswith("Stable Diffusion"):
            return "it tunes DiTs alone"
        return None

    def method(self, teacher: Path) -> Any:
        """The method, told the teacher if it has one.

        Raises:
            AttarError: its settings do not go together.
        """
        name, settings = RUNS[self.run]
        chosen = isinstance(METHODS.open(name), LatentMethod) and name not in ("exemplars", "cao2")
        fields = {**settings, **({"select.pool": POOL} if chosen else {})}
        if self.taught:
            fields |= {TEACHER.get(name, "select.teacher"): str(teacher)}
            fields |= {"select.rule": "confident"} if chosen else {}
        return load_method(name, fields)


REFUSED = {
    "it needs a teacher": r"name (it|the teacher that scores) with `(select\.)?teacher=",
    "it asks no teacher": r"asks no teacher here",
    "it tunes DiTs alone": r"fit tunes DiTs only",
}
"""Why a cell makes no set, and the error that says it."""


def cells() -> Iterator[Cell]:
    """All of them."""
    return (Cell(run, prior, taught) for prior in PRIORS for run in RUNS for taught in (False, True))


def counted() -> str:
    """The counts in words."""
    outcomes = Counter(cell.refused or "a set" for cell in cells())
    reasons = [f"| refused: {why} | {outcomes[why]} |" for why in REFUSED]
    rows = [f"| a set that verifies | {outcomes['a set']} |", *reasons, f"| all | {outcomes.total()} |"]
    names = f"{len(METHODS)} methods in {len(RUNS)} settings, {len(PRIORS)} kinds of prior and codec"
    return "\n".join([f"{names}, a teacher or none:\n", "| what comes of it | cells |", "|---|---:|", *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: counted(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
