"""A damaged cache is named, discarded and made again; a place that cannot be written is named."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import result_record, save_folder, save_tiny_dit

from attar import priors
from attar.core import store as cache
from attar.core.errors import AttarError, Unwritable
from attar.core.files import replacing, write_json, writing
from attar.core.finite import save_finite
from attar.core.store import Artefact, Store
from attar.distillation.artefacts import fit_artefact
from attar.distillation.run import distill_sets
from attar.evaluation.records_file import write_record
from attar.job import Job, Spec
from attar.methods import load_method
from attar.priors.training.optimise import Session, optimise
from attar.priors.training.settings import Optimisation
from attar.sets.distilled import open_distilled, verify
from attar.training.checkpoint import Checkpoint
from attar.training.processes import accelerator

KEY = Artefact("kind", {"of": "these tests"})
QUICK = {"sampler.steps": 5, "fit.steps": 5, "subsets": 20}
REST = b"\0" * 64


def make(scratch: Path) -> None:
    (scratch / "inner").mkdir(exist_ok=True)
    (scratch / "inner" / "x").write_bytes(bytes(range(256)))


def turned_into_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def meta_with(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "meta.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "zeroed": (lambda folder: (folder / "inner" / "x").write_bytes(bytes(256)), "its inner/x has changed"),
    "truncated": (lambda folder: os.truncate(folder / "inner" / "x", 9), "its inner/x has 9 bytes, and had 256"),
    "emptied": (lambda folder: os.truncate(folder / "inner" / "x", 0), "its inner/x has 0 bytes"),
    "a file lost": (lambda folder: (folder / "inner" / "x").unlink(), "its inner/x is missing"),
    "meta lost": (lambda folder: (folder / "meta.json").unlink(), "its meta.json is missing"),
    "meta zeroed": (lambda folder: (folder / "meta.json").write_bytes(REST), "its meta.json cannot be read"),
    "meta of no table": (lambda folder: (folder / "meta.json").write_text("[1]"), "its meta.json cannot be read"),
    "meta of odd files": (meta_with(files={"inner/x": 3}), "its meta.json cannot be read"),
    "meta of no time": (meta_with(seconds=None), "its meta.json cannot be read"),
    "no folder": (lambda folder: (shutil.move(folder, f"{folder}.moved"), folder.write_text("x")), "it is no folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_artefact_is_named_discarded_and_made_again(
    store: Store, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    change, words = DAMAGES[name]
    folder = store.once(KEY, make)
    change(folder)
    assert not store.has(KEY)
    with pytest.raises(AttarError, match=rf"kind/{KEY.key}, of the cache, is damaged .*: the same"):
        store.folder(KEY)
    assert store.once(KEY, make) == folder
    assert (folder / "inner" / "x").read_bytes() == bytes(range(256))
    (warning,) = caplog.messages
    assert warning.startswith(f"{folder}, of the cache, is damaged ({words}")
    assert warning.endswith("it is discarded and made again")
    names = {f".{KEY.key}.lock", KEY.key}
    assert names <= {file.name for file in folder.parent.iterdir()} <= {*names, f"{KEY.key}.moved"}
    assert store.folder(KEY) == folder


def test_work_of_an_older_attar_is_made_again_and_that_is_said_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("a", "b"):
        file = store.once(Artefact("kind", {"of": key}), make) / "meta.json"
        file.write_text(json.dumps({"kind": "kind", "seconds": 1.0, "about": None}))
    for key in ("a", "b"):
        store.once(Artefact("kind", {"of": key}), make)
    (warning,) = caplog.messages
    assert warning.startswith(f"{store.root} holds work of an older Attar, without the digests of its files")


def test_a_file_is_hashed_once_in_a_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, hashed = store.once(KEY, make), list[Path]()

    def noted(file: Path) -> str:
        hashed.append(file)
        return ""

    monkeypatch.setattr(cache, "file_digest", noted)
    assert all(store.has(KEY) for _ in range(3))
    assert hashed == []
    os.utime(folder / "inner" / "x")
    assert not store.has(KEY)
    assert hashed == [folder / "inner" / "x"]


def test_a_huge_file_is_sealed_by_blocks_all_over_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "HUGE", 1 << 20)
    monkeypatch.setattr(cache, "BLOCKS", 8)

    def make_large(scratch: Path) -> None:
        (scratch / "x").write_bytes(bytes(5 << 20))

    folder = store.once(KEY, make_large)
    for place in (0, 3 << 20, (5 << 20) - 1):
        with (folder / "x").open("r+b") as file:
            file.seek(place)
            file.write(b"1")
        assert not store.has(KEY)
        with (folder / "x").open("r+b") as file:
            file.seek(place)
            file.write(b"\0")
        assert store.has(KEY)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a prior, and a set made of them with a cache of its own."""
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", ["ant", "bee"], each=12)
    save_tiny_dit(root / "dit", ["ant", "bee"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(root / "cache"))
        distilled(root, root / "set", Store(root / "cache"))
    return root


def spec_of(world: Path) -> Spec:
    return Spec(data=str(world / "data"), prior=str(world / "dit"), device="cpu", keep_statistics=True)


def distilled(world: Path, out: Path, store: Store) -> dict[str, str]:
    """The digests of the images of a set."""
    distill_sets(Job(spec_of(world), store), "d3hr", load_method("d3hr", QUICK), (2,), out)
    assert verify(out) == []
    images: dict[str, str] = open_distilled(out).manifest["images"]
    return images


@pytest.mark.parametrize("how", ["zeroed", "truncated", "meta lost"])
def test_every_kind_of_artefact_may_be_damaged(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    root = shutil.copytree(world / "cache", tmp_path / "cache")
    monkeypatch.setenv("ATTAR_CACHE", str(root))
    artefacts = [file.parent for file in root.glob("*/*/meta.json")]
    kinds = {"candidates", "latents", "fit", "digests", "readable", "tile"}
    assert {folder.parent.name for folder in artefacts} >= kinds
    for folder in artefacts:
        for file in folder.iterdir():
            if how == "meta lost" and file.name == "meta.json":
                file.unlink()
            elif how != "meta lost" and file.name != "meta.json":
                file.write_bytes(bytes(file.stat().st_size) if how == "zeroed" else file.read_bytes()[:-1])
    assert distilled(world, tmp_path / "set", Store(root)) == open_distilled(world / "set").manifest["images"]
    named = {message.split(", of the cache")[0] for message in caplog.messages}
    assert named >= {str(folder) for folder in artefacts}


def test_damaged_latents_are_looked_at_when_they_are_used(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where candidates are there already they are not used, so that nothing wrong can come of them."""
    root = shutil.copytree(world / "cache", tmp_path / "cache")
    monkeypatch.setenv("ATTAR_CACHE", str(root))
    damaged = list(root.glob("latents/*/latents.safetensors"))
    for file in damaged:
        file.write_bytes(bytes(file.stat().st_size))
    images = open_distilled(world / "set").manifest["images"]
    assert distilled(world, tmp_path / "first", Store(root)) == images
    assert caplog.messages == []
    shutil.rmtree(root / "fit")
    shutil.rmtree(root / "candidates")
    assert distilled(world, tmp_path / "second", Store(root)) == images
    assert {message.split(", of the cache")[0] for message in caplog.messages} == {str(file.parent) for file in damaged}


def test_broken_scratch_folders_do_not_stop_a_run(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(spec_of(world), store)
    method: Any = load_method("d3hr", QUICK)
    broken = [store.scratch(fit_artefact(job, method.fit, [label])) for label in job.labels]
    for folder in broken:
        folder.mkdir(parents=True)
        for name in (".0", ".seconds", "fitted.safetensors"):
            (folder / name).write_bytes(REST)
    assert distilled(world, tmp_path / "set", store) == open_distilled(world / "set").manifest["images"]
    for folder in broken:
        for name in (".0", ".seconds"):
            assert any(message.startswith(f"{folder / name} cannot be read (") for message in caplog.messages)


def test_images_that_an_interrupted_write_left_broken_are_written_again(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_distilled(world / "set").manifest
    partial = tmp_path / f".set.{whole['run'][:12]}.partial"
    shutil.copytree(world / "set" / "images", partial / "images")
    first = sorted((partial / "images").rglob("*.png"))[0]
    first.write_bytes(bytes(first.stat().st_size))
    assert distilled(world, tmp_path / "set", store) == whole["images"]
    shutil.copytree(world / "set" / "images", (partial := tmp_path / f".two.{whole['run'][:12]}.partial") / "images")
    sorted((partial / "images").rglob("*.png"))[0].unlink()
    assert distilled(world, tmp_path / "two", store) == whole["images"]


def test_a_broken_checkpoint_of_a_prior_is_discarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: list[torch.Tensor] = []

    def trained(scratch: Path) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(2))
        plan, helper = Optimisation(steps=3, batch=1), accelerator("cpu", "float32")
        optimise([weight], lambda step: weight.square().sum(), plan, Session(scratch, helper, "training"))
        return weight.detach()

    for content in (None, b"", REST, b"PK\3\4" + REST):
        scratch = tmp_path / str(len(found))
        scratch.mkdir()
        if content is not None:
            (scratch / ".checkpoint").write_bytes(content)
        found.append(trained(scratch))
    assert all(torch.equal(found[0], other) for other in found)
    assert len([message for message in caplog.messages if ".checkpoint cannot be read (" in message]) == 3


def test_a_broken_checkpoint_of_a_network_is_discarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".checkpoint").write_bytes(REST)
    network = torch.nn.Linear(1, 1)
    optimiser, scaler = torch.optim.SGD(network.parameters(), 0.1), torch.amp.GradScaler("cpu", enabled=False)
    assert Checkpoint(tmp_path).restore(network, optimiser, scaler) == 0
    assert ".checkpoint cannot be read (" in caplog.text
    assert not (tmp_path / ".checkpoint").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within it no file may grow larger: writing fails as on a full disk, for any user and any library."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda file: file.write_bytes(bytes(9000)),
    "safetensors": lambda file: save_finite({"x": torch.zeros(9000)}, file, "x"),
    "torch": lambda file: torch.save({"x": torch.zeros(9000)}, file),
    "pictures": lambda file: picture().save(file, format="PNG"),
    "a copy of a folder": lambda file: shutil.copytree(Path(priors.__file__).parent, file / "copy"),
}


def picture() -> Any:
    from PIL import Image

    return Image.frombytes("RGB", (60, 60), os.urandom(60 * 60 * 3))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_cache_is_named(store: Store, writer: str) -> None:
    def fill(scratch: Path) -> None:
        WRITERS[writer](scratch / "x")

    with files_of_at_most(5000), pytest.raises(Unwritable) as raised:
        store.once(KEY, fill)
    assert str(raised.value).startswith(f"{store.root} cannot be written: ")
    assert "free space there, or set ATTAR_CACHE to a folder elsewhere" in str(raised.value)
    assert not store.path(KEY).exists()
    store.once(KEY, make)


def test_a_full_disk_is_named_and_the_set_goes_on_from_there(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(root := shutil.copytree(world / "cache", tmp_path / "cache")))
    with files_of_at_most(800), pytest.raises(Unwritable) as raised:
        distilled(world, tmp_path / "set", Store(root))
    assert str(raised.value).startswith(f"{tmp_path / 'set'} cannot be written: ")
    assert "choose another `out`; the same command goes on from there" in str(raised.value)
    assert not (tmp_path / "set").exists()
    assert distilled(world, tmp_path / "set", Store(root)) == open_distilled(world / "set").manifest["images"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC])
def test_a_folder_that_may_not_be_written_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    first = "make it writable" if number in (errno.EROFS, errno.EACCES) else "free space there"
    with pytest.raises(Unwritable, match=f"^{store.root} cannot be written: {os.strerror(number)}; {first}, or set AT"):
        store.once(KEY, make)
    with pytest.raises(Unwritable, match=rf"^{tmp_path}/new/x.json cannot be written: {os.strerror(number)}; {first}$"):
        write_json(tmp_path / "new" / "x.json", 1)
    with pytest.raises(Unwritable, match=rf"x.json cannot be written: {os.strerror(number)}; {first}, or choose ano"):
        write_record(tmp_path / "new" / "x.json", result_record(40.0))
    with pytest.raises(Unwritable, match=rf"x.json cannot be written: {os.strerror(number)}; {first}, or name another"):
        write_record(tmp_path / "new" / "x.json", result_record(40.0), "name another file with `json`")


def test_what_cannot_be_read_elsewhere_is_not_laid_at_the_door_of_the_cache(store: Store, tmp_path: Path) -> None:
    def refuse(scratch: Path) -> None:
        raise PermissionError(errno.EACCES, "no", str(tmp_path / "data" / "x.png"))

    with pytest.raises(PermissionError):
        store.once(KEY, refuse)


def test_an_error_of_a_place_goes_through_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(Unwritable(Path("/x"), "full", "clean up")))
    assert str(error) == "/x cannot be written: full; clean up"


def test_the_innermost_place_is_told_by_the_outermost_door(tmp_path: Path) -> None:
    with (
        files_of_at_most(10),
        pytest.raises(Unwritable, match=f"^{tmp_path} cannot be written: .*; free space there, or do this"),
        writing(tmp_path, "do this"),
        replacing(tmp_path / "x") as temporary,
    ):
        temporary.write_text("more than ten bytes")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_what_is_published_has_the_permissions_of_the_umask(world: Path, tmp_path: Path, mask: int) -> None:
    store, before = Store(tmp_path / "cache"), os.umask(mask)
    try:
        distilled(world, tmp_path / "set", store)
    finally:
        os.umask(before)
    files = [file for part in ("cache", "set") for file in (tmp_path / part).rglob("*")]
    assert {file.suffix for file in files} >= {".safetensors", ".json", ".png", ".lock"}
    for file in files:
        assert file.stat().st_mode & 0o777 == (0o777 if file.is_dir() else 0o666) & ~mask, file
