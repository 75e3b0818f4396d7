"""Training a prior: its loss against the reference, its loop killed and resumed, its folder in diffusers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kills import ended
from safetensors.torch import load_file
from torch import Tensor
from toys import linear_schedule, original_dit, recorded, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.progress import about, duration
from attar.core.rng import generator
from attar.core.store import Store, canonical
from attar.data import load_data
from attar.diffusion.loss import Forward, forward_of
from attar.networks.random_features import BATCH
from attar.priors import load_prior
from attar.priors.codec import PixelCodec
from attar.priors.folder import publish
from attar.priors.latents import Latents
from attar.priors.shared_embedders import SharedDiT, share_embedders, untrained
from attar.priors.training.latent_set import Joined, LatentSet, Mirrored, load_latents
from attar.priors.training.monitor import Monitor
from attar.priors.training.optimise import Session, TrainingState, optimise
from attar.priors.training.run import train_new_prior
from attar.priors.training.sample_quality import ClassifierTraining, classifier_artefact, frechet, quality_in_words
from attar.priors.training.settings import Autoencoding, NewPrior, Optimisation, Report, Training
from attar.priors.training.task import TrainingRun
from attar.priors.training.train import attention_of
from attar.training.processes import accelerator

TINY = Training(hidden=16, layers=2, heads=2, patch=2, steps=12, batch=8, learning_rate=1e-3, warmup=2)
QUICK = Report(every=6, samples=8, steps=2, judge_steps=4)
NAMES = ["cat", "dog <b>", "ä & ö"]


@pytest.mark.golden
def test_the_loss_terms_are_those_of_the_reference() -> None:
    golden, weights, sizes = recorded("minimax_dit")
    heads = int(sizes["num_heads"])
    z, t, y, noise = (golden[name] for name in ("z", "t", "y", "noise"))
    torch.testing.assert_close(original_dit(weights, z, t, y, heads), golden["out"], rtol=1e-4, atol=1e-5)
    forward = Forward(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    noisy = forward.noised(z, t, noise)
    terms = forward.terms(original_dit(weights, noisy, t, y, heads), z, noisy, noise, t)
    for name in ("mse", "vb", "loss"):
        torch.testing.assert_close(getattr(terms, name), golden[name], rtol=1e-4, atol=1e-5)


def test_a_schedulers_betas_are_exact_enough_for_the_bound() -> None:
    from diffusers import DDIMScheduler

    exact = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    forward = forward_of(DDIMScheduler(beta_schedule="linear"), torch.device("cpu"))
    torch.testing.assert_close(forward.betas, exact, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(forward.abar.float(), linear_schedule().alphas_cumprod, rtol=1e-4, atol=0.0)


def test_the_bound_trains_the_variance_alone_and_is_least_at_the_true_one() -> None:
    forward = Forward(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    z, noise, t = torch.randn(4, 2, 4, 4), torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 500, 999])
    noisy = forward.noised(z, t, noise)
    output = torch.cat([noise + 0.1, torch.zeros_like(noise)], 1).requires_grad_()
    forward.terms(output, z, noisy, noise, t).vb.sum().backward()
    assert output.grad is not None
    assert not output.grad[:, :2].any()
    assert output.grad[:, 2:].abs().sum() > 0
    perfect = [
        forward.terms(torch.cat([noise, torch.full_like(noise, range_)], 1), z, noisy, noise, t).vb[1:]
        for range_ in (-1.0, 0.0, 1.0)
    ]
    assert perfect[0].abs().max() < 1e-4
    assert (perfect[1] > perfect[0] - 1e-6).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_perfect_prediction_has_no_loss_and_min_snr_is_the_papers(prediction: str) -> None:
    forward = Forward(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), prediction)
    z, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([3, 300, 900])
    abar = forward.abar[t].float().view(-1, 1, 1, 1)
    target = noise if prediction == "epsilon" else abar.sqrt() * noise - (1 - abar).sqrt() * z
    noisy = forward.noised(z, t, noise)
    assert forward.terms(target, z, noisy, noise, t).loss.max() < 1e-10
    terms = forward.terms(target + 1, z, noisy, noise, t, min_snr=5.0)
    snr = (abar / (1 - abar)).flatten()
    weight = snr.clamp(max=5) / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(terms.loss, weight, rtol=1e-4, atol=1e-6)


def test_the_tied_network_is_the_untied_one() -> None:
    network = untrained((4, 8, 8), 5, TINY, 0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    z, t, y = torch.randn(3, 4, 8, 8), torch.tensor([3, 500, 999]), torch.tensor([0, 4, 5])
    plain = network.with_own_embedders()
    with torch.no_grad():
        expected = plain(z, timestep=t, class_labels=y).sample
        torch.testing.assert_close(network(z, t, y), expected)
        torch.testing.assert_close(share_embedders(plain, "x")(z, t, y), expected)
    plain.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight.data[0, 0] += 1
    with pytest.raises(AttarError, match="embedders of the prior's blocks differ"):
        share_embedders(plain, "x")


def test_posteriors_are_sampled_afresh_and_both_views_are_drawn() -> None:
    mean = torch.cat([torch.zeros(4, 1, 2, 2), torch.full((4, 1, 2, 2), 100.0)])
    latents = LatentSet(mean, torch.ones_like(mean), torch.arange(4))
    first, labels = latents.batch(2000, torch.Generator().manual_seed(0))
    again, _ = latents.batch(2000, torch.Generator().manual_seed(0))
    other, _ = latents.batch(2000, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.45 < (first.mean((1, 2, 3)) > 50).float().mean() < 0.55
    assert abs(float(first[first < 50].std()) - 1) < 0.1
    assert set(labels.tolist()) == {0, 1, 2, 3}
    pixels = LatentSet(torch.tensor([[[[0.0, 1.0]]]]), None, torch.zeros(1, dtype=torch.int64), mirrored=True)
    seen = {tuple(z.flatten().tolist()) for z in pixels.batch(50, torch.Generator().manual_seed(0))[0]}
    assert seen == {(0.0, 1.0), (1.0, 0.0)}


def test_mirrored_images_are_encoded_too(tmp_path: Path, store: Store) -> None:
    import pickle

    images = load_data(str(save_folder(tmp_path / "data", ["a", "b"], 3)))
    mirrored = Mirrored(images)
    assert np.array_equal(np.asarray(mirrored.open(0)), np.asarray(images.open(0))[:, ::-1])
    assert mirrored.digest(0) != images.digest(0)
    reopened = pickle.loads(pickle.dumps(mirrored))
    assert np.array_equal(np.asarray(reopened.open(1)), np.asarray(mirrored.open(1)))
    codec = load_prior(str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu").codec
    latents = load_latents(Latents(images, codec, "adm", store, {}), flip=True)
    assert latents.shape == (4, 8, 8)
    assert isinstance(latents.mean, torch.Tensor)
    assert len(latents.mean) == 12
    assert latents.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert latents.std is not None
    plain, other = latents.mean.split(6)
    assert not torch.equal(plain, other)
    assert not torch.allclose(plain.flip(-1).float(), other.float(), atol=0.02)


def test_latents_that_are_left_on_disk_are_drawn_alike(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_data(str(save_folder(tmp_path / "data", ["a", "b"], 3)))
    codec = load_prior(str(save_tiny_dit(tmp_path / "dit", ["a", "b"])), device="cpu").codec
    opened = Latents(images, codec, "adm", store, {})
    held = load_latents(opened, flip=True)
    monkeypatch.setattr("attar.priors.training.latent_set.IN_MEMORY", 0)
    left = load_latents(opened, flip=True)
    assert isinstance(left.mean, Joined)
    assert isinstance(left.std, Joined)
    for one, other in zip(held.batch(20, generator("draw")), left.batch(20, generator("draw")), strict=True):
        assert torch.equal(one, other)


def test_the_average_is_warmed_up_and_kept(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    plan = Optimisation(steps=3, learning_rate=1.0, schedule="constant", warmup=0, ema_decay=0.5)
    values: list[float] = []

    def after(moment: TrainingState) -> None:
        values.append(float(parameter.detach()))

    session = Session(tmp_path, accelerator("cpu", "float32"), "x")
    optimise([parameter], lambda step: parameter.sum(), plan, session, after=after)
    average = 0.0
    for n, value in enumerate(values):
        decay = min(0.5, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * value
    assert float(parameter.detach()) == pytest.approx(average, rel=1e-5)
    assert plan.rate(0) == 1.0
    assert Optimisation(steps=10, warmup=0).rate(10) == pytest.approx(5e-4 / 20)


def test_frechet_distance_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(50_000, 3)) * [1, 2, 3])
    y = torch.tensor(rng.normal(size=(50_000, 3)) * [2, 2, 1] + [0, 1, 0])
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, y) == pytest.approx(1 + 1 + 0 + 4, rel=0.03)
    one = torch.ones(1, 3)
    assert frechet(one, 3 * one) == pytest.approx(12), "a single image varies by nothing"


def spec(data: Path, **changes: object) -> NewPrior:
    values = {"size": 8, "device": "cpu", "training": TINY, "report": QUICK, **changes}
    return NewPrior(str(data), **values)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("images"), NAMES, 12)


def test_the_classifiers_key_says_how_a_gpu_makes_its_crops(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attar.priors.training.sample_quality.device_class", lambda device: "a GPU")
    images = load_data(str(data)).held_out()
    how = [ClassifierTraining(32, "resize-crop", True, device=torch.device(name)) for name in ("cpu", "cuda")]
    keys = [classifier_artefact(*images, each).recorded for each in how]
    assert [key.get("views") for key in keys] == [None, "crops of a batch at once"]


def test_a_prior_of_pixels_opens_in_diffusers_and_here(data: Path, tmp_path: Path, store: Store) -> None:
    from diffusers import DiTPipeline

    out, said = tmp_path / "out" / "prior", list[str]()
    train_new_prior(spec(data), out, store=store, say=said.append)
    assert any("36" in line or "33" in line for line in said)
    assert re.search(r"about [\d.]+ (s|min) on |about under 0.01 s on ", " ".join(said))
    pipeline = DiTPipeline.from_pretrained(out, vae=None)
    assert pipeline.get_label_ids(["dog <b>"]) == [sorted(NAMES).index("dog <b>")]
    prior = load_prior(str(out), device="cpu", store=store)
    assert prior.classes == tuple(sorted(NAMES))
    assert prior.codec.shape == (3, 8, 8)
    record = json.loads((out / "training.json").read_text())
    assert record["images_seen"] == 96
    assert record["measures"]["step"] == 12
    assert record["images"] == 33
    assert {"accuracy", "frechet", "frechet_real", "accuracy_real"} <= set(record["measures"])
    assert sorted(file.name for file in (out / "samples").iterdir()) == ["step-0000006.png", "step-0000012.png"]
    assert (out / "loss.png").stat().st_size > 1000
    assert "vae=None" in (out / "README.md").read_text()
    assert [json.loads(line)["step"] for line in (out / "losses.jsonl").read_text().splitlines()] == list(range(1, 13))
    assert not list(out.glob(".*"))
    assert not list(out.parent.glob(".*"))
    before = (out / "training.json").stat().st_mtime_ns
    train_new_prior(spec(data), out, store=store, say=said.append)
    assert "nothing to do" in said[-1]
    assert re.search(r"gives [\d.]+% of its samples their class \(real images [\d.]+%, chance 33.3%\)", said[-2])
    assert (out / "training.json").stat().st_mtime_ns == before
    with pytest.raises(AttarError, match="another run's prior"):
        train_new_prior(spec(data, flip=False), out, store=store)
    train_new_prior(spec(data), tmp_path / "copy", store=store, say=said.append)
    assert said[-3] == "trained already: it is only copied"


def test_a_forecast_times_no_more_rows_than_fill_a_cpu(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole batch of large images would take minutes, and all of the memory."""
    seen, told = list[int](), list[str]()

    def timed(network: Any, data: Any, scheduler: Any, training: Any, *_: Any) -> float:
        seen.append(training.batch)
        return 3.0

    monkeypatch.setattr("attar.priors.training.estimate.step_seconds", timed)
    monkeypatch.setattr("attar.core.batching.CPU_FILLED", 1)
    wanted = spec(data)
    train_new_prior(wanted, tmp_path / "a", store=store, say=told.append, dry_run=True)
    assert seen == [1]
    assert f"({duration(wanted.training.steps * 3.0 * wanted.training.batch)} for the steps" in told[0]


