"""Where results may not be written: into, over and around the data, into distilled sets, over other people's files."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_folder

from attar.api import distill, evaluate
from attar.core.errors import AttarError
from attar.core.files import appearing, check_writable
from attar.core.store import Store
from attar.data.output_places import check_file, check_place
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.sets.layouts import export


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data/{train,test}/{ant,bee}, a distilled set of them, and links to the data."""
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        save_folder(tmp_path / "data" / split, ["ant", "bee"], each=3, size=8)
    distill_sets(Job(Spec("data@train"), Store(tmp_path / "cache")), "random", load_method("random"), [1], Path("set"))
    (tmp_path / "link").symlink_to("data/train")
    return tmp_path


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("data", "is"),
        ("data/out", "lies in"),
        ("data/train/ant/new/out", "lies in"),
        ("link/out", "lies in"),
        ("set/../data/out", "lies in"),
        (".", "holds"),
    ],
)
def test_not_in_over_or_around_the_data(world: Path, out: str, told: str) -> None:
    place = Path(out).absolute() if out == "." else Path(out)
    for spec in ("data@train", "imagefolder:data", "imagefolder:data@test"):
        with pytest.raises(AttarError, match=rf"^`out` {place} {told} the data, {world}/data; choose a place apart"):
            check_place(place, "`out`", [None, "digits", spec])
    check_place(Path("datas"), "`out`", ["data@train"])
    check_place(Path("data") / "out", "`out`", ["/no/such/data", "torchvision:CIFAR10", "nonsense"])


def test_where_links_in_the_data_lead_is_the_data(world: Path) -> None:
    away = save_folder(world / "away", ["1"], each=2) / "1"
    (world / "data" / "train" / "cat").symlink_to(away)
    with pytest.raises(AttarError, match=f"lies in the data, {world}/data/train/cat; "):
        check_place(away / "out", "`out`", ["data@train"])


def test_tables_are_data_too(world: Path) -> None:
    table = world / "tables" / "train.parquet"
    table.parent.mkdir()
    table.write_bytes(b"")
    for out, told in {table: "is", world / "tables": "holds"}.items():
        with pytest.raises(AttarError, match=f"^`out` {out} {told} the data, {table}; "):
            check_place(out, "`out`", [f"parquet:{table}"])
    check_place(world / "tables" / "out", "`out`", [f"parquet:{table}"])
    for spec in (f"parquet:{world}/tables@train", f"hf:{world}/tables@train"):
        with pytest.raises(AttarError, match=f"lies in the data, {world}/tables; "):
            check_place(world / "tables" / "out", "`out`", [spec])


def test_not_beside_the_data_under_the_name_of_a_split(world: Path) -> None:
    """A split's own folder or file is given as data: the test images are looked for beside it."""
    table = world / "tables" / "train.parquet"
    table.parent.mkdir()
    table.write_bytes(b"")
    for out, spec in {"data/Val": "data/train", "tables/test.parquet": str(table)}.items():
        with pytest.raises(AttarError, match=f"^`out` {out} would be read as a split of the data beside it, {world}/"):
            check_place(Path(out), "`out`", [spec])
    check_place(Path("test"), "`out`", ["data"])
    check_place(Path("data2") / "val", "`out`", ["data/train"])


@pytest.mark.parametrize(("ipcs", "place"), [([1], "mine"), ([1, 2], "mine/ipc-002")])
def test_a_folder_of_other_things_is_no_place_for_a_set(world: Path, ipcs: list[int], place: str) -> None:
    (world / place).mkdir(parents=True)
    (world / place / "notes.txt").write_text("mine")
    told = rf"^`out` {place}: holds other things \(notes.txt\), and no distilled set; name a new folder$"
    with pytest.raises(AttarError, match=told):
        distill_sets(Job(Spec("data@train"), Store(Path("cache"))), "random", load_method("random"), ipcs, Path("mine"))


