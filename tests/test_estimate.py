"""What a dry run counts: published sizes of published architectures, and the parts that a grid does once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toys import attar, save_random_set, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.outlook import Measures, measured, outlook
from attar.evaluation import RECIPES, modified
from attar.evaluation.outlook import training_seconds
from attar.job import Job, Spec
from attar.methods import load_method
from attar.priors import load_prior
from attar.priors.training.weightless import described_prior
from attar.training.augment import Augmentation, Draw, apply

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "parameters", "gflops", "size"),
    [("DiT-XL/2-256", 749.8, 2 * 118.64, 256), ("stable-diffusion-v1-5", 859.5, 803.3, 512)],
)
def test_architectures_are_as_large_as_published(name: str, parameters: float, gflops: float, size: int) -> None:
    """DiT's paper, table 1: 118.64 GFLOPs, counted as multiply-adds; diffusers' copy repeats its embedder 28 times."""
    architecture = described_prior(name, CPU, torch.float32)
    prior = architecture.prior
    counted = sum(parameter.numel() for parameter in prior.network.parameters())
    assert counted / 1e6 == pytest.approx(parameters, abs=0.1)
    assert all(parameter.is_meta for parameter in prior.network.parameters())
    found = measured(prior, architecture.block)
    assert found.network / 1e9 == pytest.approx(gflops, rel=1e-3)
    assert (prior.codec.size, found.latent) == (size, 4 * 4 * (size // 8) ** 2)
    assert found.weights > 4 * counted, "the codec's are counted too"
    assert found.encoder < found.decoder
    assert found.per_second > 1e8
    assert "one block" in found.how


def test_an_unknown_architecture_is_an_error() -> None:
    with pytest.raises(AttarError, match="there are DiT-XL/2-256, stable-diffusion-v1-5"):
        described_prior("DiT-S/2", CPU, torch.float32)


def test_a_real_prior_is_measured_as_it_is(tmp_path: Any) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu")
    found = measured(prior)
    assert not any(parameter.is_meta for parameter in prior.network.parameters())
    assert found.how == "one pass of the network timed"
    transformer: Any = prior.network.transformer
    linear = sum(2 * 16 * layer.weight.numel() for layer in transformer.modules() if isinstance(layer, nn.Linear))
    assert 0.3 * linear < found.network < 3 * linear, "16 tokens through every linear layer, and little else"


MEASURES = Measures(
    10, 3, 5, weights=1000, sampling=500, master=0, training=40, trained=7, latent=16, per_second=100.0, how=""
)


def job(tmp_path: Any) -> Job:
    made = Job(Spec("nowhere", prior="DiT-XL/2-256"), Store(tmp_path))
    made.prior = described_prior("DiT-XL/2-256", CPU, torch.float32).prior
    return made


def test_minimax_at_imagenets_size(tmp_path: Any) -> None:
    """Fifty groups of twenty; 8 epochs of batches of 8; one pool of 100 a class for every IPC."""
    minimax = load_method("minimax", {"fit.monitor.times": 0})
    counts = [1281] * 1000
    ten, fifty = (outlook(job(tmp_path), minimax, counts, ipc, MEASURES) for ipc in (10, 50))
    assert ten.groups == 50
    assert ten.latents == 2 * 1_281_000
    assert ten.steps == 50 * 8 * (1281 * 20 // 8)
    assert ten.passes == fifty.passes == 24 * ten.steps + 100 * 1000 * 50 * 2
    assert ten.memory == 1000 + 500, "a tile of samples takes more than a batch of 8"
    shared = ten.parts.keys() & fifty.parts.keys()
    assert len(shared) == 3, "latents, fit and candidates; the images alone differ"
    flops = sum(flops for flops, _ in ten.parts.values())
    assert flops == 3 * ten.latents + 10 * ten.passes + 5 * 10 * 1000
    assert sum(seconds for _, seconds in ten.parts.values()) == pytest.approx(flops / 100)


def test_d4m_begins_part_of_the_way(tmp_path: Any) -> None:
    found = outlook(job(tmp_path), load_method("d4m", {"sampler.solver": "ddim"}), [100] * 10, 10, MEASURES)
    assert (found.groups, found.latents, found.steps) == (10, 1000, 0)
    assert found.passes == 10 * 10 * 35 * 2, "0.7 of 50 steps, each with and without the condition"


def test_refinement_takes_time_for_each_class_and_seed(tmp_path: Any) -> None:
    made = job(tmp_path), load_method("d4m", {"sampler.solver": "ddim"}), [100] * 10, 10, MEASURES
    plain, refined = outlook(*made), outlook(*made, refining=7.0)
    flops, seconds = ([sum(column) for column in zip(*found.parts.values(), strict=True)] for found in (plain, refined))
    assert seconds == [flops[0], pytest.approx(flops[1] + 70)]
    (more,) = (part for part in plain.parts if plain.parts[part] != refined.parts[part])
    assert refined.seeded(more)


def test_real_images_cost_nothing(tmp_path: Any) -> None:
    found = outlook(Job(Spec("nowhere")), load_method("random"), [5], 1, None)
    assert (found.passes, dict(found.parts)) == (0, {})


def test_a_training_is_timed_by_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from attar.evaluation import outlook

    monkeypatch.setattr(outlook, "_pass_seconds", lambda *words: (1.0, 3.0))
    quick = training_seconds(RECIPES.open("quick"), "convnet3-w16", 10, 10, 32, tested=7, device="cpu")
    assert quick == 600 * 64 * 3.0 + 7
    hard = training_seconds(RECIPES.open("minimax-hard-cifar"), "convnet3-w16", 10, 10, 32, tested=7, device="cpu")
    assert hard == 1000 * 100 * 3.0 + 7


def test_a_training_is_timed_in_its_batches_with_its_augmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps fill their batch whatever the set, epochs have no more images than it; what is timed draws each view."""
    from attar.evaluation import outlook

    asked, views, timed = list[Any](), list[Augmentation](), outlook._pass_seconds

    def pass_seconds(*words: Any) -> tuple[float, float]:
        asked.append(words)
        return 1.0, 3.0

    def applied(images: torch.Tensor, drawn: Draw, how: Augmentation) -> torch.Tensor:
        views.append(how)
        return apply(images, drawn, how)

    monkeypatch.setattr(outlook, "_pass_seconds", pass_seconds)
    for recipe in ("quick", "minimax-hard-cifar"):
        training_seconds(RECIPES.open(recipe), "convnet3-w16", 10, 1, 32, tested=7, device="cpu")
    assert [words[3] for words in asked] == [64, 10]
    monkeypatch.setattr("attar.evaluation.outlook.apply", applied)
    assert timed(*asked[1])[1] > 0
    assert set(views) == {asked[1][2]}


