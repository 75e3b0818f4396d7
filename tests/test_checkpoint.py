"""Every form of original checkpoint loads, and what is none is refused by name."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from toys import original_dit, original_weights, save_tiny_dit

from attar.core.errors import AttarError
from attar.priors import load_prior
from attar.priors.dit import Conventions
from attar.priors.original_dit import original_transformer, read_checkpoint


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return original_weights()


@pytest.fixture
def vae(tmp_path: Path) -> str:
    return str(save_tiny_dit(tmp_path / "vae", None))


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
def test_every_form_of_checkpoint_loads(form: str, tmp_path: Path, vae: str, weights: dict[str, Tensor]) -> None:
    prior = load_prior(str(written(tmp_path, form, weights)), device="cpu", codec=vae)
    z, y = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([7, 10])
    expected = original_dit(weights, z, torch.full((2,), 480), y, 4)
    assert expected.std() > 0.1
    torch.testing.assert_close(prior(z, 480, y), expected, rtol=1e-4, atol=1e-4)
    assert (prior.null, prior.n_classes, prior.classes, prior.codec.shape) == (10, 10, None, (4, 8, 8))


def test_converting_leaves_the_global_generator_alone(weights: dict[str, Tensor]) -> None:
    before = torch.get_rng_state()
    original_transformer(weights, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_the_key_tells_conventions_and_heads_apart(tmp_path: Path, vae: str, weights: dict[str, Tensor]) -> None:
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


def test_a_checkpoint_of_a_thousand_classes_is_imagenets(tmp_path: Path, vae: str, weights: dict[str, Tensor]) -> None:
    rows = torch.zeros(1001, 48)
    file = written(tmp_path, "model", {**weights, "y_embedder.embedding_table.weight": rows})
    prior = load_prior(str(file), device="cpu", tile=1, codec=vae)
    assert prior.null == 1000
    assert prior.classes is not None
    assert prior.classes[0] == "tench, Tinca tinca"
    assert prior.classes[999].startswith("toilet tissue")
    file.with_suffix(".json").write_text('{"num_heads": 4, "id2label": {"0": "a"}}')
    with pytest.raises(AttarError, match=r"dit.json: id2label must name the classes 0 to 999.* see to 1, 2, 3, 4"):
        load_prior(str(file), device="cpu", tile=1, codec=vae)


@pytest.mark.parametrize(("hidden", "heads"), [(384, 6), (768, 12), (1152, 16)])
def test_the_known_sizes_need_no_heads(hidden: int, heads: int) -> None:
    network = original_transformer(original_weights(hidden, depth=1))
    config = network.config
    assert (config.num_attention_heads, config.num_attention_heads * config.attention_head_dim) == (heads, hidden)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["ATTACKED"]),))


def broken(folder: Path, kind: str, weights: dict[str, Tensor]) -> Path:
    file = folder / "dit.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"model": Attack()}, protocol=2))
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
    kind: str, message: str, tmp_path: Path, vae: str, monkeypatch: pytest.MonkeyPatch, weights: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    with pytest.raises(AttarError, match=rf"`prior` .*dit.pt: .*{message}"):
        load_prior(str(broken(tmp_path, kind, weights)), device="cpu", tile=1, codec=vae)
    assert not (tmp_path / "attacked").exists()


def test_a_missing_file_and_an_odd_sidecar_are_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    with pytest.raises(AttarError, match=r"nowhere.pt: there is no such file"):
        load_prior(str(tmp_path / "nowhere.pt"), device="cpu")
    file = written(tmp_path, "model", weights)
    file.with_suffix(".json").write_text('{"heads": 4}')
    with pytest.raises(AttarError, match=r"dit.json: beside a checkpoint, it may hold"):
        read_checkpoint(file)
