"""The command line: the main job end to end on tiny models, and a clear error for every bad input before long work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import attar, save_folder, save_tiny_dit

CLASSES = ["ant", "bee's", "cat <3"]
FAST = ["--set", "sampler.steps=5", "--set", "fit.steps=5", "--set", "subsets=50", "--device", "cpu"]


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
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def d3hr(world: Path, out: Path, *more: object) -> list[object]:
    data, prior = f"imagefolder:{world / 'data'}@train", world / "dit"
    return ["distill", "--data", data, "--prior", prior, "--method", "d3hr", "--ipc", 1, "--out", out, *FAST, *more]


def test_distill_evaluate_report_verify(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out, results, page = tmp_path / "out", tmp_path / "results.json", tmp_path / "report.html"
    assert attar(monkeypatch, *d3hr(world, out, "--ipc", "1,2")) == 0
    quick = ["--network", "convnet3-w16", "--seeds", 2, "--set", "steps=5", "--json", results]
    assert attar(monkeypatch, "evaluate", out, "--recipe", "quick", *quick) == 0
    records = json.loads(results.read_text())
    assert [record["ipc"] for record in records] == [1, 2]
    for record in records:
        assert len(record["accuracies"]) == 2
        assert record["n_test"] == 24
        assert record["n_train"] == 3 * record["ipc"]
        assert record["recipe"] == "quick (modified)"
        assert record["baseline"]["n_train"] == record["n_train"]
        assert record.keys() >= {"network", "mean", "std", "best", "seconds", "device"}
    assert attar(monkeypatch, "report", out, "--results", results, "--out", page) == 0
    assert "cat &lt;3" in page.read_text()
    assert "cat <3" not in page.read_text()
    assert attar(monkeypatch, "verify", out) == 0
    next((out / "ipc-001" / "images").rglob("*.png")).unlink()
    capsys.readouterr()
    assert attar(monkeypatch, "verify", out) == 1
    assert "missing: images/" in capsys.readouterr().out
    assert attar(monkeypatch, "evaluate", out) == 2


def test_the_same_command_again_changes_nothing(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = tmp_path / "out"
    assert attar(monkeypatch, *d3hr(world, out)) == 0
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert attar(monkeypatch, *d3hr(world, out)) == 0
    assert "already there" in capsys.readouterr().out
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


def test_a_dry_run_writes_no_set(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out", "--dry-run")) == 0
    assert "216 network passes (192 to fit, 24 to sample 3)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_flags_win_over_toml_over_defaults(world: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'data = "{world / "data"}@train"\nprior = "{world / "dit"}"\nmethod = "d3hr"\nipc = [2]\nseed = 5\n'
        'device = "cpu"\nclasses = ["ant"]\n[set]\nsubsets = 7\n"fit.steps" = 5\n[set.sampler]\nsteps = 10\n'
    )
    more = ["--ipc", 1, "--set", "sampler.steps=5"]
    assert attar(monkeypatch, "distill", "--config", config, "--out", tmp_path / "out", *more) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["ipc"], manifest["seed"], manifest["classes"]) == (1, 5, ["ant"])
    assert manifest["method"]["subsets"] == 7
    assert manifest["method"]["sampler"]["steps"] == 5
    assert manifest["method"]["skew_weight"] == 0.1


BAD: list[tuple[list[object], str]] = [
    (["--ipc", 0], "must be 1 or more"),
    (["--ipc", "two"], "--ipc two: whole numbers"),
    (["--method", "random", "--ipc", 9], "more real images than these classes have: 'ant' (8)"),
    (["--method", "d3rh"], "no method 'd3rh' (did you mean 'd3hr'?)"),
    (["--set", "sampler.step=5"], "d3hr.sampler has no field 'step' (did you mean 'steps'?)"),
    (["--set", "subsets"], "write it as field=value"),
    (["--set", "subsets=many"], "d3hr.subsets = 'many'"),
    (["--classes", "ant,bea's"], "bea's"),
    (["--data", "nowhere/at/all"], "nowhere/at/all"),
    (["--prior", "nowhere/at-all"], "--prior nowhere/at-all"),
    (["--preprocess", "stretch"], "choose one of adm"),
    (["--device", "cuda:99"], "--device cuda:99"),
    (["--dtype", "int3"], "--dtype int3"),
    (["--on-bad-image", "cry"], "choose one of error, skip"),
    (["--tile", 0], "--tile 0"),
]


@pytest.mark.parametrize(
    ("words", "said"), BAD, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_bad_input_is_a_clear_error_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, words: list[object], said: str
) -> None:
    base = d3hr(world, tmp_path / "out")
    if "--method" in words:
        base = [word for word in base if not str(word).startswith(("sampler.", "fit.", "subsets"))]
        base = [word for word in base if word != "--set"]
    assert attar(monkeypatch, *base, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob("latents.safetensors"))


def test_an_unknown_toml_key_is_an_error(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    config = tmp_path / "run.toml"
    config.write_text("sed = 5\n")
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out", "--config", config)) == 2
    assert "unknown key sed" in capsys.readouterr().err


def test_several_splits_with_none_named_is_an_error(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out", "--data", world / "data")) == 2
    assert "has the splits train, test" in capsys.readouterr().err


def test_an_empty_class_is_an_error(tmp_path: Path, world: Path, monkeypatch: Any, capsys: Any) -> None:
    data = save_folder(tmp_path / "data", CLASSES, each=2)
    (data / "dodo").mkdir()
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out", "--data", data)) == 2
    assert "dodo" in capsys.readouterr().err


def test_a_truncated_jpeg_is_an_error_or_left_out(tmp_path: Path, world: Path, monkeypatch: Any, capsys: Any) -> None:
    data, out = save_folder(tmp_path / "data", CLASSES, each=4), tmp_path / "out"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data / "ant" / "cut.jpg")
    whole = (data / "ant" / "cut.jpg").read_bytes()
    (data / "ant" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert attar(monkeypatch, *d3hr(world, out, "--data", data)) == 2
    assert "ant/cut.jpg" in capsys.readouterr().err
    assert not out.exists()
    assert attar(monkeypatch, *d3hr(world, out, "--data", data, "--on-bad-image", "skip")) == 0
    assert json.loads((out / "manifest.json").read_text())["data"]["skipped"] == ["ant/cut.jpg"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["--seed", 1], "other seed)"),
        (["--set", "subsets=60"], "other method.subsets)"),
        (["--classes", "ant"], "other classes and data."),
        (["--ipc", 2], "other ipc)"),
    ],
)
def test_another_runs_folder_is_refused(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, other: list[object], named: str
) -> None:
    out = tmp_path / "out"
    assert attar(monkeypatch, *d3hr(world, out)) == 0
    before = (out / "manifest.json").read_bytes()
    assert attar(monkeypatch, *d3hr(world, out, *other)) == 2
    assert f"belongs to another run ({named}" in capsys.readouterr().err
    assert (out / "manifest.json").read_bytes() == before


def test_a_set_in_another_number_format_says_how_to_go_on(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("ATTAR_CPU_DTYPE", "float32")
    assert attar(monkeypatch, *d3hr(world, out)) == 0
    monkeypatch.setenv("ATTAR_CPU_DTYPE", "bfloat16")
    assert attar(monkeypatch, *d3hr(world, out)) == 2
    assert capsys.readouterr().err.endswith("; choose another --out, or go on with it by --dtype float32\n")
    assert attar(monkeypatch, *d3hr(world, out, "--dtype", "float32")) == 0
    assert attar(monkeypatch, *d3hr(world, out, "--seed", 1)) == 2
    assert "--dtype" not in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out")) == 2
    assert "out: holds other things (thesis.tex), and no distilled set; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_every_class_unknown_to_the_prior_is_listed(world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    data = save_folder(tmp_path / "data", ["ant", "emu", "fly"], each=2)
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out", "--data", data)) == 2
    error = capsys.readouterr().err
    assert "'emu'" in error
    assert "'fly'" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "slow"], "no recipe 'slow'"),
        (["--network", "convnet33"], "convnet33"),
        (["--seeds", 0], "--seeds 0"),
        (["--set", "step=3"], "no field 'step'"),
        (["--test", "nowhere"], "nowhere"),
    ],
)
def test_bad_evaluations_are_refused(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, words: list[object], said: str
) -> None:
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out")) == 0
    assert attar(monkeypatch, "evaluate", tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["list", "methods"], ["list", "networks"], ["list", "recipes"], ["describe", "d3hr"]]
)
def test_lists_and_descriptions(monkeypatch: Any, capsys: Any, words: list[object]) -> None:
    assert attar(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert ("section 3.2" if words[0] == "describe" else "\n") in told
    assert attar(monkeypatch, words[0], "nothing") == 2


def test_python_does_the_same(world: Path, tmp_path: Path) -> None:
    import attar as package

    fields = {"sampler.steps": 5, "fit.steps": 5, "subsets": 50}
    data = f"imagefolder:{world / 'data'}@train"
    out = tmp_path / "out"
    common: dict[str, Any] = {
        "method": "d3hr",
        "out": out,
        "prior": str(world / "dit"),
        "fields": fields,
        "device": "cpu",
    }
    (folder,) = package.distill(data, ipc=1, **common)
    assert folder == out
    (record,) = package.evaluate(out, network="convnet3-w16", seeds=1, fields={"steps": 3}, baseline=False)
    assert record["n_train"] == 3
    assert len(package.load_data(data).classes) == 3
    assert package.load_prior(str(world / "dit"), device="cpu").n_classes == 3


def test_settings_are_chosen_on_a_tenth_that_was_held_out(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    data, out = save_folder(tmp_path / "data", CLASSES, each=20), tmp_path / "out"
    common = ["--data", data, "--method", "random", "--ipc", 2, "--hold-out", "--imbalance-factor", 3]
    assert attar(monkeypatch, "distill", *common, "--out", out) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data"]["images"] == 18 + 10 + 6
    assert manifest["data"]["imbalance_factor"] == 3
    quick = ["--network", "convnet3-w16", "--seeds", 1, "--set", "steps=3", "--json", tmp_path / "r.json"]
    assert attar(monkeypatch, "evaluate", out, *quick) == 2
    assert "name the test images with --test, such as --test held-out, the tenth" in " ".join(
        capsys.readouterr().err.split()
    )
    assert attar(monkeypatch, "evaluate", out, "--test", "held-out", *quick) == 0
    assert json.loads((tmp_path / "r.json").read_text())[0]["n_test"] == 6
    whole = [word for word in common if word != "--hold-out"]
    assert attar(monkeypatch, "distill", *whole, "--out", tmp_path / "whole") == 0
    assert attar(monkeypatch, "evaluate", tmp_path / "whole", "--test", "held-out", *quick) == 2
    assert "distill it with `hold_out`, too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("out = 3", "out = 3: must be a text"),
        ('method = ["random"]', "must be a text"),
        ("set = 5", "set must be a table"),
        ("classes = 3", "classes = 3"),
        ("ipc = []", "at least one number"),
        ("ipc = [1.9]", "whole numbers"),
        ("data = 5", "data = 5: must be a text"),
        ("seed = 'x'", "distill.seed = 'x'"),
        ("method = 'caf\udce9'", "utf-8"),
    ],
)
def test_toml_of_wrong_types_is_an_error(tmp_path: Path, monkeypatch: Any, capsys: Any, toml: str, said: str) -> None:
    config = tmp_path / "run.toml"
    config.write_text(toml, encoding="utf-8", errors="surrogateescape")
    given = {"data": "digits", "method": "random", "ipc": "1", "out": str(tmp_path / "out")}
    flags = [word for name, value in given.items() if not toml.startswith(name) for word in (f"--{name}", value)]
    assert attar(monkeypatch, "distill", "--config", config, *flags) == 2
    assert said in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_found_out_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    (tmp_path / "file").write_text("mine")
    assert attar(monkeypatch, *d3hr(world, tmp_path / "file" / "out")) == 2
    assert "is not a folder that can be written" in capsys.readouterr().err
    assert attar(monkeypatch, *d3hr(world, tmp_path / "out")) == 0
    quick = ["--network", "convnet3-w16", "--seeds", 1, "--json", tmp_path / "file" / "r.json"]
    assert attar(monkeypatch, "evaluate", tmp_path / "out", *quick) == 2
    assert "--json" in capsys.readouterr().err


def test_real_images_of_many_sizes_are_not_judged_at_the_size_of_the_smallest(
    world: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from attar.evaluation import RECIPES, modified
    from attar.evaluation.load_images import images_of_set
    from attar.evaluation.native import Native
    from attar.sets.distilled import open_distilled

    data = save_folder(tmp_path / "data", CLASSES, each=3, size=32)
    Image.new("RGB", (5, 40)).save(data / "ant" / "000.png")
    assert attar(monkeypatch, "distill", "--data", data, "--method", "random", "--ipc", 3, "--out", tmp_path / "o") == 0
    one = open_distilled(tmp_path / "o")
    assert images_of_set(one, RECIPES.open("quick")).pixels.shape == (9, 32, 32, 3)
    native = images_of_set(one, modified(RECIPES.open("quick"), {"size": 24})).images
    assert isinstance(native, Native)
    assert sorted(native.sizes) == [(32, 32)] * 8 + [(40, 5)]
    sized = ["--network", "convnet3-w16", "--seeds", 1, "--set", "steps=3", "--set", "size=24", "--test", data]
    assert attar(monkeypatch, "evaluate", tmp_path / "o", *sized, "--json", tmp_path / "r.json") == 0
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["accuracies"] == record["baseline"]["accuracies"], "random's own images are the baseline's"


def test_images_that_were_left_out_are_left_out_of_the_baseline(
    world: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    from attar.core.store import Store
    from attar.evaluation import RECIPES
    from attar.evaluation.load_images import images_of_set, teacher_examples
    from attar.sets.distilled import open_distilled

    data, out = save_folder(tmp_path / "data", CLASSES, each=4), tmp_path / "out"
    for index in range(2):
        (data / "ant" / f"bad{index}.png").write_text("not a picture")
    common = ["--data", data, "--method", "random", "--ipc", 4, "--on-bad-image", "skip", "--out", out]
    assert attar(monkeypatch, "distill", *common) == 0
    test = f"{world / 'data'}@test"
    quick = [
        "--network",
        "convnet3-w16",
        "--seeds",
        1,
        "--set",
        "steps=3",
        "--test",
        test,
        "--json",
        tmp_path / "r.json",
    ]
    assert attar(monkeypatch, "evaluate", out, *quick) == 0
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["accuracies"] == record["baseline"]["accuracies"], "random's own images are the baseline's"
    assert record["test"] == test
    assert record["changes"] == {"steps": 3}
    one = open_distilled(out)
    tried_on, _ = teacher_examples(one, images_of_set(one, RECIPES.open("quick")), Store())
    assert len(tried_on.labels) == 4 * len(CLASSES), "and of those that a teacher is tried on"


def test_the_package_is_a_command(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "attar", "list", "methods"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("random ")
