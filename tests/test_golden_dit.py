"""Original checkpoints, guidance and DDPM held to arrays recorded from the original DiT; or those of ATTAR_GOLDEN."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from toys import linear_schedule, save_tiny_dit

from attar.diffusion import Sampler, guided_output, sample
from attar.errors import AttarError
from attar.priors import load_prior
from attar.priors.checkpoint import merged, original_transformer, read_checkpoint
from attar.priors.dit import Conventions, DiT

pytestmark = pytest.mark.golden
GOLDEN = Path(os.environ.get("ATTAR_GOLDEN", Path(__file__).parent / "golden"))


def recorded(file: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    with safe_open(file, "pt") as opened:
        arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        sizes = opened.metadata()
    weights = {key.removeprefix("model."): value for key, value in arrays.items() if key.startswith("model.")}
    return arrays, weights, sizes


def same(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


class Recorded:
    """The network of a recording, as a denoiser."""

    null = 10

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.network, self.schedule = DiT(original_transformer(weights, 4)), linear_schedule()

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        return self.network(z, torch.full((len(z),), t), y)


@pytest.fixture
def vae(tmp_path: Path) -> str:
    return str(save_tiny_dit(tmp_path / "vae", None))


def test_the_original_network() -> None:
    arrays, weights, sizes = recorded(GOLDEN / "dit.safetensors")
    network = DiT(original_transformer(weights, int(sizes["num_heads"])))
    with torch.no_grad():
        same(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"])
    assert network.conventions == Conventions(frequency_shift=0, norm_eps=1e-6)
    assert network.learned_sigma
    blocks = network.transformer.transformer_blocks
    assert all(block.norm1.emb is blocks[0].norm1.emb for block in blocks)


@pytest.mark.parametrize("convention", ["frequencies", "epsilon"])
def test_each_convention_is_seen_in_the_output(convention: str) -> None:
    arrays, weights, _ = recorded(GOLDEN / "dit.safetensors")
    network = DiT(original_transformer(weights, 4))
    if convention == "frequencies":
        network.transformer.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 1
    else:
        for block in network.transformer.transformer_blocks:
            block.norm3.eps = 1e-3
    with torch.no_grad():
        assert not torch.allclose(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"], rtol=1e-4, atol=1e-5)


def test_guidance_on_the_first_three_channels() -> None:
    arrays, weights, sizes = recorded(GOLDEN / "dit.safetensors")
    prior, t = Recorded(weights), int(arrays["cfg_t"][0])
    half = len(arrays["cfg_z"]) // 2
    z, y, scale = arrays["cfg_z"][:half], arrays["cfg_y"][:half], float(sizes["cfg_scale"])
    with torch.no_grad():
        noise, variance = guided_output(prior, z, t, y, scale, int(sizes["guided_channels"]))
    assert variance is not None
    same(torch.cat([noise, variance], 1), arrays["cfg_out"][:half])


def test_ddpm_with_learned_range_variance() -> None:
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    arrays, _, sizes = recorded(GOLDEN / "ddpm.safetensors")
    times = arrays["timesteps"].tolist()
    sampler = Sampler(
        solver="ddpm",
        steps=int(sizes["steps"]),
        guidance=float(sizes["cfg_scale"]),
        guided_channels=int(sizes["guided_channels"]),
        spacing="linspace",
    )
    drawn = dict(zip(times[::-1], arrays["noise"], strict=True))
    made = sample(Recorded(weights), arrays["z"], times[-1], arrays["labels"], sampler, noise=drawn.__getitem__)
    torch.testing.assert_close(made, arrays["out"], rtol=1e-4, atol=1e-4)


def test_the_scales_of_minimax_merge_into_plain_weights() -> None:
    arrays, weights, _ = recorded(GOLDEN / "minimax_dit.safetensors")
    assert any(name.endswith("gamma1") for name in weights)
    assert not any("gamma" in name for name in merged(weights))
    network = DiT(original_transformer(weights, 4))
    with torch.no_grad():
        same(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"])
    unscaled = DiT(original_transformer({name: w for name, w in weights.items() if "gamma" not in name}, 4))
    with torch.no_grad():
        assert not torch.allclose(unscaled(arrays["z"], arrays["t"], arrays["y"]), arrays["out"], rtol=1e-2, atol=1e-2)


def written(folder: Path, form: str, weights: dict[str, Tensor]) -> Path:
    file = folder / ("dit.safetensors" if form == "safetensors" else "dit.pt")
    if form == "safetensors":
        save_file(weights, file, {"num_heads": "4"})
        return file
    wrong = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    forms: dict[str, Any] = {
        "bare": weights,
        "model": {"model": weights, "epoch": 3},
        "training": {
            "model": wrong,
            "ema": weights,
            "args": argparse.Namespace(model="DiT-XL/2"),
            "opt": {"state": {}},
        },
    }
    torch.save(forms[form], file, _use_new_zipfile_serialization=form != "bare")
    file.with_suffix(".json").write_text(json.dumps({"num_heads": 4}))
    return file


@pytest.mark.parametrize("form", ["bare", "model", "training", "safetensors"])
def test_every_form_of_checkpoint_loads(form: str, tmp_path: Path, vae: str) -> None:
    arrays, weights, _ = recorded(GOLDEN / "dit.safetensors")
    prior = load_prior(str(written(tmp_path, form, weights)), device="cpu", tile=4, codec=vae)
    z, y = arrays["z"][2:3], arrays["y"][2:3]
    same(prior(z, 480, y), arrays["out"][2:3])
    assert (prior.null, prior.n_classes, prior.classes, prior.codec.shape) == (10, 10, None, (4, 8, 8))


def test_converting_leaves_the_global_generator_alone() -> None:
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    before = torch.get_rng_state()
    original_transformer(weights, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_the_key_tells_conventions_and_heads_apart(tmp_path: Path, vae: str) -> None:
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    file = written(tmp_path, "model", weights)
    key = load_prior(str(file), device="cpu", tile=1, codec=vae).key
    file.with_suffix(".json").write_text('{"num_heads": 8}')
    assert load_prior(str(file), device="cpu", tile=1, codec=vae).key != key
    folder = save_tiny_dit(tmp_path / "dit", None)
    keys = [load_prior(str(folder), device="cpu", tile=1).key]
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_frequency_shift": 0}))
    prior = load_prior(str(folder), device="cpu", tile=1)
    assert prior.key not in keys
    assert prior.network.conventions == Conventions(0, 1e-5)

    from diffusers import DiTPipeline

    DiTPipeline.from_pretrained(folder)


def test_a_checkpoint_of_a_thousand_classes_is_imagenets(tmp_path: Path, vae: str) -> None:
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    rows = torch.zeros(1001, 48)
    file = written(tmp_path, "model", {**weights, "y_embedder.embedding_table.weight": rows})
    prior = load_prior(str(file), device="cpu", tile=1, codec=vae)
    assert prior.null == 1000
    assert prior.classes is not None
    assert prior.classes[0] == "tench, Tinca tinca"
    assert prior.classes[999].startswith("toilet tissue")
    file.with_suffix(".json").write_text('{"num_heads": 4, "id2label": {"0": "a"}}')
    with pytest.raises(AttarError, match="id2label must name the classes 0 to 999"):
        load_prior(str(file), device="cpu", tile=1, codec=vae)


@pytest.mark.parametrize(("hidden", "heads"), [(384, 6), (768, 12), (1152, 16)])
def test_the_known_sizes_need_no_heads(hidden: int, heads: int) -> None:
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    small = {name: weight for name, weight in weights.items() if not name.startswith(("blocks.1.", "blocks.2."))}
    shapes = {
        name: [side // 48 * hidden if side % 48 == 0 else side for side in weight.shape]
        for name, weight in small.items()
    }
    network = original_transformer({name: torch.zeros(shape) for name, shape in shapes.items()})
    config = network.config
    assert (config.num_attention_heads, config.num_attention_heads * config.attention_head_dim) == (heads, hidden)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["ATTACKED"]),))


def broken(folder: Path, kind: str, weights: dict[str, Tensor]) -> Path:
    file = folder / "dit.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"model": Attack()}))
        return file
    if kind == "truncated":
        torch.save(weights, file)
        file.write_bytes(file.read_bytes()[:2000])
        return file
    changed: dict[str, Any] = {
        "heads": weights,
        "list": [1, 2],
        "lacking": {name: w for name, w in weights.items() if "blocks.1.mlp.fc1.bias" not in name},
        "unknown": {**weights, "blocks.0.moe.weight": torch.zeros(3)},
        "shape": {**weights, "blocks.2.mlp.fc2.bias": torch.zeros(7)},
        "square": {**weights, "pos_embed": torch.zeros(1, 15, 48)},
    }
    torch.save(changed[kind], file)
    if kind not in ("heads", "list"):
        file.with_suffix(".json").write_text('{"num_heads": 4}')
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickle", "could run code"),
        ("truncated", "is it whole"),
        ("list", "no table of weights"),
        ("heads", r"heads for hidden size 48 is not known.*dit.json"),
        ("lacking", r"has no weight 'blocks.1.mlp.fc1.bias'"),
        ("unknown", r"unknown weights blocks.0.moe.weight"),
        ("shape", r"size mismatch.*ff.net.2.bias"),
        ("square", "position or time embedding"),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    with pytest.raises(AttarError, match=rf"--prior .*dit.pt: .*{message}"):
        load_prior(str(broken(tmp_path, kind, weights)), device="cpu", tile=1, codec="pixel")
    assert not (tmp_path / "attacked").exists()


def test_a_missing_file_and_an_odd_sidecar_are_named(tmp_path: Path) -> None:
    with pytest.raises(AttarError, match=r"nowhere.pt: there is no such file"):
        load_prior(str(tmp_path / "nowhere.pt"), device="cpu")
    _, weights, _ = recorded(GOLDEN / "dit.safetensors")
    file = written(tmp_path, "model", weights)
    file.with_suffix(".json").write_text('{"heads": 4}')
    with pytest.raises(AttarError, match=r"dit.json: beside a checkpoint, it may hold"):
        read_checkpoint(file)
