"""How commands end before their end: stopped at any event, in full places, on closed pipes, by bugs."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_folder, save_random_set, save_tiny_dit, tint

CLASSES = ["ant", "bee", "cat"]
GOES_ON = "to go on: the same command; it does nothing twice\n"
NOTHING = "kept: what was there before; nothing new was finished"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for split in ("train", "test"):
        save_folder(root / "data" / split, CLASSES, each=8, size=20)
    save_tiny_dit(root / "dit", CLASSES)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def distill(world: Path, out: Path, *more: object) -> list[object]:
    data, quick = f"imagefolder:{world / 'data'}@train", ["--set", "sampler.steps=5", "--set", "fit.steps=5"]
    which = ["--data", data, "--prior", world / "dit", "--method", "d3hr", "--ipc", "1,2"]
    return ["distill", *which, "--out", out, *quick, "--set", "subsets=20", "--device", "cpu", *more]


Act = Callable[[], Any]
INTERRUPT: Act = partial(signal.raise_signal, signal.SIGINT)
TERMINATE: Act = partial(signal.raise_signal, signal.SIGTERM)


def interrupt_from_a_thread() -> None:
    assert threading.current_thread() is not threading.main_thread()
    os.kill(os.getpid(), signal.SIGINT)


def turned_into_an_error() -> None:
    try:
        INTERRUPT()
    except KeyboardInterrupt as error:
        raise ImportError("from a library") from error


def while_the_lock_is_held() -> None:
    """The lock that is asked for is held elsewhere; the second look at it is interrupted."""
    import fcntl

    import filelock

    patch, looks = pytest.MonkeyPatch(), list[None]()
    plain = filelock.FileLock.acquire

    def sleep(_: float) -> None:
        looks.append(None)
        if len(looks) == 2:
            patch.undo()
            INTERRUPT()

    def acquire(lock: Any, *words: Any, **more: Any) -> Any:
        fcntl.flock(os.open(lock.lock_file, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX)
        patch.setattr("time.sleep", sleep)
        return plain(lock, *words, **more)

    patch.setattr(filelock.FileLock, "acquire", acquire)


def at_event(place: str, number: int, act: Act, kind: str | None = None) -> None:
    """Acts at the n-th call of a function; of the store's, at the n-th for this kind."""
    patch, seen = pytest.MonkeyPatch(), list[None]()
    owner, _, name = place.rpartition(".")
    plain = getattr(pkgutil.resolve_name(owner), name)

    def watched(*words: Any, **more: Any) -> Any:
        if kind is None or kind in [getattr(word, "kind", None) for word in words]:
            seen.append(None)
            if len(seen) == number:
                patch.undo()
                act()
        return plain(*words, **more)

    patch.setattr(pkgutil.resolve_name(owner), name, watched)


EVENTS: dict[str, tuple[int, str, tuple[Any, ...]]] = {
    "before anything is made": (130, "kept: what was there before", ("attar.data.load_view", 1, INTERRUPT)),
    "terminated": (143, "kept: what was there before", ("attar.data.load_view", 1, TERMINATE)),
    "turned into an error": (130, "kept: what", ("attar.data.load_view", 1, turned_into_an_error)),
    "in a thread": (130, ", digests 1", ("PIL.Image.open", 5, interrupt_from_a_thread)),
    "in a fit": (130, ", fit 2", ("attar.core.store.Store.once", 3, INTERRUPT, "fit")),
    "while it waits": (130, ", readable 3", ("attar.core.store.Store.lock", 1, while_the_lock_is_held, "fit")),
    "while it writes": (
        130,
        "/out/ipc-001), what was written so far of 1 more (",
        ("PIL.Image.Image.save", 5, INTERRUPT),
    ),
}


@pytest.mark.parametrize("event", EVENTS)
def test_an_interruption_says_what_is_kept_and_the_same_command_goes_on(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, event: str
) -> None:
    status, kept, where = EVENTS[event]
    words = distill(world, tmp_path / "out")
    at_event(*where)
    code, told = attar(monkeypatch, *words), capsys.readouterr().err
    assert (code, "Traceback" in told, told[-len(GOES_ON) :]) == (status, False, GOES_ON), told
    assert kept in told
    assert told.count("kept:") == 1
    assert ("terminated" if status == 143 else "interrupted") in told
    if kept.startswith((", fit", "/out")):
        assert f"in the cache {tmp_path / 'cache'}, " in told
        assert attar(monkeypatch, *words) == 0


SUBPROCESS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt = lambda: signal.raise_signal(signal.SIGINT)
{}
from attar.cli import main
main()
"""
AT_A_LIST = """
def act(*_):
    {}
