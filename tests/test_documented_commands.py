"""Every command of README and docs, on small stand-ins: those that write little run, all others run dry.

What is run elsewhere, or needs a hub or a bucket, is parsed here, and `ELSEWHERE` says where it is run.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from documented import COMMANDS, ROOT, Command
from toys import attar, result_record, save_folder, save_tiny_dit, save_tiny_sd, tint

import attar as library
from attar.cli.commands import GROUPS, built
from attar.evaluation.records_file import write_record
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["cat", "frog", "truck"]
STAND_INS = {
    "parquet:../shared/data/imagenette224": "cifar10",
    "parquet:../shared/data/imagenette64": "cifar10",
    "parquet:../shared/data/cifar10": "cifar10",
    "parquet:cifar10": "cifar10",
    "torchvision:CIFAR10": "cifar10",
    "../shared/priors/cifar10-dit": "priors/cifar10-dit",
    "runs/teachers/imagenette64": "teachers/cifar10",
    "facebook/DiT-XL-2-256": "priors/cifar10-dit",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "priors/sd",
    "stabilityai/sd-vae-ft-ema": "priors/cifar10-dit/vae",
}
"""What a word names -> what is here in its place."""
SMALL = {
    "^train-prior": "--size 16 --patch 2 --hidden 16 --layers 2 --heads 2 --batch 4",
    "^finetune-prior .*--size": "--size 16 --batch 4",
    "resnetap10": "--set size=32",
}
"""What makes a dry run short, which times a few steps, by what a command matches."""
WHOLE = ("verify", "export", "expand", "report", "doctor", "reproduce", "relabel")
"""Commands that run as they stand: they take no time here."""
WRITING = ("distill", "tune", "train-prior", "finetune-prior", "train-teacher")
"""Commands whose dry runs are told another place: here sets and priors are where theirs go."""
ELSEWHERE = {
    r"^compare ": "tests/test_experiments.py runs every file of experiments/ on stand-ins",
    r"^(push|pull) ": "a hub or a bucket: tests/test_hub.py and tests/test_urls.py have stand-ins",
    r"--prior digits ": "CI runs those of README whole: .ci/readme.py",
    r"^cache |--explain": "tests/test_cache_command.py",
    r"--engine ray": "tests/test_ray.py",
    r"--layout minimax ": "tests/test_layouts.py",
}
"""Commands that are run elsewhere, by what they match, and where; here they are parsed."""


def here(command: Command) -> list[str]:
    """The words of a command with what is here in the place of what they name."""
    words = []
    for word in command.words:
        named = next((name for name in STAND_INS if name in word), None)
        words.append(word if named is None else word.replace(named, STAND_INS[named]))
    return words


def matching(command: Command, table: dict[str, str]) -> list[str]:
    """What a table says of a command."""
    return [said for pattern, said in table.items() if re.search(pattern, " ".join(command.words))]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name: images, priors, teachers, sets, results."""
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for place in ("cifar10", "photos"):
        for split, each in (("train", 60), ("test", 2)):
            save_folder(Path(place, split), CLASSES, each=each)
            tint(Path(place, split))
    for prior in ("cifar10-dit", "photos", "cifar10", "small"):
        save_tiny_dit(Path("priors", prior), CLASSES)
    save_tiny_sd(Path("priors/sd"))
    training = TeacherTraining(
        "cifar10@train", network="convnet3-bn-w8", size=16, epochs=4, batch=16, shift=0, device="cpu"
    )
    train_teacher(training, Path("teachers/cifar10"), say=lambda text: None)
    for name in ("early", "photos"):
        Path("teachers", name).symlink_to("cifar10")
    random: dict[str, Any] = {"method": "random", "device": "cpu"}
    library.distill("cifar10@train", ipc=[1, 10], out="runs/d3hr", **random)
    library.distill("photos@train", ipc=10, out="runs/photos", **random)
    library.distill("cifar10@train", ipc=10, out="runs/cifar", **random)
    labelled: dict[str, Any] = {"labels": "fixed", "label_teacher": "teachers/cifar10"}
    library.distill("cifar10@train", ipc=10, out="runs/labelled", **labelled, **random)
    library.distill("cifar10@train", ipc=10, out="runs/tried", hold_out=True, **labelled, **random)
    for name in ("mosaics", "herding"):
        library.distill("cifar10@train", ipc=10, out=f"runs/{name}", formation=2, **random)
    for name in ("random", "prior", "own", "shared", "random10"):
        Path("runs", name).symlink_to("d3hr")
    for name in ("results", "photos"):
        write_record(Path(f"runs/{name}.json"), result_record(50.0), "")
    return tmp_path


def test_every_command_works(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failed, page = [], ""
    for number, command in enumerate(COMMANDS):
        if matching(command, ELSEWHERE):
            continue
        if command.page != page:  # labels of one page are of other sets than those of the next
            page = command.page
            shutil.rmtree("labels", ignore_errors=True)
        name, *words = here(command)
        for more in matching(command, SMALL):
            words += more.split()
        words += [] if name in WHOLE else ["--dry-run"]
        if name in WRITING:
            words += ["--out", f"other/{number}"]
        if attar(monkeypatch, name, *words):
            failed.append(f"{command}\n    {capsys.readouterr().err.strip()[-300:]}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("command", [command for command in COMMANDS if matching(command, ELSEWHERE)], ids=str)
def test_what_runs_elsewhere_is_understood(command: Command) -> None:
    name, *words = command.words
    group: Any = built(name)
    if name in GROUPS:
        name, *words = words
        group = group.commands[name]
    group.make_context(name, words)


def test_what_runs_elsewhere_is_there() -> None:
    for pattern, where in ELSEWHERE.items():
        assert any(re.search(pattern, " ".join(command.words)) for command in COMMANDS), pattern
        named = re.findall(r"(?:tests|\.ci)/\w+\.py", where)
        assert named
        assert all((ROOT / file).is_file() for file in named)