@pytest.mark.parametrize("codec", ["pixel", "autoencoder"])
def test_the_forecast_counts_latents_that_are_held_and_none_that_are_mapped(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    """Pixels are exact: no deviations are held."""
    monkeypatch.setattr("attar.priors.training.estimate.step_seconds", lambda *_: 1.0)
    monkeypatch.setattr("attar.priors.training.estimate.size", lambda count: f"{count}")
    exact = codec == "pixel"
    source = codec if exact else str(save_tiny_dit(tmp_path / "dit", NAMES))

    def forecast(held: int) -> list[int]:
        told: list[str] = []
        monkeypatch.setattr("attar.priors.training.estimate.IN_MEMORY", held)
        wanted = spec(data, codec=source, size=16)
        train_new_prior(wanted, tmp_path / "out", store=store, say=told.append, dry_run=True)
        return list(map(int, re.findall(r"(\d+) of (?:memory|disk)", told[0])))

    images, means = 3 * 11, (2 * 3 * 16 * 16 if exact else 2 * 2 * 4 * 8 * 8)
    assert forecast(0)[1] == 2 * images * means
    held, mapped = forecast(images * means)[0], forecast(images * means - 1)[0]
    assert held - mapped == images * means * (1 if exact else 2)


@pytest.mark.parametrize(
    ("size", "patch", "seconds", "told"),
    [
        (
            64,
            2,
            1e-9,
            "1,024 patches an image are many for a CPU: `patch` 4 makes a quarter of them, and an autoencoder",
        ),
        (36, 4, 1e-9, "81 patches an image are many for a CPU: a larger `patch` makes fewer, and an autoencoder"),
        (64, 2, 1e9, ""),
        (64, 8, 1e-9, ""),
    ],
)
def test_what_would_be_faster_is_said_where_patches_are_many(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, size: int, patch: int, seconds: float, told: str
) -> None:
    monkeypatch.setattr("attar.priors.training.estimate.LONG", seconds)
    data, said = save_folder(tmp_path / "images", NAMES, 12), list[str]()
    asked = spec(data, size=size, training=replace(TINY, patch=patch))
    train_new_prior(asked, tmp_path / "out", store=store, say=said.append, dry_run=True)
    assert told in said[-1]
    assert bool(told) == ("many for a CPU" in said[-1])


def test_the_forecast_counts_the_classifier_and_every_sample(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.training.estimate.step_seconds", lambda *_: 2.0)
    monkeypatch.setattr("attar.priors.training.estimate.timed", lambda _: 40.0)
    monkeypatch.setattr(PixelCodec, "batch_size", 4)
    monkeypatch.setattr("attar.priors.training.estimate.classifier_seconds", lambda *_: 500.0)
    monkeypatch.setattr("attar.priors.training.lesson.timed", lambda _: 1.0 * BATCH)
    drawn, plain = list[int](), Monitor._sampled

    def counted(monitor: Monitor, labels: list[int], *words: Any) -> Tensor:
        drawn.append(len(labels))
        return plain(monitor, labels, *words)

    monkeypatch.setattr(Monitor, "_sampled", counted)
    told: list[str] = []
    wanted = spec(data, report=Report(every=2, samples=7, steps=3, judge_steps=2))
    train_new_prior(wanted, tmp_path / "a", store=store, say=told.append)
    taught = 2 * (len(load_data(str(data)).held_out()[1]) + (1 + 6) * 7)  # of two networks: held out, real and sampled
    measured = f"{duration(500)} for a classifier that measures them, {duration(taught)} for what they teach)"
    samples = f" for {sum(drawn):,} samples, {measured}"
    passes = 2 * 3 * 40.0 / min(wanted.training.batch, 100)  # guided, in 3 steps, on a batch
    sampling = sum(drawn) * (passes + 40.0 / 4)
    assert f"({duration(2.0 * wanted.training.steps)} for the steps, {duration(sampling)}{samples}" in told[0]
    assert about(2.0 * wanted.training.steps + sampling + 500.0 + taught) in told[0]
    others = (replace(wanted, flip=False), replace(wanted, training=replace(wanted.training, seed=5)))
    for number, other in enumerate(others):
        train_new_prior(other, tmp_path / f"b{number}", store=store, say=told.append, dry_run=True)
    assert ["classifier" in line for line in told[-2:]] == [True, False]


def test_another_report_begins_no_training_again(
    data: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import attar.priors.training.train as training

    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    other = Report(every=5, samples=8, guidance=1.0, steps=3, judge_steps=3)
    train_new_prior(spec(data), tmp_path / "whole", store=Store(tmp_path / "other"), say=lambda line: None)
    drawn, seen = generator, list[int]()

    def dies(*parts: str | int) -> torch.Generator:
        seen.append(int(parts[-1]))
        if seen[-1] == 5 and seen.count(5) == 1:
            raise KeyboardInterrupt
        return drawn(*parts)

    monkeypatch.setattr(training, "generator", dies)
    with pytest.raises(KeyboardInterrupt):
        train_new_prior(spec(data), tmp_path / "out", store=store, say=lambda line: None)
    train_new_prior(spec(data, report=other), tmp_path / "out", store=store, say=lambda line: None)
    assert [step for step in seen if step > 3] == [4, 5, 5, 6, 7, 8, 9, 10, 11]  # an estimate takes the first few
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    measures = json.loads((tmp_path / "out" / "training.json").read_text())["measures"]
    assert (measures["step"], measures["samples"], measures["guidance"], measures["steps"]) == (12, 8, 1.0, 3)
    said, before = list[str](), len(seen)
    train_new_prior(spec(data), tmp_path / "out", store=store, say=said.append)
    assert said[-1].endswith("nothing to do; its measures are of the `report` in its training.json")
    assert len(seen) == before


def test_images_of_one_size_need_no_other(data: Path, tmp_path: Path, store: Store) -> None:
    said: list[str] = []
    train_new_prior(spec(data, size=None), tmp_path / "a", store=store, say=said.append)
    assert json.loads((tmp_path / "a" / "training.json").read_text())["settings"]["size"] == 16
    train_new_prior(spec(data, size=16), tmp_path / "a", store=store, say=said.append)
    assert "nothing to do" in said[-1]
    mixed = save_folder(tmp_path / "mixed", ["cat"], 3)
    save_folder(mixed, ["dog"], 3, size=20)
    with pytest.raises(AttarError, match=r"`codec` pixel needs a `size`, in pixels: the images of .* are of several"):
        train_new_prior(spec(mixed, size=None), tmp_path / "b", store=store)


@pytest.mark.parametrize(
    ("accuracy", "told"),
    [
        (55.0, r"chance 10\.0%\)$"),
        (31.0, "a weak prior, whose images may be worth less"),
        (13.0, "no better than chance"),
    ],
)
def test_a_weak_prior_is_called_so(accuracy: float, told: str) -> None:
    assert re.search(told, quality_in_words({"accuracy": accuracy, "accuracy_real": 65.0, "samples": 500}, 10))


def test_what_is_in_the_way_is_refused(data: Path, tmp_path: Path, store: Store) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(AttarError, match="is not empty"):
        train_new_prior(spec(data), tmp_path, store=store)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 9}, "patch 2 does not divide"),
        ({"codec": "train", "size": 9}, "multiple of 4"),
        ({"codec": "."}, r"`codec` \."),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    data: Path, tmp_path: Path, store: Store, changes: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes = dict(changes)
    with pytest.raises(AttarError, match=message):
        train_new_prior(spec(Path(str(changes.pop("data", data))), **changes), tmp_path / "out", store=store)


def test_an_autoencoder_is_trained_first(data: Path, tmp_path: Path, store: Store) -> None:
    from diffusers import DiTPipeline

    vae = Autoencoding(steps=8, batch=4, width=8, shrink=2, channels=2, warmup=1)
    new = spec(data, codec="train", size=16, vae=vae)
    train_new_prior(new, tmp_path / "out", store=store, say=lambda text: None)
    pipeline = DiTPipeline.from_pretrained(tmp_path / "out")
    prior = load_prior(str(tmp_path / "out"), device="cpu", store=store)
    assert prior.codec.size == 16
    assert prior.codec.shape == (2, 8, 8)
    means = torch.cat(
        [
            shard.mean
            for label in range(3)
            for shard in Latents(load_data(str(data)), prior.codec, "adm", store, {}).shards(label)
        ]
    )
    assert float(means.float().std()) == pytest.approx(1.0, abs=0.1)
    assert pipeline.vae.config.scaling_factor != 1


def train_once(data: Path, out: Path, cache: Path, fatal: int) -> None:
    """Runs in a process of its own, and dies there when it draws for the step `fatal`."""

    def dying(*parts: str | int) -> torch.Generator:
        if parts[-1] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return generator(*parts)

    patch = pytest.MonkeyPatch()
    patch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    patch.setattr("attar.priors.training.train.generator", dying)
    train_new_prior(spec(data), out, store=Store(cache), say=lambda text: None)


def test_a_killed_training_ends_with_the_same_files(data: Path, tmp_path: Path, store: Store) -> None:
    train_new_prior(spec(data), tmp_path / "straight", store=store, say=lambda text: None)
    cache, out = tmp_path / "cache2", tmp_path / "cut"
    shutil.copytree(store.root / "judge", cache / "judge")
    assert ended(train_once, data, out, cache, 8) == -signal.SIGKILL
    assert not out.exists()
    assert len(list(cache.glob("prior/.*.partial/.checkpoint"))) == 1
    assert ended(train_once, data, out, cache, -1) == 0
    straight, cut = weights(tmp_path / "straight"), weights(out)
    assert all(torch.equal(straight[name], cut[name]) for name in straight)
    for name in ("losses.jsonl", "measures.jsonl", "samples/step-0000012.png"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_the_command_reads_flags_and_toml(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from attar.cli import app

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    config = tmp_path / "prior.toml"
    config.write_text('codec = "grey"\nsize = 8\nhidden = 16\nlayers = 1\nheads = 2\nlearned-sigma = true\n')
    arguments = ["train-prior", "--data", str(data), "--out", str(tmp_path / "out"), "--config", str(config)]
    done = CliRunner().invoke(app, [*arguments, "--steps", "7", "--set", "report.samples=4", "--dry-run"])
    assert done.exit_code == 0, done.exception
    assert "7 steps of 128" in done.output
    assert not (tmp_path / "out").exists()
    config.write_text("hiden = 16\n")
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, AttarError)
    assert "unknown key hiden" in str(done.exception)
    done = CliRunner().invoke(app, ["train-prior", "--data", str(data), "--out", "x", "--set", "training.hiden=3"])
    assert isinstance(done.exception, AttarError)
    assert "did you mean 'hidden'" in str(done.exception)
    done = CliRunner().invoke(app, ["train-prior", "--data", str(data)])
    assert "`out` is missing" in str(done.exception)


def test_tied_networks_compile_nothing_into_their_files() -> None:
    network = untrained((1, 4, 4), 2, TINY, 0)
    names = set(SharedDiT(network.with_own_embedders()).with_own_embedders().state_dict())
    assert all(not name.startswith("_orig_mod") for name in names)
    assert sum("embedding_table" in name for name in names) == TINY.layers


def test_what_a_killed_copy_left_is_removed(tmp_path: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "out"
    for folder, name in ((made, "whole"), (tmp_path / ".out.partial", "half")):
        folder.mkdir()
        (folder / name).touch()
    publish(made, out)
    assert [file.name for file in out.iterdir()] == ["whole"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "out"]


def test_the_users_cache_is_left_alone() -> None:
    from platformdirs import user_cache_dir

    assert not Store().root.is_relative_to(user_cache_dir("attar"))
    assert "attar-cache" in Store().root.name


def test_a_prior_that_predicts_velocity_says_so_and_is_sampled_as_one(data: Path, tmp_path: Path, store: Store) -> None:
    made = {}
    for prediction in ("epsilon", "v_prediction"):
        training = replace(spec(data).training, prediction=prediction)
        train_new_prior(spec(data, training=training), tmp_path / prediction, store=store, say=lambda _: None)
        made[prediction] = load_prior(str(tmp_path / prediction), device="cpu", store=store)
    assert [prior.schedule.prediction for prior in made.values()] == ["epsilon", "v_prediction"]
    assert made["epsilon"].key != made["v_prediction"].key
    assert (
        json.loads((tmp_path / "v_prediction" / "scheduler" / "scheduler_config.json").read_text())["prediction_type"]
        == "v_prediction"
    )


def test_a_prior_without_a_later_setting_keeps_its_key() -> None:
    as_before = {"is": "Training", **{f.name: getattr(TINY, f.name) for f in fields(TINY)}}
    for later in ("prediction", "align_weight"):
        del as_before[later]
    assert canonical(TINY) == as_before
    assert "align" not in canonical(NewPrior("digits"))
    other = replace(TINY, prediction="v_prediction")
    assert canonical(other) == {**as_before, "prediction": "v_prediction"}


@pytest.mark.parametrize(
    ("side", "precision", "device", "plain"),
    [(16, "bf16", "cpu", True), (18, "bf16", "cpu", False), (16, "no", "cpu", False), (16, "bf16", "cuda", False)],
)
def test_few_tokens_are_attended_by_plain_products_in_bfloat16_on_a_cpu(
    side: int, precision: str, device: str, plain: bool
) -> None:
    network = untrained((3, side, side), 2, TINY, 0)
    helper: Any = SimpleNamespace(device=torch.device(device), mixed_precision=precision)
    usual = torch.backends.cuda.flash_sdp_enabled()
    with attention_of(network, helper):
        assert torch.backends.cuda.flash_sdp_enabled() == (usual and not plain)
    assert torch.backends.cuda.flash_sdp_enabled() == usual


def test_priors_of_a_cpu_in_bfloat16_say_in_their_keys_how_they_attend(data: Path, store: Store) -> None:
    runs = {dtype: TrainingRun(spec(data, dtype=dtype), store) for dtype in ("float32", "bfloat16")}
    told = {dtype: "attention" in run.artefact(PixelCodec(8, 3)).inputs for dtype, run in runs.items()}
    assert told == {"float32": False, "bfloat16": True}
