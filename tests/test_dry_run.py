"""A dry run checks and estimates: no optimiser takes a step, and the cache holds nothing that takes long to make."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import attar, save_folder, save_tiny_dit, save_tiny_sd, tint

from attar.core.progress import Meter, duration
from attar.priors.unread import unread_prior

FACTS = {"readable", "tile", "digests", "image-digests"}
"""What a dry run may leave in the cache: what its checks have found out."""
ENDING = "dry run: nothing was trained, made or written"
TIMES = "; times are those of a few passes of the networks, timed here; "
TIMES += "to start, read and check took TIME, and is not in them"
UNTIMED = ("report", "export", "expand", "push")
DIGITS = ["--data", "digits", "--prior", "digits", "--device", "cpu"]
FAST = ["--set", "sampler.steps=5"]

EXPERIMENT = """
data = "digits"
prior = "digits"
device = "cpu"
ipc = 1
out = "OUT"
[methods.random]
prior = "digits"
[methods.d3hr]
set = {"sampler.steps" = 5, "fit.steps" = 5, "subsets" = 20}
[methods.exemplars]
set = {"sampler.steps" = 10, "refine" = true}
[evaluations.quick]
networks = ["convnet3-w8"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a prior, a teacher, and a set with statistics."""
    root = tmp_path_factory.mktemp("made")
    for split in ("train", "test"):
        tint(save_folder(root / "data" / split, ["ant", "bee"], each=20, size=20))
    save_tiny_dit(root / "dit", ["ant", "bee"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTAR_CACHE", str(root / "cache"))
        data = ["--data", f"imagefolder:{root / 'data'}@train", "--prior", root / "dit", "--device", "cpu"]
        words = [*data, "--method", "d3hr", "--ipc", 1, "--out", root / "set", *FAST, "--set", "fit.steps=5"]
        assert attar(patch, "distill", *words, "--set", "subsets=20", "--keep-statistics") == 0
        formed = ["--method", "random", "--ipc", 1, "--formation", 2, "--out", root / "formed"]
        assert attar(patch, "distill", *data[:2], *formed) == 0
        taught = ["--network", "convnet3-w8", "--batch", 8, "--epochs", 12, "--out", root / "teacher"]
        assert attar(patch, "train-teacher", *data[:2], *taught, "--device", "cpu") == 0
    return root


@pytest.fixture(autouse=True)
def _no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def refuse(*_: Any) -> None:
        raise AssertionError("an optimiser took a step")

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    hook = register_optimizer_step_pre_hook(refuse)
    yield
    hook.remove()


def commands(made: Path, root: Path) -> dict[str, list[object]]:
    """By a name for each: its words, for what `made` made, to write below `root`."""
    data, out = ["--data", f"imagefolder:{made / 'data'}@train"], ["--out", root / "out"]
    small = ["--steps", 20, "--batch", 4, "--no-flip", "--device", "cpu"]
    network = ["--network", "convnet3-w8", "--seeds", 1, "--set", "steps=2"]
    all_guided = ["--set", "sampler.guided_channels=none"]
    refined = ["--method", "exemplars", "--set", "refine=true", "--set", "sampler.steps=10", "--ipc", "1,2"]
    labelled = ["--recipe", "fkd-soft-cifar", "--set", "epochs=4", "--set", "size=20", "--device", "cpu"]
    tuned = ["--grid", "sampler.guidance=2,3", "--set", "sampler.steps=5", "--network", "convnet3-w8", "--seeds", 1]
    return {
        "distill prior": ["distill", *DIGITS, "--method", "prior", "--ipc", 1, *FAST, *out],
        "distill minimax": ["distill", *DIGITS, "--method", "minimax", "--ipc", 1, *FAST, *all_guided, *out],
        "distill exemplars": ["distill", *DIGITS, *refined, *out],
        "distill d4m": ["distill", *data, "--prior", made / "dit", "--method", "d4m", "--ipc", 1, *FAST, *out],
        "regenerate": ["regenerate", made / "set", "--ipc", "1,3", "--device", "cpu", *out],
        "reproduce": ["reproduce", made / "set", "--device", "cpu", *out],
        "compare": ["compare", root / "file.toml"],
        "tune": ["tune", *DIGITS, "--method", "prior", "--ipc", 1, *tuned, *out],
        "waterfall": ["waterfall", made / "set", "--change", "flip=false", *network, *out, "--device", "cpu"],
        "evaluate": ["evaluate", made / "set", *network, "--device", "cpu", "--json", root / "out" / "r.json"],
        "relabel": ["relabel", made / "set", "--teacher", made / "teacher", *labelled, *out],
        "nearest": ["nearest", made / "set", "--features", "pixels,prior,latents", "--teacher", made / "teacher"],
        "export": ["export", made / "set", "--layout", "folder", "--out", root / "out" / "a"],
        "expand": ["expand", made / "formed", "--out", root / "out" / "a"],
        "report": ["report", made / "set", "--out", root / "out" / "page.html"],
        "push": ["push", made / "set", "me/my-set"],
        "score": ["score", made / "set", *network, "--full-epochs", 1, "--device", "cpu"],
        "train-prior": [
            "train-prior",
            *data,
            "--size",
            8,
            "--codec",
            "grey",
            "--set",
            "training.hidden=16",
            *small,
            *out,
        ],
        "finetune-prior": ["finetune-prior", "--prior", "digits", "--data", "digits", *small, *out],
        "train-teacher": ["train-teacher", *data, "--network", "convnet3-w8", "--batch", 8, "--epochs", 1, *out],
    }


@pytest.mark.parametrize("command", commands(Path(), Path()))
def test_a_dry_run_trains_and_makes_nothing(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str
) -> None:
    words = commands(made, tmp_path)[command]
    (tmp_path / "file.toml").write_text(EXPERIMENT.replace("OUT", str(tmp_path / "out")))
    assert attar(monkeypatch, *words, "--dry-run") == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    ending = re.sub(r"took [^,]+,", "took TIME,", told)
    assert ending.endswith(f"{ENDING}{'' if command in UNTIMED else TIMES}\n")
    assert not (made / "set.nearest").exists()
    assert {folder.name for folder in (tmp_path / "cache").glob("[!.]*")} <= FACTS
    assert not (tmp_path / "out").exists()
    if command == "finetune-prior" or ("digits" in words and "tune" not in command):
        assert "the prior digits is trained before that" in told
    assert not re.search(r"(?<![\d.,])(inf|nan|-[\d.]+|0(\.0+)?) (s|min|h)\b", told), told


SAID = {
    "distill exemplars": [" to refine, TIME (the choice ", "; 1,433 images for the prior to look at"],
    "evaluate": [
        "2 trainings: 0 in the cache, 2 to be done, TIME, in about 1 MiB of memory, "
        "on 40 test images only: ± 15 points by their choice alone\n",
        "1 record would be kept in {out}/r.json\n",
    ],
    "relabel": [
        "labels of 8 views (4 epochs), ",
        " bytes as fp16\nlabelling takes TIME; files that are there already are not made again\n"
        "they would be written to {out}, in 1 file and labels",
    ],
    "nearest": [
        "2 images of {made}/set beside 40 real ones would be compared by pixels, prior, latents, teacher, TIME\n",
        "nearest.json and 4 pictures of the closest pairs would be written to {made}/set.nearest\n",
    ],
    "export": ["2 images in 2 folders, layout folder, ", " bytes, and classes.json would be written to {out}/a\n"],
    "report": ["{out}/page.html would be written: a page of 1 set and 0 results, "],
    "push": ["2 images of {made}/set would be pushed to me/my-set with this card:\n"],
}


@pytest.mark.parametrize("command", SAID)
def test_a_dry_run_says_what_would_be_done(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str
) -> None:
    assert attar(monkeypatch, *commands(made, tmp_path)[command], "--dry-run") == 0
    told = re.sub(r"about [\d.]+ (s|min)\b|under 0\.01 s", "TIME", capsys.readouterr().out)
    assert all(words.format(out=tmp_path / "out", made=made) in told for words in SAID[command]), told


def test_every_command_that_can_be_tried_dry_is_tried(tmp_path: Path) -> None:
    from attar.cli.commands import COMMANDS, built

    able = {name for name in COMMANDS if any(param.name == "dry_run" for param in built(name).params)}
    assert able == {words[0] for words in commands(tmp_path, tmp_path).values()}


def test_a_set_that_is_there_is_left_to_the_training_of_the_prior(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Without the prior it is not known whether the set is this run's, and a dry run does not train it."""
    import json

    words = commands(made, tmp_path)["distill prior"]
    random = [*DIGITS[:2], "--method", "random", "--ipc", 1, "--out", tmp_path / "out"]
    assert attar(monkeypatch, "distill", *random) == 0
    manifest = tmp_path / "out" / "manifest.json"
    from attar.distillation.run_plan import RunPlan
    from attar.job import Job, Spec
    from attar.methods import load_method

    job = Job(Spec(data="digits", prior="digits", device="cpu"), dry=True)
    plan = RunPlan(job, "prior", load_method("prior", {"sampler.steps": "5"}), (1,), {1: tmp_path / "out"})
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **plan.asked(1)}))
    capsys.readouterr()
    assert attar(monkeypatch, *words, "--dry-run") == 0
    assert "whether this run made it is seen when its prior is trained" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-12, math.inf, -math.inf, math.nan, 0.5, 119.9, 7199.0, 1e5, 1e9])
