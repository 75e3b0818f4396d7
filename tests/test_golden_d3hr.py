"""D3HR held to arrays recorded from its reference code; other recordings of the same form: ATTAR_GOLDEN=FOLDER."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toys import recorded

from attar.diffusion import Sampler, Schedule, grid, in_two_calls, inverted, sample
from attar.methods.d3hr.class_moments import Invert
from attar.methods.d3hr.method import D3HR
from attar.methods.d3hr.moments import Moments
from attar.methods.d3hr.scores import paper_score
from attar.priors.dit import DiT

pytestmark = pytest.mark.golden


class Recorded:
    """The network of the recording, as a denoiser."""

    def __init__(self, weights: dict[str, Tensor], sizes: dict[str, str]) -> None:
        from diffusers import DDIMScheduler, DiTTransformer2DModel

        named = ("attention_head_dim", "patch_size", "out_channels", "num_attention_heads")
        also = ("num_embeds_ada_norm", "sample_size", "in_channels", "num_layers")
        network = DiTTransformer2DModel(**{name: int(sizes[name]) for name in named + also})
        network.load_state_dict(weights)
        self.network = DiT(network)
        self.schedule = Schedule(DDIMScheduler(beta_schedule="linear").alphas_cumprod)
        self.null = int(sizes["num_embeds_ada_norm"])

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        return self.network(z, torch.full((len(z),), t), y)

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        return in_two_calls(self, z, t, y)


def test_quirks_invert_as_the_reference_code_does() -> None:
    arrays, weights, sizes = recorded("d3hr_inversion")
    prior, guidance = Recorded(weights, sizes), float(sizes["guidance_scale"])
    first, last = map(int, sizes["kept_iterations"].split(".."))
    kept = grid(int(sizes["steps"]))[first : last + 1]
    method = D3HR(fit=Invert(times=tuple(kept), guidance=guidance), time=kept[0], reference_quirks=True)
    path, clean = method.fit.path(), method.fit.clean_time
    steps = inverted(prior, arrays["z"], arrays["labels"], path, guidance=guidance, clean_time=clean)
    there = torch.stack([at.z for at in steps if at.t in kept], 1)
    torch.testing.assert_close(there.transpose(0, 1), arrays["trajectory"], rtol=1e-4, atol=1e-5)
    moments = Moments.of(there[:2]).merged(Moments.of(there[2:]))
    torch.testing.assert_close(moments.mean.flatten(1).float(), arrays["mean"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.variance().flatten(1).float(), arrays["variance"], rtol=1e-4, atol=1e-5)


def test_quirks_sample_as_the_reference_code_does() -> None:
    arrays, weights, sizes = recorded("d3hr_inversion")
    prior: Any = Recorded(weights, sizes)
    steps, first = int(sizes["steps"]), int(sizes["kept_iterations"].split("..")[0])
    matched = grid(steps)[first + int(sizes["statistic_index"])]
    sampler = Sampler(steps=steps, guidance=float(sizes["guidance_scale"]))
    method = D3HR(fit=Invert(times=(matched,)), sampler=sampler, reference_quirks=True)
    t = method.start_time(prior)
    assert t == int(arrays["timesteps"][int(sizes["start_step"])])
    made = sample(prior, arrays["start"], t, arrays["labels"][: len(arrays["start"])], method.sampler)
    torch.testing.assert_close(made, arrays["out"], rtol=1e-4, atol=1e-5)


def test_group_scores() -> None:
    arrays, _, _ = recorded("d3hr_selection")
    scores = paper_score(arrays["groups"], arrays["mean"], arrays["std"])
    torch.testing.assert_close(scores, arrays["scores"], rtol=1e-4, atol=1e-5)
