"""The race that decides whether exemplars are typical images: who wins, what follows, what its outcome depends on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import learnt, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.rng import noise, numpy_generator
from attar.core.store import Store
from attar.data import load_pixels
from attar.diffusion import Sampler
from attar.distillation.artefacts import fit_artefact
from attar.distillation.explain_run import explain_run
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods.exemplars.method import ExemplarFit, Exemplars
from attar.methods.exemplars.prior_race import PriorRace
from attar.methods.exemplars.race import Outcome, TypicalRace
from attar.methods.refine import Refinement
from attar.networks.random_features import RandomFeatures, sureness
from attar.priors.codec import to_uint8
from attar.selection import Select
from attar.sets.distilled import open_distilled
from attar.sets.mosaics import reduced
from attar.sets.races import credited_prior
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee", "cat"]
TYPICAL, ALL = Outcome(60.0, 50.0, 1.0, 90), Outcome(50.0, 60.0, 1.0, 90)
PRIOR, NO_PRIOR = Outcome(70.0, 60.0, 1.0, 90), Outcome(60.5, 60.0, 1.0, 90)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of one colour each, but that a third of their images have the colour of another."""
    root = tmp_path_factory.mktemp("race")
    for number, name in enumerate(CLASSES):
        (root / "data" / name).mkdir(parents=True)
        for index in range(30):
            pixels = numpy_generator("race", name, index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            pixels //= 4
            pixels[..., number if index % 3 else (number + 1) % 3] += 150
            Image.fromarray(pixels).save(root / "data" / name / f"{index:02d}.png")
    save_tiny_dit(root / "dit", CLASSES)
    new = TeacherTraining(str(root / "data"), "convnet3-bn-w16", epochs=30, batch=20, lr=0.25, device="cpu")
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


def job_of(world: Path, store: Store, data: Path | None = None) -> Job:
    return Job(Spec(data=str(data or world / "data"), prior=str(world / "dit"), device="cpu"), store)


def chooser(world: Path, **fields: Any) -> Select:
    return Select(**{"rule": "k-center", "teacher": str(world / "teacher"), **fields})


def raced(world: Path, **fields: Any) -> ExemplarFit:
    return ExemplarFit(chooser(world), steps=25, **fields).for_ipc(2)


def test_typical_images_win_where_a_third_of_all_look_like_another_class(world: Path, store: Store) -> None:
    outcome = TypicalRace(job_of(world, store), chooser(world, share=0.2), 3).outcome()
    assert outcome.typical_wins
    assert outcome.typical > outcome.all + 5
    assert outcome.tested == 3 * len(CLASSES) * 10, "a third of each class, in each round"


def test_they_have_to_win_beyond_the_noise() -> None:
    right = torch.tensor([100.0, 100.0, 0.0, 0.0])
    assert not Outcome.of(right, right).typical_wins
    assert not Outcome(51.0, 50.0, 1.0, 90).typical_wins
    assert Outcome(51.1, 50.0, 1.0, 90).typical_wins
    assert Outcome.of(right, torch.zeros(4)) == Outcome(50.0, 0.0, 25.0, 4)


def test_what_is_left_out_is_not_learnt_from_and_differs_by_round(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[int, Any]] = []
    images = TypicalRace._images

    def noted(race: TypicalRace, places: dict[int, Any]) -> Any:
        shown.append(places)
        return images(race, places)

    monkeypatch.setattr(TypicalRace, "_images", noted)
    TypicalRace(job_of(world, store), chooser(world, share=0.2), 3).outcome()
    for round_ in range(3):
        left_out, typical, every = shown[3 * round_ : 3 * round_ + 3]
        for label in range(len(CLASSES)):
            assert not {*left_out[label]} & {*typical[label], *every[label]}
    assert {*shown[0][0]} != {*shown[3][0]}


def test_a_single_class_and_tiny_ones_keep_the_typical(world: Path, store: Store, tmp_path: Path) -> None:
    one = Job(Spec(data=str(world / "data"), classes=("bee",), device="cpu"), store)
    assert TypicalRace(one, chooser(world, share=0.2), 2).outcome().typical_wins
    for name in CLASSES:
        (tmp_path / "few" / name).mkdir(parents=True)
        for file in sorted((world / "data" / name).iterdir())[1:3]:
            shutil.copy(file, tmp_path / "few" / name)
    assert TypicalRace(job_of(world, store, tmp_path / "few"), chooser(world, share=0.2), 1).outcome().tested == 0


def test_a_single_image_left_out_decides_nothing(world: Path, store: Store, tmp_path: Path) -> None:
    for name, count in (("ant", 3), ("bee", 2)):
        (tmp_path / "few" / name).mkdir(parents=True)
        for file in sorted((world / "data" / name).iterdir())[:count]:
            shutil.copy(file, tmp_path / "few" / name)
    race = TypicalRace(job_of(world, store, tmp_path / "few"), chooser(world, share=0.2), 1)
    assert race.outcome() == Outcome(0.0, 0.0, 0.0, 0)
    assert race.outcome().words == "too few images or classes for a race: typical ones are chosen"


def test_the_outcome_is_kept_and_is_the_same_again(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = TypicalRace(job_of(world, store), chooser(world, share=0.2), 3)
    first = race.outcome()
    again = TypicalRace(job_of(world, Store(tmp_path / "other")), race.select, 3)
    assert again.artefact.key == race.artefact.key
    assert again.outcome() == first
    monkeypatch.setattr(TypicalRace, "_run", lambda _: pytest.fail("it is in the store"))
    assert race.outcome() == first
    assert race.seconds() > 0


@pytest.mark.parametrize(
    ("outcome", "second", "share", "denoised"),
    [(TYPICAL, PRIOR, 0.2, 1.0), (TYPICAL, NO_PRIOR, 0.2, 0.0), (ALL, PRIOR, 1.0, 0.0)],
)
def test_a_fit_follows_the_outcomes(
    world: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
    second: Outcome,
    share: float,
    denoised: float,
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: outcome)
    monkeypatch.setattr(PriorRace, "outcome", lambda _: second)
    job, numbers = job_of(world, store), torch.from_numpy(job_of(world, store).images.of_class(1))
    fit = raced(world)
    fitted = learnt(job, fit, [1])
    expected = chooser(world, share=share)(job, 1, numbers, 2)
    assert fitted["places"].tolist() == expected.tolist()
    assert float(fitted["share"]) == pytest.approx(share)
    assert float(fitted["denoised"]) == denoised
    assert ("inverted" in fitted) == bool(denoised)
    assert fit.keeps_real(fitted) == (not denoised)
    assert ("by_prior" in fitted) == (outcome == TYPICAL)
    told = ExemplarFit(chooser(world), steps=25, typical=round(100 * share), time=280).for_ipc(2)
    assert learnt(job, told, [1])["places"].tolist() == expected.tolist()


def test_a_time_that_is_set_stands(world: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: ALL)
    fitted = learnt(job_of(world, store), raced(world, time=400), [1])
    assert float(fitted["denoised"]) == 1
    assert Exemplars(raced(world, time=400), Sampler(steps=5)).start(job_of(world, store), fitted, 1, 2).t == 400


def test_images_that_are_not_denoised_are_the_real_ones_themselves(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: ALL)
    job, said = job_of(world, store), list[str]()
    method = Exemplars(ExemplarFit(chooser(world), steps=25), Sampler(steps=25))
    (folder,) = distill_sets(job, "exemplars", method, (2,), tmp_path / "out", say=said.append)
    numbers = torch.from_numpy(job.images.of_class(0))
    chosen = numbers[chooser(world)(job, 0, numbers, 2)].numpy()
    real = load_pixels(job.images, chosen, job.codec.size, "adm")
    made = [np.asarray(Image.open(file)) for file in open_distilled(folder).files()[0]]
    assert np.array_equal(np.stack(made), real)
    assert any("typical images to race all; the prior to race them" in line for line in said)
    assert said[-2] == (
        "ipc 2: chosen among all of each class (50.0 % of other images are right after typical ones, 60.0 % after "
        "any): nothing denoised the real images"
    )
    assert "nothing denoised the real images" in (folder / "README.md").read_text()
    assert not any(open_distilled(folder).prototypes()), "they would be the images once more"
    manifest = open_distilled(folder).manifest
    assert manifest["learnt"] == {"share": 1.0, "denoised": 0.0, "typical": 50.0, "all": 60.0}
    assert credited_prior(manifest) == f"{world / 'dit'}, which made none of these images"
    assert manifest["method"]["fit"]["typical"] == "auto"


def test_an_explained_run_names_the_races_before_what_they_decide(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, spec = Exemplars(ExemplarFit(chooser(world), steps=25), Sampler(steps=25)), job_of(world, store).spec

    def races() -> tuple[int, int]:
        told = explain_run(spec, "exemplars", method, [2], world / "out", store=store)
        kinds = [missing.artefact.kind for missing in told.missing]
        assert not any(kind.endswith("race") for kind in kinds[kinds.index("fit") :])
        found = [artefact.kind.endswith("race") for artefact in told.found]
        return sum(found), sum(missing.artefact.kind.endswith("race") for missing in told.missing)

    assert races() == (0, 2)
    first = raced(world).race(job_of(world, store))
    assert first is not None
    first.outcome()
    assert races() == (1, 1)
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: ALL)
    assert races() == (1, 0), "typical images that lost ask no second race"


@pytest.mark.parametrize("formation", [1, 2])
def test_pixels_are_refined_from_the_real_images_where_nothing_is_denoised(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, formation: int
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: TYPICAL)
    monkeypatch.setattr(PriorRace, "outcome", lambda _: NO_PRIOR)
    given = list[torch.Tensor]()

    def kept(refinement: Refinement, job: Job, prior: object, label: int, images: torch.Tensor) -> torch.Tensor:
        given.append(images)
        return images

    monkeypatch.setattr(Refinement, "__call__", kept)
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", formation=formation)
    job, fit = Job(spec, store), ExemplarFit(chooser(world), steps=25)
    method = Exemplars(fit, Sampler(steps=25), refine=Refinement(space="pixels"))
    (folder,) = distill_sets(job, "exemplars", method, (2,), tmp_path / "out")
    numbers = torch.from_numpy(job.images.of_class(0))
    chosen = numbers[chooser(world, share=0.2)(job, 0, numbers, 2 * formation**2)].numpy()
    real = load_pixels(job.images, chosen, job.codec.size, "adm")
    side = job.codec.size // formation
    expected = np.stack([reduced(pixels, side, "lanczos") for pixels in real])
    assert np.array_equal(to_uint8(given[0]), expected)
    assert open_distilled(folder).manifest["learnt"]["denoised"] == 0


def test_a_prior_that_makes_noise_loses(world: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    race = raced(world).prior_race(job_of(world, store))
    assert race is not None
    assert race.passes() == 3 * (2 * 8 + 2 * 12 * 2), "two images of three classes, inverted and guided back"

    def noisy(race: PriorRace, label: int, z: torch.Tensor) -> torch.Tensor:
        return noise(tuple(z.shape), "race", label)

    monkeypatch.setattr(PriorRace, "_denoised", noisy)
    lost = race._run()
    assert lost.tested == 3 * sum(len(race._others(label, np.arange(2), 0)) for label in range(3))
    assert not lost.typical_wins
    assert lost.typical < lost.all - 10
    pairs = PriorRace._pairs

    def restored(race: PriorRace, chosen: Any) -> Any:
        by_prior, given, labels = pairs(race, chosen)
        return given, by_prior, labels

    monkeypatch.setattr(PriorRace, "_pairs", restored)
    assert race._run().typical_wins, "who makes images of noise wins"


def test_a_prior_that_makes_no_images_is_an_error_not_a_lost_race(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: TYPICAL)
    job, fit = job_of(world, store), raced(world)
    flat = torch.zeros(2, 3, 16, 16)
    monkeypatch.setattr(type(job.codec), "decode", lambda codec, z: flat)
    with pytest.raises(AttarError, match=r"image 0 of 'ant' is of a single colour once it is denoised"):
        fit.denoises(job)
    assert not list((store.root / "prior-race").glob("[!.]*"))


def test_what_denoises_is_part_of_what_the_fit_is(world: Path, store: Store, tmp_path: Path) -> None:
    save_tiny_dit(tmp_path / "other", CLASSES, learned_sigma=False)
    ours = job_of(world, store)
    other = Job(Spec(data=str(world / "data"), prior=str(tmp_path / "other"), device="cpu"), store)
    first, second = (raced(world).prior_race(job) for job in (ours, other))
    assert first is not None
    assert second is not None
    assert first.artefact.key != second.artefact.key
    assert first.artefact.key in str(raced(world).identity(ours))
    assert raced(world, time=400).prior_race(ours) is None


def test_too_few_images_to_test_on_leave_the_prior_its_part(world: Path, store: Store, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "few" / name).mkdir(parents=True)
        for file in sorted((world / "data" / name).iterdir())[:2]:
            shutil.copy(file, tmp_path / "few" / name)
    job = job_of(world, store, tmp_path / "few")
    one = Job(Spec(str(world / "data"), prior=str(world / "dit"), classes=("ant",), device="cpu"), store)
    for few, ipc in ((job, 2), (job, 1), (one, 2)):
        fit = ExemplarFit(steps=25).for_ipc(ipc)
        race = fit.prior_race(few)
        assert race is not None
        assert race.outcome().tested == 0
        assert fit.denoises(few)


def test_the_fit_of_a_class_depends_on_the_others_that_race(world: Path, store: Store, tmp_path: Path) -> None:
    shutil.copytree(world / "data", tmp_path / "other")
    save_folder(tmp_path / "more", ["cat"], each=1)
    shutil.copy(tmp_path / "more" / "cat" / "000.png", tmp_path / "other" / "cat" / "99.png")
    jobs = [job_of(world, store), job_of(world, store, tmp_path / "other")]
    auto = [fit_artefact(job, raced(world), [0]).key for job in jobs]
    table = [fit_artefact(job, raced(world, typical="1:2, 10:20, 50"), [0]).key for job in jobs]
    assert auto[0] != auto[1]
    assert table[0] == table[1]
    assert len({auto[0], table[0], fit_artefact(jobs[0], raced(world, typical=20), [0]).key}) == 2


def test_a_formation_goes_by_the_images_that_are_made(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def outcome(race: TypicalRace) -> Outcome:
        asked.append((race.select.share, race.count))
        return TYPICAL

    monkeypatch.setattr(TypicalRace, "outcome", outcome)
    spec = Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", formation=2)
    method = Exemplars(ExemplarFit(chooser(world), steps=5, time=200), Sampler(steps=5))
    distill_sets(Job(spec, store), "exemplars", method, (1,), tmp_path / "out")
    assert {*asked} == {(0.2, 4)}


def test_without_a_teacher_images_like_another_class_are_not_typical(world: Path, store: Store) -> None:
    race = TypicalRace(job_of(world, store), Select(rule="herding", share=0.2), 3)
    left_out = {label: race._left_out(label, 0) for label in race.labels}
    typical, every = race._by_sureness(left_out, 0)
    for label, places in left_out.items():
        assert not {*places} & {*typical[label], *every[label]}
        assert all(place % 3 for place in typical[label]), "the others have another class's colour"
    assert race.seconds() > 0


def test_without_a_teacher_digits_need_no_typical_images(store: Store) -> None:
    job = Job(Spec(data="digits", device="cpu"), store)
    assert not TypicalRace(job, Select(rule="herding", share=0.2), 10).outcome().typical_wins


@pytest.mark.parametrize("alone", ["ant", "cat"])
def test_a_class_of_a_single_image_races_too(world: Path, store: Store, tmp_path: Path, alone: str) -> None:
    for name in CLASSES:
        (tmp_path / "long" / name).mkdir(parents=True)
        for file in sorted((world / "data" / name).iterdir())[: 1 if name == alone else 6]:
            shutil.copy(file, tmp_path / "long" / name)
    job = Job(Spec(data=str(tmp_path / "long"), device="cpu"), store)
    assert TypicalRace(job, Select(rule="herding", share=0.2), 1).outcome().tested == 3 * 2 * 2


def test_each_half_is_judged_by_the_other() -> None:
    drawn = numpy_generator("halves").integers(0, 256, (120, 8, 8, 3), dtype=np.uint8)
    labels = torch.arange(120) % 2
    by_chance = (sureness(RandomFeatures(drawn, 0).rows, labels) > 0).double().mean()
    assert 0.3 < by_chance < 0.7, "images that judge themselves are right"
    drawn[labels == 1] //= 8
    labels[7] = 0
    sure = sureness(RandomFeatures(drawn, 0).rows, labels)
    assert int(sure.argmin()) == 7
    assert (sure > 0).sum() == 119


@pytest.mark.parametrize(("outcome", "denoised"), [(TYPICAL, 1.0), (ALL, 0.0)])
def test_without_a_teacher_the_outcome_decides_what_is_denoised(
    world: Path, store: Store, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, denoised: float
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: outcome)
    monkeypatch.setattr(PriorRace, "outcome", lambda _: PRIOR)
    job = job_of(world, store)
    fit = ExemplarFit(steps=25).for_ipc(2)
    fitted, told = learnt(job, fit, [1]), learnt(job, ExemplarFit(steps=25, time=600).for_ipc(2), [1])
    assert fitted["places"].tolist() == told["places"].tolist()
    assert float(fitted["denoised"]) == denoised
    assert ("inverted" in fitted) == bool(denoised)
    assert "inverted" in told
    start = Exemplars(ExemplarFit(steps=25), Sampler(steps=5)).for_ipc(2).start(job, fitted, 1, 2)
    assert start.t == (600 if denoised else None)


def test_without_a_teacher_a_time_that_is_set_needs_no_race(world: Path, store: Store) -> None:
    job = job_of(world, store)
    assert ExemplarFit(steps=25).for_ipc(2).race(job) is not None
    assert ExemplarFit(steps=25, time=600).for_ipc(2).race(job) is None
    assert ExemplarFit(steps=25, typical=100).for_ipc(2).race(job) is None