def test_a_time_in_words_is_never_nonsense(seconds: float) -> None:
    assert re.fullmatch(r"under 0\.01 s|an unknown time|[\d,.]*[1-9][\d,.]* (s|min|h|days)", duration(seconds))


@pytest.mark.parametrize(
    ("count", "seconds", "rate"), [(3, 30.0, "10 s each"), (5, 10.0, "2.0 s each"), (3, 2.0, "1.5/s")]
)
def test_what_is_slow_is_told_by_its_time_each(monkeypatch: Any, count: int, seconds: float, rate: str) -> None:
    told = list[str]()
    now = iter([0.0, seconds])
    monkeypatch.setattr("attar.core.progress.time.monotonic", lambda: next(now))
    Meter(lambda text, _: told.append(text), "sampling", count, "images").add(count)
    assert told[-1] == f"sampling, {count}/{count} images, {rate}"


def test_a_clock_that_stands_still_gives_no_infinite_rate(monkeypatch: Any) -> None:
    from attar.core.progress import timed

    monkeypatch.setattr("attar.core.progress.time.monotonic", lambda: 1.0)
    assert math.isfinite(1 / timed(lambda: torch.zeros(1)))


def save_large_dit(folder: Path, classes: list[str]) -> Path:
    """A DiTPipeline of DiT-XL/2's size as far as its configuration tells; its weights are 3 GiB of a hole."""
    import json

    save_tiny_dit(folder, classes)
    changes: dict[str, dict[str, Any]] = {
        "transformer": {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "sample_size": 32},
        "vae": {"block_out_channels": [128, 256, 512, 512], "norm_num_groups": 32, "layers_per_block": 2},
    }
    changes["vae"] |= {f"{way}_block_types": [f"{way.title()}{kind}Block2D"] * 4 for way, kind in WAYS.items()}
    for part, change in changes.items():
        config = folder / part / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
        with (folder / part / "diffusion_pytorch_model.safetensors").open("r+b") as weights:
            weights.truncate(3 << 29)
    return folder


