"""One suite over every method: what the contract promises."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from toys import GUIDED, save_folder, save_tiny_dit

from attar.core.batching import CPU_BATCH_SIZES
from attar.core.store import Store, fingerprint
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import METHODS, load_method
from attar.methods.base import Fit, RealImages
from attar.selection import Select
from attar.sets.distilled import open_distilled
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee", "cat", "dog"]
TUNED: dict[str, Any] = {
    "sampler.steps": 5,
    "sampler.guided_channels": "none",
    "select.pool": 4,
    "fit.group": 1,
    "fit.batch": 4,
    "fit.max_steps": 3,
    "fit.monitor.times": 0,
}
FAST: dict[str, dict[str, Any]] = {
    "prior": {"sampler.steps": 5},
    "d4m": {"sampler.steps": 5},
    "d4m-noise": {"sampler.steps": 5},
    "cao2": {"sampler.steps": 5, "sampler.guided_channels": "none", "refine.steps": 2},
    "minimax": TUNED,
    "rsm": TUNED,
    "mgd3": {"sampler.steps": 5, "sampler.guided_channels": "none", "guide.until": 2},
    "tgdd": {"sampler.steps": 5, "sampler.guided_channels": "none", "guide.until": 2, "fit.anchors": 3},
    **{name: {"sampler.steps": 5, "sampler.guided_channels": "none", **own} for name, own in GUIDED.items()},
    "d3hr": {"sampler.steps": 5, "fit.steps": 5, "subsets": 50},
    "exemplars": {"sampler.steps": 5, "fit.steps": 5, "fit.time": 600},
}


TAUGHT = {"confident": "select.teacher", "cao2": "select.teacher", "rded": "teacher"}
"""Methods that need a teacher, and the field that names it."""
OF_ALL_CLASSES = ("igd", "margin")
"""Methods whose images depend on which classes are distilled."""
SEEDLESS = ("herding", "k-center", "medoid", "margin", "confident", "exemplars")
"""Methods that choose by rules without chance."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


def distilled(world: Path, out: Path, name: str, store: Store, ipcs: tuple[int, ...] = (3,), **spec: Any) -> list[Path]:
    job = Spec(data=f"imagefolder:{world / 'data'}", prior=str(world / "dit"), device="cpu", **spec)
    teacher = {TAUGHT[name]: str(world / "teacher")} if name in TAUGHT else {}
    return distill_sets(Job(job, store), name, load_method(name, {**FAST.get(name, {}), **teacher}), ipcs, out)


