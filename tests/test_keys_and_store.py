from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from kills import context

from attar.core.cache import contents
from attar.core.errors import AttarError
from attar.core.rng import generator, noise, seed_of
from attar.core.store import Artefact, Store, fingerprint, note_seconds, replacing

KEY = Artefact("kind", {"of": "these tests"})


@dataclass(frozen=True)
class Thing:
    size: int
    name: str = "a"


@dataclass(frozen=True)
class Other:
    size: int
    name: str = "a"


def test_a_key_never_changes() -> None:
    assert seed_of(0, "start", "cat", 3) == 7756817710489281890


@pytest.mark.parametrize(
    "other", [(1, "start", "cat", 3), (0, "start", "cat", 4), (0, "startcat", 3), ("0", "start", "cat", 3)]
)
def test_keys_that_differ_give_other_noise(other: tuple[str | int, ...]) -> None:
    assert not torch.equal(noise((8,), 0, "start", "cat", 3), noise((8,), *other))


def test_keys_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "x"))
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprints_tell_types_and_fields_apart() -> None:
    assert fingerprint(Thing(1)) == fingerprint(Thing(1))
    assert (
        len({fingerprint(Thing(1)), fingerprint(Thing(2)), fingerprint(Other(1)), fingerprint([1]), fingerprint("1")})
        == 5
    )
    with pytest.raises(TypeError, match="Tensor"):
        fingerprint(torch.zeros(1))


def test_finished_work_is_not_done_twice(store: Store) -> None:
    made = []

    def make(scratch: Path) -> None:
        made.append(scratch)
        (scratch / "x").write_text("x")

    for _ in range(2):
        assert (store.once(KEY, make) / "x").read_text() == "x"
    assert len(made) == 1


def test_an_interrupted_artefact_is_absent_and_its_scratch_is_found_again(store: Store) -> None:
    def dies(scratch: Path) -> None:
        (scratch / ".checkpoint").write_text("half")
        note_seconds(scratch, 1e6)
        raise KeyboardInterrupt

    def goes_on(scratch: Path) -> None:
        assert (scratch / ".checkpoint").read_text() == "half"
        (scratch / "whole").write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        store.once(KEY, dies)
    assert not store.has(KEY)
    folder = store.once(KEY, goes_on)
    assert sorted(file.name for file in folder.iterdir()) == ["meta.json", "whole"]
    assert store.seconds(KEY) == pytest.approx(1e6, rel=1e-2)


def _make_slowly(root: str, gate: str) -> None:
    def make(scratch: Path) -> None:
        with open(gate, "a") as file:
            file.write("made\n")
        (scratch / "x").write_text("x")

    Store(Path(root)).once(KEY, make)


def test_work_that_fails_with_nothing_to_go_on_from_leaves_nothing(store: Store) -> None:
    artefact = Artefact("kind", {"n": 1})

    def failing(scratch: Path) -> None:
        raise AttarError("the training diverged")

    def failing_later(scratch: Path) -> None:
        (scratch / ".checkpoint").touch()
        raise AttarError("the training diverged")

    for make, left in ((failing, False), (failing_later, True)):
        with pytest.raises(AttarError, match="the training diverged"):
            store.once(artefact, make)
        assert store.scratch(artefact).exists() == left
        assert len(contents(store.root).unfinished) == left


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_want_the_same_artefact_make_it_once(tmp_path: Path, damaged: bool) -> None:
    gate = tmp_path / "gate"
    if damaged:
        _make_slowly(str(tmp_path / "s"), str(gate))
        (Store(tmp_path / "s").path(KEY) / "x").write_text("y")
        gate.unlink()
    workers = [context.Process(target=_make_slowly, args=(str(tmp_path / "s"), str(gate))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert gate.read_text() == "made\n"
    assert (Store(tmp_path / "s").path(KEY) / "x").read_text() == "x"


def _fail_half_way(file: Path) -> None:
    file.write_text("half")
    raise FileNotFoundError


def test_replacing_leaves_the_old_file_if_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_text(json.dumps(1))
    with pytest.raises(FileNotFoundError), replacing(file) as temporary:
        _fail_half_way(temporary)
    assert file.read_text() == "1"
    assert os.listdir(tmp_path) == ["f.json"]
