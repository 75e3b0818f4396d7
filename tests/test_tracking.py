"""Trackers of accelerate, by name: what they are told, what they leave alone, what is said where one cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import tracking as accelerates
from accelerate.tracking import GeneralTracker
from toys import attar, save_folder, save_random_set

from attar.core import tracking
from attar.core.tracking import begin_tracking, note

TEACHER = ["--network", "convnet3-bn-w8", "--size", "16", "--epochs", "2", "--batch", "4", "--device", "cpu"]
PRIOR = [
    "--size",
    "16",
    "--patch",
    "4",
    "--hidden",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--steps",
    "4",
    "--batch",
    "4",
]
REPORT = ["--report-samples", "4", "--set", "report.steps=2", "--set", "report.judge_steps=2"]


class StandIn(GeneralTracker):  # type: ignore[misc]
    """Keeps what it is told."""

    name = "stand-in"
    requires_logging_directory = False
    told: ClassVar[list[tuple[int | None, dict[str, float]]]] = []
    settings: ClassVar[dict[str, Any]] = {}
    ended: ClassVar[list[str]] = []

    def __init__(self, project: str) -> None:
        super().__init__()
        self.project = project

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings.update(values)

    def log(self, values: dict[str, float], step: int | None = None, **more: Any) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.ended.append(self.project)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setitem(accelerates.LOGGER_TYPE_TO_CLASS, "stand-in", StandIn)
    for kept in (StandIn.told, StandIn.settings, StandIn.ended):
        kept.clear()
    return StandIn


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    return f"imagefolder:{save_folder(tmp_path / 'data', ['ant', 'bee'], each=12)}"


def names(told: list[tuple[int | None, dict[str, float]]]) -> set[str]:
    return {name for _, values in told for name in values}


def test_a_teacher_tells_its_losses_and_accuracies(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: type[StandIn]
) -> None:
    words = ["--data", data, "--out", tmp_path / "teacher", *TEACHER, "--tracker", "stand-in"]
    assert attar(monkeypatch, "train-teacher", *words) == 0
    assert names(stand_in.told) == {"loss", "train_accuracy", "held_out_accuracy"}
    step, last = stand_in.told[-1]
    record = json.loads((tmp_path / "teacher" / "teacher.json").read_text())
    assert last == {"held_out_accuracy": record["held_out"]["accuracy"]}
    assert step == max(step for step, _ in stand_in.told if step is not None) > 0
    assert stand_in.settings["network"] == "convnet3-bn-w8"
    assert stand_in.ended == ["attar"]


def test_a_prior_tells_its_loss_and_how_good_its_samples_are(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: type[StandIn]
) -> None:
    words = ["--data", data, "--out", tmp_path / "prior", *PRIOR, *REPORT, "--tracker", "stand-in"]
    assert attar(monkeypatch, "train-prior", *words) == 0
    assert names(stand_in.told) >= {"training a prior/loss", "sample_accuracy", "frechet"}
    kept = [json.loads(line) for line in (tmp_path / "prior" / "losses.jsonl").read_text().splitlines()]
    told = {step: values["training a prior/loss"] for step, values in stand_in.told if "frechet" not in values}
    assert told == pytest.approx({line["step"]: line["loss"] for line in kept}, abs=1e-6)


def test_an_evaluation_tells_each_network_and_seed_and_stores_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: type[StandIn]
) -> None:
    save_random_set(tmp_path, monkeypatch)
    words = [tmp_path / "set", "--network", "convnet3-w4", "--seeds", 2, "--set", "steps=2"]
    assert attar(monkeypatch, "evaluate", *words, "--json", tmp_path / "plain.json") == 0
    kept = sorted((tmp_path / "cache").rglob("meta.json"))
    assert attar(monkeypatch, "evaluate", *words, "--json", tmp_path / "told.json", "--tracker", "stand-in") == 0
    assert sorted((tmp_path / "cache").rglob("meta.json")) == kept
    assert (tmp_path / "told.json").read_bytes() == (tmp_path / "plain.json").read_bytes()
    (record,) = json.loads((tmp_path / "told.json").read_text())
    own = {f"{tmp_path / 'set'}/convnet3-w4, seed {seed}/accuracy" for seed in (0, 1)}
    assert {name for name in names(stand_in.told) if not name.startswith("random")} == own
    assert [values[name] for _, values in stand_in.told for name in own & set(values)] == record["accuracies"]


def test_a_dry_run_starts_none(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Any) -> None:
    words = ["--data", data, "--out", tmp_path / "teacher", *TEACHER, "--tracker", "stand-in", "--dry-run"]
    assert attar(monkeypatch, "train-teacher", *words) == 0
    assert not stand_in.settings
    assert not stand_in.ended


def test_tensorboard_writes_beside_what_is_made(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["--data", data, "--out", tmp_path / "teacher", *TEACHER, "--tracker", "tensorboard"]
    assert attar(monkeypatch, "train-teacher", *words) == 0
    read = EventAccumulator(str(tmp_path / "teacher.tracker" / "attar"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"loss", "train_accuracy", "held_out_accuracy"}
    assert sorted(file.name for file in (tmp_path / "teacher").iterdir()) == ["model.safetensors", "teacher.json"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "`--tracker` tensorbord: accelerate has none of this name (did you mean 'tensorboard'?)"),
        ("trackio", "`--tracker` trackio: not installed; pip install trackio, or leave `--tracker` out"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(
    name: str,
    said: str,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(accelerates, "get_available_trackers", list)
    words = ["--data", data, "--out", tmp_path / "teacher", *TEACHER, "--tracker", name]
    assert attar(monkeypatch, "train-teacher", *words) == 2
    assert said.replace("`", "") in capsys.readouterr().err.replace("`", "")
    assert not (tmp_path / "teacher").exists()


def test_one_that_does_not_start_is_an_error(
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stand_in: type[StandIn],
) -> None:
    monkeypatch.setattr(stand_in, "start", lambda self: 1 / 0)
    words = ["--data", data, "--out", tmp_path / "teacher", *TEACHER, "--tracker", "stand-in"]
    assert attar(monkeypatch, "train-teacher", *words) == 2
    assert "stand-in: it does not start: division by zero" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["train-teacher", *TEACHER, "--test", "imagefolder:none", "--out", "made"],
        ["train-prior", *PRIOR, "--codec", "none", "--out", "made"],
        ["finetune-prior", "--prior", "none", "--out", "made"],
        ["evaluate", "set", "--network", "convnet3-w4", "--test", "imagefolder:none"],
    ],
    ids=lambda words: words[0],
)
def test_one_starts_when_all_else_is_checked(
    words: list[str], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: type[StandIn]
) -> None:
    save_random_set(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    of_data = [] if words[0] == "evaluate" else ["--data", data]
    assert attar(monkeypatch, *words, *of_data, "--tracker", "stand-in") == 2
    assert not stand_in.settings


def test_one_that_fails_on_the_way_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: type[StandIn], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stand_in, "log", lambda self, values, step: 1 / 0)
    with tracking.tracking("stand-in", tmp_path, {}):
        begin_tracking()
        note(1, loss=2.0)
        note(2, loss=1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker stand-in failed, and is left out: division by zero"
    ]
    assert stand_in.ended == ["attar"]


def test_one_that_does_not_end_well_spoils_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: type[StandIn], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stand_in, "finish", lambda self: 1 / 0)
    with tracking.tracking("stand-in", tmp_path, {}):
        begin_tracking()
        note(1, loss=2.0)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker stand-in did not end well: division by zero"
    ]
    with pytest.raises(KeyError), tracking.tracking("stand-in", tmp_path, {}):
        raise KeyError


def test_one_whose_steps_may_only_rise_gets_them_as_values(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: type[StandIn]
) -> None:
    monkeypatch.setattr(stand_in, "name", "wandb")
    with tracking.tracking("stand-in", tmp_path, {}):
        begin_tracking()
        for seed in ("seed 0", "seed 1"):
            with tracking.part(seed):
                note(1, loss=2.0)
    told = [(None, {f"seed {seed}/loss": 2.0, f"seed {seed}/step": 1.0}) for seed in (0, 1)]
    assert stand_in.told == told


@pytest.mark.parametrize("place", [".", "..", "set/.."])
def test_its_files_lie_beside_a_place_without_a_name(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    named = (tmp_path / "a" / place).resolve()
    assert tracking.beside(Path(place)) == named.parent / f"{named.name}.tracker"
    assert tracking.beside(Path("set")) == Path("set.tracker")


def test_sets_of_the_current_folder_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_random_set(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path / "set")
    words = [".", "--network", "convnet3-w4", "--seeds", 1, "--set", "steps=2", "--dry-run"]
    assert attar(monkeypatch, "evaluate", *words) == 0
    assert "dry run: nothing was trained" in capsys.readouterr().out


def test_nothing_is_noted_without_one() -> None:
    note(1, loss=2.0)
    assert not tracking._trackers
