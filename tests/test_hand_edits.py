"""Manifests, results and distances that were edited by hand: whatever stands there, a command works or says what."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from toys import attar, save_folder, save_tiny_dit, tint

from attar.core.errors import AttarError
from attar.core.progress import quiet
from attar.core.store import Store, file_digest, fingerprint
from attar.distillation.regenerate import Overrides, regenerate
from attar.distillation.run import distill_sets
from attar.evaluation.records_file import read_records
from attar.job import Job, Spec
from attar.methods import load_method
from attar.report import write_report
from attar.sets.distilled import open_distilled, verify
from attar.sets.near_copies import Metrics, folder_of, nearest
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee"]
USED = ("data", "seed", "images")
"""Keys that more than the report looks at."""
REMOVED = object()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a prior, a teacher and a set of two images of each class."""
    root = tmp_path_factory.mktemp("world")
    for seed, split in enumerate(("train", "test")):
        save_folder(root / "data" / split, CLASSES, each=8, seed=seed)
        tint(root / "data" / split)
    save_tiny_dit(root / "dit", CLASSES)
    data, store = f"{root / 'data'}@train", Store(root / "cache")
    new = TeacherTraining(data, "convnet3-bn-w16", flip=False, shift=0, epochs=30, batch=14, lr=0.25, device="cpu")
    train_teacher(new, root / "teacher", store=store, say=quiet)
    spec = Spec(data=data, prior=str(root / "dit"), device="cpu")
    distill_sets(Job(spec, store), "prior", load_method("prior", {"sampler.steps": 2}), (2,), root / "set")
    return root


