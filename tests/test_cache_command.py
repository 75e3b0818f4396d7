"""What is in the cache can be explained, and made room in beside running jobs."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import context
from toys import attar, save_folder, save_tiny_dit, tint

import attar as package
from attar.core.cache import KINDS, OLDER, contents, find
from attar.core.errors import AttarError
from attar.core.fingerprints import Named, key_of
from attar.core.prune import bytes_of, prune, seconds_of
from attar.core.store import Artefact, Store
from attar.data import load_data
from attar.distillation.explain_run import Reuse, explain_run
from attar.distillation.run import distill_sets
from attar.evaluation import RECIPES, modified
from attar.evaluation.conditions import Conditions
from attar.evaluation.run import evaluate_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.priors.training.run import train_new_prior
from attar.priors.training.settings import Autoencoding, NewPrior, Report, Training
from attar.teachers.label_schemes import Scheme
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.soft_labels import Labelling, StoredLabels, Views, write_labels
from attar.teachers.train import train_teacher
from attar.training.augment import Augmentation

LOCKS = {"writing", "relabelling"}
"""Kinds that are locked and never made."""
QUICK = {"sampler.steps": 5, "fit.steps": 5, "subsets": 20}
REFINED = {"refine.steps": 2, "refine.networks": "convnet3-w16", "refine.real": 4}
DAY = 86_400.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a prior, a set of d3hr made of them, and the cache of that."""
    root = tmp_path_factory.mktemp("world")
    for split in ("train", "test"):
        tint(save_folder(root / "data" / split, ["ant", "bee"], each=12, seed=len(split)))
    save_tiny_dit(root / "dit", ["ant", "bee"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(root / "cache"))
        distill_sets(Job(spec_of(root)), "d3hr", load_method("d3hr", QUICK), (2,), root / "set")
    return root


@pytest.fixture
def cached(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same world, its cache the default one; nothing is made there."""
    monkeypatch.setenv("ATTAR_CACHE", str(world / "cache"))
    return world


def spec_of(world: Path, **changes: Any) -> Spec:
    plain = {"data": f"imagefolder:{world / 'data'}@train", "prior": str(world / "dit"), "device": "cpu"}
    return Spec(**{**plain, **changes})


def asked(world: Path, changes: dict[str, Any] | None = None, **spec: Any) -> Reuse:
    """What a run of the d3hr of this world would find, with other fields or another spec."""
    method = load_method("d3hr", {**QUICK, **(changes or {})})
    return explain_run(spec_of(world, **spec), "d3hr", method, (2,), world / "another", store=Store(world / "cache"))


def differing(found: Reuse) -> dict[str, set[tuple[str, Any, Any]]]:
    """By kind, what differs from the nearest in the cache."""
    by_kind: dict[str, set[tuple[str, Any, Any]]] = {}
    for one in found.missing:
        assert one.nearest is not None
        differences = {(d.field, d.asked, d.cached) for d in one.nearest.differences}
        by_kind.setdefault(one.artefact.kind, set()).update(differences)
    return by_kind


def all_kinds(world: Path) -> None:
    """Makes at least one artefact of every kind there is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = f"imagefolder:{world / 'data'}@train"
    network = TeacherTraining(data, "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=10, lr=0.25, device="cpu")
    train_teacher(network, world / "teacher", say=print)
    distill_sets(Job(spec_of(world)), "d3hr", load_method("d3hr", {**QUICK, **REFINED}), (2,), world / "refined")
    herding = load_method("herding", {"select.features": "pixels"})
    distill_sets(Job(spec_of(world, prior=None)), "herding", herding, (2,), world / "herding")
    rded = load_method("rded", {"teacher": str(world / "teacher"), "pool": 4, "crops": 2})
    distill_sets(Job(spec_of(world, prior=None)), "rded", rded, (1,), world / "rded")
    exemplars = load_method("exemplars", {"fit.select.teacher": str(world / "teacher")})
    distill_sets(Job(spec_of(world)), "exemplars", exemplars, (1,), world / "exemplars")
    recipe = modified(RECIPES.open("fkd-soft-cifar"), {"epochs": 2, "crop": 0.3})
    teacher = TeacherReference.of(str(world / "teacher"))
    list(evaluate_sets([world / "set"], recipe, Conditions(("convnet3-w8",), (0,), teacher=teacher, device="cpu")))
    training = Training(hidden=16, layers=2, heads=2, patch=2, steps=4, batch=4, warmup=0)
    vae, report = (
        Autoencoding(steps=4, batch=4, width=4, channels=2, warmup=0),
        Report(every=4, samples=4, steps=2, judge_steps=2),
    )
    prior = NewPrior(data, codec="train", size=8, training=training, vae=vae, report=report, device="cpu")
    train_new_prior(prior, world / "prior", say=print)
    png = next((world / "data" / "train" / "ant").iterdir()).read_bytes()
    pq.write_table(pa.table({"image": [png], "label": [0]}), world / "data" / "x.parquet")
    load_data(f"parquet:{world / 'data' / 'x.parquet'}").open(0)


def test_every_kind_of_artefact_records_the_inputs_that_its_key_is_the_fingerprint_of(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    for module in ("parquet", "decoded"):
        monkeypatch.setattr(f"attar.data.{module}.IN_MEMORY", 0)
    root = tmp_path / "world"
    root.mkdir()
    for name in ("data", "dit", "set"):
        (root / name).symlink_to(world / name)
    all_kinds(root)
    sources = (file.read_text(encoding="utf-8") for file in Path(package.__file__).parent.rglob("*.py"))
    kinds = {kind for source in sources for kind in re.findall(r'Artefact\(\s*"([a-z-]+)"', source)}
    metas = list((tmp_path / "cache").glob("*/*/meta.json"))
    assert {file.parent.parent.name for file in metas} == kinds - LOCKS == set(KINDS)
    known = {file.parent.name for file in metas}
    for file in metas:
        meta = json.loads(file.read_text(encoding="utf-8"))
        assert key_of(meta["kind"], meta["inputs"]) == file.parent.name
        assert meta["inputs"], meta["kind"]
        used = re.findall(r'"artefact": "[a-z-]+",\s+"key": "([0-9a-f]{32})"', file.read_text(encoding="utf-8"))
        assert known.issuperset(used)
    assert [record.wrong for record in contents(tmp_path / "cache").records] == [""] * len(metas)


def test_a_changed_guidance_is_named_and_what_does_not_depend_on_it_is_found(cached: Path) -> None:
    found = asked(cached, {"sampler.guidance": 1.5})
    assert {artefact.kind for artefact in found.found} == {"fit"}
    assert differing(found) == {"candidates": {("method.sampler.guidance", 1.5, 4.0)}}
    again = asked(cached)
    assert (again.found, again.missing) != ((), ())
    assert not again.missing


def test_a_changed_fit_is_named_for_what_is_made_from_it_too(cached: Path) -> None:
    found = asked(cached, {"fit.steps": 10})
    assert {artefact.kind for artefact in found.found} == {"latents"}
    fields = {kind: {field for field, _, _ in of} for kind, of in differing(found).items()}
    assert fields == {"fit": {"fit.steps"}, "candidates": {"fit.steps"}}


def test_a_changed_number_of_images_is_named(cached: Path) -> None:
    assert differing(asked(cached, hold_out=True)) == {
        "latents": {("images.count", 11, 12)},
        "fit": {("latents.images.count", 11, 12)},
        "candidates": {("fit.latents.images.count", 11, 12)},
    }


def test_a_changed_seed_is_named(cached: Path) -> None:
    assert differing(asked(cached, seed=3)) == {"candidates": {("seed", 3, 0)}}


def test_a_name_is_recorded_and_is_no_part_of_a_key(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(cached / "dit")
    found = asked(cached, prior=str(tmp_path / "moved"))
    assert not found.missing
    candidates = [record for record in contents().records if record.kind == "candidates"]
    assert {record.inputs["prior"]["named"] for record in candidates} == {str(cached / "dit")}
    one, two = (Artefact("kind", {"prior": Named(name, "d1")}).key for name in ("one", "two"))
    assert one == two != Artefact("kind", {"prior": Named("one", "d2")}).key


def test_the_command_explains_a_set_an_artefact_and_a_run(
    cached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: object) -> str:
        assert attar(monkeypatch, *words) == 0
        return capsys.readouterr().out

    of_set = told("cache", "explain", cached / "set")
    (key,) = re.findall(r"candidates ([0-9a-f]{12}) \(ant\)", of_set)
    assert "method: d3hr" in of_set
    of_candidates = told("cache", "explain", key)
    assert of_candidates.startswith(f"candidates {key}")
    assert "guidance: 4.0" in of_candidates
    assert re.search(r"fit: fit [0-9a-f]{12} \(ant\)", of_candidates)
    record = json.loads(told("cache", "explain", find(key).folder, "--json"))
    assert (record["kind"], record["inputs"]["class"]) == ("candidates", "ant")
    words = [
        "--data",
        spec_of(cached).data,
        "--prior",
        cached / "dit",
        "--method",
        "d3hr",
        "--ipc",
        2,
        "--device",
        "cpu",
    ]
    fields = [word for name, value in QUICK.items() for word in ("--set", f"{name}={value}")]
    of_run = told("distill", *words, *fields, "--set", "sampler.guidance=1.5", "--out", cached / "b", "--explain")
    assert "fit: 2 found (ant, bee)" in of_run
    assert "candidates: 2 to make (ant, bee); method.sampler.guidance 1.5, in the cache 4.0" in of_run
    assert not (cached / "b").exists()
    of_all = told("cache")
    assert re.search(r"fit +2 ", of_all)
    assert str(cached / "cache") in of_all
    assert "ant" in told("cache", "--kind", "fit")
    assert {record["kind"] for record in json.loads(told("cache", "--json"))["artefacts"]} >= {"fit", "set"}


def test_keys_that_are_unknown_or_begin_alike_are_refused(cached: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    folders = [store.once(Artefact("kind", {"n": n}), lambda _: None) for n in range(17)]
    begin = next(f.name[0] for f in folders if sum(g.name[0] == f.name[0] for g in folders) > 1)
    with pytest.raises(AttarError, match=rf"artefacts begin with {begin}: kind/.*; write more"):
        find(begin, store.root)
    assert find(f"kind/{folders[3].name}", store.root).folder == folders[3]
    with pytest.raises(AttarError, match=r"no artefact of the cache .* begins with xyz; `attar cache"):
        find("xyz", store.root)
    with pytest.raises(AttarError, match=r"holds no kinds \(did you mean 'kind'\?\); it holds kind$"):
        contents(store.root, "kinds")
    with pytest.raises(AttarError, match=r"holds no fitt \(did you mean 'fit'\?\); it holds kind$"):
        contents(store.root, "fitt")
    with pytest.raises(AttarError, match="does not know what it was made from"):
        package.explain(unknown_set(cached, tmp_path))


def unknown_set(world: Path, root: Path) -> Path:
    """A set of another run."""
    manifest = json.loads((world / "set" / "manifest.json").read_text(encoding="utf-8"))
    (root / "other").mkdir()
    (root / "other" / "manifest.json").write_text(json.dumps({**manifest, "run": "0" * 32}), encoding="utf-8")
    return root / "other"


def made(store: Store, n: int, days: float = 0.0, size: int = 1000) -> Path:
    """An artefact of some bytes that was used some days ago."""
    folder = store.once(Artefact("kind", {"n": n}), partial(write, bytes(size)))
    aged(folder, days)
    return folder


def write(content: bytes, scratch: Path) -> None:
    (scratch / "x").write_bytes(content)


def aged(folder: Path, days: float) -> None:
    """As if all of a folder was last touched so many days ago."""
    for file in (*folder.rglob("*"), folder):
        os.utime(file, (time.time() - days * DAY,) * 2)


def test_the_old_goes_and_what_was_used_stays(store: Store) -> None:
    old, new, used = made(store, 1, days=40), made(store, 2, days=20), made(store, 3, days=40)
    assert store.has(Artefact("kind", {"n": 3}))
    tried = prune(store.root, older_than=30 * DAY, dry_run=True)
    assert [item.folder for item in tried.removed] == [old]
    assert old.is_dir()
    done = prune(store.root, older_than=30 * DAY)
    assert [item.folder for item in done.removed] == [old]
    assert (old.exists(), new.is_dir(), used.is_dir()) == (False, True, True)
    assert (done.freed, done.left) == (tried.freed, tried.left)
    assert not list(store.root.glob("kind/*.pruned"))


def test_what_is_too_much_goes_the_least_recently_used_first(store: Store) -> None:
    folders = {days: made(store, days, days=days) for days in (3, 1, 4, 2)}
    one = contents(store.root).records[0].bytes
    done = prune(store.root, max_size=2 * one + one // 2)
    assert [item.folder for item in done.removed] == [folders[4], folders[3]]
    assert done.left == contents(store.root).bytes <= 2 * one + one // 2
    store.once(Artefact("other", {"n": 1}), lambda _: None)
    assert [item.kind for item in prune(store.root, max_size=0, kind="other").removed] == ["other"]
    assert len(contents(store.root).records) == 2


def test_a_size_and_an_age_are_read_and_one_is_needed(store: Store) -> None:
    ages = {"30d": 30 * DAY, "12 h": 12 * 3600.0, "1.5m": 90.0, "0": 0, "00": 0, "0.0": 0}
    assert {text: seconds_of(text, "x") for text in ages} == ages
    assert [bytes_of(text, "x") for text in ("50GB", "1.5mb", "7 B", "0")] == [50 * 10**9, 1_500_000, 7, 0]
    for read, text in ((seconds_of, "30y"), (seconds_of, "-1d"), (bytes_of, "5"), (bytes_of, "5XB")):
        with pytest.raises(AttarError, match=rf"^--flag {text}: must be "):
            read(text, "--flag")
    with pytest.raises(AttarError, match="say what may go"):
        prune(store.root)


def test_work_of_an_older_attar_and_damaged_work_is_told_apart_and_goes_by_age(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older, damaged = made(store, 1), made(store, 2)
    (older / "meta.json").write_text(json.dumps({"kind": "kind", "seconds": 1.0, "about": None}))
    (damaged / "x").write_bytes(b"")
    assert {record.wrong for record in contents(store.root).records} == {OLDER, "its x has changed"}
    monkeypatch.setenv("ATTAR_CACHE", str(store.root))
    assert attar(monkeypatch, "cache") == 0
    out = capsys.readouterr().out
    assert "1 are of an older Attar" in out
    assert "damaged (its x has changed)" in out
    aged(older, 2)
    assert [item.folder for item in prune(store.root, older_than=DAY).removed] == [older]


def test_every_edit_of_a_record_is_shown_and_told_apart(
    cached: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next((cached / "cache" / "latents").glob("*/meta.json"))
    written = json.loads(file.read_text(encoding="utf-8"))
    inputs: list[Any] = [{"images": [1]}, {"images": [{}]}, {"classes": [1, 2]}, [], None]
    others: list[Any] = ["x", None, []]
    edits = [("inputs", value) for value in inputs]
    edits += [(name, value) for name in ("seconds", "files") for value in others]
    try:
        for name, value in [*edits, ("made", "yesterday"), ("made", 1)]:
            file.write_text(json.dumps({**written, name: value}), encoding="utf-8")
            (record,) = (record for record in contents(kind="latents").records if record.folder == file.parent)
            wrong = {"inputs": OLDER, "made": ""}.get(name, "its meta.json cannot be read")
            assert (name, value, record.wrong) == (name, value, wrong)
            for words in ([], ["--kind", "latents"], ["explain", file.parent.name], ["prune", "--older-than", "99w"]):
                assert attar(monkeypatch, "cache", *words) == 0, (name, value, words, capsys.readouterr().err)
    finally:
        file.write_text(json.dumps(written), encoding="utf-8")


def waits_in_the_middle(root: str, reached: Any, go: Any) -> None:
    def make(scratch: Path) -> None:
        (scratch / ".checkpoint").write_text("half")
        reached.set()
        go.wait()
        (scratch / "x").write_text("whole")

    Store(Path(root)).once(Artefact("kind", {"n": 1}), make)


def test_what_a_job_works_on_stays_and_what_was_given_up_goes_by_age(store: Store) -> None:
    reached, go = context.Event(), context.Event()
    job = context.Process(target=waits_in_the_middle, args=(str(store.root), reached, go), daemon=True)
    job.start()
    assert reached.wait(300)
    (unfinished,) = contents(store.root).unfinished
    aged(unfinished.folder, 40)
    assert unfinished.running
    assert [item.folder for item in prune(store.root, older_than=30 * DAY).in_use] == [unfinished.folder]
    go.set()
    job.join()
    assert job.exitcode == 0
    reached.clear()
    go.clear()
    given_up = context.Process(target=waits_in_the_middle, args=(str(store.root / "b"), reached, go), daemon=True)
    given_up.start()
    assert reached.wait(300)
    given_up.kill()
    given_up.join()
    (unfinished,) = contents(store.root / "b").unfinished
    assert not unfinished.running
    assert not prune(store.root / "b", older_than=30 * DAY, max_size=0).removed
    aged(unfinished.folder, 40)
    assert len(prune(store.root / "b", older_than=30 * DAY).removed) == 1
    assert not unfinished.folder.exists()


def distill_and_wait(world: str, cache: str, out: str, reached: Any, go: Any) -> None:
    def progress(text: str, _: float) -> None:
        if text.startswith("sampling") and not reached.is_set():
            reached.set()
            go.wait()

    method = load_method("d3hr", {**QUICK, "sampler.guidance": 2.0})
    distill_sets(Job(spec_of(Path(world)), Store(Path(cache)), progress), "d3hr", method, (2,), Path(out))


def test_a_pruning_takes_nothing_from_a_running_job(world: Path, tmp_path: Path) -> None:
    store = Store(shutil.copytree(world / "cache", tmp_path / "cache"))
    for record in contents(store.root).records:
        aged(record.folder, 40)
    reached, go = context.Event(), context.Event()
    words = (str(world), str(store.root), str(tmp_path / "out"), reached, go)
    job = context.Process(target=distill_and_wait, args=words, daemon=True)
    job.start()
    assert reached.wait(300)
    done = prune(store.root, max_size=0)
    assert {item.kind for item in done.in_use} >= {"fit", "readable"}
    assert {item.kind for item in done.removed} >= {"candidates", "set"}
    go.set()
    job.join()
    assert job.exitcode == 0
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert len(prune(store.root, max_size=0).removed) > 0
    assert not contents(store.root).records, "no job runs any more"
    assert not list((store.root / ".jobs").glob("*[0-9]"))


def test_a_job_whose_lock_another_user_keeps_from_us_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(store, 1)
    mark = store.root / ".jobs" / "elsewhere-1-1"
    mark.touch()
    aged(mark, 1)

    def forbidden(lock: Any, **_: Any) -> None:
        if Path(lock.lock_file).name.startswith(mark.name):
            raise PermissionError(errno.EACCES, "Permission denied", lock.lock_file)

    monkeypatch.setattr("filelock.FileLock.acquire", forbidden)
    monkeypatch.setattr("pathlib.Path.owner", lambda path: {mark: "bob"}[path])
    done = prune(store.root, max_size=0)
    assert (done.removed, [item.folder for item in done.in_use]) == ((), [folder])
    assert mark.exists()
    assert f"a job of bob may be running: its lock {mark}.lock cannot be opened" in caplog.text


def test_what_is_used_while_a_pruning_begins_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, moved = made(store, 1, days=40), os.rename

    def used_before(source: Path, target: Path) -> None:
        if source == folder:
            assert store.has(Artefact("kind", {"n": 1}))
        moved(source, target)

    monkeypatch.setattr("attar.core.prune.os.rename", used_before)
    done = prune(store.root, older_than=30 * DAY)
    assert (done.removed, [item.folder for item in done.in_use]) == ((), [folder])
    assert (folder / "x").is_file()


def test_what_is_gone_is_made_again_or_named(store: Store, tmp_path: Path) -> None:
    artefact = Artefact("kind", {"n": 1})
    made(store, 1)
    prune(store.root, max_size=0)
    with pytest.raises(AttarError, match=r"it is gone.*the same command makes it again"):
        store.folder(artefact)
    assert (made(store, 1) / "x").is_file()


def test_labels_that_go_while_they_are_read_are_named(tmp_path: Path) -> None:
    views = Views(Augmentation(8, normalise="half"), 3, epochs=1)
    labelling = Labelling(views, "images", "teacher", 2, Scheme.named("fp16"))
    images = torch.zeros((3, 8, 8, 3), dtype=torch.uint8)
    write_labels(tmp_path / "labels", labelling, images, lambda view: torch.zeros(len(view), 2))
    labels = StoredLabels(tmp_path / "labels")
    (tmp_path / "labels" / "labels-00000.safetensors").unlink()
    with pytest.raises(AttarError, match="is gone since it was opened: the same command makes it again"):
        labels(0, torch.tensor([0]))


def test_a_cache_that_cannot_be_written_is_used_and_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store, 1, days=3)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no", str(store.root))

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refuse)
        patch.setattr("filelock.FileLock.acquire", refuse)
        assert Store(store.root).has(Artefact("kind", {"n": 1}))
        assert len(contents(store.root).records) == 1


def test_from_python(cached: Path) -> None:
    assert package.explain(cached / "set").inputs["method"] == "d3hr"
    assert {record.kind for record in package.cache_contents("fit").records} == {"fit"}
    assert not package.prune_cache(older_than="900w", max_size="1TB", dry_run=True).removed
    spec: dict[str, Any] = {"data": spec_of(cached).data, "prior": str(cached / "dit"), "device": "cpu"}
    found = package.explain_run(method="d3hr", ipc=2, out=cached / "c", fields=QUICK, **spec)
    assert not found.missing


@pytest.mark.parametrize("wrong", [{"max_size": -5}, {"older_than": -1.0}, {"older_than": float("nan")}])
def test_nothing_goes_by_less_than_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(AttarError, match="must be 0 or more"):
        prune(tmp_path, **wrong)