def test_an_evaluation_is_told_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sets, two seeds, random images beside them: eight trainings of 3 * 64 images, each tested on 12."""
    from attar.evaluation import outlook

    root = save_random_set(tmp_path, monkeypatch)
    monkeypatch.setattr(outlook, "_pass_seconds", lambda *words: (1.0, 3.0))
    words = ["evaluate", root / "set", root / "set", "--network", "convnet3-w8", "--seeds", 2, "--device", "cpu"]
    assert attar(monkeypatch, *words, "--set", "steps=3", "--set", "test_every=1") == 0
    seconds = 8 * (3 * 64 * 3 + 12)
    told = f"8 trainings at most, about {seconds / 60:.0f} min, without tests before the last, in about 1 MiB of memory"
    few = ", on 12 test images only: ± 28 points by their choice alone"
    assert f"{told}{few}; what is in the cache is not done again\n" in capsys.readouterr().out


def test_damage_is_said_before_any_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_random_set(tmp_path, monkeypatch) / "set"
    for file in folder.rglob("*.png"):
        file.unlink()
    capsys.readouterr()
    assert attar(monkeypatch, "evaluate", folder, "--network", "convnet3-w8", "--device", "cpu") == 2
    assert f"{folder} is damaged (missing: " in capsys.readouterr().err


def test_the_memory_of_a_training_is_that_of_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attar.evaluation import outlook
    from attar.sets.distilled import open_distilled

    distilled = open_distilled(save_random_set(tmp_path, monkeypatch) / "set")
    monkeypatch.setattr(outlook, "_pass_seconds", lambda *words: (1.0, 3.0))
    quick = RECIPES.open("quick")

    def memory(**changes: Any) -> int:
        return outlook.expected(distilled, modified(quick, changes), "convnet3-w8", 12, "cpu").memory

    weights, kept = outlook._bytes("convnet3-w8", 2, 16)
    assert memory() - memory(batch=3) == 2 * kept
    assert memory(batch=1) == 4 * weights + 2 * kept + 16 * 3 * 16**2
    assert memory(batch=4, accumulate=2) == memory(batch=2)
    first = 8 * 16 * 16 * 4
    assert kept >= 3 * first, "the first layer's output, once by each of what follows it"
