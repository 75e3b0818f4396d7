"""What was mistyped is named with what may have been meant, and a slip of the hand stops before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_tiny_dit

import attar as package
from attar.core.errors import AttarError

OUT = ["--out", "out", "--ipc", "1"]
DISTILL = ["distill", "--data", "digits", "--prior", "digits", *OUT]
D3HR = [*DISTILL, "--method", "d3hr"]
RANDOM = ["distill", "--data", "digits", "--method", "random", *OUT]
TEACHER = ["train-teacher", "--data", "digits", "--out", "out"]
PRIOR = ["train-prior", "--data", "digits", "--out", "out"]

MISTYPED: list[tuple[list[str], str]] = [
    (["distil"], "no command 'distil' (did you mean 'distill' or 'list'?)"),
    (["list", "Methods"], "list Methods (did you mean 'methods'?)"),
    (["list", "rule"], "list rule (did you mean 'rules'?)"),
    (["describe", "MINIMAX"], "no method 'MINIMAX' (did you mean 'minimax'?)"),
    ([*D3HR, "--dat", "digits"], "--data"),
    ([*DISTILL, "--method", "MINIMAX"], "no method 'MINIMAX' (did you mean 'minimax'?)"),
    ([*DISTILL, "--method", "k_center"], "no method 'k_center' (did you mean 'k-center'?)"),
    ([*D3HR, "--set", "subset=5"], "d3hr has no field 'subset' (did you mean 'subsets'?)"),
    (
        [*D3HR, "--set", "guidance=2"],
        "d3hr has no field 'guidance' (did you mean 'fit.guidance' or 'sampler.guidance'?)",
    ),
    ([*D3HR, "--set", "sampler.Steps=5"], "d3hr.sampler has no field 'Steps' (did you mean 'steps'?)"),
    ([*D3HR, "--set", "reference_quirks=ture"], "d3hr.reference_quirks = 'ture' (did you mean 'true'?)"),
    ([*D3HR, "--set", "sampler.solver=DDIM"], "sampler.solver 'DDIM' (did you mean 'ddim'?)"),
    ([*D3HR, "--set", "sampler.spacing=leadin"], "sampler.spacing 'leadin' (did you mean 'leading'?)"),
    ([*D3HR, "--set", "score=papr"], "d3hr.score = 'papr' (did you mean 'paper'?)"),
    ([*RANDOM, "--set", "select.rule=herdin"], "random.select.rule = 'herdin' (did you mean 'herding'?)"),
    ([*DISTILL, "--method", "minimax", "--set", "fit.adapt=DiffFit"], "(did you mean 'difffit'?)"),
    ([*D3HR, "--preprocess", "resize_crop"], "--preprocess resize_crop (did you mean 'resize-crop'?)"),
    (["distill", "--data", "parqet:x", *RANDOM[3:]], "known form of data (did you mean 'parquet'?)"),
    ([*D3HR, "--device", "cdua"], "--device cdua (did you mean 'cuda'?)"),
    ([*D3HR, "--device", "cpux"], "--device cpux (did you mean 'cpu'?): no such device; here there are auto, cpu"),
    ([*D3HR, "--device", "meta"], "--device meta: not usable here ("),
    ([*D3HR, "--dtype", "bfloat"], "--dtype bfloat (did you mean 'bfloat16'"),
    ([*D3HR, "--prior", "digit"], "--prior digit (did you mean 'digits'?)"),
    ([*D3HR, "--on-bad-image", "skp"], "distill.on_bad_image = 'skp' (did you mean 'skip'?)"),
    (["evaluate", ".", "--recipe", "qick"], "no recipe 'qick' (did you mean 'quick'?)"),
    (["evaluate", ".", "--recipe", "FKD-soft"], "no recipe 'FKD-soft' (did you mean 'fkd-soft'?)"),
    (["evaluate", ".", "--set", "epoch=3"], "recipe quick has no field 'epoch' (did you mean 'epochs'?)"),
    (["evaluate", ".", "--set", "normalise=imagnet"], "recipe quick.normalise = 'imagnet' (did you mean 'imagenet'?)"),
    (["evaluate", ".", "--network", "ConvNet3"], "no network is called 'ConvNet3' (did you mean 'convnet3'?)"),
    (["evaluate", ".", "--network", "timm/resnet81"], "'timm/resnet18'"),
    (["evaluate", ".", "--network", "torchvison/resnet18"], "'torchvision/resnet18'"),
    (["waterfall", ".", "--to", "rded-sft"], "no recipe 'rded-sft' (did you mean 'rded-soft'"),
    (["waterfall", ".", "--to", "fkd-soft", "--order", "lable"], "--order lable (did you mean 'labels'?)"),
    (["cache", "--kind", "fitt"], "holds no fitt (did you mean 'fit'?)"),
    (["relabel", ".", "--teacher", "x", "--out", "y", "--scheme", "INT8"], "scheme 'INT8' (did you mean 'int8'?)"),
    (["tune", *D3HR[1:], "--recipe", "quik"], "no recipe 'quik' (did you mean 'quick'?)"),
    ([*TEACHER, "--set", "normalise=cifr"], "train-teacher.normalise = 'cifr' (did you mean 'cifar'?)"),
    ([*PRIOR, "--schedule", "cosin"], "train-prior.training.schedule = 'cosin' (did you mean 'cosine'?)"),
    ([*PRIOR, "--preprocess", "amd"], "preprocess = 'amd' (did you mean 'adm'?)"),
    (["finetune-prior", "--prior", "digits", *PRIOR[1:], "--adapt", "lra"], "(did you mean 'lora'?)"),
]

ABSURD: list[tuple[list[str], str]] = [
    ([*D3HR, "--output-size", "30000"], "--output-size 30000: at most 4,096 pixels a side: such an image takes 50 MB"),
    ([*D3HR, "--ipc", "100000000"], "--ipc 100000000: at most 100,000 images per class: all candidates"),
    ([*RANDOM, "--ipc", "5000"], "--ipc 5000: more real images than these classes have: '0' ("),
    ([*D3HR, "--tile", str(10**9)], "--tile 1000000000: at most 4,096 images in a network call"),
    (["evaluate", ".", "--seeds", "1000000"], "--seeds 1000000: at most 1,000 seeds: each is a training of its own"),
    (["waterfall", ".", "--to", "fkd-soft", "--seeds", "1000000"], "--seeds 1000000: at most 1,000"),
    (["score", ".", "--seeds", "1000000"], "--seeds 1000000: at most 1,000"),
    (["tune", *D3HR[1:], "--seeds", "1000000"], "--seeds 1000000: at most 1,000"),
    (["demo", "--out", "out", "--seeds", "1000000"], "--seeds 1000000: at most 1,000"),
    (["evaluate", ".", "--set", "size=30000"], "recipe quick: --set size 30000: at most 4,096 pixels a side"),
    ([*TEACHER, "--size", "30000"], "--size 30000: at most 4,096 pixels a side"),
    ([*PRIOR, "--codec", "pixel", "--size", "30000"], "--size 30000: at most 4,096 pixels a side"),
    (["regenerate", ".", "--out", "out", "--ipc", "100000000"], "--ipc 100000000: at most 100,000"),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "said"), [*MISTYPED, *ABSURD], ids=lambda value: str(value)[:60])
def test_it_stops_before_any_work(here: Path, monkeypatch: Any, capsys: Any, words: list[str], said: str) -> None:
    assert attar(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert {place.name for place in here.iterdir()} <= {"cache"}
    assert not list(here.glob("cache/prior/*"))


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("methd = 'd3hr'", "unknown key methd (did you mean 'method'?)"),
        ("output-sise = 3", "unknown key output_sise (did you mean 'output_size' or 'output_filter'?)"),
        ("[Set]\nsubsets = 3", "unknown key Set (did you mean 'set'?)"),
    ],
)
def test_a_key_of_a_config(here: Path, monkeypatch: Any, capsys: Any, toml: str, said: str) -> None:
    (here / "run.toml").write_text(toml)
    assert attar(monkeypatch, *D3HR, "--config", "run.toml") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("out =", "otu =", "the file: no key 'otu' (did you mean 'out'?)"),
        ("[methods.random]", "[Methods.random]", "the file: no key 'Methods' (did you mean 'methods'?)"),
        ("[methods.random]", "[methods.Random]", "no method 'Random' (did you mean 'random'?)"),
        ("[evaluations.quick]", "[evaluations.qick]", "no recipe 'qick' (did you mean 'quick'?)"),
        ("networks", "network", "[evaluations.quick]: no key 'network' (did you mean 'networks'?)"),
        ("convnet3-w8", "convnt3", "no network is called 'convnt3' (did you mean 'convnet3'"),
        ("ipc = 1", "ipc = 100000000", "`ipc` 100000000: at most 100,000 images per class"),
        ("seeds = 1", "seeds = 1000000", "seeds = 1000000: at most 1,000 seeds"),
        ("seeds = 1", "output_size = 30000", "`output_size` 30000: at most 4,096 pixels a side"),
        ("seeds = 1", "published = 3", "published = 3: must be tables, each headed [[published]]"),
        ('out = "o"', 'out = ""', "out is empty: name a folder"),
        ("seeds = 1", 'planed = ""', "the file: no key 'planed' (did you mean 'planned'?)"),
    ],
)
def test_a_key_of_an_experiment(here: Path, monkeypatch: Any, capsys: Any, old: str, new: str, said: str) -> None:
    text = 'data = "digits"\nipc = 1\nseeds = 1\nout = "o"\n[methods.random]\n[evaluations.quick]\n'
    text += 'networks = ["convnet3-w8"]\n'
    assert old in text
    (here / "file.toml").write_text(text.replace(old, new))
    assert attar(monkeypatch, "compare", "file.toml") == 2
    assert said in capsys.readouterr().err


def test_labels_and_features(here: Path, monkeypatch: Any, capsys: Any) -> None:
    assert attar(monkeypatch, *RANDOM) == 0
    assert attar(monkeypatch, "nearest", "out", "--features", "pixel") == 2
    assert "--features pixel (did you mean 'pixels'?)" in capsys.readouterr().err
    save_tiny_dit(here / "dit", [str(digit) for digit in range(10)])
    assert attar(monkeypatch, *D3HR, "--prior", "dit", "--codec", "pixle", "--set", "sampler.steps=5") == 2
    assert "(did you mean 'pixel'?)" in capsys.readouterr().err


def test_folders_of_data_and_of_sets(here: Path, monkeypatch: Any, capsys: Any) -> None:
    (here / "photos").mkdir()
    for spec in ("imagefolder:phots@train", "imagefolder:phots", "parquet:phots"):
        assert attar(monkeypatch, "distill", "--data", spec, *RANDOM[3:]) == 2
        assert f"no file or folder {here}/{spec.partition(':')[2]} (did you mean 'photos'?)" in capsys.readouterr().err
    for words in (["evaluate", "phots"], ["report", "phots"], ["nearest", "phots"]):
        assert attar(monkeypatch, *words) == 2
        assert "phots (did you mean 'photos'?): there is no such folder" in capsys.readouterr().err


def test_files_of_settings(here: Path, monkeypatch: Any, capsys: Any) -> None:
    (here / "experiments").mkdir()
    for name in ("experiments/cifar10.toml", "own.toml"):
        (here / name).write_text("")
    for name, meant in (("owns.toml", "own.toml"), ("cifar1.toml", "experiments/cifar10.toml")):
        assert attar(monkeypatch, "compare", name) == 2
        assert f"error: {name} (did you mean '{meant}'?) cannot be read: No such file" in capsys.readouterr().err
    assert attar(monkeypatch, *D3HR, "--config", "owns.toml") == 2
    assert "--config owns.toml (did you mean 'own.toml'?) cannot be read" in capsys.readouterr().err


def test_from_python() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'distil' \(did you mean 'distill'\?\)"):
        _ = package.distil
    with pytest.raises(AttarError, match=r"distill has no field 'sed' \(did you mean 'seed'\?\)"):
        package.distill("digits", method="random", ipc=1, out="out", sed=3)
    with pytest.raises(AttarError, match=r"`ipc` 100000000: at most"):
        package.distill("digits", method="random", ipc=10**8, out="out")
    with pytest.raises(AttarError, match="`seeds` 1000000: at most 1,000"):
        package.evaluate("out", seeds=10**6)
    assert not os.path.exists("out")
