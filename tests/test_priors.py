from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.rng import generator
from attar.core.store import Artefact, Store
from attar.data import load_data
from attar.data.class_names import match
from attar.priors import known_classes, load_prior
from attar.priors.codec import PixelCodec, to_float, to_uint8
from attar.priors.digits import digits_prior
from attar.priors.latents import Latents
from attar.priors.prior import Prior
from attar.priors.training.settings import Autoencoding, Training
from attar.priors.training.train import train_prior
from attar.priors.training.vae import train_vae

NAMES = [f"class {label}" for label in range(10)]


def test_the_output_is_that_of_the_diffusers_network(tmp_path: Path) -> None:
    from diffusers import DiTTransformer2DModel

    folder = save_tiny_dit(tmp_path / "dit", NAMES)
    prior = load_prior(str(folder), device="cpu")
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
    codec = load_prior(str(folder), device="cpu").codec
    theirs = AutoencoderKL.from_pretrained(folder, subfolder="vae").eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        posterior = theirs.encode(images).latent_dist
        decoded = theirs.decode(posterior.mean).sample.clamp(-1, 1)
    mean, std = codec.encode(images)
    torch.testing.assert_close(mean, posterior.mean * 0.5, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, posterior.std * 0.5, rtol=1e-4, atol=1e-5)
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
    with pytest.raises(AttarError, match=r"`prior` .*(nowhere|empty)"):
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
    import attar.priors.training.train as training

    straight = trained(tmp_path / "straight")
    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
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
    prior = load_prior(str(tmp_path / "prior"), device="cpu")
    assert prior.classes == tuple("abcd")
    assert prior.codec.key == "pixel-1x8"


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        ({str(label): "x" for label in range(10) if label != 3}, "classes 0 to 9, and no others; see to 3"),
        ({str(label): "x" for label in range(11)}, "see to 10"),
        ({str(label): label for label in range(10)}, "must be a table of class names"),
        (["a", "b"], "must be a table of class names"),
    ],
)
def test_names_that_do_not_fit_are_refused(id2label: object, message: str, tmp_path: Path) -> None:
    index = save_tiny_dit(tmp_path / "dit", NAMES) / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": id2label}))
    with pytest.raises(AttarError, match=rf"dit: model_index.json: id2label .*{message}"):
        load_prior(str(tmp_path / "dit"), device="cpu", tile=1)


@pytest.mark.parametrize(("part", "field"), [("transformer", "`prior`"), ("vae", "`codec`")])
def test_missing_weights_are_named(part: str, field: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = save_tiny_dit(tmp_path / "dit", NAMES) / part / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    lost = sorted(weights)[5]
    save_file({name: weight for name, weight in weights.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(AttarError, match=rf"{field} .*dit: .* lacks the weights {lost}"):
        load_prior(str(tmp_path / "dit"), device="cpu", tile=1)


def test_a_schedule_of_other_than_1000_steps_is_refused(tmp_path: Path) -> None:
    config = save_tiny_dit(tmp_path / "dit", NAMES) / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_train_timesteps": 500}))
    with pytest.raises(AttarError, match=r"dit: scheduler/scheduler_config.json has a schedule of 500 steps"):
        load_prior(str(tmp_path / "dit"), device="cpu", tile=1)


def test_a_given_tile_is_proved_once(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, tried = str(save_tiny_dit(tmp_path / "dit", NAMES)), list[int]()

    def exact_at(prior: Prior, tile: int) -> bool:
        tried.append(tile)
        return tile in (3, 4)

    monkeypatch.setattr(Prior, "exact_at", exact_at)
    for _ in range(2):
        assert load_prior(folder, device="cpu", tile=3, store=store).batch_size == 3
        assert load_prior(folder, device="cpu", tile=1, store=store).batch_size == 1
    assert tried == [3]
    for _ in range(2):
        with pytest.raises(AttarError, match=r"`tile` 5: .* rows beside it on cpu.*; leave it out, and 4 is chosen"):
            load_prior(folder, device="cpu", tile=5, store=store)
    assert tried == [3, 5, 16, 8, 32, 4]
    with pytest.raises(AttarError, match="`tile` 0: at least 1"):
        load_prior(folder, device="cpu", tile=0, store=store)


def test_a_given_tile_that_does_not_fit_in_memory_is_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exact_at(prior: Prior, tile: int) -> bool:
        if tile > 16:
            raise torch.OutOfMemoryError
        return True

    folder = str(save_tiny_dit(tmp_path / "dit", NAMES))
    monkeypatch.setattr(Prior, "exact_at", exact_at)
    with pytest.raises(AttarError, match=r"`tile` 64: it does not fit in memory .* 16 is chosen"):
        load_prior(folder, device="cpu", tile=64, store=store)


def test_the_classes_of_digits_are_known_untrained_and_of_a_pipeline_unread(tmp_path: Path) -> None:
    assert known_classes("digits") == load_data("digits").classes == tuple("0123456789")
    assert known_classes(str(save_tiny_dit(tmp_path / "named", ["a", "b"]))) == ("a", "b")
    assert known_classes(str(save_tiny_dit(tmp_path / "unnamed", None))) is None


class Recording(Store):
    """Makes nothing, and notes the keys that it is asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.keys: list[str] = []

    def once(self, artefact: Artefact, make: object, seconds: float = 0.0) -> Path:
        self.keys.append(artefact.key)
        return self.root


def test_the_key_of_digits_tells_device_and_version_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recording(tmp_path)
    for _ in range(2):
        digits_prior(store)
    monkeypatch.setattr("attar.priors.digits.device_class", lambda device: "another")
    digits_prior(store)
    monkeypatch.setattr(torch, "__version__", "0.0")
    digits_prior(store)
    assert store.keys[0] == store.keys[1]
    assert len(set(store.keys)) == 3


def test_the_key_of_an_autoencoder_tells_how_it_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, store = load_data(str(save_folder(tmp_path / "data", ["a"], 1))), Recording(tmp_path)

    def ask(**changes: Any) -> None:
        plain = {"device": torch.device("cpu"), "mixed_precision": "no", "num_processes": 1}
        plain |= {"is_main_process": True, "wait_for_everyone": lambda: None}
        helper: Any = SimpleNamespace(**{**plain, **changes})
        train_vae(images, 16, "adm", True, Autoencoding(), helper, store)

    ask()
    ask()
    ask(mixed_precision="bf16")
    ask(num_processes=2)
    monkeypatch.setattr("attar.priors.training.vae.device_class", lambda device: "another")
    ask()
    assert store.keys[0] == store.keys[1]
    assert len(set(store.keys)) == 4


def test_the_key_of_latents_tells_decoders_apart(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = Latents(load_data(str(save_folder(tmp_path / "data", ["a"], 1))), PixelCodec(8), "adm", store, {})
    (shard,) = latents.artefacts(0)
    assert latents.artefacts(0)[0].key == shard.key
    monkeypatch.setattr("PIL.__version__", "0.0")
    assert latents.artefacts(0)[0].key != shard.key
