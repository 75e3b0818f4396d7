"""Half precision: networks whose weights are cast once, near those of float32, and trained from float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import save_folder, save_tiny_dit, save_tiny_sd

from attar.core.batching import Probe, choose
from attar.core.rng import noise
from attar.core.store import Store
from attar.diffusion import Sampler, sample
from attar.distillation.outlook import measured
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.minimax.loss import MinimaxLoss
from attar.priors import load_prior
from attar.priors.codec import AutoencoderCodec
from attar.priors.prior import Prior
from attar.priors.prompts import Prompts
from attar.priors.training.finetune import finetune_prior
from attar.priors.training.settings import AdaptedPrior, Denoising, Report
from attar.priors.training.weightless import described_prior

HALVES = ("bfloat16", "float16")
BOUNDS = {"bfloat16": 0.05, "float16": 0.01}
"""Distance from float32's result over its norm, of a call and of sampled latents: seven digits less three or four."""
CLASSES = ["ant", "bee", "cat", "dog"]


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def dtypes(network: torch.nn.Module) -> set[torch.dtype]:
    return {p.dtype for p in network.parameters()}


@pytest.fixture(params=["dit", "sd"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> Any:
    """Opens a tiny prior in a number format."""
    sd = request.param == "sd"
    folder = save_tiny_sd(tmp_path / "sd") if sd else save_tiny_dit(tmp_path / "dit", CLASSES)
    told = Prompts(tuple(CLASSES), tuple(CLASSES)) if sd else None
    return lambda dtype: load_prior(str(folder), device="cpu", dtype=dtype, prompts=told, store=store)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_weights_are_near_float32_in_a_call_and_in_latents(opened: Any, dtype: str) -> None:
    plain: Prior = opened("float32")
    half: Prior = opened(dtype)
    assert dtypes(half.network) == {getattr(torch, dtype)}
    assert half.key == plain.key, "it names the files' weights"
    z, y = noise((6, *plain.codec.shape), "half"), torch.arange(6) % 4
    with torch.inference_mode():
        called, expected = half(z, 501, y), plain(z, 501, y)
    assert called.dtype == torch.float32
    assert 0 < apart(called, expected) < BOUNDS[dtype]
    sampler = Sampler(steps=10, guidance=2.0)
    latents, exact = (sample(prior, z, 900, y, sampler) for prior in (half, plain))
    assert latents.dtype == torch.float32
    assert 0 < apart(latents, exact) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_codecs_weights_are_cast_to_bfloat16_and_not_to_float16(opened: Any, dtype: str) -> None:
    plain, codec = opened("float32").codec, opened(dtype).codec
    assert isinstance(codec, AutoencoderCodec)
    assert dtypes(codec.vae) == {torch.bfloat16 if dtype == "bfloat16" else torch.float32}
    assert codec.key == plain.key
    images = noise((5, 3, codec.size, codec.size), "half").clamp(-1, 1)
    for found, expected in zip(codec.encode(images), plain.encode(images), strict=True):
        assert found.dtype == torch.float32
        assert 0 < apart(found, expected) < BOUNDS[dtype]
    z = noise((5, *codec.shape), "half")
    assert 0 < apart(codec.decode(z), plain.decode(z)) < BOUNDS[dtype]


def job_of(root: Path, store: Store, dtype: str) -> Job:
    if not (root / "dit").is_dir():
        save_folder(root / "data", CLASSES, each=12)
        save_tiny_dit(root / "dit", CLASSES)
    return Job(Spec(data=f"imagefolder:{root / 'data'}", prior=str(root / "dit"), device="cpu", dtype=dtype), store)


def test_keys_name_half_weights_and_not_those_of_float32(tmp_path: Path, store: Store) -> None:
    plain, brain, half = (job_of(tmp_path, store, dtype) for dtype in ("float32", *HALVES))
    for inputs in (plain.compute, plain.encoding):
        assert set(inputs) == {"device", "dtype", "torch", "diffusers", "revision", "tile"}
    assert [brain.compute["weights"], brain.encoding["weights"], half.compute["weights"]] == [
        *HALVES[:1] * 2,
        "float16",
    ]
    assert "weights" not in half.encoding


def test_a_batch_is_proved_anew_for_half_weights(tmp_path: Path, store: Store) -> None:
    class Network:
        tried = 0

        def __init__(self, weights: torch.dtype) -> None:
            self.weights = weights

        def exact_at(self, batch_size: int) -> bool:
            self.tried += 1
            return True

        def row_flops(self) -> int:
            return 0

    for weights in (torch.float32, torch.bfloat16):
        for tried in (1, 0):
            network = Network(weights)
            Probe({}, network, torch.device("cpu"), torch.bfloat16, store).chosen()
            assert network.tried == tried


def test_both_halves_of_a_guided_call_share_its_batches(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in ("float32", "bfloat16"):
        prior: Prior = opened(dtype).with_batch_size(8)
        z, y, rows = noise((10, *prior.codec.shape), "half"), torch.arange(10) % 4, list[int]()
        with torch.inference_mode():
            apart = prior(z, 500, y), prior(z, 500, torch.full_like(y, prior.null))
            prior.network.register_forward_pre_hook(lambda _, given, seen=rows: seen.append(len(given[0])))
            together = prior.both(z, 500, y)
        assert rows == [8, 8, 8]
        assert all(map(torch.equal, together, apart))


def test_a_guided_step_makes_one_call_and_a_plain_one_asks_for_no_null_label(opened: Any) -> None:
    prior: Prior = opened("float32").with_batch_size(16)
    z, y, labels = noise((8, *prior.codec.shape), "half"), torch.arange(8) % 4, list[Tensor]()
    prior.network.register_forward_pre_hook(lambda _, given: labels.append(given[2]))
    sample(prior, z, 900, y, Sampler(steps=10, guidance=2.0, guided_times=(0, 500)))
    nulls = [int((given == prior.null).sum()) for given in labels]
    assert nulls == [0] * 4 + [8] * 6


def test_a_call_in_half_precision_has_more_rows_on_a_cpu() -> None:
    assert choose(torch.device("cpu"), lambda rows: True, weights=torch.bfloat16) == 32
    assert choose(torch.device("cpu"), lambda rows: rows < 32, weights=torch.float16) == 16
    assert choose(torch.device("cpu"), lambda rows: True, 20, torch.bfloat16) == 16


MINIMAX: dict[str, Any] = {"fit.batch": 4, "fit.max_steps": 3, "fit.monitor.times": 0, "sampler.steps": 4}


@pytest.mark.parametrize("adapt", ["difffit", "lora"])
def test_minimax_tunes_float32_weights_and_samples_half_ones(
    adapt: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if adapt == "lora":
        pytest.importorskip("peft")
    method: Any = load_method("minimax", {**MINIMAX, "fit.adapt": adapt})
    trained, call = set[torch.dtype](), MinimaxLoss.__call__

    def noting(loss: MinimaxLoss, step: int) -> Tensor:
        trained.update(dtypes(loss.network))
        return call(loss, step)

    monkeypatch.setattr(MinimaxLoss, "__call__", noting)
    job, plain = job_of(tmp_path, store, "bfloat16"), job_of(tmp_path, store, "float32")
    learnt = method.fit.run(job, list(job.labels), tmp_path)
    assert trained == {torch.float32} == {value.dtype for value in learnt.values()}
    z, y, outputs = noise((4, *job.codec.shape), "half"), torch.arange(4), []
    for prior in (job.prior, plain.prior):
        with method.fit.adapted(prior, learnt) as adapted, torch.inference_mode():
            assert dtypes(adapted.network) == {prior.dtype}
            outputs.append(adapted(z, 500, y))
    assert 0 < apart(*outputs) < BOUNDS["bfloat16"]
    assert dtypes(job.prior.network) == {torch.bfloat16}
    assert job.master() is not job.prior
    assert plain.master() is plain.prior


def test_a_prior_is_fine_tuned_from_float32_weights(tmp_path: Path, store: Store) -> None:
    job_of(tmp_path, store, "float32")
    brief = Denoising(steps=1, batch=4, learning_rate=1e-12, warmup=1, min_snr=None)
    spec = AdaptedPrior(
        data=str(tmp_path / "data"),
        prior=str(tmp_path / "dit"),
        device="cpu",
        dtype="bfloat16",
        training=brief,
        report=Report(samples=4, steps=2, judge_steps=2),
    )
    finetune_prior(spec, tmp_path / "tuned", store=store, say=lambda text: None)
    before, after = (load_prior(str(tmp_path / name), device="cpu", tile=1, store=store) for name in ("dit", "tuned"))
    z, y = noise((2, *before.codec.shape), "half"), torch.arange(2)
    torch.testing.assert_close(after(z, 500, y), before(z, 500, y), rtol=1e-4, atol=1e-4)


def test_half_weights_count_half_and_flops_the_same(opened: Any) -> None:
    plain, half = (measured(opened(dtype)) for dtype in ("float32", "bfloat16"))
    assert (half.network, half.encoder, half.decoder) == (plain.network, plain.encoder, plain.decoder)
    assert half.weights == plain.weights // 2
    assert (plain.master, half.master > 0) == (0, True)


@pytest.mark.parametrize("name", ["DiT-XL/2-256", "stable-diffusion-v1-5"])
def test_the_block_of_a_described_prior_has_half_weights(name: str) -> None:
    architecture = described_prior(name, torch.device("cpu"), torch.bfloat16)
    assert dtypes(architecture.block) == {torch.bfloat16}
