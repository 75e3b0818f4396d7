"""`keep = "best"`: the average whose samples were best is what a training of a prior writes, says and resumes to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_prior import NAMES, QUICK, TINY, spec
from toys import save_folder

from attar.core.errors import AttarError
from attar.core.files import write_lines
from attar.core.rng import generator
from attar.core.store import Store, canonical, fingerprint
from attar.priors.codec import PixelCodec
from attar.priors.training.best import Best
from attar.priors.training.monitor import Monitor, draw_curve
from attar.priors.training.optimise import TrainingState, _Training
from attar.priors.training.run import train_new_prior
from attar.priors.training.sample_quality import Classifier, quality_in_words
from attar.priors.training.settings import AdaptedPrior, NewPrior, Report
from attar.priors.training.task import TrainingRun

STEADY = replace(TINY, schedule="constant")
"""A step of it is the same however many follow."""
REPORTED = replace(QUICK, every=4)
MEASURES = {4: (30.0, 5.0), 8: (60.0, 4.0), 12: (40.0, 3.0)}
"""By the step: the one in the middle is the best."""


def measured(patch: pytest.MonkeyPatch, measures: Mapping[int, tuple[float, float]]) -> None:
    """Samples measure so much at each step, whatever they are."""
    plain, now = Monitor.__call__, list[int]()

    def noting(monitor: Monitor, moment: TrainingState) -> None:
        now[:] = [moment.step]
        plain(monitor, moment)

    patch.setattr(Monitor, "__call__", noting)
    patch.setattr(Classifier, "__call__", lambda *_: measures[now[0]])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("images"), NAMES, 12)


def asked(data: Path, **changes: Any) -> NewPrior:
    return spec(data, **{"training": STEADY, "report": REPORTED, "keep": "best", **changes})


def trained(wanted: NewPrior, out: Path, store: Store) -> list[str]:
    said: list[str] = []
    train_new_prior(wanted, out, store=store, say=said.append)
    return said


def network(folder: Path) -> bytes:
    return (folder / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes()


def card(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return record


@pytest.mark.parametrize(
    ("measures", "kept"),
    [
        (MEASURES, 8),
        ({4: (60.0, 5.0), 8: (60.0, 4.0), 12: (60.0, 4.5)}, 8),
        ({4: (60.0, 4.0), 8: (60.0, 4.0), 12: (50.0, 1.0)}, 8),
        ({4: (60.0, 9.0), 8: (50.0, 1.0), 12: (50.0, 1.0)}, 4),
        ({4: (30.0, 5.0), 8: (40.0, 4.0), 12: (60.0, 9.0)}, 12),
    ],
)
def test_the_share_decides_then_the_distance_then_the_later_step(
    measures: dict[int, tuple[float, float]], kept: int
) -> None:
    best, average = Best(), [torch.zeros(2)]
    for step, (accuracy, frechet) in measures.items():
        average[0].fill_(step)
        best.offer({"step": step, "accuracy": accuracy, "frechet": frechet}, average)
    assert best.record["step"] == kept
    assert best.weights[0].tolist() == [kept, kept]


def test_the_best_average_is_written_and_all_that_is_said_is_of_it(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, MEASURES)
    marked = list[int]()

    def curve(*words: Any) -> None:
        marked.append(words[3])
        draw_curve(*words)

    monkeypatch.setattr("attar.priors.training.monitor.draw_curve", curve)
    said = trained(asked(data), tmp_path / "best", store)
    assert marked == [4, 8, 8]
    for name, steps in (("eight", 8), ("twelve", 12)):
        trained(asked(data, keep="last", training=replace(STEADY, steps=steps)), tmp_path / name, store)
    assert network(tmp_path / "best") == network(tmp_path / "eight") != network(tmp_path / "twelve")
    measures = card(tmp_path / "best")["measures"]
    assert (measures["step"], measures["accuracy"], measures["frechet"]) == (8, 60.0, 4.0)
    assert (measures["last_step"], measures["last_accuracy"], measures["last_frechet"]) == (12, 40.0, 3.0)
    assert said[-1].startswith("a small classifier gives 60.0% of its samples their class")
    assert "the average at step 8 of 12, for samples were worse at the end (40.0%, " in said[-1]
    page = (tmp_path / "best" / "README.md").read_text()
    assert "the average at step 8 of 12, after 64 images: its samples (`samples/step-0000008.png`)" in page
    assert "those of the last were worse (40.0 % their own class, Frechet distance 3.0000)" in page
    assert "gives 60.0 % of them their own class" in page
    assert (tmp_path / "best" / "samples" / "step-0000008.png").exists()
    assert "the average at step" not in (tmp_path / "twelve" / "README.md").read_text()


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        measured(patch, MEASURES)
        trained(asked(data), root / "out", Store(root / "cache"))
    return root


def comes_to_an_end(patch: pytest.MonkeyPatch, place: str, step: int) -> None:
    """A training is interrupted: where a step begins, before or after its measures are written, or at the end."""

    def ends(now: bool = True) -> None:
        if now:
            raise KeyboardInterrupt

    def drawn(*parts: str | int) -> torch.Generator:
        ends(parts[-1] == step)
        return generator(*parts)

    def lines(file: Path, records: list[dict[str, Any]]) -> None:
        ends(records[-1]["step"] == step)
        write_lines(file, records)

    def curve(*words: Any) -> None:
        draw_curve(*words)
        ends(words[2][-1]["step"] == step)

    def saved(state: Any, file: Path) -> None:
        save(state, file)
        if state["step"] == step:
            file.write_bytes(file.read_bytes()[:100])
            ends()

    save = torch.save
    names = {
        "step": ("attar.priors.training.train.generator", drawn),
        "measures": ("attar.priors.training.monitor.write_lines", lines),
        "curve": ("attar.priors.training.monitor.draw_curve", curve),
        "checkpoint": ("torch.save", saved),
        "pipeline": ("attar.priors.training.run.write_pipeline", lambda *_: ends()),
    }
    patch.setattr(*names[place])


def saving_at(patch: pytest.MonkeyPatch, steps: range) -> None:
    """Checkpoints are written after these steps alone."""
    plain = _Training.save_if_due
    patch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", -1.0)
    patch.setattr(_Training, "save_if_due", lambda one, now: plain(one, now) if one.step in steps else None)


ALL, ONE, NONE = range(13), range(6, 7), range(0)
KILLS = [
    *[(ALL, "step", step) for step in (5, 9, 11)],
    *[(ALL, place, 8) for place in ("measures", "curve", "checkpoint")],
    (ALL, "checkpoint", 12),
    (ALL, "pipeline", 12),
    (ONE, "step", 7),
    (ONE, "measures", 8),
    (ONE, "step", 11),
    (NONE, "step", 9),
]


@pytest.mark.parametrize(("saved", "place", "step"), KILLS)
def test_interrupted_anywhere_it_comes_to_the_same_files(
    data: Path, undisturbed: Path, tmp_path: Path, saved: range, place: str, step: int
) -> None:
    store = Store(tmp_path / "cache")
    store.root.mkdir()
    (store.root / "judge").symlink_to(undisturbed / "cache" / "judge")
    with pytest.MonkeyPatch.context() as patch:
        measured(patch, MEASURES)
        saving_at(patch, saved)
        with pytest.MonkeyPatch.context() as ending:
            comes_to_an_end(ending, place, step)
            with pytest.raises(KeyboardInterrupt):
                trained(asked(data), tmp_path / "out", store)
        assert len(list(store.root.glob("prior/.*.partial/.checkpoint"))) == (saved is not NONE)
        trained(asked(data), tmp_path / "out", store)
    same_files(undisturbed / "out", tmp_path / "out")


def same_files(one: Path, other: Path) -> None:
    names = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert names == sorted(file.relative_to(other) for file in other.rglob("*") if file.is_file())
    for name in names:
        if name.name == "training.json":
            assert {**card(one), "seconds": 0} == {**card(other), "seconds": 0}
        elif name.name == "README.md":
            first, second = (re.sub(r"in [\d,]+ s", "", (folder / name).read_text()) for folder in (one, other))
            assert first == second
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_broken_checkpoint_takes_the_best_with_it_and_all_begins_again(
    data: Path, undisturbed: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, MEASURES)
    saving_at(monkeypatch, ALL)
    with pytest.MonkeyPatch.context() as ending:
        comes_to_an_end(ending, "step", 11)
        with pytest.raises(KeyboardInterrupt):
            trained(asked(data), tmp_path / "out", store)
    (checkpoint,) = store.root.glob("prior/.*.partial/.checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    trained(asked(data), tmp_path / "out", store)
    same_files(undisturbed / "out", tmp_path / "out")


def test_keys_of_the_last_are_as_ever_and_those_of_the_best_hold_the_report() -> None:
    """The fingerprints are those of before there was a choice."""
    new, adapted = NewPrior("digits"), AdaptedPrior("digits", prior="digits")
    assert fingerprint(new.keyed) == "c549681d597a5e47e2c13d090e4c5de8"
    assert fingerprint(adapted.keyed) == "7c2982ea2538459073dd73920d8e8101"
    other = Report(every=3, samples=7, guidance=1.0, steps=3, judge_steps=5)
    for one in (new, adapted):
        assert fingerprint(replace(one, report=other).keyed) == fingerprint(one.keyed)
        best = replace(one, keep="best")
        assert canonical(best.keyed) == {**canonical(one.keyed), "keep": "best"}
        assert canonical(replace(best, report=other).keyed)["report"] == canonical(other)


def test_only_the_best_is_keyed_by_the_classifier(data: Path, store: Store) -> None:
    inputs = {}
    for keep in ("last", "best"):
        inputs[keep] = TrainingRun(asked(data, keep=keep), store).artefact(PixelCodec(8, 3)).inputs
    named = {"codec", "settings", "images", "held out", "device", "dtype", "processes", "torch"}
    assert set(inputs["last"]) == named
    assert set(inputs["best"]) == {*named, "classifier"}
    assert inputs["best"]["classifier"].kind == "judge"


def test_another_report_is_another_prior_where_the_best_is_kept(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving_at(monkeypatch, ALL)
    wanted = asked(data, training=replace(STEADY, steps=6), report=replace(QUICK, every=2))
    with pytest.MonkeyPatch.context() as ending:
        comes_to_an_end(ending, "step", 5)
        with pytest.raises(KeyboardInterrupt):
            trained(wanted, tmp_path / "out", store)
    seen = list[int]()

    def drawn(*parts: str | int) -> torch.Generator:
        seen.append(int(parts[-1]))
        return generator(*parts)

    monkeypatch.setattr("attar.priors.training.train.generator", drawn)
    other = replace(wanted, report=replace(QUICK, every=2, guidance=1.0))
    trained(other, tmp_path / "out", store)
    assert [step for step in seen if step >= 3] == [3, 4, 5], "it begins at the first step"
    with pytest.raises(AttarError, match="another run's prior"):
        trained(wanted, tmp_path / "out", store)


def test_the_forecast_counts_the_copy(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.training.estimate.step_seconds", lambda *_: 1.0)
    monkeypatch.setattr("attar.priors.training.estimate.size", lambda count: f"{count}")
    told = {}
    for keep in ("last", "best"):
        said = list[str]()
        train_new_prior(asked(data, keep=keep), tmp_path / keep, store=store, say=said.append, dry_run=True)
        told[keep] = said[0]
    parameters = int(re.findall(r"a DiT of ([\d,]+) parameters", told["best"])[0].replace(",", ""))
    memory = {keep: int(re.findall(r"(\d+) of memory", line)[0]) for keep, line in told.items()}
    assert memory["best"] - memory["last"] == 4 * parameters
    assert f"of disk for latents and {4 * parameters} for the best average" in told["best"]
    assert "best" not in told["last"]


@pytest.mark.parametrize(
    ("measures", "told"),
    [
        ({"step": 8, "accuracy": 55.0}, r"step 8 of 12, for samples were worse at the end \(5\.0%, .* 2\.5\d*\)$"),
        ({"step": 8, "accuracy": 55.0, "last_frechet": 2.5001}, r"2\.5001 in the place of 2\.5000"),
        ({"step": 12, "accuracy": 55.0}, "step 12, the last and the best$"),
        ({"step": 8, "accuracy": 31.0}, "a weak prior.*; lower `learning_rate`, or adapt"),
        ({"step": 12, "accuracy": 31.0}, "a weak prior.*; train it longer"),
        ({"step": 8, "accuracy": 13.0}, "no better than chance; train it longer"),
    ],
)
def test_a_prior_is_judged_by_the_average_that_is_written(measures: dict[str, float], told: str) -> None:
    last = {"last_step": 12, "last_accuracy": 5.0, "last_frechet": 3.0}
    common = {"accuracy_real": 65.0, "samples": 500, "frechet": 2.5}
    assert re.search(told, quality_in_words({**common, **last, **measures}, 10))


def test_of_a_single_class_chance_says_nothing() -> None:
    told = quality_in_words({"accuracy": 100.0, "accuracy_real": 100.0, "samples": 500}, 1)
    assert "no better than chance" not in told
