"""Original networks, guidance and DDPM held to arrays recorded from the original DiT; or those of ATTAR_GOLDEN."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from toys import linear_schedule, original_dit, original_weights, recorded

from attar.diffusion import Sampler, guided_output, in_two_calls, sample
from attar.priors.dit import Conventions, DiT
from attar.priors.original_dit import merged, original_transformer

pytestmark = pytest.mark.golden


def same(made: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def network_of(weights: dict[str, Tensor], sizes: dict[str, str]) -> DiT:
    return DiT(original_transformer(weights, int(sizes["num_heads"])))


class Recorded:
    """The network of a recording, as a denoiser."""

    def __init__(self, weights: dict[str, Tensor], sizes: dict[str, str]) -> None:
        self.network, self.schedule = network_of(weights, sizes), linear_schedule()
        self.null = int(sizes["num_classes"])

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        return self.network(z, torch.full((len(z),), t), y)

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        return in_two_calls(self, z, t, y)


def test_the_original_network() -> None:
    arrays, weights, sizes = recorded("dit")
    network = network_of(weights, sizes)
    with torch.no_grad():
        same(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"])
    assert network.conventions == Conventions(frequency_shift=0, norm_eps=1e-6)
    assert network.learned_sigma
    blocks = network.transformer.transformer_blocks
    assert all(block.norm1.emb is blocks[0].norm1.emb for block in blocks)


@pytest.mark.parametrize("convention", ["frequencies", "epsilon"])
def test_each_convention_is_seen_in_the_output(convention: str) -> None:
    arrays, weights, sizes = recorded("dit")
    network = network_of(weights, sizes)
    if convention == "frequencies":
        network.transformer.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 1
    else:
        for block in network.transformer.transformer_blocks:
            block.norm3.eps = 1e-3
    with torch.no_grad():
        assert not torch.allclose(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"], rtol=1e-4, atol=1e-5)


def test_guidance_on_the_first_channels() -> None:
    arrays, weights, sizes = recorded("dit")
    prior, t = Recorded(weights, sizes), int(arrays["cfg_t"][0])
    half = len(arrays["cfg_z"]) // 2
    z, y, scale = arrays["cfg_z"][:half], arrays["cfg_y"][:half], float(sizes["cfg_scale"])
    with torch.no_grad():
        noise, variance = guided_output(prior, z, t, y, scale, int(sizes["guided_channels"]))
    assert variance is not None
    same(torch.cat([noise, variance], 1), arrays["cfg_out"][:half])


def test_ddpm_with_learned_range_variance() -> None:
    arrays, _, sizes = recorded("ddpm")
    _, weights, model_sizes = recorded(sizes["model"])
    times = arrays["timesteps"].tolist()
    sampler = Sampler(
        solver="ddpm",
        steps=int(sizes["steps"]),
        guidance=float(sizes["cfg_scale"]),
        guided_channels=int(sizes["guided_channels"]),
        spacing="linspace",
    )
    drawn = dict(zip(times[::-1], arrays["noise"], strict=True))
    prior = Recorded(weights, model_sizes)
    made = sample(prior, arrays["z"], times[-1], arrays["labels"], sampler, noise=drawn.__getitem__)
    torch.testing.assert_close(made, arrays["out"], rtol=1e-4, atol=1e-4)


def test_the_scales_of_minimax_merge_into_plain_weights() -> None:
    arrays, weights, sizes = recorded("minimax_dit")
    assert any(name.endswith("gamma1") for name in weights)
    assert not any("gamma" in name for name in merged(weights))
    network = network_of(weights, sizes)
    with torch.no_grad():
        same(network(arrays["z"], arrays["t"], arrays["y"]), arrays["out"])
    unscaled = network_of({name: w for name, w in weights.items() if "gamma" not in name}, sizes)
    with torch.no_grad():
        assert not torch.allclose(unscaled(arrays["z"], arrays["t"], arrays["y"]), arrays["out"], rtol=1e-2, atol=1e-2)


def test_recordings_of_other_sizes_are_held_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = original_weights(hidden=32, depth=2, patch=4, channels=3, classes=5)
    draw = torch.Generator().manual_seed(1)
    z, half = torch.randn(4, 3, 8, 8, generator=draw), torch.randn(2, 3, 8, 8, generator=draw)
    t, y, cfg_t = torch.tensor([0, 30, 480, 999]), torch.tensor([3, 4, 5, 5]), torch.full((4,), 250)
    cfg_y = torch.tensor([2, 0, 5, 5])
    with_label, without = original_dit(weights, torch.cat([half, half]), cfg_t, cfg_y, 8).chunk(2)
    pushed = torch.cat([(without + 2.5 * (with_label - without))[:, :2], with_label[:, 2:]], 1)
    arrays = {"z": z, "t": t, "y": y, "out": original_dit(weights, z, t, y, 8)}
    arrays |= {"cfg_z": torch.cat([half, half]), "cfg_t": cfg_t, "cfg_y": cfg_y, "cfg_out": torch.cat([pushed, pushed])}
    sizes = {"num_heads": "8", "num_classes": "5", "cfg_scale": "2.5", "guided_channels": "2"}
    file = tmp_path / "dit.safetensors"
    save_file({**arrays, **{f"model.{name}": weight for name, weight in weights.items()}}, file, sizes)
    monkeypatch.setattr("toys.GOLDEN", tmp_path)
    test_the_original_network()
    test_guidance_on_the_first_channels()
    save_file({**arrays, **{f"model.{name}": weight * 1.01 for name, weight in weights.items()}}, file, sizes)
    with pytest.raises(AssertionError):
        test_the_original_network()