def digests(folder: Path) -> dict[tuple[str, str], str]:
    one = open_distilled(folder)
    images = one.manifest["images"]
    return {
        (name, file.name): images[file.relative_to(folder).as_posix()]
        for name, files in zip(one.classes, one.files(), strict=True)
        for file in files
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", params=METHODS)
def first(request: pytest.FixtureRequest, world: Path, cache: Store) -> tuple[str, list[Path]]:
    """A method and its sets of 1 and 3 images a class, made once for all tests."""
    name: str = request.param
    return name, distilled(world, world / name, name, cache, (1, 3))


def test_it_makes_ipc_images_of_each_class(first: tuple[str, list[Path]]) -> None:
    for ipc, folder in zip((1, 3), first[1], strict=True):
        assert folder.name == f"ipc-00{ipc}"
        one = open_distilled(folder)
        assert one.classes == tuple(CLASSES)
        assert [len(files) for files in one.files()] == [ipc] * 4


def test_bytes_are_the_same_for_two_runs_and_for_some_of_the_classes(
    world: Path, tmp_path: Path, first: tuple[str, list[Path]]
) -> None:
    name, whole = first[0], digests(first[1][1])
    again = digests(distilled(world, tmp_path / "b", name, Store(tmp_path / "other"))[0])
    assert again == whole
    if name in OF_ALL_CLASSES:
        return
    some = digests(distilled(world, tmp_path / "c", name, Store(tmp_path / "third"), classes=("dog", "bee"))[0])
    assert len(some) == 6
    assert all(whole[key] == digest for key, digest in some.items())


def test_another_seed_gives_other_images(
    world: Path, tmp_path: Path, cache: Store, first: tuple[str, list[Path]]
) -> None:
    name, (_, made) = first
    other = digests(distilled(world, tmp_path / "out", name, cache, seed=1)[0])
    assert (other != digests(made)) == (name not in SEEDLESS)


@pytest.mark.parametrize("name", METHODS)
def test_it_is_frozen_comparable_and_fingerprinted(name: str) -> None:
    method: Any = load_method(name)
    assert method == load_method(name)
    assert fingerprint(method) == fingerprint(load_method(name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.select = None


def test_finished_work_is_not_done_again(
    world: Path, tmp_path: Path, cache: Store, first: tuple[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.priors.prior import Prior

    name, made = first
    calls: list[int] = []
    forward = Prior._forward
    monkeypatch.setattr(Prior, "_forward", lambda *args: calls.append(1) or forward(*args))  # type: ignore[func-returns-value]
    again = distilled(world, tmp_path / "b", name, cache, (1, 3))
    assert [digests(folder) for folder in again] == [digests(folder) for folder in made]
    assert len(calls) <= 2, "only the estimate of the cost may call the network"


def test_real_images_are_copied_pixel_for_pixel(world: Path, tmp_path: Path, store: Store) -> None:
    from PIL import Image

    folder = distilled(world, tmp_path / "out", "random", store)[0]
    real = {name: {np.asarray(Image.open(f)).tobytes() for f in (world / "data" / name).iterdir()} for name in CLASSES}
    for name, files in zip(CLASSES, open_distilled(folder).files(), strict=True):
        assert len({np.asarray(Image.open(file)).tobytes() for file in files} & real[name]) == 3


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[1:]])
def test_a_set_names_the_real_images_that_it_is_made_of(
    world: Path, tmp_path: Path, store: Store, classes: list[str]
) -> None:
    from PIL import Image

    one = open_distilled(distilled(world, tmp_path / "out", "random", store, classes=tuple(classes))[0])
    card = (one.folder / "README.md").read_text()
    for files, images in zip(one.files(), one.manifest["real_images"], strict=True):
        for file, (name,) in zip(files, images, strict=True):
            assert np.array_equal(np.asarray(Image.open(file)), np.asarray(Image.open(world / "data" / name)))
            assert f"| {file.relative_to(one.folder)} | {name} |" in card
    assert str(world) not in card


def test_exemplars_name_the_real_images_that_they_began_as(world: Path, tmp_path: Path, store: Store) -> None:
    every, few = (
        open_distilled(distilled(world, tmp_path / str(len(own)), "exemplars", store, (2,), classes=own)[0])
        for own in (tuple(CLASSES), tuple(CLASSES[1:]))
    )
    job = Job(Spec(data=f"imagefolder:{world / 'data'}", prior=str(world / "dit"), device="cpu"), store)
    numbers = torch.from_numpy(job.images.of_class(1))
    places = Select(rule="herding", features="prior")(job, 1, numbers, 2)
    assert every.manifest["real_images"][1] == [[f"{CLASSES[1]}/{int(place):03d}.png"] for place in places]
    assert few.manifest["real_images"] == every.manifest["real_images"][1:], "one fit serves both"


def test_images_of_noise_began_as_no_real_ones(first: tuple[str, list[Path]]) -> None:
    name, folders = first
    real = load_method(name, {TAUGHT[name]: "t"} if name in TAUGHT else None)
    told = "real_images" in open_distilled(folders[0]).manifest
    assert told == (isinstance(real, RealImages) or name in ("rded", "exemplars"))


def test_a_smaller_random_choice_is_the_beginning_of_a_larger_one(world: Path, tmp_path: Path, store: Store) -> None:
    small, large = map(digests, distilled(world, tmp_path / "out", "random", store, (2, 5)))
    assert small.items() <= large.items()


def test_the_manifest_tells_all(world: Path, tmp_path: Path, store: Store) -> None:
    manifest = open_distilled(distilled(world, tmp_path / "out", "d3hr", store)[0]).manifest
    assert manifest["method"]["fit"]["steps"] == 5
    assert manifest["method"]["name"] == "d3hr"
    assert manifest["compute"]["tile"] in CPU_BATCH_SIZES
    assert manifest["prior"]["matched"] == "by name"
    assert manifest["seconds"].keys() == {"fit", "candidates", "images"}
    assert manifest["data"]["images"] == 48
    assert manifest["data"]["counts"] == [12] * 4
    assert manifest["versions"].keys() >= {"torch", "diffusers"}


@dataclasses.dataclass(frozen=True)
class Brightened:
    """A refinement that shows that it was there."""

    by: float = 0.5

    space: ClassVar[Literal["latents"]] = "latents"

    def inputs(self, spec: Spec) -> dict[str, Any]:
        return {}

    def check(self, job: Job) -> None:
        pass

    def seconds(self, job: Job, n: int) -> float:
        return 0.0

    def __call__(self, job: Job, prior: Any, label: int, z: torch.Tensor) -> torch.Tensor:
        return z + self.by


@dataclasses.dataclass(frozen=True)
class Louder(Fit):
    """A fit that adapts the prior to groups of two classes: its output is scaled by what it learnt."""

    tunes = True
    uses_prior = True

    def groups(self, labels: Any) -> list[Any]:
        return [labels[begin : begin + 2] for begin in range(0, len(labels), 2)]

    def run(self, job: Job, group: Any, scratch: Path) -> dict[str, torch.Tensor]:
        return {"factor": torch.tensor(1.0 + group[0])}

    def adapted(self, prior: Any, fitted: dict[str, torch.Tensor]) -> Any:
        class Scaled(torch.nn.Module):
            def forward(self, *args: torch.Tensor) -> torch.Tensor:
                return prior.network(*args) * fitted["factor"]

        return contextlib.nullcontext(dataclasses.replace(prior, network=Scaled()))


@dataclasses.dataclass(frozen=True)
class Last(Select):
    """Keeps the last of twice as many candidates as are asked for."""

    def candidates(self, ipc: int) -> int:
        return 2 * ipc

    def __call__(self, job: Job, label: int, pool: torch.Tensor, ipc: int) -> torch.Tensor:
        return torch.arange(len(pool))[-ipc:]


def images_of(world: Path, out: Path, store: Store, **parts: Any) -> list[np.ndarray]:
    from PIL import Image

    method: Any = dataclasses.replace(load_method("prior", FAST["prior"]), **parts)  # type: ignore[type-var]
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu")
    (folder,) = distill_sets(Job(spec, store), "prior", method, (2,), out)
    return [np.asarray(Image.open(file)) for files in open_distilled(folder).files() for file in files]


def test_a_method_may_select_from_more_candidates_and_refine_them(world: Path, tmp_path: Path, store: Store) -> None:
    plain = images_of(world, tmp_path / "plain", store, select=Last())
    four = Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu"), store)
    assert len(plain) == 8
    assert len(four.labels) == 4
    first = images_of(world, tmp_path / "first", store)
    assert not any(np.array_equal(a, b) for a, b in zip(plain, first, strict=True))
    refined = images_of(world, tmp_path / "refined", store, select=Last(), refine=Brightened())
    assert not any(np.array_equal(a, b) for a, b in zip(plain, refined, strict=True))


def test_a_fit_that_adapts_the_prior_adapts_it_to_its_own_group_only(world: Path, tmp_path: Path, store: Store) -> None:
    plain = images_of(world, tmp_path / "plain", store)
    louder = images_of(world, tmp_path / "louder", store, fit=Louder())
    same = [np.array_equal(a, b) for a, b in zip(plain, louder, strict=True)]
    assert same == [True] * 4 + [False] * 4, "the first group's factor is 1, the second's 3"
