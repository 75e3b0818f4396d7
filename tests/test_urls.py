"""Sets at URLs of fsspec: all files first, a marker last; broken off and gone on with, refused, checked when read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_hub import files
from test_report import DATA, write_set
from toys import attar

from attar.core.errors import AttarError
from attar.data.output_places import check_place
from attar.sets.distilled import COMPLETE, find_distilled, open_distilled, verify
from attar.sets.urls import pull_from_url, push_to_url

URL = "memory://bucket/set"
REGISTRY: Any = importlib.import_module("fsspec.registry")


@pytest.fixture(autouse=True)
def store() -> Iterator[dict[str, Any]]:
    """The memory file system's files, empty before and after."""
    MemoryFileSystem.store.clear()
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()


class Broken(Exception):
    """The connection is lost."""


class Flaky(MemoryFileSystem):  # type: ignore[misc]
    """A memory file system that fails at the n-th file that is written, with the file half there."""

    protocol = "flaky"
    cachable = False
    left = 0
    written: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://")))

    def put_file(self, lpath: str, rpath: str, **how: Any) -> None:
        self._write(rpath, Path(lpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, **how: Any) -> None:
        self._write(path, value)

    def _write(self, path: str, content: bytes) -> None:
        Flaky.left -= 1
        if Flaky.left < 0:
            super().pipe_file(path, content[: len(content) // 2])
            raise Broken("connection lost")
        super().pipe_file(path, content)
        Flaky.written.append(path.removeprefix("/bucket/set/"))


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(REGISTRY._registry, "flaky", Flaky)
    monkeypatch.setattr(Flaky, "written", [])
    return "flaky://bucket/set"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_set_comes_back_as_it_was(folder: Path, tmp_path: Path, where: str) -> None:
    url = URL if where == "memory" else f"file://{tmp_path}/shared/sets [1]/set"
    said: list[str] = []
    push_to_url(open_distilled(folder), url, say=said.append)
    pull_from_url(url, tmp_path / "back", say=said.append)
    assert files(tmp_path / "back") == files(folder)
    assert said[:2] == [
        f"pushed 2 images of {folder} to {url}",
        f"pulled {url} to {tmp_path / 'back'}, all files as written",
    ]
    if where == "file":
        assert verify(tmp_path / "shared/sets [1]/set") == [], "the marker is no stranger"


def test_the_manifest_is_written_first_and_the_marker_last(folder: Path, flaky: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(Flaky, "left", 99)
    push_to_url(open_distilled(folder), flaky)
    assert Flaky.written[0] == "manifest.json"
    assert Flaky.written[-1] == COMPLETE
    assert len(Flaky.written) == 5


@pytest.mark.parametrize("after", range(5))
def test_what_is_broken_off_is_refused_and_goes_on(
    folder: Path, tmp_path: Path, flaky: str, monkeypatch: Any, after: int
) -> None:
    monkeypatch.setattr(Flaky, "left", after)
    with pytest.raises(AttarError, match=r"flaky://bucket/set: cannot be pushed: connection lost; the same command"):
        push_to_url(open_distilled(folder), flaky)
    with pytest.raises(AttarError, match="its publishing was broken off: publish it again with `attar push`"):
        pull_from_url(flaky, tmp_path / "back")
    assert not list(tmp_path.glob("*back*"))
    begun = list(Flaky.written)
    monkeypatch.setattr(Flaky, "left", 99)
    push_to_url(open_distilled(folder), flaky)
    assert sorted(Flaky.written) == sorted({*begun, *Flaky.written}), "no file goes there twice"
    pull_from_url(flaky, tmp_path / "back")
    assert files(tmp_path / "back") == files(folder)


def test_a_file_that_does_not_arrive_whole_keeps_the_marker_away(folder: Path, monkeypatch: Any) -> None:
    def lose(self: Any, lpath: str, rpath: str, **how: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes()[: 5 if rpath.endswith("README.md") else None])

    monkeypatch.setattr(MemoryFileSystem, "put_file", lose)
    with pytest.raises(AttarError, match=r"README.md did not arrive whole; the same command goes on"):
        push_to_url(open_distilled(folder), URL)
    assert not any(name.endswith(COMPLETE) for name in MemoryFileSystem.store)


def test_the_same_set_again_is_no_work(folder: Path, store: dict[str, Any], monkeypatch: Any) -> None:
    push_to_url(open_distilled(folder), URL)
    monkeypatch.setattr(MemoryFileSystem, "put_file", lambda *_, **__: pytest.fail("uploads"))
    said: list[str] = []
    push_to_url(open_distilled(folder), URL, say=said.append)
    assert said == [f"{URL} holds this set already: nothing to do"]


def test_a_file_that_a_finished_set_has_lost_is_brought_again(folder: Path, tmp_path: Path, store: Any) -> None:
    push_to_url(open_distilled(folder), URL)
    fsspec.filesystem("memory").rm(next(name for name in sorted(store) if name.endswith(".png")))
    with pytest.raises(AttarError, match=r"0000\.png"):
        pull_from_url(URL, tmp_path / "back")
    push_to_url(open_distilled(folder), URL)
    pull_from_url(URL, tmp_path / "back")
    assert files(tmp_path / "back") == files(folder)


def test_nothing_else_is_written_over(folder: Path, tmp_path: Path, store: dict[str, Any]) -> None:
    other = open_distilled(write_set(tmp_path / "other", ipc=3))
    push_to_url(open_distilled(folder), URL)
    before = {name: file.getvalue() for name, file in store.items()}
    with pytest.raises(AttarError, match=f"{URL}: holds another set; choose another URL, or remove it"):
        push_to_url(other, URL)
    assert {name: file.getvalue() for name, file in store.items()} == before
    fsspec.filesystem("memory").rm(f"/bucket/set/{COMPLETE}")
    with pytest.raises(AttarError, match=f"{URL}: holds another set, whose publishing was broken off; choose"):
        push_to_url(other, URL)
    fsspec.filesystem("memory").pipe_file("/bucket/mine/thesis.pdf", b"mine")
    with pytest.raises(AttarError, match=r"memory://bucket/mine: holds thesis.pdf and no distilled set; choose"):
        push_to_url(other, "memory://bucket/mine")


@pytest.mark.parametrize("what", ["altered", "missing", "manifest", "marker", "nothing"])
def test_what_is_not_as_it_was_written_is_not_kept(folder: Path, tmp_path: Path, store: Any, what: str) -> None:
    push_to_url(open_distilled(folder), URL)
    there, image = fsspec.filesystem("memory"), next(name for name in sorted(store) if name.endswith(".png"))
    why = rf"is not as it was written \({what}: .*0000.png"
    if what == "altered":
        there.pipe_file(image, there.cat_file(image)[:-1] + b"x")
    elif what == "missing":
        there.rm(image)
    elif what == "nothing":
        store.clear()
        why = "holds no set that `attar push` wrote"
    else:
        file = f"/bucket/set/{COMPLETE if what == 'marker' else 'manifest.json'}"
        there.pipe_file(file, there.cat_file(file)[:-2])
        why = "its publishing was broken off"
    with pytest.raises(AttarError, match=f"{URL}: {why}"):
        pull_from_url(URL, tmp_path / "back")
    assert not list(tmp_path.glob("*back*"))


@pytest.mark.parametrize("name", ["images/../../../out.png", "/etc/out.png", "images/000_cat/../0000.png"])
def test_names_that_climb_are_refused(folder: Path, tmp_path: Path, store: dict[str, Any], name: str) -> None:
    from attar.sets.urls import _marker

    push_to_url(open_distilled(folder), URL)
    there, manifest = fsspec.filesystem("memory"), "/bucket/set/manifest.json"
    poisoned = there.cat_file(manifest).replace(b"images/000_cat/0000.png", name.encode())
    there.pipe_file(manifest, poisoned)
    there.pipe_file(f"/bucket/set/{COMPLETE}", _marker(poisoned))
    with pytest.raises(AttarError, match=rf"{URL}: holds no set that can be read: .*no image of a class of the set"):
        pull_from_url(URL, tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_damaged_set_is_not_pushed(folder: Path, store: dict[str, Any]) -> None:
    distilled = open_distilled(folder)
    (folder / "images" / "000_cat" / "0000.png").write_bytes(b"")
    with pytest.raises(AttarError, match="is damaged"):
        push_to_url(distilled, URL)
    assert not store


def test_what_is_wrong_with_the_protocol_is_said(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(AttarError, match=r"s33://b/set: fsspec has no protocol 's33' \(did you mean .*'s3'"):
        push_to_url(open_distilled(folder), "s33://b/set")
    hidden = {"class": "no_such_package.FileSystem", "err": "Install no_such_package to access shelves"}
    monkeypatch.setitem(REGISTRY.known_implementations, "shelf", hidden)
    with pytest.raises(AttarError, match=r"shelf://b/set: needs a package that is not installed: Install no_such_pack"):
        pull_from_url("shelf://b/set", tmp_path / "back")


def test_a_url_where_a_folder_is_meant_is_named(folder: Path, tmp_path: Path) -> None:
    for url in (URL, f"file://{tmp_path}/shared", "s3://bucket/set"):
        for read in (open_distilled, find_distilled):
            with pytest.raises(AttarError, match=f"{url}: bring the set here first, with `attar pull {url}`"):
                read(Path(url))
    with pytest.raises(AttarError, match=rf"`out` {URL}: choose a folder; `attar push` brings a finished set to a"):
        check_place(Path(URL), "`out`")
    with pytest.raises(AttarError, match="there is no such folder"):
        open_distilled(Path("imagefolder:/nowhere"))


def test_the_commands_take_urls(folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    noted = write_set(tmp_path / "noted", data={**DATA, "spec": "imagefolder:/home/someone/photos@train"})
    assert attar(monkeypatch, "push", noted, URL, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "note: manifest.json names folders of this machine: imagefolder:/home/someone/photos@train" in told
    assert f"2 images of {noted} would be pushed to {URL}\n" in told
    assert not MemoryFileSystem.store
    assert attar(monkeypatch, "push", folder, URL) == 0
    assert attar(monkeypatch, "pull", URL, "--out", tmp_path / "back") == 0
    assert files(tmp_path / "back") == files(folder)
    capsys.readouterr()
    for words, flag in ((("--licence", "mit"), "--licence"), (("--private",), "--private")):
        assert attar(monkeypatch, "push", folder, URL, *words) == 2
        assert f"{flag} is for the hub, and {URL} is none of its repositories: leave it out" in capsys.readouterr().err
    assert attar(monkeypatch, "pull", URL, "--out", tmp_path / "more", "--revision", "main") == 2
    assert "--revision is for the hub" in capsys.readouterr().err
    assert attar(monkeypatch, "pull", "https://huggingface.co/me/set", "--out", tmp_path / "more") == 2
    assert "an id of the hub reads owner/name" in capsys.readouterr().err
    assert attar(monkeypatch, "evaluate", URL) == 2
    assert f"{URL}: bring the set here first, with `attar pull {URL}`" in capsys.readouterr().err