def test_not_into_a_distilled_set(world: Path) -> None:
    for out in ("set/out", "set/images/000_ant/out"):
        with pytest.raises(
            AttarError, match=f"^`out` {out} lies in the distilled set {world}/set; choose a place apart"
        ):
            check_place(Path(out), "`out`")
    with pytest.raises(AttarError, match=r"^`out` set lies in the distilled set"):
        check_place(Path("set"), "`out`", adds=["results.json"])
    (world / "manifest.json").write_text(json.dumps({"name": "of another program"}))
    check_place(Path("out"), "`out`")


def test_a_folder_that_appears_whole_needs_a_name(world: Path) -> None:
    for out in (Path(), Path("set/..")):
        with pytest.raises(AttarError, match="is there already; name a new folder or file"):
            check_place(out, "`out`")
        check_place(out, "`out`", adds=["results.json"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_a_place_that_records_could_not_name_is_refused(world: Path) -> None:
    with pytest.raises(AttarError, match=r"`out` caf\\udce9: the name is not UTF-8"):
        check_place(Path(os.fsdecode(b"caf\xe9")), "`out`")


def test_files_of_other_programs_are_not_overwritten(world: Path) -> None:
    (world / "out").mkdir()
    (world / "out" / "table.md").write_text("mine")
    with pytest.raises(
        AttarError, match=r"^`out` out holds table\.md, but no results\.json of Attar's; choose another"
    ):
        check_place(Path("out"), "`out`", adds=["results.json", "table.md"])
    (world / "out" / "results.json").write_text("[]")
    check_place(Path("out"), "`out`", adds=["results.json", "table.md"])
    os.mkfifo("pipe")
    os.mkdir("folder")
    os.symlink("gone", "broken")
    for name in ("pipe", "folder", "broken"):
        with pytest.raises(AttarError, match=f"`out` {name}: is there, and cannot be read as a page"):
            check_file(Path(name), "`out`", "mark", "a page")
    check_file(Path("new"), "`out`", "mark", "a page")


TRAINED = ["--network", "convnet3-w16", "--seeds", 1, "--set", "steps=1"]
COMMANDS: dict[str, list[Any]] = {
    "distill": ["distill", "--data", "data@train", "--method", "random", "--ipc", 1, "--out"],
    "distill for several IPCs": ["distill", "--data", "data@train", "--method", "random", "--ipc", "1,2", "--out"],
    "train-teacher": ["train-teacher", "--data", "data@train", "--out"],
    "train-prior": ["train-prior", "--data", "data@train", "--out"],
    "finetune-prior": ["finetune-prior", "--prior", "digits", "--data", "data@train", "--out"],
    "relabel": ["relabel", "set", "--teacher", "nowhere", "--out"],
    "export": ["export", "set", "--layout", "d4m", "--out"],
    "expand": ["expand", "set", "--out"],
    "waterfall": ["waterfall", "set", "--change", "flip=false", "--out"],
    "tune": ["tune", "--data", "data@train", "--method", "prior", "--prior", "digits", "--ipc", 1, "--out"],
    "evaluate": ["evaluate", "set", *TRAINED, "--json"],
    "score": ["score", "set", *TRAINED, "--json"],
    "report": ["report", "set", "--out"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("out", "told"), [("data/out", "lies in the data"), ("set/out", "lies in the distilled set")])
def test_every_command_looks_before_it_works(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, out: str, told: str
) -> None:
    before = sorted(world.rglob("*"))
    assert attar(monkeypatch, *COMMANDS[command], out) == 2
    assert f"{out} {told}" in " ".join(capsys.readouterr().err.split())
    new = [path for path in set(world.rglob("*")) - set(before) if world / "cache" not in path.parents]
    assert new == []


@pytest.mark.parametrize("command", ["distill", "evaluate", "score", "report", "export", "waterfall"])
def test_missing_parents_are_made_with_the_first_result(
    world: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    words = [*COMMANDS[command], "new/folder/out"]
    more = TRAINED if command == "waterfall" else []
    assert attar(monkeypatch, *words, *more, "--dry-run") == 0
    assert not (world / "new").exists()
    assert attar(monkeypatch, *words, *more) == 0
    assert [path.name for path in (world / "new" / "folder").iterdir()] == ["out"]


@pytest.mark.parametrize("command", ["evaluate", "score", "report", "export"])
def test_a_full_disk_is_told_with_what_to_do_and_nothing_half_written_stays(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = (world / "out").absolute()

    def full(plain: Any) -> Any:
        def put(source: Any, target: Any) -> None:
            if Path(target).absolute().is_relative_to(out) or ".out.partial" in str(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            plain(source, target)

        return put

    monkeypatch.setattr("os.replace", full(os.replace))
    monkeypatch.setattr("shutil.copyfile", full(shutil.copyfile))
    before = sorted(world.iterdir())
    assert attar(monkeypatch, *COMMANDS[command], out) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"{out} cannot be written: No space left on device; free space there, or " in told
    assert sorted(world.iterdir()) == before


def test_what_is_cached_is_counted(world: Path) -> None:
    said: list[str] = []

    def seen(seeds: int) -> str:
        chosen: dict[str, Any] = {"network": "convnet3-w16", "fields": {"steps": 1}, "seeds": seeds, "say": said.append}
        assert evaluate("set", **chosen, dry_run=True) == []
        told = said[-1]
        assert len(evaluate("set", **chosen)) == 1
        return told

    assert seen(1).startswith("1 training: 0 in the cache, 1 to be done, "), "the baseline is the set itself"
    assert seen(2).startswith("2 trainings: 1 in the cache, 1 to be done, ")
    assert seen(2) == "2 trainings: 2 in the cache, 0 to be done"


def test_what_an_interruption_left_goes_or_is_gone_on_from(tmp_path: Path) -> None:
    for name in (".a.partial", ".a.0f.partial", ".a.b.0f.partial", ".ab.partial"):
        (tmp_path / name / "x").mkdir(parents=True)
    with appearing(tmp_path / "a") as made:
        (made / "y").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.b.0f.partial", ".ab.partial", "a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["y"]

    def begun(folder: Path) -> None:
        (folder / "x").mkdir()
        (folder / "none").rmdir()

    with pytest.raises(FileNotFoundError), appearing(tmp_path / "b", run="0f") as made:
        begun(made)
    with appearing(tmp_path / "b", run="0f"):
        pass
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]
    with pytest.raises(AttarError, match="something else is there"), appearing(tmp_path / "a", run="1a"):
        pass


def test_an_experiment_is_not_written_into_its_data(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        'data = "data@train"',
        "ipc = 1",
        'out = "data/out"',
        "[methods.random]",
        "[evaluations.quick]",
        'networks = "convnet3"',
    ]
    (world / "file.toml").write_text("\n".join(lines))
    assert attar(monkeypatch, "compare", "file.toml") == 2
    assert "`out` data/out lies in the data" in " ".join(capsys.readouterr().err.split())


def test_distances_are_not_written_into_the_data(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world / "set").rename(world / "data" / "set")
    assert attar(monkeypatch, "nearest", "data/set") == 2
    assert "attar nearest: data/set.nearest lies in the data" in " ".join(capsys.readouterr().err.split())


def test_a_report_replaces_reports_alone(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {"thesis.html": "<!doctype html><title>mine</title>", "results.json": "[]"}.items():
        (world / name).write_text(text)
        assert attar(monkeypatch, "report", "set", "--out", name) == 2
        told = " ".join(capsys.readouterr().err.split())
        assert f"--out {name}: is there, and is not a report of Attar's; choose another name, or remove it" in told
        assert (world / name).read_text() == text
    for _ in range(2):
        assert attar(monkeypatch, "report", "set", "--out", "page.html") == 0


def test_scores_replace_scores_alone(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (world / "mine.json").write_text("{}")
    assert attar(monkeypatch, "score", "set", *TRAINED, "--json", "mine.json") == 2
    assert "--json mine.json: is there, and is not a file of scores" in " ".join(capsys.readouterr().err.split())


def test_a_set_is_not_exported_into_itself_or_another(world: Path) -> None:
    from attar.sets.distilled import open_distilled

    one = open_distilled(Path("set"))
    distill_sets(Job(Spec("data@test"), Store(world / "cache")), "random", load_method("random"), [1], Path("two"))
    for out, message in {
        "set": "something is there already",
        "set/images": "lies in the distilled set",
        "two": "something is there already",
        "two/out": "lies in the distilled set",
        "data/train": "lies in the data",
    }.items():
        with pytest.raises(AttarError, match=f"`out` {out}.*{message}"):
            export(one, "d4m", Path(out))


@pytest.mark.parametrize("run", [None, "0" * 12])
def test_a_name_that_is_too_long_for_its_stand_in(tmp_path: Path, run: str | None) -> None:
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - 22
    fits = tmp_path / ("é" * (most // 2)).ljust(most - most // 2, "a")
    check_writable(fits, "--out")
    with appearing(fits, run=run):
        pass
    with pytest.raises(AttarError, match=rf"the name is too long; at most {most} bytes can be written there"):
        check_writable(fits.with_name(fits.name + "a"), "--out")
    with pytest.raises(OSError, match="File name too long"), appearing(fits.with_name(fits.name + "a"), run="0" * 12):
        pass


def test_a_set_is_not_put_where_something_else_than_a_folder_is(world: Path) -> None:
    Path("file").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    for out in ("file", "dangling"):
        with pytest.raises(AttarError, match=f"^{out}: is there already, and is no folder; choose another place"):
            distill_sets(Job(Spec("data@train")), "random", load_method("random"), [1], Path(out))
    assert Path("file").read_text() == "mine"


def test_the_cache_and_the_data_are_apart(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(out: Path) -> None:
        distill_sets(Job(Spec("data@train")), "random", load_method("random"), [1], out)

    monkeypatch.setenv("ATTAR_CACHE", "cache")
    with pytest.raises(AttarError, match=r"^`out` cache/x lies in the cache, cache, which may be removed"):
        made(Path("cache/x"))
    monkeypatch.setenv("ATTAR_CACHE", "data/train/cache")
    with pytest.raises(AttarError, match=r"^the cache data/train/cache lies in the data, .*: set ATTAR_CACHE"):
        made(Path("out"))
    assert not Path("data/train/cache").exists()
    Path("file").write_text("mine")
    Path("astray").symlink_to("nowhere")
    for name in ("file", "astray"):
        monkeypatch.setenv("ATTAR_CACHE", name)
        with pytest.raises(AttarError, match=rf"^the cache {name} is no folder: set ATTAR_CACHE to one"):
            made(Path("out"))


@pytest.mark.parametrize("seed", [2**60, True, "a", 1.5])
def test_a_seed_that_no_manifest_holds(seed: Any) -> None:
    with pytest.raises(AttarError, match=rf"^`seed`( =)? {seed!r}: must be a whole number"):
        Spec("digits", seed=seed)


@pytest.mark.parametrize("ipc", ["1", 1.0, True, None, []])
def test_what_is_no_number_of_images(world: Path, ipc: Any) -> None:
    with pytest.raises(AttarError, match=r"^`ipc` .*: (must be a whole number|the number of images)"):
        distill("data@train", method="random", ipc=ipc, out="out")


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("loop", "loop: is there already, and is no folder"),
        ("loop/out", "--out loop/out: {here}/loop is not a folder that can be written"),
        ("/proc/out", "--out /proc/out: nothing can be made in /proc"),
    ],
)
def test_a_place_where_nothing_can_be_made_is_refused_before_any_work(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, told: str
) -> None:
    if out.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    if out.startswith("/proc") and os.geteuid():
        told = "--out /proc/out: /proc is not a folder that can be written"
    Path("loop").symlink_to("loop")
    asked = ["distill", "--data", "data@train", "--method", "random", "--ipc", 1, "--out", out]
    assert attar(monkeypatch, *asked) == 2
    captured = capsys.readouterr()
    assert told.format(here=world) in captured.err
    assert "copied" not in captured.out
    assert not list(world.glob(".attar-*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["distill", "--prior", ""], "--prior is empty"),
        (["distill", "--prior="], "--prior is empty"),
        (["distill", "--out", ""], "--out is empty"),
        (["evaluate", ""], "an argument is empty"),
        (["evaluate", "set", "--json="], "--json is empty"),
    ],
)
def test_an_empty_word_stands_for_nothing(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert attar(monkeypatch, *words) == 2
    assert f"error: {told}: give a value, or leave it out" in capsys.readouterr().err