def paths(value: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Every key in an object; of the images, one."""
    for key in list(value)[: 1 if above == ("images",) else None]:
        yield (*above, key)
        if isinstance(value[key], dict):
            yield from paths(value[key], *above, key)


def edits(old: Any) -> Iterator[tuple[str, Any]]:
    """Values in the place of another, with names."""
    yield "removed", REMOVED
    yield "null", None
    yield "of another type", 3 if isinstance(old, (str, dict, list)) else "x"
    yield "as a list", [old, old]
    yield "empty", type(old)() if isinstance(old, (str, dict, list)) else 0
    yield "negative", -7
    yield "huge", "x" * 10_000 if isinstance(old, str) else 10**30
    yield "nested", {"a": {"b": [old]}}
    yield "not a number", float("nan")


def edited(manifest: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The manifest with another value at a path, its own digest right again: as by one who knows how."""
    found = copy.deepcopy(manifest)
    place = found
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    if path != ("digest",):
        found["digest"] = fingerprint({name: of for name, of in found.items() if name != "digest"})
    return found


def commands(world: Path, folder: Path, out: Path) -> dict[str, list[Any]]:
    """Every command that reads a set."""
    quick = ["--set", "flip=false", "--device", "cpu"]
    return {
        "verify": ["verify", folder],
        "report": ["report", folder, "--out", out / "page.html"],
        "evaluate": ["evaluate", folder, *quick, "--network", "convnet3-bn-w4", "--seeds", 1, "--set", "steps=1"],
        "nearest": ["nearest", folder, "--device", "cpu"],
        "export": ["export", folder, "--layout", "folder", "--out", out / "exported"],
        "relabel": [
            *["relabel", folder, "--teacher", world / "teacher", "--out", out / "labels", *quick],
            *["--recipe", "fkd-soft-cifar", "--set", "epochs=1"],
        ],
    }


def ran(words: dict[str, list[Any]], names: list[str], out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What commands exit with; anything but an AttarError goes through."""
    codes = {}
    for name in names:
        codes[name] = attar(monkeypatch, *words[name])
        for left in (out / "exported", out / "labels"):
            shutil.rmtree(left, ignore_errors=True)
    return codes


def refusal(call: Callable[[], Any]) -> str | None:
    """The AttarError that a call ends with, if it does; any other error goes through."""
    try:
        call()
    except AttarError as error:
        return str(error)
    return None


def test_every_edit_of_a_manifest_works_or_is_said(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(world / "cache"))
    folder = tmp_path / "set"
    shutil.copytree(world / "set", folder)
    file, manifest = folder / "manifest.json", json.loads((folder / "manifest.json").read_text())
    words = commands(world, folder, tmp_path)
    assert set(ran(words, list(words), tmp_path, monkeypatch).values()) == {0}, "the set itself is fine"
    shutil.rmtree(folder_of(open_distilled(folder)))
    refused, together = 0, dict[str, dict[str, Any]]()
    for path in paths(manifest):
        old: Any = manifest
        for key in path:
            old = old[key]
        for name, value in edits(old):
            other = edited(manifest, path, value)
            file.write_text(json.dumps(other))
            if (said := refusal(lambda: open_distilled(folder))) is not None:
                refused += 1
                assert "manifest.json" in said
                assert path[0] in said, f"{path} {name}: {said}"
                codes = ran(words, list(words), tmp_path, monkeypatch) if name == "removed" else {}
                assert all(codes.values()), f"{path} {name}"
            elif path[0] in USED or path == ("method", "name"):
                ran(words, list(words), tmp_path, monkeypatch)
            elif isinstance(old, dict):
                ran(words, ["report"], tmp_path, monkeypatch)
            else:
                together[name] = edited(together.get(name, manifest), path, value)
            if other != manifest and path != ("digest",):
                file.write_text(json.dumps({**other, "digest": manifest["digest"]}))
                assert refusal(lambda: open_distilled(folder)) or "altered: manifest.json" in verify(folder)
    assert refused > 300
    for other in together.values():
        file.write_text(json.dumps(other))
        assert ran(words, ["report"], tmp_path, monkeypatch) == {"report": 0}


def _text(folder: Path, change: Callable[[str], str]) -> str:
    file = folder / "manifest.json"
    file.write_text(change(file.read_text()))
    return "manifest.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace('"format": 1', '"format": 4'),
            "written by a newer Attar (format 4) than this one (3)",
        ),
        (lambda text: text.replace('"format": 1', '"format": "1"'), 'format is "1", not a whole number of 1 or more'),
        (lambda text: text.replace('"ipc": 2', '"ipc": -2'), "ipc is -2, not a whole number of 1 or more"),
        (lambda text: text.replace('"ipc": 2', '"ipc": 3'), "images lists 2 of class 'ant', and ipc is 3"),
        (lambda text: text.replace('"seed": 0', f'"seed": {10**30}'), "seed is 1000000000000000"),
        (lambda text: text.replace('"seed": 0', '"seed": 0, "seed": 1'), "'seed' stands there twice"),
        (lambda text: text.replace("images/000_ant/0001", "images/000_ant/0000"), "stands there twice"),
        (lambda text: text.replace("images/000_ant/0001", "images/../../../x"), "no image of a class of the set"),
        (lambda text: text.replace("images/000_ant/0001", "images/007_cow/0001"), "no image of a class of the set"),
        (lambda text: text.replace('"bee"', '"ant"'), "classes names something twice"),
        (lambda text: text.replace('"bee"', '"b\\ud800"'), "is no text"),
        (lambda text: text.replace('"adm"', '"stretch"'), 'preprocess is "stretch", not one of adm, '),
        (lambda text: text[:200], "is damaged: not JSON as Attar writes it"),
        (lambda text: "[" * 100_000, "is damaged: not JSON as Attar writes it"),
        (lambda text: "[" * 60 + "]" * 60, "more than 50 lists and objects in one another"),
        (lambda text: "[]", "it is [], not an object"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[str], str], said: str, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "set", tmp_path / "set")
    _text(tmp_path / "set", change)
    with pytest.raises(AttarError, match=r"manifest\.json") as error:
        open_distilled(tmp_path / "set")
    assert said in str(error.value)


def test_a_digest_that_is_none_is_named(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "set", tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    first = next(iter(manifest["images"]))
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(edited(manifest, ("images", first), "../" * 10)))
    with pytest.raises(AttarError, match=rf"images\.{first} is .*, not a digest of 32 digits"):
        open_distilled(tmp_path / "set")


def test_altered_images_are_said(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = tmp_path / "set"
    shutil.copytree(world / "set", folder)
    one, another = open_distilled(folder).files()[0]
    shutil.copyfile(one, another)
    said = "altered: images/000_ant/0001.png"
    assert attar(monkeypatch, "report", folder, "--out", tmp_path / "page.html") == 0
    assert f"note: {folder} is not as it was written ({said}; 1 in all)" in capsys.readouterr().out
    assert f"This set is not as it was written: {said}." in (tmp_path / "page.html").read_text()
    for name in ("nearest", "evaluate", "export", "relabel"):
        assert attar(monkeypatch, *commands(world, folder, tmp_path)[name]) == 2
        assert f"{folder} is damaged ({said})" in " ".join(capsys.readouterr().err.split())
    write_report([world / "set"], [], tmp_path / "page.html")
    assert "not as it was written" not in (tmp_path / "page.html").read_text()


def test_an_image_that_is_none_is_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Even where all digests were made to fit it."""
    folder = tmp_path / "set"
    shutil.copytree(world / "set", folder)
    name = "images/000_ant/0001.png"
    (folder / name).write_bytes(b"GIF89a, or not")
    manifest = json.loads((folder / "manifest.json").read_text())
    other = edited(manifest, ("images", name), file_digest(folder / name))
    (folder / "manifest.json").write_text(json.dumps(other))
    for command in ("report", "nearest", "evaluate", "relabel"):
        capsys.readouterr()
        assert attar(monkeypatch, *commands(world, folder, tmp_path)[command]) == 2
        assert name in capsys.readouterr().err


def record(**more: Any) -> dict[str, Any]:
    numbers = {"accuracies": [40.0, 42.0], "best": [41.0, 42.0], "mean": 41.0, "std": 1.4}
    result = {**numbers, "seconds": 2.0, "n_train": 4, "n_test": 16, "device": "cpu"}
    about = {"set": "runs/a", "method": "prior", "seed": 0, "recipe": "quick", "network": "convnet3", "ipc": 2}
    of = {"teacher": {"source": ["a", "b"], "digest": "0f"}, "labels": {"scheme": "int8", "bytes": 480}}
    experiment = {"item": "0f", "judged": "0f", "label": "mine", "seeds": [0, 1], "distilling": 1.0, "bytes": 100}
    return {
        **about,
        **of,
        **result,
        **experiment,
        "changes": {"flip": False},
        "test": "digits",
        "baseline": result,
        **more,
    }


def test_every_edit_of_a_result_works_or_is_said(tmp_path: Path) -> None:
    file, refused, taken = tmp_path / "results.json", 0, 0
    for path in paths(record()):
        old: Any = record()
        for key in path:
            old = old[key]
        for name, value in edits(old):
            other = edited(record(), path, value)
            file.write_text(json.dumps([record(set="runs/b"), {key: other[key] for key in other if key != "digest"}]))
            if (said := refusal(lambda: read_records(file))) is not None:
                refused += 1
                assert f"{file}: entry 1 is not a result (" in said
                assert path[0] in said, f"{path} {name}: {said}"
                continue
            taken += 1
            write_report([], read_records(file), tmp_path / "page.html")
    assert refused > 150
    assert taken > 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": 1e308}, "mean is 1e+308, not a number from 0 to 100"),
        ({"ipc": None}, "ipc is missing"),
        ({"std": None}, "std is missing"),
        ({"seeds": [0, 1, 2]}, "seeds lists 3, and accuracies 2"),
        ({"teacher": {"source": [], "digest": ""}}, "teacher.source is [], not a text, or a list of texts"),
        ({"baseline": {"mean": 3.0}}, "baseline.accuracies is missing"),
    ],
)
def test_what_is_wrong_with_a_result_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps([record(**change)]))
    with pytest.raises(AttarError, match=r"entry 0 is not a result") as error:
        read_records(tmp_path / "r.json")
    assert said in str(error.value)


