"""NaN, infinity and divergence: an error that says where, before anything is stored or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import attar, original_weights, save_folder, save_random_set, save_tiny_dit

from attar.core.errors import AttarError, NotFinite
from attar.core.files import write_json
from attar.core.finite import save_finite
from attar.core.store import Store
from attar.diffusion import FixedPoint, Schedule, in_two_calls, invert
from attar.distillation.run import distill_sets
from attar.evaluation import modified, named_recipe
from attar.evaluation.conditions import Conditions
from attar.evaluation.run import evaluate_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.priors import load_prior
from attar.priors.codec import AutoencoderCodec, load_autoencoder, to_float, to_uint8
from attar.priors.prior import Prior
from attar.priors.training.run import train_new_prior
from attar.priors.training.settings import Autoencoding, NewPrior, Report, Training
from attar.sets.distilled import _check_distinct, write_distilled
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

NAN = float("nan")
QUICK = {"sampler.steps": 5, "fit.steps": 5, "subsets": 20}
TUNED = {"sampler.steps": 5, "select.pool": 4, "fit.group": 1, "fit.batch": 4, "fit.max_steps": 30}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", ["ant", "bee"], each=12)
    save_tiny_dit(root / "dit", ["ant", "bee"])
    return root


def distilled(
    world: Path, tmp_path: Path, store: Store, name: str = "d3hr", changes: dict[str, Any] = QUICK, **spec: Any
) -> None:
    given = {"prior": str(world / "dit"), "device": "cpu", **spec}
    distill_sets(
        Job(Spec(data=str(world / "data"), **given), store), name, load_method(name, changes), (2,), tmp_path / "out"
    )


def stored(store: Store, kind: str) -> int:
    """How many artefacts of a kind there are."""
    return len(list((store.root / kind).glob("[!.]*")))


def with_config(world: Path, tmp_path: Path, part: str, **changes: Any) -> str:
    """A copy of the prior with a changed configuration of one of its parts."""
    folder = shutil.copytree(world / "dit", tmp_path / "dit")
    file = next((folder / part).glob("*config.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return str(folder)


def with_weights(world: Path, tmp_path: Path, part: str, change: Callable[[torch.nn.Module], object]) -> str:
    import diffusers

    folder = shutil.copytree(world / "dit", tmp_path / "dit")
    kind = {"transformer": diffusers.DiTTransformer2DModel, "vae": diffusers.AutoencoderKL}[part]
    model = kind.from_pretrained(folder / part)
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder / part)
    return str(folder)


@pytest.mark.parametrize(("part", "field"), [("transformer", "`prior`"), ("vae", "`codec`")])
def test_a_weight_that_is_no_number(world: Path, tmp_path: Path, store: Store, part: str, field: str) -> None:
    bad = with_weights(world, tmp_path, part, lambda model: list(model.parameters())[3].view(-1)[0].fill_(NAN))
    with pytest.raises(NotFinite, match=rf"{field} {bad}: its weights are damaged.*1 of the [\d,]+ numbers of \w+\."):
        distilled(world, tmp_path, store, prior=bad)
    assert not any(stored(store, kind) for kind in ("latents", "fit", "candidates"))


@pytest.mark.parametrize(("part", "field"), [("transformer", "`prior`"), ("vae", "`codec`")])
def test_weights_that_make_no_numbers_of_noise(
    world: Path, tmp_path: Path, store: Store, part: str, field: str
) -> None:
    def enlarge(model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            parameter.mul_(1e30)

    bad = with_weights(world, tmp_path, part, enlarge)
    with pytest.raises(NotFinite, match=f"{field} {bad}: what it makes of noise: .* are NaN or infinite"):
        load_prior(bad, device="cpu", store=store)


def test_a_weight_of_an_original_checkpoint_that_is_no_number(world: Path, tmp_path: Path, store: Store) -> None:
    weights = original_weights(classes=2)
    weights["blocks.1.mlp.fc1.bias"][0] = NAN
    torch.save(weights, tmp_path / "dit.pt")
    (tmp_path / "dit.json").write_text('{"num_heads": 4}')
    with pytest.raises(NotFinite, match=r"dit.pt: its weights are damaged.*transformer_blocks\.1\.ff"):
        load_prior(str(tmp_path / "dit.pt"), device="cpu", codec=str(world / "dit" / "vae"), store=store)


@pytest.mark.parametrize("value", [0, -0.18, 1e-30, 1e9, NAN, "x", True, None])
def test_a_codec_whose_scale_cannot_be(world: Path, tmp_path: Path, value: Any) -> None:
    bad = with_config(world, tmp_path, "vae", scaling_factor=value)
    with pytest.raises(AttarError, match=rf"`codec` {bad}: its config.json says scaling_factor {value}: it must be"):
        load_autoencoder(bad)


def test_a_codec_whose_shift_cannot_be(world: Path, tmp_path: Path) -> None:
    bad = with_config(world, tmp_path, "vae", shift_factor=float("inf"))
    with pytest.raises(AttarError, match="shift_factor inf: it must be a number"):
        load_autoencoder(bad)


def test_a_schedule_that_is_no_number(world: Path, tmp_path: Path, store: Store) -> None:
    bad = with_config(world, tmp_path, "scheduler", beta_end=NAN)
    with pytest.raises(NotFinite, match=rf"`prior` {bad}: the schedule of the noise \(scheduler_config.json\)"):
        load_prior(bad, device="cpu", store=store)


def test_the_step_and_the_class_of_an_output_that_is_no_number(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Prior._forward

    def broken(self: Prior, z: torch.Tensor, times: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        output = forward(self, z, times, y)
        return torch.where(((times == 250) & (y == 1)).view(-1, 1, 1, 1), NAN, output)

    monkeypatch.setattr(Prior, "_forward", broken)
    with pytest.raises(NotFinite, match=r"^sampling 'bee': the prior's output at time 250 is NaN or infinite$"):
        distilled(world, tmp_path, store, "prior", {"sampler.steps": 4})
    assert stored(store, "candidates") == 0
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFinite, match=r"^fitting 'bee': the prior's output at time 250 is NaN"):
        distilled(world, tmp_path, store, changes={**QUICK, "sampler.steps": 4, "fit.steps": 4, "fit.times": 500})
    assert stored(store, "fit") == 1


@pytest.mark.parametrize("exact", [None, FixedPoint()])
def test_an_inversion_through_what_is_no_number(exact: FixedPoint | None) -> None:
    class Broken:
        schedule, null = Schedule(torch.linspace(0.99, 0.01, 1000)), 0

        def __call__(self, z: torch.Tensor, t: int, y: torch.Tensor) -> torch.Tensor:
            return z * (NAN if t == 200 else 0.1)

        def both(self, z: torch.Tensor, t: int, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return in_two_calls(self, z, t, y)

    with pytest.raises(NotFinite, match="output at time 200"):
        invert(Broken(), torch.ones(1, 1, 2, 2), torch.zeros(1, dtype=torch.long), (0, 200, 400), exact=exact)


def test_an_image_of_which_a_codec_makes_no_numbers(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
        images = to_float(pixels)
        images[5] = NAN
        return images

    monkeypatch.setattr("attar.priors.latents.to_float", broken)
    with pytest.raises(NotFinite, match=r"fitting .ant.: encoding ant/\d+\.png: what the codec makes of images"):
        distilled(world, tmp_path, store)
    assert stored(store, "latents") == 0


def test_pixels_that_are_no_numbers_do_not_become_black() -> None:
    with pytest.raises(NotFinite, match="images: 3 of 12 numbers"):
        to_uint8(torch.tensor([0.0, 0.0, 0.0, NAN]).view(1, 1, 2, 2).expand(1, 3, 2, 2))


def test_a_fine_tuning_that_diverges(world: Path, tmp_path: Path, store: Store) -> None:
    changes = {**TUNED, "fit.learning_rate": 1e8, "fit.monitor.times": 0}
    with pytest.raises(NotFinite, match=r"^fitting 'ant': tuning ant: it diverged by step \d of 24 .*learning rate, "):
        distilled(world, tmp_path, store, "minimax", changes)
    assert stored(store, "fit") == 0


def test_samples_of_a_fine_tuning_that_diverged(world: Path, tmp_path: Path, store: Store) -> None:
    looked = {"fit.monitor.times": 25, "fit.monitor.samples": 6, "fit.monitor.real": 6, "fit.monitor.steps": 2}
    with pytest.raises(NotFinite, match="it diverged by step"):
        distilled(world, tmp_path, store, "minimax", {**TUNED, "fit.learning_rate": 1e8, **looked})


@pytest.mark.parametrize(("rate", "sigma"), [(1e10, False), (1e3, True)])
def test_a_prior_whose_training_diverges(world: Path, tmp_path: Path, store: Store, rate: float, sigma: bool) -> None:
    training = Training(
        steps=20, batch=4, hidden=16, layers=1, heads=2, learning_rate=rate, warmup=0, learned_sigma=sigma
    )
    spec = NewPrior(
        str(world / "data"), codec="pixel", size=8, device="cpu", training=training, report=Report(None, 6, 2.0, 2, 2)
    )
    with pytest.raises(NotFinite, match=r"training a prior: it diverged by step \d of 20 \(.*lower the learning rate"):
        train_new_prior(spec, tmp_path / "out", store=store, say=lambda _: None)
    assert stored(store, "prior") == 0
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_whose_training_diverges(world: Path, tmp_path: Path, store: Store) -> None:
    vae = Autoencoding(steps=4, batch=4, width=4, channels=2, learning_rate=1e10, warmup=0)
    spec = NewPrior(str(world / "data"), codec="train", size=8, device="cpu", vae=vae)
    with pytest.raises(NotFinite, match="training an autoencoder: it diverged by step"):
        train_new_prior(spec, tmp_path / "out", store=store, say=lambda _: None)
    assert stored(store, "vae") == 0


def test_a_refinement_that_diverges(world: Path, tmp_path: Path, store: Store) -> None:
    refined = {
        "refine.lr": 1e30,
        "refine.steps": 4,
        "refine.real": 4,
        "refine.pool": 4,
        "refine.networks": "convnet3-w8",
    }
    with pytest.raises(NotFinite, match="refining 'ant': "):
        distilled(world, tmp_path, store, "exemplars", {"sampler.steps": 5, "fit.steps": 5, **refined})
    assert stored(store, "refined") == 0


def test_a_teacher_whose_training_diverges(world: Path, tmp_path: Path, store: Store) -> None:
    new = TeacherTraining(str(world / "data"), "convnet3-bn-w8", epochs=4, batch=4, lr=1e30, device="cpu")
    with pytest.raises(NotFinite, match=r"the training diverged \(lower lr = 1e\+30\): its loss after"):
        train_teacher(new, tmp_path / "teacher", store=store, say=lambda _: None)
    assert stored(store, "teacher") == 0


def test_an_evaluation_that_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = save_random_set(tmp_path, monkeypatch)
    words = ("--recipe", "quick", "--network", "convnet3-w8", "--device", "cpu", "--json", root / "results.json")
    assert attar(monkeypatch, "evaluate", root / "set", *words, "--set", "steps=10", "--set", "lr=1e30") == 2
    told = capsys.readouterr().err
    assert "error: convnet3-w8, quick (modified), seed 0: the training diverged (lower lr = 1e+30): its loss" in told
    assert not (root / "results.json").exists()
    assert stored(Store(), "evaluation") == 0


def test_a_network_that_breaks_in_its_last_step_is_not_right_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_random_set(tmp_path, monkeypatch)

    def breaks(self: torch.optim.AdamW) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(NAN)

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks)
    recipe = modified(named_recipe("quick"), {"steps": 1, "optimiser": "adamw"})
    with pytest.raises(NotFinite, match="seed 0: the training diverged: the network's outputs on the test images"):
        list(evaluate_sets([root / "set"], recipe, Conditions(("convnet3-w8",), (0,), device="cpu")))


def test_a_generated_image_of_a_single_colour(
    world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoencoderCodec, "decode", lambda self, z: torch.full((len(z), 3, 16, 16), -1.0))
    with pytest.raises(AttarError, match=r"image 0 of 'ant' is of a single colour, \(0, 0, 0\): the prior or its"):
        distilled(world, tmp_path, store)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("same", "ipc", "distinct", "words"),
    [
        ("class", 2, True, "all 2 images of 'bee' are equal: the prior or its codec is broken"),
        ("set", 1, True, "all 2 images are equal"),
        ("class", 2, False, None),
        ("class", 3, False, "all 3 images of 'bee' are equal: look at the data"),
        ("set", 2, False, "all 4 images are equal: look at the data"),
        ("none", 2, True, None),
    ],
)
def test_images_that_are_all_equal(tmp_path: Path, same: str, ipc: int, distinct: bool, words: str | None) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, ipc, 4, 4, 3), dtype=np.uint8)
    pictures[1] = pictures[1, 0] if same == "class" else pictures[1]
    pictures[:] = pictures[0, 0] if same == "set" else pictures
    images = [(label, index, pictures[label, index]) for label in range(2) for index in range(ipc)]
    manifest = {"run": "x" * 32, "ipc": ipc, "seconds": {}, "method": {"name": "m"}, "seed": 0, "prior": None}
    manifest["data"] = {"spec": "d"}

    def write() -> None:
        left = lambda done: [of for of in images if of[0] not in done]  # noqa: E731
        write_distilled(tmp_path / "out", ["ant", "bee"], left, manifest, distinct=distinct)

    for _ in range(2):  # what the first attempt left behind does not hide it from the second
        if words is not None:
            with pytest.raises(AttarError, match=words):
                write()
    if words is None:
        write()
    assert (tmp_path / "out").exists() == (words is None)


def test_each_image_is_looked_at_once_however_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def noted(file: str) -> Path:
        seen.append(file)
        return Path(file)

    monkeypatch.setattr("attar.sets.distilled.Path", noted)
    names = [f"{label:03d}_c" for label in range(50)]
    images = {f"images/{name}/{index:04d}.png": f"{name}{index}" for name in names for index in (0, 1)}
    _check_distinct(Path("set"), names, names, images, accident=1)
    assert sorted(seen) == sorted(images)


def test_nothing_that_is_no_number_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotFinite, match=r"the fit \(std\): 1 of 2 numbers are NaN or infinite"):
        save_finite({"mean": torch.ones(2), "std": torch.tensor([1.0, NAN])}, tmp_path / "x.safetensors", "the fit")
    with pytest.raises(AttarError, match=r"x\.json: it\.scores\.1\.psnr is inf, which JSON has no word for"):
        write_json(tmp_path / "x.json", {"scores": [{}, {"psnr": float("inf")}]})
    assert list(tmp_path.iterdir()) == []


def test_what_no_json_holds_is_neither_written_nor_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import math

    from toys import attar

    from attar.core.files import write_lines
    from attar.core.machine import Finding

    for file in (tmp_path / "a.jsonl", tmp_path / "b.jsonl"):
        with pytest.raises(AttarError, match=f"{file.name}: it.loss is nan, which JSON has no word for; nothing is"):
            write_lines(file, [{"loss": 1.0}, {"loss": math.nan}])
        assert not file.exists()
    monkeypatch.setattr("attar.core.machine.examined", lambda _: [Finding("load", math.inf)])  # type: ignore[arg-type]
    assert attar(monkeypatch, "doctor", "--json") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "standard output: it.0.state is inf, which JSON has no word for" in told.err