import attar.evaluation.side_by_side
attar.evaluation.side_by_side.side_by_side = act
"""
TWICE = {
    "while it cleans up": "try: interrupt()\n    finally: interrupt()",
    "after the first was swallowed": "try: interrupt()\n    except KeyboardInterrupt: interrupt()",
    "while it is told": "from attar.cli import failures\n    told = failures._report\n"
    "    failures._report = lambda error: (told(error), interrupt())\n    interrupt()",
    "after a worker": "if worker := os.fork():\n"
    "        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 130\n    interrupt()",
}


def stopped(code: str, *words: object) -> str:
    """What a process of its own says on standard error, that is interrupted."""
    run = [sys.executable, "-c", SUBPROCESS.format(code), *map(str, words)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    return done.stderr.strip("\n")


@pytest.mark.parametrize("when", TWICE)
def test_the_second_interruption_ends_it_at_once_and_workers_end_without_a_word(when: str) -> None:
    told = stopped(AT_A_LIST.format(TWICE[when]), "list", "recipes")
    assert told == f"interrupted\n{NOTHING}\n{GOES_ON}".strip()


@pytest.mark.parametrize("module", ["typer", "attar.cli.sets", "torch"])
def test_an_interruption_of_an_import(world: Path, tmp_path: Path, module: str) -> None:
    code = f"""
class Stopping:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            interrupt()

