"""Every method on every kind of prior and codec, with a teacher and without: a set that verifies, or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matrix import PAGE, PRIORS, REFUSED, RUNS, Cell, Made, counted
from PIL import Image
from test_methods import CLASSES
from toys import save_folder

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.priors import PRIORS as LISTED
from attar.sets.distilled import open_distilled, verify
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

WORK = ("latents", "fit", "candidates", "features", "prepared")
"""Kinds of artefacts that a refused run may not have made."""


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
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def prior(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return PRIORS[kind](tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def job(world: Path, prior: Made, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """What the methods share of one prior: itself, latents and batch sizes."""
    where, codec = prior
    spec = Spec(data=str(world / "data"), prior=str(where), codec=codec, device="cpu")
    return Job(spec, Store(tmp_path_factory.mktemp("cache")))


def test_no_method_and_no_form_of_prior_is_left_out() -> None:
    assert {name for name, _ in RUNS.values()} == set(METHODS)
    forms = {"DiTPipeline", "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "DiT.pt", "digits"}
    assert set(LISTED) == forms, "the Img2Img form loads as the other does; digits is a DiTPipeline"


def test_the_page_has_the_counts() -> None:
    assert counted() in PAGE.read_text(encoding="utf-8"), "run `python tests/matrix.py`"


@pytest.mark.parametrize("run", RUNS)
def test_it_makes_a_set_or_says_why_not(
    world: Path, kind: str, prior: Made, job: Job, tmp_path: Path, run: str
) -> None:
    for cell in (Cell(run, kind, taught) for taught in (False, True)):
        out = tmp_path / ("taught" if cell.taught else "untaught")
        if cell.refused is not None:
            empty = Job(job.spec, Store(tmp_path / "cache"))
            with pytest.raises(AttarError, match=REFUSED[cell.refused]):
                distill_sets(empty, RUNS[run][0], cell.method(world / "teacher"), (2,), out)
            assert not out.exists()
            assert not [made for work in WORK for made in tmp_path.glob(f"cache/{work}/*")], cell
            continue
        (folder,) = distill_sets(job, RUNS[run][0], cell.method(world / "teacher"), (2,), out)
        assert verify(folder) == [], cell
        files = open_distilled(folder).files()
        assert [len(of_class) for of_class in files] == [2] * len(CLASSES), cell
        assert all(np.asarray(Image.open(file)).std() > 0 for of_class in files for file in of_class), cell


def test_channels_beyond_those_of_the_prior_are_said_to_be_all(world: Path, tmp_path: Path, store: Store) -> None:
    where, codec = PRIORS["grey pixels"](tmp_path)
    said: list[str] = []
    job = Job(Spec(data=str(world / "data"), prior=str(where), codec=codec, device="cpu"), store, dry=True)
    distill_sets(job, "minimax", load_method("minimax"), (2,), tmp_path / "out", say=said.append)
    assert any("it has 1, fewer than `sampler.guided_channels=3` (the method's default" in line for line in said)
