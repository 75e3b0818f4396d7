"""Codecs from folders, of either kind, held to diffusers; what does not fit a prior is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import save_tiny_dit

import attar.priors.codec
from attar.core.errors import AttarError
from attar.priors import load_prior
from attar.priors.codec import AutoencoderCodec, PixelCodec, load_codec

CPU = torch.device("cpu")


def save_tiny_autoencoder(folder: Path, kind: str, **changes: Any) -> Path:
    from diffusers import AutoencoderKL, AutoencoderTiny

    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "AutoencoderTiny":
            vae: Any = AutoencoderTiny(
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
                **changes,
            )
        else:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 8),
                norm_num_groups=4,
                **{"latent_channels": 4, "scaling_factor": 0.25, "shift_factor": 0.5, **changes},
            )
    vae.save_pretrained(folder)
    return folder


def test_the_tiny_autoencoder_is_that_of_diffusers(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    folder = save_tiny_autoencoder(tmp_path / "taesd", "AutoencoderTiny")
    codec = load_codec(str(folder), (4, 8, 8), CPU, torch.float32).with_batch_size(2)
    theirs = AutoencoderTiny.from_pretrained(folder).eval()
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    mean, deviation = codec.encode(images)
    with torch.no_grad():
        latents = theirs.encode(images).latents
        decoded = theirs.decode(latents).sample.clamp(-1, 1)
    torch.testing.assert_close(mean, latents, rtol=1e-4, atol=1e-5)
    assert not deviation.any()
    torch.testing.assert_close(codec.decode(mean), decoded, rtol=1e-4, atol=1e-5)
    assert (codec.size, codec.shape) == (16, (4, 8, 8))
    assert codec.exact_at(1)


def test_scale_and_shift_are_those_of_the_configuration(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    folder = save_tiny_autoencoder(tmp_path / "vae", "AutoencoderKL")
    codec = load_codec(str(folder), (4, 8, 8), CPU, torch.float32)
    theirs = AutoencoderKL.from_pretrained(folder).eval()
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, deviation = codec.encode(images)
    with torch.no_grad():
        posterior = theirs.encode(images).latent_dist
    torch.testing.assert_close(mean, (posterior.mean - 0.5) * 0.25, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deviation, posterior.std * 0.25, rtol=1e-4, atol=1e-5)


def test_a_pipelines_own_autoencoder_is_found_in_it(tmp_path: Path) -> None:
    folder = save_tiny_dit(tmp_path / "dit", None)
    inside, alone = (load_codec(str(source), (4, 8, 8), CPU, torch.float32).key for source in (folder, folder / "vae"))
    assert inside == alone == load_prior(str(folder), device="cpu", tile=1).codec.key


def test_another_codec_replaces_the_priors_own(tmp_path: Path) -> None:
    folder = str(save_tiny_dit(tmp_path / "dit", None))
    tiny = str(save_tiny_autoencoder(tmp_path / "taesd", "AutoencoderTiny"))
    own, other = (load_prior(folder, device="cpu", tile=1, codec=codec) for codec in (None, tiny))
    assert isinstance(other.codec, AutoencoderCodec)
    assert type(other.codec.vae).__name__ == "AutoencoderTiny"
    assert own.key == other.key
    assert own.codec.key != other.codec.key


def test_a_pipeline_may_hold_the_tiny_autoencoder(tmp_path: Path) -> None:
    folder = save_tiny_dit(tmp_path / "dit", None)
    save_tiny_autoencoder(folder / "vae", "AutoencoderTiny")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("AutoencoderKL", "AutoencoderTiny"))
    assert not load_prior(str(folder), device="cpu", tile=1).codec.encode(torch.zeros(1, 3, 16, 16))[1].any()


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        ({"latent_channels": 8}, (4, 8, 8), "latents have 8 channels, the prior's 4"),
        ({"latents_mean": [0.1] * 4}, (4, 8, 8), "latents_mean"),
    ],
)
def test_autoencoders_that_do_not_fit_are_refused(
    change: dict[str, Any], shape: tuple[int, int, int], message: str, tmp_path: Path
) -> None:
    folder = save_tiny_autoencoder(tmp_path / "vae", "AutoencoderKL", **change)
    with pytest.raises(AttarError, match=rf"`codec` .*vae: .*{message}"):
        load_codec(str(folder), shape, CPU, torch.float32)


def test_other_models_and_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(AttarError, match="a VQModel; it must be an AutoencoderKL or AutoencoderTiny"):
        load_codec(str(tmp_path), (4, 8, 8), CPU, torch.float32)
    with pytest.raises(
        AttarError,
        match=r"`codec` nobody/nothing: there is no such folder here, .* cannot be loaded .* give `codec` FOLDER",
    ):
        load_codec("nobody/nothing", (4, 8, 8), CPU, torch.float32)


def test_a_pipeline_on_the_hub_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    raised: list[type[Exception]] = []

    def missing(repository: str, name: str) -> str:
        raise raised[-1](f"no {name} in {repository}")

    monkeypatch.setattr("attar.priors.codec.hf_hub_download", missing)
    raised.append(EntryNotFoundError)
    assert attar.priors.codec._inside("someone/pipeline") == {"subfolder": "vae"}
    raised.append(LocalEntryNotFoundError)
    with pytest.raises(LocalEntryNotFoundError):
        attar.priors.codec._inside("someone/pipeline")


def test_pixels_have_one_or_three_channels() -> None:
    assert load_codec("pixel", (1, 8, 8), CPU, torch.float32) == PixelCodec(8, 1)
    with pytest.raises(AttarError, match="4 channels, so they are no pixels"):
        load_codec("pixel", (4, 8, 8), CPU, torch.float32)