sys.meta_path.insert(0, Stopping())
"""
    assert stopped(code, *distill(world, tmp_path / "out")) == f"interrupted\n{NOTHING}\n{GOES_ON}".strip()


def test_an_interruption_of_an_evaluation_names_the_records(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    assert attar(monkeypatch, *distill(world, tmp_path / "out")) == 0
    file, seen = tmp_path / "r.json", list[None]()
    from attar.evaluation import records_file

    plain = records_file.write_record

    def third(*words: Any) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(plain(*words))

    monkeypatch.setattr(records_file, "write_record", third)
    quick = ["--network", "convnet3-w16,convnet3-w8", "--seeds", 1, "--set", "steps=2", "--json", file]
    capsys.readouterr()
    assert attar(monkeypatch, "evaluate", tmp_path / "out", *quick, "--no-baseline") == 130
    told = capsys.readouterr().err
    assert f"kept: in --json, 2 records ({file})" in told
    assert len(json.loads(file.read_text())) == 2


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    code = "from attar.cli import main; main()"
    for words in ("list networks", "list recipes", "--help", "describe nothing"):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-c", code, *words.split()],
            stdout=writing,
            stderr=writing if words == "describe nothing" else subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        assert not done.stderr, words
        assert done.returncode in (1, 2), words


@pytest.fixture(scope="module")
def made(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with statistics."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(root / "cache"))
        assert attar(patch, *distill(world, root / "set", "--ipc", 1, "--keep-statistics")) == 0
    return root / "set"


def writing(world: Path, made: Path, out: Path) -> dict[str, list[object]]:
    """The words of every command that writes, to this place."""
    data, place = ["--data", f"imagefolder:{world / 'data'}@train"], ["--out", out]
    network = ["--network", "convnet3-w8", "--seeds", 1, "--set", "steps=2", "--device", "cpu"]
    grid = ["--grid", "sampler.guidance=2,3", "--set", "sampler.steps=5", "--network", "convnet3-w8"]
    return {
        "distill": distill(world, out),
        "regenerate": ["regenerate", made, "--ipc", 2, *place, "--device", "cpu"],
        "evaluate": ["evaluate", made, *network, "--json", out],
        "compare": ["compare", out.parents[1] / "file.toml"],
        "tune": ["tune", *data, "--prior", world / "dit", "--method", "prior", "--ipc", 1, *grid, *place],
        "waterfall": ["waterfall", made, "--change", "flip=false", *network, *place],
        "score": ["score", made, *network, "--json", out],
        "report": ["report", made, *place],
        "export": ["export", made, "--layout", "folder", *place],
        "train-prior": ["train-prior", *data, "--codec", "grey", "--size", 8, "--hidden", 16, "--steps", 5, *place],
        "finetune-prior": ["finetune-prior", "--prior", world / "dit", *data, "--steps", 5, *place],
        "train-teacher": ["train-teacher", *data, "--network", "convnet3-w8", "--epochs", 1, *place],
        "demo": ["demo", *place],
    }


@pytest.mark.parametrize("command", writing(Path(), Path(), Path("a/b/c")))
def test_a_place_below_a_file_is_named(
    world: Path, made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    text = f'data = "imagefolder:{world / "data"}@train"\nipc = 1\nout = "{out}"\n[methods.random]\n'
    (tmp_path / "file.toml").write_text(f'{text}[evaluations.quick]\nnetworks = ["convnet3-w8"]\nset = {{steps = 2}}\n')
    assert attar(monkeypatch, *writing(world, made, out)[command]) == 2
    told = capsys.readouterr()
    assert "error: " in told.err
    assert str(out) in told.err
    assert "Traceback" not in told.err
    assert not set(os.listdir(tmp_path)) - {"file", "file.toml", "cache"}
    assert not {"fit", "candidates", "prior", "teacher", "evaluation", "judge"} & {
        place.name for place in (tmp_path / "cache").glob("*")
    }, "it was found out before the work"


FULL = OSError(28, "No space left on device")
REFUSED = OSError(30, "Read-only file system", "/mnt/disk/out/images/x.png")
ENDINGS: list[tuple[BaseException, int, list[str]]] = [
    (FULL, 2, ["error: No space left on device, while writing to --out ", "or the cache "]),
    (REFUSED, 2, ["error: /mnt/disk/out/images/x.png: Read-only file system\n"]),
    (OSError(18, "Invalid cross-device link", "a", None, "b"), 2, ["error: a -> b: Invalid cross-device link\n"]),
    (OSError("the hub cannot be reached"), 2, ["error: the hub cannot be reached\n"]),
    (MemoryError("Unable to allocate 7 PiB"), 2, ["error: not enough memory (Unable to allocate 7 PiB): fewer images"]),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, ["error: not enough memory (DefaultCPU"]),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), 2, ["is the disk full?", "--out "]),
    (KeyError("shape"), 1, ["Traceback", "KeyError: 'shape'\n", "This is a bug of Attar. Please report it with the "]),
]


@pytest.mark.parametrize(("error", "status", "words"), ENDINGS, ids=lambda value: repr(value)[:40])
def test_an_error_of_a_place_is_named_and_a_bug_is_called_one(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, error: BaseException, status: int, words: list[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("attar.data.load_view", broken)
    assert attar(monkeypatch, *distill(world, tmp_path / "out")) == status
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert ("Traceback" in told) == (status == 1)


def test_safetensors_on_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from attar.cli import failures

    monkeypatch.setattr(failures, "running", failures.Running())
    with pytest.raises(SafetensorError) as caught:
        save_file({"a": torch.zeros(3)}, tmp_path / "nowhere" / "x.safetensors")
    assert failures.report(caught.value) == 2
    told = capsys.readouterr().err
    assert "error: Error while serializing" in told
    assert f"while writing to the cache {tmp_path / 'cache'}" in told


def test_signals_that_are_ignored_stay_ignored() -> None:
    from attar.cli import failures

    before = {number: signal.signal(number, signal.SIG_IGN) for number in failures.WORDS}
    try:
        failures.watch()
        assert all(signal.getsignal(number) is signal.SIG_IGN for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_help_is_shown_as_it_is_written(monkeypatch: Any, capsys: Any) -> None:
    from attar.cli.commands import COMMANDS, built

    monkeypatch.setenv("COLUMNS", "100")
    commands = {name: built(name) for name in COMMANDS}
    for name, command in commands.items():
        assert attar(monkeypatch, name, "--help") == 0
        shown = "".join(capsys.readouterr().out.split())
        for written in [command.help, *(param.help for param in command.params)]:
            assert "".join((written or "").replace("\b", "").split()) in shown, name
    assert "a table [set]" in next(param.help for param in commands["distill"].params if param.name == "config")


def test_an_interruption_of_a_run_without_a_method_names_its_teacher(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    data = save_folder(tmp_path / "data", CLASSES, each=20, size=20)
    tint(data)
    monkeypatch.setattr("attar.distillation.run_without_method.STEPS", 20)
    words = ["distill", "--data", data, "--ipc", 1, "--out", tmp_path / "out", "--device", "cpu"]
    at_event("attar.distillation.run.distill_sets", 1, INTERRUPT)
    assert attar(monkeypatch, *words) == 130
    assert f"kept: in --out, the teacher that chooses ({tmp_path / 'out.teacher'}); in" in capsys.readouterr().err
    at_event("attar.distillation.run.distill_sets", 1, INTERRUPT)
    assert attar(monkeypatch, *words, "--method", "random") == 130
    assert "the teacher" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [("evaluate",), ("score",), ("waterfall", "--change", "flip=false")])
@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_damaged_set_is_named_before_any_training(
    words: tuple[str, ...],
    harm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = save_random_set(tmp_path, monkeypatch)
    images = sorted((root / "set" / "images").rglob("*.png"))
    for image in images:
        if harm == "missing":
            image.unlink()
        else:
            image.write_bytes(images[0].read_bytes() + b"more")
    monkeypatch.chdir(root)
    command, *more = words
    quick = ["--seeds", 1, "--set", "steps=1", "--device", "cpu"]
    assert attar(monkeypatch, command, "set", *more, *quick) == 2
    assert f"set is damaged ({harm}: " in capsys.readouterr().err
    assert not list((root / "cache").glob("evaluation/*"))


def test_half_a_file_that_a_kill_left_is_no_work_that_is_kept(tmp_path: Path) -> None:
    from attar.cli import failures

    (tmp_path / ".r.json.123.partial").touch()
    assert failures._counted(("json", tmp_path / "r.json")) == ""
    (tmp_path / ".r.json.abc.partial").mkdir()
    assert "written so far of 1 more" in failures._counted(("out", tmp_path / "r.json"))
