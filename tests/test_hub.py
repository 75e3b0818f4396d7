"""Sets on the hub, which a folder stands in for: pushed with a card, pulled, and every file checked."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from test_report import DATA, HOSTILE, record, write_set
from toys import attar

from attar.core.errors import AttarError
from attar.evaluation.records_file import write_record
from attar.sets.distilled import open_distilled, verify
from attar.sets.hub import CARD, Publication, pull, push

REPO = "me/my-set"


class Hub:
    """As much of `HfApi` as sets need, on a folder for each repository."""

    root: Path
    error: Exception | None = None
    private: bool | None = None

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> str:
        if self.error:
            raise self.error
        assert (repo_type, exist_ok) == ("dataset", True)
        Hub.private = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return f"https://huggingface.co/datasets/{repo_id}"

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> list[str]:
        root = self.root / repo_id
        return [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, repo_type: str, commit_message: str, delete_patterns: Sequence[str]
    ) -> None:
        for name in self.list_repo_files(repo_id, repo_type=repo_type):
            if any(fnmatch.fnmatch(name, pattern) for pattern in delete_patterns):
                (self.root / repo_id / name).unlink()
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(
        self, repo_id: str, *, repo_type: str, revision: str | None, local_dir: Path, allow_patterns: Sequence[str]
    ) -> None:
        if self.error:
            raise self.error
        (local_dir / ".cache" / "huggingface").mkdir(parents=True)
        for name in self.list_repo_files(repo_id, repo_type=repo_type):
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.root / repo_id / name, local_dir / name)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "root", tmp_path / "hub", raising=False)
    return tmp_path / "hub" / REPO


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_stands_at_out_is_seen_before_anything_is_downloaded(hub: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(AttarError, match="something is there already; choose another folder"):
        pull("me/absent", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"


def test_a_set_comes_back_as_it_was(hub: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", ipc=3)
    said: list[str] = []
    push(open_distilled(folder), Publication(REPO, private=True), say=said.append)
    assert Hub.private is True
    assert said == [f"pushed 6 images of {folder} to https://huggingface.co/datasets/{REPO}"]
    (hub / "setup.py").write_text("evil")
    pull(REPO, tmp_path / "back", say=said.append)
    assert files(tmp_path / "back") == files(folder), "what is of no set is left there"
    assert verify(tmp_path / "back") == []


def test_another_set_takes_the_place_of_the_first(hub: Path, tmp_path: Path) -> None:
    push(open_distilled(write_set(tmp_path / "large", ipc=5)), Publication(REPO))
    small = write_set(tmp_path / "small", ipc=2)
    push(open_distilled(small), Publication(REPO))
    pull(REPO, tmp_path / "back")
    assert files(tmp_path / "back") == files(small)


@pytest.mark.parametrize("what", ["altered", "missing", "extra"])
def test_what_is_not_as_it_was_written_is_not_kept(hub: Path, tmp_path: Path, what: str) -> None:
    push(open_distilled(write_set(tmp_path / "set")), Publication(REPO))
    image = sorted(hub.rglob("*.png"))[0]
    if what == "missing":
        image.unlink()
    else:
        target = image if what == "altered" else image.with_name("0009.png")
        target.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(AttarError, match=rf"{REPO}: is not as it was written \({what}: images/"):
        pull(REPO, tmp_path / "back")
    assert not list(tmp_path.glob("*back*"))


def test_the_card_says_what_a_stranger_must_know(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {**DATA, "spec": "imagefolder:/home/someone/photos@train"}
    folder = write_set(tmp_path / "set", ipc=2, classes=HOSTILE, data=data)
    write_record(tmp_path / "results.json", record(folder, 40.0, 2))
    write_record(tmp_path / "results.json", record(tmp_path / "other", 77.0, 2))
    words = ("push", folder, REPO, "--licence", "cc-by-4.0", "--results", tmp_path / "results.json")
    assert attar(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert "note: manifest.json names folders of this machine: imagefolder:/home/someone/photos@train" in told
    card = (hub / "README.md").read_text()
    front = json.loads(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "images/**"}]
    for line in (
        "| pixels | 640 |",
        "| licence of the source data | cc-by-4.0 |",
        "| convnet3, quick | 40.0 ± 0.5 % (n = 3, 364 test images); random real images 30.0 ± 0.5 % |",
        "| sampler.steps | 50 |",
        "## Near copies\n\nNot measured.",
        "## Intended use",
    ):
        assert line in card, line
    assert "| data | imagefolder:.../photos@train |" in card
    for text in (card, (hub / CARD).read_text()):
        assert "/home/someone" not in text
    assert "77.0" not in card
    assert "<script>" not in card
    assert (hub / CARD).read_bytes() == (folder / "README.md").read_bytes()


def test_the_names_of_real_images_do_not_go_unnoticed(hub: Path, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", real_images=[[["cat/mine|1.png"]], [["dog/2.png"]]])
    said: list[str] = []
    push(open_distilled(folder), Publication(REPO), say=said.append)
    assert "note: README.md and manifest.json name the real images that it was made of, such as cat/mine|1.png" in said
    assert "| images/001_dog/0000.png | dog/2.png |" in (hub / "README.md").read_text()
    assert r"| images/000_cat/0000.png | cat/mine\|1.png |" in (hub / "README.md").read_text()


def test_a_card_without_licence_and_scores_says_so(hub: Path, tmp_path: Path) -> None:
    push(open_distilled(write_set(tmp_path / "set")), Publication(REPO))
    card = (hub / "README.md").read_text()
    assert "license" not in json.loads(card.split("---\n")[1])
    assert "not stated: look it up before you use or pass on these images" in card
    assert "None were given" in card


def test_a_dry_run_shows_the_card_and_asks_nobody(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(tmp_path / "set")
    monkeypatch.setattr(Hub, "error", RuntimeError("asked"))
    assert attar(monkeypatch, "push", folder, REPO, "--dry-run") == 0
    said = capsys.readouterr().out
    assert f"2 images of {folder} would be pushed to {REPO} with this card" in said
    assert "## Intended use" in said
    assert not hub.exists()


def test_nothing_else_is_written_over(hub: Path, tmp_path: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "thesis.pdf").write_text("mine")
    folder = write_set(tmp_path / "set")
    with pytest.raises(AttarError, match=f"{REPO}: holds thesis.pdf and no distilled set"):
        push(open_distilled(folder), Publication(REPO))
    with pytest.raises(AttarError, match="is no set that `attar push` wrote"):
        pull(REPO, tmp_path / "back")
    (folder / "images" / "000_cat" / "0000.png").write_bytes(b"")
    with pytest.raises(AttarError, match="is damaged"):
        push(open_distilled(folder), Publication(REPO))


@pytest.mark.parametrize("name", ["my-set", "../me/set", "me/..", "https://huggingface.co/me/set", ""])
def test_what_is_no_id_is_named(hub: Path, tmp_path: Path, name: str) -> None:
    for act in (
        lambda: push(open_distilled(write_set(tmp_path / "set")), Publication(name)),
        lambda: pull(name, tmp_path / "back"),
    ):
        with pytest.raises(AttarError, match="an id of the hub reads owner/name"):
            act()
        shutil.rmtree(tmp_path / "set", ignore_errors=True)


class Refused(HfHubHTTPError):
    """Without the answer that it is about, whose type is another in every version of the library."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)

    def __str__(self) -> str:
        return str(self.args[0])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("no route to host"), "cannot be pushed: no route to host"),
        (Refused("403 Forbidden\nmore"), "cannot be pushed: 403 Forbidden .`hf auth login` with a token that may"),
        (LocalTokenNotFoundError("x"), "cannot be pushed without a token: `hf auth login`"),
    ],
)
def test_what_the_hub_says_is_passed_on(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(Hub, "error", error)
    with pytest.raises(AttarError, match=f"{REPO}: {said}"):
        push(open_distilled(write_set(tmp_path / "set")), Publication(REPO))


def test_the_hub_has_what_is_asked_of_it() -> None:
    """The stand-in takes no argument that the library does not."""
    import importlib
    import inspect

    real: Any = importlib.import_module("huggingface_hub.hf_api").HfApi
    for name in ("create_repo", "list_repo_files", "upload_folder", "snapshot_download"):
        wanted = inspect.signature(getattr(Hub, name)).parameters
        assert set(wanted) <= set(inspect.signature(getattr(real, name)).parameters), name


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "imagefolder:/home/someone/photos@train",
            "note: its data, imagefolder:/home/someone/photos@train, are a place",
        ),
        ("hf:me/photos@train", "its data are hf:me/photos@train"),
        (
            "digits@train",
            "its data, digits@train, are on this machine, too; `attar evaluate` tells whether",
        ),
    ],
)
def test_a_pulled_set_says_where_its_data_are(hub: Path, tmp_path: Path, spec: str, told: str) -> None:
    push(open_distilled(write_set(tmp_path / "set", data={**DATA, "spec": spec})), Publication(REPO))
    said: list[str] = []
    pull(REPO, tmp_path / "back", say=said.append)
    assert said[0].endswith("all files as written")
    assert said[1].startswith(told)


@pytest.mark.parametrize("licence", ["cc by", "mit\n| evil |", "", "-"])
def test_a_licence_is_a_name(licence: str) -> None:
    with pytest.raises(AttarError, match=r"`licence` .*: give its name on the hub, such as cc-by-4.0, mit or other"):
        Publication(REPO, licence)


@pytest.mark.parametrize("licence", ["cc-by-nc-sa-4.0", "openrail++", "other"])
def test_the_names_of_the_hub_are_licences(licence: str) -> None:
    assert Publication(REPO, licence).licence == licence
