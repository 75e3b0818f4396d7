"""Trainings that two processes share: the same as one process's, killed and gone on with; other commands refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kills import Events, context
from safetensors.torch import load_file
from torch import Tensor
from toys import attar as run_attar
from toys import save_folder

import attar.cli
import attar.core.progress
from attar.core.store import Artefact, Store
from attar.training.processes import PATIENCE, accelerator, once_together

TEACHER = ["--network", "convnet3-bn-w8", "--size", 8, "--batch", 16, "--epochs", 20, "--no-flip", "--shift", 1]
PRIOR = ["--size", 8, "--codec", "grey", "--batch", 8, "--steps", 60, "--report-every", 60, "--report-samples", 8]
PRIOR += ["--no-flip", "--set", "training.hidden=16", "--set", "training.layers=1", "--set", "training.heads=2"]
PRIOR += ["--set", "report.judge_steps=2", "--set", "report.steps=2"]
COMMANDS = {"train-teacher": TEACHER, "train-prior": PRIOR}
AT = {"train-teacher": 45, "train-prior": 22}
"""The report of a step at which a process is killed, after the first checkpoint."""


def process(root: Path, words: list[str], number: int, count: int, port: int, victim: int | None, nth: int) -> None:
    """`attar WORDS` as one of several; at the n-th step the main one kills the victim, or itself for 0."""
    os.chdir(root)
    os.environ |= {"ATTAR_CACHE": str(root / "cache"), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if count > 1:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    sys.argv = ["attar", *words]
    output = (root / f"said-{number}").open("w")
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    events, told = Events(root), list[str]()

    def progress(text: str, fraction: float) -> None:
        told.append(text)
        events.progress(text, fraction)
        if victim is not None and events.count["training told"] == nth:
            os.kill(victim or os.getpid(), signal.SIGKILL)

    vars(attar.core.progress)["lines"] = lambda: nullcontext(progress)
    try:
        attar.cli.main()
    finally:
        (root / f"told-{number}.json").write_text(json.dumps(told))


def run(root: Path, words: Sequence[object], count: int = 2, killed: int | None = None, nth: int = 0) -> list[int]:
    """How the processes of a command ended: 0, an exit code, or less than 0 for a signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for number in reversed(range(count)):
        victim = {None: None, 0: 0}.get(killed, started[0].pid if started else None)
        args = (root, [str(word) for word in words], number, count, port, victim, nth)
        started.append(context.Process(target=process, args=args))
        started[-1].start()
    for one in started:
        one.join()
    return [one.exitcode or 0 for one in reversed(started)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("images"), ["ant", "bee", "cat"], 24)


