"""Options that a method has no use for: refused where they are a mistake, said where they may be shared with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_folder, save_tiny_dit

import attar as package
from attar.core.errors import AttarError
from attar.experiments.spec import read_experiment


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return save_folder(tmp_path / "data", ["ant", "bee"], each=3)


ASKED = ("distill", "--data", "data", "--method", "random", "--ipc", 1, "--out", "out")
FOR_PRIOR = {
    "codec": "pixel",
    "class_map": "map.toml",
    "prompt": "a {name}",
    "prompts": "words.toml",
    "negative_prompt": "cartoon",
    "tile": 2,
}


@pytest.mark.parametrize("field", FOR_PRIOR)
def test_what_is_said_to_no_prior_is_refused_from_everywhere(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    value, flag = FOR_PRIOR[field], f"--{field.replace('_', '-')}"
    told = f"{flag} {value}: random asks no prior; leave out what is meant for one"
    assert attar(monkeypatch, *ASKED, flag, value) == 2
    assert told in capsys.readouterr().err
    Path("distill.toml").write_text(f"{field} = {json.dumps(value)}\n")
    assert attar(monkeypatch, *ASKED, "--config", "distill.toml") == 2
    assert told in capsys.readouterr().err
    given: dict[str, Any] = {field: value}
    with pytest.raises(AttarError, match=f"^`{field}` .*: random asks no prior"):
        package.distill("data", method="random", ipc=1, out="out", **given)
    assert not Path("out").exists()


def test_a_prior_that_is_named_for_several_methods_is_said_to_be_idle(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prior = str(save_tiny_dit(data.parent / "dit", ["ant", "bee"]))
    package.distill("data", method="random", ipc=1, out="one", prior=prior, class_map="map.toml")
    package.distill("data", method="random", ipc=1, out="two", prior=prior)
    package.distill("data", method="herding", ipc=1, out="three", prior=prior, device="cpu")  # compares its latents
    assert caplog.messages == [
        f"random asks no prior: `prior` {prior}, `class_map` map.toml have no effect",
        f"random asks no prior: `prior` {prior} has no effect",
    ]


def test_a_device_that_is_not_there_is_an_error_whatever_the_method(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (ASKED, [word if word != "random" else "herding" for word in ASKED]):
        assert attar(monkeypatch, *words, "--device", "cuda:77") == 2
        assert "--device cuda:77: not usable here" in capsys.readouterr().err
    assert attar(monkeypatch, *ASKED) == 0
    capsys.readouterr()
    monkeypatch.setattr("attar.evaluation.run.tested_images", lambda *_: pytest.fail("reads images first"))
    assert attar(monkeypatch, "evaluate", "out", "--test", "data", "--device", "cuda:77") == 2
    assert "--device cuda:77: not usable here" in capsys.readouterr().err


def test_methods_of_an_experiment_take_over_what_they_ask_for(data: Path) -> None:
    Path("file.toml").write_text(
        'data = "data"\nipc = 1\nout = "out"\nprior = "dit"\nclass_map = "map.toml"\ndtype = "float32"\n'
        "[methods.random]\n[methods.herding]\n[methods.prior]\n"
        '[evaluations.quick]\nnetworks = ["convnet3"]\n'
    )
    taken = {one.label: (one.spec.prior, one.spec.class_map) for one in read_experiment(Path("file.toml")).contenders}
    assert taken == {"random": (None, None), "herding": ("dit", "map.toml"), "prior": ("dit", "map.toml")}