def test_every_edit_of_distances_works_or_is_said(world: Path, tmp_path: Path, store: Store) -> None:
    shutil.copytree(world / "set", tmp_path / "set")
    one = open_distilled(tmp_path / "set")
    nearest(one, Metrics(device="cpu"), store=store)
    file, refused = folder_of(one) / "nearest.json", 0
    kept = json.loads(file.read_text())
    for path in [("set",), ("measures",), *paths(kept["measures"][0])]:
        place = kept if path[0] in kept else kept["measures"][0]
        for _, value in edits(place[path[0]]):
            other = edited(place, path, value)
            del other["digest"]
            file.write_text(json.dumps(other if place is kept else {**kept, "measures": [other]}))
            if said := refusal(lambda: write_report([one.folder], [], tmp_path / "page.html")):
                refused += 1
                assert "nearest.json is damaged" in said or "run `attar nearest` again" in said
    assert refused > 20
    file.write_text(json.dumps(kept))
    (folder_of(one) / "closest-pixels.png").unlink()
    with pytest.raises(AttarError, match=r"closest-pixels\.png cannot be read .*; run `attar nearest` again"):
        write_report([one.folder], [], tmp_path / "page.html")
    assert verify(one.folder) == []


@pytest.fixture(scope="module")
def kept(world: Path) -> Path:
    """A set with statistics."""
    spec = Spec(data=f"{world / 'data'}@train", prior=str(world / "dit"), device="cpu", keep_statistics=True)
    method = load_method("d3hr", {"sampler.steps": 5, "fit.steps": 5, "subsets": 20})
    distill_sets(Job(spec, Store(world / "cache")), "d3hr", method, (1,), world / "kept")
    return world / "kept"