def words(command: str, data: Path) -> list[object]:
    return [command, "--data", data, *COMMANDS[command], "--device", "cpu", "--out", "out"]


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Where each command ran, by the number of its processes."""
    made = {}
    for command in COMMANDS:
        for count in (1, 2):
            root = made[command, count] = tmp_path_factory.mktemp(f"{command}-{count}")
            assert run(root, words(command, data), count) == [0] * count, (root / "said-0").read_text()
    return made


def weights(root: Path) -> dict[str, Tensor]:
    (file,) = (root / "out").rglob("*model.safetensors")
    return load_file(file)


def curve(root: Path) -> list[float]:
    told = json.loads((root / "told-0.json").read_text())
    return [float(match[1]) for text in told if (match := re.search(r"^training .* loss (\d+\.\d+)", text))]


@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_train_as_one(undisturbed: dict[tuple[str, int], Path], command: str) -> None:
    alone, shared = (undisturbed[command, count] for count in (1, 2))
    losses = curve(alone)
    assert len(losses) >= 30
    assert np.allclose(curve(shared), losses, atol=2e-3)
    own, theirs = weights(alone), weights(shared)
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        torch.testing.assert_close(theirs[name].float(), value.float(), rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_main_process_alone_speaks(undisturbed: dict[tuple[str, int], Path], command: str) -> None:
    root = undisturbed[command, 2]
    assert f"wrote {root / 'out'}" in (root / "said-0").read_text()
    assert (root / "said-1").read_text() == ""
    assert json.loads((root / "told-1.json").read_text()) == []
    (record,) = (json.loads(file.read_text()) for file in (root / "out").glob("[at]*.json"))
    assert record["settings"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_is_killed_ends_both_and_the_same_command_goes_on(
    data: Path, undisturbed: dict[tuple[str, int], Path], tmp_path: Path, command: str, killed: int
) -> None:
    ended = run(tmp_path, words(command, data), killed=killed, nth=AT[command])
    assert ended[killed] == -signal.SIGKILL
    said = (tmp_path / f"said-{1 - killed}").read_text()
    assert ended[1 - killed] == 2, said
    assert said.endswith(": another process of this training has ended: the same command goes on\n")
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, words(command, data)) == [0, 0]
    assert len(curve(tmp_path)) < len(curve(undisturbed[command, 2])), "it went on where it was"
    expected, found = weights(undisturbed[command, 2]), weights(tmp_path)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_best_average_is_kept_by_the_main_process_and_both_go_on(data: Path, tmp_path: Path) -> None:
    asked = [*words("train-prior", data), "--keep", "best", "--report-every", 20]
    for name, killed in (("whole", None), ("cut", 0), ("cut", None)):
        (tmp_path / name).mkdir(exist_ok=True)
        ended = run(tmp_path / name, asked, killed=killed, nth=AT["train-prior"] + 20)
        assert ended == ([0, 0] if killed is None else [-signal.SIGKILL, 2]), (tmp_path / name / "said-1").read_text()
    assert len(curve(tmp_path / "cut")) < len(curve(tmp_path / "whole")), "it went on where it was"
    files = [(tmp_path / name / "out" / "measures.jsonl").read_text() for name in ("whole", "cut")]
    assert files[0] == files[1]
    expected, found = (weights(tmp_path / name) for name in ("whole", "cut"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    record = json.loads((tmp_path / "cut" / "out" / "training.json").read_text())["measures"]
    lines = [json.loads(line) for line in files[0].splitlines()]
    best = max(lines, key=lambda line: (line["accuracy"], -line["frechet"], line["step"]))
    assert (record["step"], record["last_step"]) == (best["step"], 60)


def test_all_stop_early_where_the_main_process_does(data: Path, tmp_path: Path) -> None:
    assert run(tmp_path, [*words("train-teacher", data), "--stop-at", 0.3]) == [0, 0]
    record = json.loads((tmp_path / "out" / "teacher.json").read_text())
    assert record["stopped"]["step"] < record["stopped"]["of"]


def test_an_autoencoder_is_trained_together_before_its_prior(data: Path, tmp_path: Path) -> None:
    sizes = ["--set", "vae.width=8", "--set", "vae.steps=30", "--set", "vae.batch=8", "--size", 16]
    ended = run(tmp_path, [*words("train-prior", data), "--codec", "train", "--steps", 2, *sizes])
    assert ended == [0, 0], (tmp_path / "said-0").read_text()
    assert (tmp_path / "out" / "vae").is_dir()


def test_a_batch_that_cannot_be_shared_is_refused(data: Path, tmp_path: Path) -> None:
    assert run(tmp_path, [*words("train-teacher", data), "--batch", 15]) == [2, 2]
    said = (tmp_path / "said-0").read_text()
    assert said == "error: --batch 15: must be divisible by the number of processes, 2\n"


def test_the_digits_are_trained_before_several_processes_share(data: Path, tmp_path: Path) -> None:
    asked = ["finetune-prior", "--prior", "digits", "--data", data, "--device", "cpu", "--batch", 2, "--out", "out"]
    assert run(tmp_path, asked) == [2, 2]
    assert "`attar describe-prior digits` before this" in (tmp_path / "said-0").read_text()


@pytest.mark.parametrize("number", [0, 1])
def test_other_commands_are_refused_in_one_line(monkeypatch: Any, capsys: Any, number: int) -> None:
    for name, value in {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert run_attar(monkeypatch, "list", "methods") == 2
    line = (
        "error: only train-prior, finetune-prior, train-teacher run in several processes: start `attar list` as it is\n"
    )
    assert capsys.readouterr().err == ("" if number else line)


def test_the_others_wait_for_as_long_as_the_main_process_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may encode a large data set, or draw samples, for hours; NCCL's own patience is ten minutes."""
    given = list[Any]()

    def helper(**words: Any) -> SimpleNamespace:
        given.append(words)
        return SimpleNamespace(wait_for_everyone=lambda: None)

    monkeypatch.setattr("accelerate.Accelerator", helper)
    accelerator("cpu", "float32")
    (handler,) = given[0]["kwargs_handlers"]
    assert handler.to_kwargs() == {"timeout": PATIENCE}
    assert PATIENCE.total_seconds() >= 24 * 3600


@pytest.mark.parametrize("before", [False, True])
def test_no_process_goes_on_before_all_have_met(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """The main one holds the addresses: if it ended at once, with an error, another might not have read them yet."""
    waited = list[bool]()
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: before)
    helper = SimpleNamespace(wait_for_everyone=lambda: waited.append(True))
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: helper)
    assert accelerator("cpu", "float32") is helper
    assert waited == ([] if before else [True])


@pytest.mark.parametrize("main", [True, False])
def test_no_process_assists_where_another_job_was_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: bool
) -> None:
    """The main one waits for the other job's lock, finds the artefact then, and tells the others."""

    class Late(Store):
        def once(self, artefact: Artefact, *_: Any) -> Path:
            return self.path(artefact)

    def never(scratch: Path) -> None:
        pytest.fail("trains")

    def said(found: bool, helper: Any) -> bool:
        told.append(found)
        return False

    told = list[bool]()
    monkeypatch.setattr("attar.training.processes.as_main_finds", said)
    helper: Any = SimpleNamespace(num_processes=2, is_main_process=main, wait_for_everyone=lambda: None)
    once_together(Late(tmp_path), Artefact("prior", {}), helper, never, never)
    assert told == [False]