WAYS = {"down": "Encoder", "up": "Decoder"}


@pytest.mark.parametrize("method", ["d3hr", "minimax"])
def test_the_weights_of_a_large_prior_are_left_unread(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, method: str
) -> None:
    prior = save_large_dit(tmp_path / "large", ["ant", "bee"])
    data = ["--data", f"imagefolder:{made / 'data'}@train", "--prior", prior, "--device", "cpu", "--ipc", "1,2"]
    words = ["distill", *data, "--method", method, "--out", tmp_path / "out", "--dry-run"]
    monkeypatch.setattr("attar.priors.codec.load_whole", lambda *_, **__: pytest.fail("weights were read"))
    assert attar(monkeypatch, *words) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert re.search(r"about [\d.]+ (min|h|days) \(.*sampling [\d.]+ (min|h|days)", told), told
    assert "from an empty cache and without refinement, for its weights are left unread" in told
    assert re.search(r"about [\d.]+ GiB of memory on the device, \d+ MiB of disk", told)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("saved", [lambda folder: save_tiny_dit(folder, ["ant", "bee"]), save_tiny_sd])
def test_unread_weights_are_forecast_in_the_number_format_that_they_will_have(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, saved: Any, dtype: str
) -> None:
    words = ["distill", "--data", f"imagefolder:{made / 'data'}@train", "--prior", saved(tmp_path / "prior")]
    words += ["--method", "d3hr", "--ipc", 1, "--device", "cpu", "--dtype", dtype, "--out", tmp_path / "out"]
    monkeypatch.setattr("attar.priors.unread.LARGE", 0)
    assert attar(monkeypatch, *words, "--dry-run") == 0, capsys.readouterr().err
    assert "for its weights are left unread" in capsys.readouterr().out
    prior = unread_prior(str(tmp_path / "prior"), "cpu", dtype)
    assert prior.weights == getattr(torch, dtype)
    assert prior.batch_size == (16 if dtype == "float32" else 32)


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("distill d4m", [], "encoding"),
        ("train-prior", ["--codec", "dit", "--size", 16], "latents"),
        ("finetune-prior", ["--prior", "dit"], "latents"),
    ],
)
def test_no_batch_is_proved(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, command: str, more: list[Any], said: str
) -> None:
    for place in ("attar.priors.prior.exact", "attar.priors.codec.exact"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("a batch was proved"))
    words = [*commands(made, tmp_path)[command], *(made / word if word == "dit" else word for word in more)]
    assert attar(monkeypatch, *words, "--dry-run") == 0, capsys.readouterr().err
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_classes_are_matched_before_any_weight_is_read(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, dry: list[str]
) -> None:
    prior = save_large_dit(tmp_path / "large", ["ant", "wasp"])
    data = ["--data", f"imagefolder:{made / 'data'}@train", "--prior", prior, "--device", "cpu", "--ipc", "1"]
    monkeypatch.setattr("attar.priors.codec.load_whole", lambda *_, **__: pytest.fail("weights were read"))
    assert attar(monkeypatch, "distill", *data, "--method", "prior", "--out", tmp_path / "out", *dry) != 0
    assert "'bee'" in capsys.readouterr().err


