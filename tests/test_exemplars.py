"""Exemplars: the images that are chosen, their inversion, and what the choice by IPC depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import GaussianPrior, learnt, linear_schedule, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.data import load_pixels
from attar.diffusion import Sampler, ddim_move, grid, guided, invert, sample, schedule_of
from attar.distillation.artefacts import fit_artefact
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method, method_in_words
from attar.methods.exemplars.method import ExemplarFit, Exemplars
from attar.priors.codec import to_float
from attar.priors.folder import new_scheduler
from attar.report.manifest_rows import distill_command
from attar.selection import Select
from attar.selection.features import teacher_for
from attar.sets.distilled import open_distilled
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee", "cat"]
QUICK = Sampler(steps=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=20)
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(
        str(root / "data"), "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=20, lr=0.25, device="cpu"
    )
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    return Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", **spec), store)


def quick(**fit: Any) -> ExemplarFit:
    return ExemplarFit(**{"steps": 5, "time": 600, **fit})


def taught(world: Path, **fields: Any) -> Select:
    return Select(rule="herding", teacher=str(world / "teacher"), **fields)


def test_exemplars_are_those_of_the_rule_and_are_inverted_as_ddim_does(world: Path, store: Store) -> None:
    job = job_of(world, store)
    fitted = learnt(job, quick().for_ipc(4), [1])
    numbers = torch.from_numpy(job.images.of_class(1))
    places = Select(rule="herding", features="prior")(job, 1, numbers, 4)
    assert fitted["places"].tolist() == places.tolist()
    expected = numbers[places]
    mean, _ = job.codec.encode(to_float(load_pixels(job.images, expected.numpy(), job.codec.size, "adm")))
    assert torch.equal(fitted["prototypes"], mean)
    times = [t for t in grid(5) if t <= 600]
    at = invert(job.prior, mean, job.conditions([1] * 4), times)
    torch.testing.assert_close(fitted["inverted"], at)
    assert not torch.equal(fitted["inverted"], mean)


def test_exact_inversion_and_guidance_1_bring_the_exemplars_back(world: Path, store: Store) -> None:
    job = job_of(world, store)
    fitted = learnt(job, quick(exact=True).for_ipc(3), [0])
    y = job.conditions([0] * 3)
    back = sample(job.prior, fitted["inverted"], 600, y, Sampler(steps=5, guidance=1.0))
    assert float((back - fitted["prototypes"]).norm() / fitted["prototypes"].norm()) < 1e-2
    assert float(fitted["unconverged"]) == 0


def test_only_exemplars_are_inverted(world: Path, store: Store) -> None:
    fit = quick().for_ipc(3)
    assert fit.passes([5000]) == 3 * len([t for t in grid(5) if t <= 600])
    assert fit.encodings([5000]) == 3
    assert replace(fit, guidance=2.0).passes([5000]) == 2 * fit.passes([5000])


@pytest.mark.parametrize(("ipc", "share"), [(1, 0.02), (2, 0.2), (10, 0.2), (11, 0.5), (50, 0.5)])
def test_few_are_chosen_among_the_typical_where_a_teacher_can_tell(world: Path, ipc: int, share: float) -> None:
    table = ExemplarFit(select=taught(world), typical="1:2, 10:20, 50")
    assert table.for_ipc(ipc).select.share == share
    assert ExemplarFit(select=taught(world)).for_ipc(ipc).chooses.share == share, "the typical side of the race"
    assert ExemplarFit(select=taught(world, share=0.5)).for_ipc(ipc).select.share == 0.5, "a share that is set stands"
    assert ExemplarFit().for_ipc(ipc).select == Select(rule="herding", features="prior")
    confident = Select(rule="confident", teacher=str(world / "teacher"))
    assert ExemplarFit(select=confident).for_ipc(ipc).select == confident


def test_keys_and_manifests_keep_the_name_of_the_fit(world: Path, store: Store) -> None:
    """Whatever the class is called: sets and caches of older versions stay what they are."""
    job = Job(Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", seed=3), store)
    rules = {rule: quick(count=1, select=Select(rule=rule)) for rule in ("herding", "random")}
    named = {rule: job.to_config(fit)["is"] for rule, fit in rules.items()}
    assert named == {"herding": "Chosen", "random": "Chosen by seed 3"}


def test_a_count_serves_every_smaller_ipc_with_the_first_of_one_fit(world: Path, store: Store, tmp_path: Path) -> None:
    method = Exemplars(quick(count=4), QUICK)
    assert method.fit.for_ipc(1) == method.fit.for_ipc(4)
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu")
    one, four = distill_sets(Job(spec, store), "exemplars", method, (1, 4), tmp_path / "out")
    pixels = [[np.asarray(Image.open(file)) for file in files] for files in open_distilled(four).files()]
    for files, whole in zip(open_distilled(one).files(), pixels, strict=True):
        assert np.array_equal(np.asarray(Image.open(files[0])), whole[0])


def test_with_a_teacher_images_stay_closer_to_the_exemplars() -> None:
    by_one = Select(rule="herding", teacher="one")
    assert [fit.turning_time for fit in (ExemplarFit(), ExemplarFit(by_one), ExemplarFit(by_one, time=0))] == [
        600,
        280,
        0,
    ]
    settled = [ExemplarFit(by_one, typical=20, time=time).for_ipc(2) for time in (None, 280)]
    assert settled[0] == settled[1], "the same key, said or not"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ExemplarFit(time=610), "fit.time 610 is not on the grid of fit.steps = 50; the nearest is 600"),
        (
            lambda: load_method(
                "exemplars", {"sampler.steps": 20, "sampler.spacing": "leading", "fit.select.teacher": "one"}
            ),
            "fit.time 280 .* sampler.steps = 20: set sampler.steps = 50, .* or fit.time = 300",
        ),
        (
            lambda: load_method("exemplars", {"sampler.spacing": "trailing"}),
            "set sampler.spacing = leading and sampler.steps = 50, for the grid of the inversion$",
        ),
        (lambda: ExemplarFit(guidance=float("nan")), "`fit.guidance` nan"),
        (lambda: ExemplarFit(typical="1:0.5, 100"), "fit.typical 1:0.5, 100: whole per cents"),
        (lambda: ExemplarFit(count=0), "fit.count 0"),
        (lambda: ExemplarFit(typical="1:0, 100"), "fit.typical"),
        (lambda: ExemplarFit(count=3).for_ipc(4), "`fit.count` 3: fewer exemplars than `ipc` 4"),
        (lambda: load_method("exemplars", {"select.pool": 20}), "set fit.count to as many"),
    ],
)
def test_wrong_fields_are_named(make: Any, said: str) -> None:
    with pytest.raises(AttarError, match=said):
        make()


@pytest.mark.parametrize(("steps", "said"), [(7, "set sampler.steps = 5,"), (5, "set sampler.solver = ddim,")])
def test_a_checkpoint_whose_own_times_lack_that_of_the_start_is_named_with_what_has_it(steps: int, said: str) -> None:
    prior: Any = SimpleNamespace(schedule=schedule_of(new_scheduler("flow")))
    method = Exemplars(quick(), Sampler("checkpoint", steps=steps))
    with pytest.raises(AttarError, match=f"fit.time 600 is not on the grid of sampler.steps = {steps}: {said}"):
        method.start_time(prior)


@pytest.mark.parametrize(
    ("fields", "ipc", "said"),
    [
        ({"fit.select.rule": "confident"}, 2, "`select.teacher` is missing"),
        ({"fit.count": 21}, 2, "needs 21 images of each class"),
        ({}, 21, "needs 21 images of each class"),
        ({"fit.select.pool": 30}, 2, "real images are chosen from all"),
        ({"fit.select.teacher": "/nowhere"}, 2, "no such folder"),
    ],
)
def test_what_cannot_work_is_found_before_any_work(
    world: Path, store: Store, tmp_path: Path, fields: dict[str, Any], ipc: int, said: str
) -> None:
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu")
    with pytest.raises(AttarError, match=said):
        distill_sets(Job(spec, store), "exemplars", load_method("exemplars", fields), (ipc,), tmp_path / "out")


def test_a_set_says_who_chose_and_its_command_makes_it_again(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {"fit.steps": 5, "fit.time": 600, "fit.select.teacher": str(world / "teacher")}
    method = load_method("exemplars", fields)
    said: list[str] = []
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu")
    (folder,) = distill_sets(Job(spec, store), "exemplars", method, (2,), tmp_path / "out", say=said.append)
    assert any("168 network passes (24 to fit, 144 to sample 6)" in line for line in said)
    assert any("for the teacher to look at; typical images to race all" in line for line in said)
    assert not any("the prior to race them" in line for line in said), "a time that is set decides"
    one = open_distilled(folder)
    teacher: Any = teacher_for(job_of(world, store), taught(world).reference)  # type: ignore[arg-type]
    assert one.manifest["exemplars_by"]["network"] == teacher.network_key
    assert one.manifest["method"]["fit"]["select"]["teacher"] != str(world / "teacher"), "a digest, wherever it lies"
    assert [len(files) for files in one.prototypes()] == [2] * 3
    command = distill_command(one)
    assert f"fit.select.teacher={world / 'teacher'}" in command
    assert "fit.select.rule=herding" in command


def test_another_teacher_or_seed_of_a_random_choice_is_another_fit(world: Path, store: Store) -> None:
    job, other = job_of(world, store), job_of(world, store, seed=1)
    fits = [quick().for_ipc(2), quick(select=taught(world)).for_ipc(2)]
    assert fit_artefact(job, fits[0], [0]).key != fit_artefact(job, fits[1], [0]).key
    assert fit_artefact(job, fits[0], [0]).key == fit_artefact(other, fits[0], [0]).key
    drawn = quick(select=Select(rule="random")).for_ipc(2)
    assert fit_artefact(job, drawn, [0]).key != fit_artefact(other, drawn, [0]).key


def test_it_describes_itself() -> None:
    text = method_in_words("exemplars")
    for field in ("fit.select.rule", "fit.typical", "fit.time", "sampler.guidance", "refine.steps", "refine.networks"):
        assert f"  {field} = " in text


def test_guidance_within_an_interval_is_guidance_there_and_none_elsewhere() -> None:
    prior = GaussianPrior(torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0]))
    z, y = noise((2, 1, 2, 2), "interval"), torch.tensor([0, 0])
    sampler = Sampler(steps=10, guidance=3.0, guided_times=(300, 600))
    found = sample(prior, z, 900, y, sampler)
    assert prior.calls == 10 + 4, "a second pass at 300, 400, 500 and 600"
    for t in range(900, -1, -100):
        below = linear_schedule().abar(t - 100) if t else 1.0
        weight = 3.0 if 300 <= t <= 600 else 1.0
        z = ddim_move(z, guided(prior, z, t, y, weight), linear_schedule().abar(t), below)
    torch.testing.assert_close(found, z)
    with pytest.raises(AttarError, match="two times, rising"):
        Sampler(guided_times=(600, 300))


def test_the_teacher_that_chooses_is_the_fits() -> None:
    with pytest.raises(AttarError, match=r"the teacher that chooses real images is `fit\.select\.teacher`"):
        load_method("exemplars", {"select.teacher": "nowhere"})
    with pytest.raises(AttarError, match=r"with a select\.share below 1 it would$"):
        load_method("prior", {"select.teacher": "nowhere"})
