"""What is said in words: numbers of things, times, why a file cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from toys import attar, save_random_set

from attar.core.errors import reason
from attar.core.progress import about
from attar.core.wording import counted


@pytest.mark.parametrize(
    ("number", "thing", "words"),
    [(1, "image", "1 image"), (0, "image", "0 images"), (12_000, "image", "12,000 images"), (1, "class", "1 class"),
     (2, "class", "2 classes"), (3, "network pass", "3 network passes")],
)  # fmt: skip
def test_numbers_of_things(number: int, thing: str, words: str) -> None:
    assert counted(number, thing) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.001, "under 0.01 s"), (3.5, "about 3.5 s"), (float("inf"), "an unknown time")]
)
def test_only_a_number_is_about(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_why_a_file_cannot_be_read_has_no_number(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "x").read_text()
    assert reason(caught.value) == "No such file or directory"
    assert reason(ValueError("nonsense")) == "nonsense"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distill", "--config", "none.toml"], "--config none.toml cannot be read: No such file or directory\n"),
        (["distill", "--config", "bad.toml"], "--config bad.toml is not TOML: Expected '=' after a key"),
        (["compare", "none.toml"], "none.toml cannot be read: No such file or directory\n"),
        (["compare", "bad.toml"], "bad.toml is not TOML: Expected '=' after a key"),
        (["evaluate", "set", "--json", "folder"], "folder cannot be read (Is a directory)"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("data")
    (tmp_path / "folder").mkdir()
    save_random_set(tmp_path, monkeypatch)
    capsys.readouterr()
    assert attar(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "[Errno" not in told


def test_one_class_and_one_image_are_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = save_random_set(tmp_path, monkeypatch)
    data = ["--data", f"imagefolder:{made / 'data'}@train", "--classes", "ant", "--out", tmp_path / "one"]
    assert attar(monkeypatch, "distill", *data, "--method", "random", "--ipc", 1) == 0
    assert attar(monkeypatch, "verify", tmp_path / "one") == 0
    told = capsys.readouterr().out
    assert "6 images of 1 class: 1 of them will be copied" in told
    assert f"{tmp_path / 'one'}: 1 image, all as written" in told