@pytest.mark.parametrize(("load", "said"), [(0.0, False), (9.0, True)])
def test_a_busy_machine_is_told(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any, load: float, said: bool
) -> None:
    monkeypatch.setattr("attar.core.machine.os.getloadavg", lambda: (load, load, load))
    monkeypatch.setattr("attar.core.machine.os.cpu_count", lambda: 4)
    monkeypatch.setattr("attar.core.machine.cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert attar(monkeypatch, *commands(made, tmp_path)["export"], "--dry-run") == 0
    words = "this machine is busy (2 a process; load 9.0 on 4 cores): times may be twice what they are"
    assert (words in capsys.readouterr().out) == said


def test_a_dry_run_looks_at_some_images_where_they_are_many(
    made: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """It says how many are left; the run itself looks at all of them."""
    data = tmp_path / "many"
    save_folder(data, ["ant", "bee"], each=20, size=20)
    (data / "bee" / "007.png").write_bytes(b"\x89PNG")
    words = ["distill", "--data", f"imagefolder:{data}", "--method", "random", "--ipc", 1, "--out", tmp_path / "out"]
    monkeypatch.setattr("attar.data.integrity.GLANCE", 4)
    assert attar(monkeypatch, *words, "--dry-run") == 0
    assert "; before that 40 images are looked at, " in capsys.readouterr().out
    assert attar(monkeypatch, *words) == 2
    assert "bee/007.png: " in capsys.readouterr().err
    assert attar(monkeypatch, *words, "--dry-run") == 2, "what a run has seen is known"
