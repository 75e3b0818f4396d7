"""D3HR held to arrays recorded from its reference code; other recordings of the same form: ATTAR_GOLDEN=FOLDER."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import recorded

from attar.diffusion import Sampler, Schedule, grid, invert, sample
from attar.methods.d3hr import score
from attar.methods.inversion import Moments
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


def test_inversion_with_the_references_clean_time() -> None:
    arrays, weights, sizes = recorded("d3hr_inversion")
    prior, guidance = Recorded(weights, sizes), float(sizes["guidance_scale"])
    times = grid(int(sizes["steps"]))
    first, last = map(int, sizes["kept_iterations"].split(".."))
    at = invert(prior, arrays["z"], arrays["labels"], times[:first], guidance=guidance, clean_time=0)
    for kept, iteration in enumerate(range(first, last + 1)):
        step = times[iteration : iteration + 1]
        before = times[iteration - 1] if iteration else 0
        at = invert(prior, at, arrays["labels"], step, guidance=guidance, clean_time=before)
        torch.testing.assert_close(at, arrays["trajectory"][kept], rtol=1e-4, atol=1e-5)
        moments = Moments.of(at[:2]).merged(Moments.of(at[2:]))
        torch.testing.assert_close(moments.mean.flatten().float(), arrays["mean"][kept], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments.variance().flatten().float(), arrays["variance"][kept], rtol=1e-4, atol=1e-5)


def test_sampling_with_the_references_clean_time() -> None:
    arrays, weights, sizes = recorded("d3hr_inversion")
    prior, steps = Recorded(weights, sizes), int(sizes["steps"])
    t = int(arrays["timesteps"][int(sizes["start_step"])])
    assert t in grid(steps)
    sampler = Sampler(steps=steps, guidance=float(sizes["guidance_scale"]), clean_time=1)
    made = sample(prior, arrays["start"], t, arrays["labels"][: len(arrays["start"])], sampler)
    torch.testing.assert_close(made, arrays["out"], rtol=1e-4, atol=1e-5)


def test_group_scores() -> None:
    arrays, _, _ = recorded("d3hr_selection")
    scores = score(arrays["groups"], arrays["mean"], arrays["std"])
    torch.testing.assert_close(scores, arrays["scores"], rtol=1e-4, atol=1e-5)