KEPT: list[tuple[str, Any, str]] = [
    ("prior", None, "prior is null, not an object"),
    ("prior.fingerprint", REMOVED, "prior.fingerprint is missing"),
    ("prior.fingerprint", "0" * 32, "is not the prior that"),
    ("prior.codec", REMOVED, "prior.codec is missing"),
    ("prior.codec_source", REMOVED, "prior.codec_source is missing"),
    ("prior.labels", [7, 999], "prior.labels has 999, and the prior 2 classes"),
    ("compute", None, "compute is null, not an object"),
    ("compute.tile", 10**9, "`tile` 1000000000: at most 4,096"),
    ("compute.dtype", "float3", "float3"),
    ("output_size", REMOVED, "output_size is missing"),
    ("output_size", -3, "output_size is -3, not a whole number of 1 or more"),
    ("data.counts", REMOVED, "data.counts is missing"),
    ("data.counts", [8], "data.counts has 1 number for 2 classes"),
    ("selected_by", REMOVED, "selected_by is missing"),
    ("method.select", None, "method.select is null, not an object"),
    ("method.select.pool", 10**30, "method: `select.pool` 1000000000000000000000000000000: at most 100,000"),
    ("method.sampler.steps", "many", "method: d3hr.sampler.steps = 'many': must be a whole number"),
    ("method.sampler.guidance", 1e8, "method: `sampler.guidance` 1e+08: must be a number from 0 to 100"),
    ("method.fit.times", [], "method: fit.times: at least one"),
    ("method.name", "random", "method: random has no field"),
    ("method.name", "nonsense", "method: no method 'nonsense'"),
    ("preprocess", "squint", "preprocess is"),
    ("seed", 1.5, "seed is 1.5, not a whole number"),
]


@pytest.mark.parametrize(("path", "value", "said"), KEPT)
def test_edits_of_a_set_with_statistics_are_said(kept: Path, tmp_path: Path, path: str, value: Any, said: str) -> None:
    folder = shutil.copytree(kept, tmp_path / "set")
    file = folder / "manifest.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), tuple(path.split(".")), value)))
    _refused(kept, folder, tmp_path, said)


def _refused(kept: Path, folder: Path, root: Path, said: str) -> None:
    store = Store(kept.parent / "cache")
    with pytest.raises(AttarError, match=re.escape(said)):
        regenerate(folder, [1], root / "out", Overrides(device="cpu"), store=store, say=quiet)
    assert not (root / "out").exists()


ARRAYS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "one is missing": (lambda arrays: {"mean": arrays["mean"]}, "std is no array of 2 x 4 x 8 x 8 numbers"),
    "another shape": (lambda arrays: {**arrays, "mean": arrays["mean"][:1]}, "mean is no array of 2 x 4 x 8 x 8"),
    "not finite": (lambda arrays: {**arrays, "mean": arrays["mean"] / 0}, "mean holds what is no mean"),
    "below 0": (lambda arrays: {**arrays, "std": -arrays["std"]}, "std holds what is no deviation"),
    "whole numbers": (lambda arrays: {**arrays, "std": arrays["std"].long()}, "std is no array of"),
}


@pytest.mark.parametrize("edit", [*ARRAYS, "no arrays"])
def test_edits_of_kept_statistics_are_said(kept: Path, tmp_path: Path, edit: str) -> None:
    folder = shutil.copytree(kept, tmp_path / "set")
    arrays = folder / "statistics.safetensors"
    change, said = ARRAYS.get(edit, (lambda found: found, "statistics.safetensors cannot be read ("))
    save_file(change(load_file(arrays)), arrays)
    if edit == "no arrays":
        arrays.write_bytes(b"nothing")
    file = folder / "manifest.json"
    signed = edited(json.loads(file.read_text()), ("statistics",), {arrays.name: file_digest(arrays)})
    file.write_text(json.dumps(signed))
    _refused(kept, folder, tmp_path, said)
