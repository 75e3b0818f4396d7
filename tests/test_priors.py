from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import save_tiny_dit

from attar.codec import PixelCodec, to_float, to_uint8
from attar.errors import AttarError
from attar.keys import generator
from attar.priors import load_prior
from attar.priors.classes import match
from attar.priors.train import Training, train_prior

NAMES = [f"class {label}" for label in range(10)]


def test_the_output_is_that_of_the_diffusers_network(tmp_path: Path) -> None:
    from diffusers import DiTTransformer2DModel

    folder = save_tiny_dit(tmp_path / "dit", NAMES)
    prior = load_prior(str(folder), device="cpu", tile=3)
    theirs = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer").eval()
    z, y = torch.randn(5, 4, 8, 8), torch.tensor([0, 3, 9, 10, 10])
    with torch.no_grad():
        output = theirs(z, timestep=torch.full((5,), 400), class_labels=y).sample
    torch.testing.assert_close(prior(z, 400, y), output, rtol=1e-4, atol=1e-5)
    assert (prior.null, prior.n_classes, prior.classes) == (10, 10, tuple(NAMES))
    assert prior.codec.size == 16
    assert prior.codec.shape == (4, 8, 8)


def test_the_codec_is_that_of_diffusers(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    folder = save_tiny_dit(tmp_path / "dit", NAMES)
    codec = load_prior(str(folder), device="cpu", tile=2).codec
    theirs = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        posterior = theirs.encode(images).latent_dist
        decoded = theirs.decode(posterior.mean).sample.clamp(-1, 1)
    mean, std = codec.encode(images)
    torch.testing.assert_close(mean, posterior.mean * 0.5)
    torch.testing.assert_close(std, posterior.std * 0.5)
    torch.testing.assert_close(codec.decode(mean), decoded, rtol=1e-4, atol=1e-5)


def test_the_key_tells_weights_and_schedules_apart(tmp_path: Path) -> None:
    folder = save_tiny_dit(tmp_path / "dit", NAMES)
    key = load_prior(str(folder), device="cpu", tile=1).key
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"linear"', '"scaled_linear"'))
    assert load_prior(str(folder), device="cpu", tile=1).key != key


@pytest.mark.parametrize("wrong", ["nowhere/at-all", "empty"])
def test_what_is_no_prior_is_refused(tmp_path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AttarError, match=r"--prior .*(nowhere|empty)"):
        load_prior(str(tmp_path / wrong) if wrong == "empty" else wrong, device="cpu")


def test_another_pipeline_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(AttarError, match="FluxPipeline"):
        load_prior(str(tmp_path), device="cpu")


def test_classes_are_matched_by_name_and_synonym() -> None:
    known = ["tench, Tinca tinca", "great white shark", "Tabby-Cat"]
    assert match(["tabby cat", "Tinca_tinca"], known, 3, ["tabby cat", "Tinca_tinca"]) == [2, 0]


def test_every_unmatched_class_is_listed() -> None:
    with pytest.raises(AttarError) as caught:
        match(["shark", "tench", "dgo"], ["tench", "dog"], 2, ["shark", "tench", "dgo"])
    assert "'shark'" in str(caught.value)
    assert "did you mean 'dog'" in str(caught.value)
    assert "'tench'" not in str(caught.value)


def test_ambiguous_names_are_refused() -> None:
    with pytest.raises(AttarError, match=r"crane.*\(0, 1\)"):
        match(["crane"], ["crane", "crane, derrick"], 2, ["crane"])


def test_a_prior_without_names_is_matched_by_position_of_the_whole_data() -> None:
    assert match(["c", "a"], None, 3, ["a", "b", "c"]) == [2, 0]
    with pytest.raises(AttarError, match="4 classes without names and the data 3"):
        match(["a"], None, 4, ["a", "b", "c"])


def test_pixels_survive_the_pixel_codec() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    codec = PixelCodec(4)
    mean, std = codec.encode(to_float(pixels))
    assert np.array_equal(to_uint8(codec.decode(mean)), pixels)
    assert not std.any()
    grey = np.repeat(pixels[..., :1], 3, axis=3)
    assert np.array_equal(to_uint8(PixelCodec(4, 1).decode(PixelCodec(4, 1).encode(to_float(grey))[0])), grey)


TINY = Training(hidden=16, layers=2, heads=2, patch=2, steps=30, batch=8, learning_rate=1e-3)


def trained(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    folder.mkdir(exist_ok=True)
    latents = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    train_prior(latents, np.arange(64) % 4, list("abcd"), TINY, folder)
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import attar.priors.train as training

    straight = trained(tmp_path / "straight")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    drawn = generator

    def dies(*parts: str | int) -> torch.Generator:
        if parts[-1] == 17:
            raise KeyboardInterrupt
        return drawn(*parts)

    monkeypatch.setattr(training, "generator", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut")
    monkeypatch.setattr(training, "generator", drawn)
    resumed = trained(tmp_path / "cut")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_trained_prior_opens_in_diffusers_with_its_embedders_written_untied(tmp_path: Path) -> None:
    from diffusers import DiTPipeline

    weights = trained(tmp_path / "prior")
    assert {f"transformer_blocks.{block}.norm1.emb.class_embedder.embedding_table.weight" for block in (0, 1)} <= set(
        weights
    )
    pipeline = DiTPipeline.from_pretrained(tmp_path / "prior", vae=None)
    assert pipeline.get_label_ids(["c"]) == [2]
    prior = load_prior(str(tmp_path / "prior"), device="cpu", tile=2)
    assert prior.classes == tuple("abcd")
    assert prior.codec.key == "pixel-1x8"
