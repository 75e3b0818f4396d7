"""Arguments of the wrong kind: what they are, and what is taken, in an AttarError before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import attar
from attar.core.arguments import check_value, checked
from attar.core.errors import AttarError
from attar.diffusion import Sampler
from attar.evaluation import modified, named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.relabel import Relabelling, relabel
from attar.experiments.settings import Protocol
from attar.job import Spec
from attar.methods.d3hr.class_moments import Invert
from attar.methods.d3hr.method import D3HR
from attar.methods.minimax.settings import MonitorConfig
from attar.methods.refine import Refinement
from attar.networks import build
from attar.priors.training.run import train_new_prior
from attar.priors.training.settings import AdaptedPrior, Autoencoding, NewPrior, Optimisation, Report, Training
from attar.report import write_report
from attar.selection import Select
from attar.sets.layouts import export
from attar.sets.near_copies import nearest
from attar.teachers.reference import TeacherReference
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

RANDOM: dict[str, Any] = {"method": "random", "ipc": 1, "out": "out"}
D3HR_HERE: dict[str, Any] = {"method": "d3hr", "ipc": 1, "out": "out"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("call", "words", "named", "told"),
    [
        (attar.distill, [3], RANDOM, "`data` = 3: must be a text"),
        (attar.distill, ["digits"], {**RANDOM, "out": None}, "`out` = None: must be a text or a pathlib.Path"),
        (attar.distill, ["digits"], {**RANDOM, "out": ""}, "`out` is empty: name a file or folder"),
        (attar.distill, ["digits"], {**RANDOM, "method": 3}, "method 3: a name, or a frozen dataclass"),
        (
            attar.distill,
            ["digits"],
            {**RANDOM, "fields": {1: 1}},
            "`fields` = {1: 1}: must be a dictionary (a text",
        ),
        (attar.distill, ["digits"], {**RANDOM, "fields": ["a=1"]}, "`fields` = ['a=1']: must be a dictionary"),
        (attar.distill, ["digits"], {**RANDOM, "classes": "cat"}, "`classes` = 'cat': must be a list (each a text)"),
        (attar.distill, ["digits"], {**RANDOM, "device": 3}, "distill.device = 3: must be a text"),
        (attar.evaluate, [None], {}, "`folder` = None: must be a text or a pathlib.Path"),
        (attar.evaluate, ["x"], {"network": 3}, "`network` = 3: must be a text or a list (each a text)"),
        (attar.evaluate, ["x"], {"network": [3]}, "`network` = [3]: must be a text or a list (each a text)"),
        (attar.evaluate, ["x"], {"recipe": 3}, "`recipe` = 3: must be a text"),
        (attar.explain, [3], {}, "`what` = 3: must be a text or a pathlib.Path"),
        (attar.explain_run, [3], RANDOM, "`data` = 3: must be a text"),
        (attar.compare, [3], {}, "`file` = 3: must be a text or a pathlib.Path"),
        (attar.tune, ["digits"], {**D3HR_HERE, "grid": {"fit.time": 3}}, "`grid` = {'fit.time': 3}: must be a dict"),
        (attar.cache_contents, [3], {}, "`kind` = 3: must be a text or None"),
        (attar.prune_cache, [], {"max_size": True}, "`max_size` = True: must be a text or a whole number or None"),
        (attar.load_data, [3], {}, "`spec` = 3: must be a text"),
        (attar.load_prior, [3], {}, "`source` = 3: must be a text"),
        (Relabelling, ["x", TeacherReference("a"), named_recipe("quick")], {}, "`folder` = 'x': must be a"),
        (Relabelling, [Path("x"), "a", named_recipe("quick")], {}, "`teacher` = 'a': must be a TeacherRef"),
        (relabel, [3, Path("y")], {}, "`asked` = 3: must be a Relabelling"),
        (nearest, [3], {}, "`distilled` = 3: must be a DistilledSet"),
        (export, [3, "d4m", Path("x")], {}, "`distilled` = 3: must be a DistilledSet"),
        (write_report, [3, [], Path("x")], {}, "`folders` = 3: must be a list (each a pathlib.Path)"),
        (train_new_prior, [3, Path("x")], {}, "`spec` = 3: must be a NewPrior"),
        (train_teacher, [TeacherTraining("digits"), "x"], {}, "`out` = 'x': must be a pathlib.Path"),
        (modified, [named_recipe("quick"), 3], {}, "`changes` = 3: must be a dictionary"),
        (named_recipe, [3], {}, "no recipe 3; there are: quick"),
        (build, [3, 2, 8, 0], {}, "no network is called 3; `attar list networks`"),
        (TeacherReference.of, [3], {}, "`sources` = 3: must be a text or a list (each a text)"),
    ],
)
def test_functions(call: Callable[..., Any], words: list[Any], named: dict[str, Any], told: str) -> None:
    with pytest.raises(AttarError) as raised:
        call(*words, **named)
    assert str(raised.value).startswith(told)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("kind", "words", "named", "told"),
    [
        (Spec, [3], {}, "`data` = 3: must be a text"),
        (Spec, ["digits"], {"classes": ["1"]}, "`classes` = ['1']: must be a tuple (each a text) or None"),
        (Spec, ["digits"], {"on_bad_image": "skp"}, "`on_bad_image` = 'skp' (did you mean 'skip'?): must be one of"),
        (NewPrior, [3], {}, "`data` = 3: must be a text"),
        (NewPrior, ["digits"], {"training": 3}, "`training` = 3: must be a Training"),
        (Training, [], {"steps": "3"}, "`training.steps` = '3': must be a whole number"),
        (TeacherTraining, ["digits"], {"network": 3}, "`network` = 3: must be a text or None"),
        (TeacherReference, [3], {}, "`source` = 3: must be a text or a tuple (each a text)"),
        (D3HR, [], {"subsets": "3"}, "`subsets` = '3': must be a whole number"),
        (D3HR, [], {"sampler": {"steps": 3}}, "`sampler` = {'steps': 3}: must be a Sampler"),
        (Sampler, [], {"solver": 3}, "`sampler.solver` = 3: must be a text"),
        (Conditions, [3, (0,)], {}, "`networks` = 3: must be a tuple (each a text)"),
        (Conditions, [("convnet3",), (0.5,)], {}, "`seeds` = (0.5,): must be a tuple (each a whole number)"),
        (Conditions, [("convnet3",), (2**60,)], {}, "`seeds` 1152921504606846976: must be a whole number from -2^53"),
        (Conditions, [("convnet3",), tuple(range(1001))], {}, "`seeds` 1001: at most 1,000"),
        (Conditions, [(), (0,)], {}, "`network` is empty: name at least one"),
        (Conditions, [("convnet3", "convnet3"), (0,)], {}, "`network`: convnet3 stands there twice"),
        (Conditions, [("convnet3",), (1, 1)], {}, "`seeds`: 1 stands there twice"),
        (Protocol, [3], {}, "`own` = 3: must be a Recipe"),
        (Training, [], {"seed": 2**70}, "`training.seed` 1180591620717411303424: must be a whole number from"),
        (TeacherTraining, ["digits"], {"seed": 2**70}, "`seed` 1180591620717411303424: must be a whole number"),
    ],
)
def test_frozen_objects(kind: type, words: list[Any], named: dict[str, Any], told: str) -> None:
    with pytest.raises(AttarError) as raised:
        kind(*words, **named)
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Optimisation(batch="3"), "training.batch"),  # type: ignore[arg-type]
        (lambda: Autoencoding(steps="3"), "vae.steps"),  # type: ignore[arg-type]
        (lambda: Report(steps="3"), "report.steps"),  # type: ignore[arg-type]
        (lambda: Sampler(steps="3"), "sampler.steps"),  # type: ignore[arg-type]
        (lambda: Invert(steps="3"), "fit.steps"),  # type: ignore[arg-type]
        (lambda: MonitorConfig(steps="3"), "fit.monitor.steps"),  # type: ignore[arg-type]
        (lambda: Refinement(depths="3"), "refine.depths"),  # type: ignore[arg-type]
        (lambda: Select(pool="3"), "select.pool"),  # type: ignore[arg-type]
    ],
)
def test_a_part_is_named_with_its_owner(make: Callable[[], Any], name: str) -> None:
    with pytest.raises(AttarError, match=f"^`{name}` = '3': must be a whole number$"):
        make()


def test_the_range_of_an_autoencoder_s_steps_is_told_of_the_autoencoder() -> None:
    with pytest.raises(AttarError, match=r"^vae: steps = 0"):
        Autoencoding(steps=0)


def test_whole_numbers_of_numpy_become_python_s() -> None:
    spec = Spec("digits", seed=np.int64(3))  # type: ignore[arg-type]
    assert type(spec.seed) is int
    assert spec == Spec("digits", seed=3)
    seeds = Conditions(("convnet3",), (np.int32(0), 1)).seeds  # type: ignore[arg-type]
    assert list(map(type, seeds)) == [int, int]

    @checked
    def call(ipcs: Sequence[int], rate: float) -> tuple[Any, Any]:
        return ipcs, rate

    ipcs, rate = call([np.int64(1), 2], rate=np.int64(2))  # type: ignore[list-item, arg-type]
    assert (type(ipcs[0]), type(rate)) == (int, int)
    same = [1, 2]
    assert call(same, 0.5)[0] is same


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AdaptedPrior, "an AdaptedPrior"),
        (Spec, "a Spec"),
        (tuple[str, int], r"a tuple \(a text, a whole number\)"),
        (tuple[str, ...], r"a tuple \(each a text\)"),
    ],
)
def test_kinds_in_words(kind: Any, words: str) -> None:
    with pytest.raises(AttarError, match=f"must be {words}$"):
        check_value(3, kind, "x")


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        (True, float, False),
        (1.0, int, False),
        (range(3), Sequence[int], True),
        ("abc", Sequence[str], False),
        (("a", 1), tuple[str, int], True),
        (("a",), tuple[str, int], False),
        ((), tuple[str, ...], True),
        ({"a": 1}, Mapping[str, int], True),
        ({"a": "b"}, Mapping[str, int], False),
        (print, Callable[[str], None], True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (None, str | None, True),
        (object(), Any, True),
    ],
)
def test_kinds(value: Any, kind: Any, fits: bool) -> None:
    if fits:
        check_value(value, kind, "x")
    else:
        with pytest.raises(AttarError, match=r"^x = "):
            check_value(value, kind, "x")
