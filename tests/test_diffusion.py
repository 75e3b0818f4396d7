from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from toys import GaussianPrior, linear_schedule

from attar.diffusion import Sampler, Schedule, grid, guided, invert, sample
from attar.errors import AttarError

MEAN, STD = torch.tensor([0.6, -0.8, 0.0]), torch.tensor([0.5, 0.2, 1.1])
LABELS = torch.tensor([0, 1, 2, 0])


def gaussian() -> GaussianPrior:
    return GaussianPrior(MEAN, STD)


def clean(n: int = 4) -> torch.Tensor:
    z = torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    return MEAN[LABELS].reshape(-1, 1, 1, 1) + STD[LABELS].reshape(-1, 1, 1, 1) * z


def sampling_error(steps: int, t: int = 900) -> float:
    prior, z = gaussian(), clean()
    start = prior.at(z, t, LABELS)
    return float((sample(prior, start, t, LABELS, Sampler(steps=steps, guidance=1)) - z).abs().max())


def inversion_error(steps: int, t: int = 600) -> float:
    prior, z = gaussian(), clean()
    times = [time for time in grid(steps) if time <= t]
    return float((invert(prior, z, LABELS, times) - prior.at(z, t, LABELS)).abs().max())


@pytest.mark.parametrize("error", [sampling_error, inversion_error])
def test_the_exact_flow_of_a_gaussian_is_reached_as_steps_grow(error) -> None:  # type: ignore[no-untyped-def]
    coarse, fine, finest = error(10), error(100), error(500)
    assert finest < 0.03
    assert finest < fine / 2 < coarse / 4


def test_inverting_undoes_sampling_as_steps_grow() -> None:
    def round_trip(steps: int) -> float:
        prior, z = gaussian(), clean()
        times = [time for time in grid(steps) if time <= 600]
        there = invert(prior, z, LABELS, times)
        return float((sample(prior, there, 600, LABELS, Sampler(steps=steps, guidance=1)) - z).norm() / z.norm())

    assert round_trip(500) < 0.01
    assert round_trip(500) < round_trip(50) / 4


def test_ddim_is_that_of_diffusers() -> None:
    prior, steps = gaussian(), 20
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    prior.schedule = Schedule(scheduler.alphas_cumprod)
    z = theirs = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        noise = guided(prior, theirs, int(t), LABELS, 3.0)
        theirs = scheduler.step(noise, t, theirs).prev_sample
    ours = sample(prior, z, grid(steps)[-1], LABELS, Sampler(steps=steps, guidance=3.0))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_grids_are_those_of_diffusers(spacing: str, steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert grid(steps, spacing) == scheduler.timesteps.tolist()[::-1]


def test_guidance_1_costs_one_pass_and_other_guidance_two() -> None:
    for guidance, passes in ((1, 5), (2, 10)):
        prior = gaussian()
        sample(prior, clean(), grid(5)[-1], LABELS, Sampler(steps=5, guidance=guidance))
        assert prior.calls == passes


def test_only_the_guided_channels_are_pushed() -> None:
    prior, z = gaussian(), clean()
    plain, pushed = guided(prior, z, 500, LABELS, 1), guided(prior, z, 500, LABELS, 4)
    part = guided(prior, z, 500, LABELS, 4, channels=1)
    assert torch.equal(part[:, :1], pushed[:, :1])
    assert torch.equal(part[:, 1:], plain[:, 1:])


def test_v_prediction_samples_as_epsilon_does() -> None:
    class Velocity(GaussianPrior):
        def __call__(self, z: torch.Tensor, t: int, y: torch.Tensor) -> torch.Tensor:
            noise, abar = super().__call__(z, t, y), self.schedule.abar(t)
            x0 = (z - (1 - abar) ** 0.5 * noise) / abar**0.5
            return abar**0.5 * noise - (1 - abar) ** 0.5 * x0

    velocity = Velocity(MEAN, STD)
    velocity.schedule = Schedule(linear_schedule().alphas_cumprod, "v_prediction")
    start, sampler = clean(), Sampler(steps=20, guidance=2)
    ours = sample(velocity, start, 600, LABELS, sampler)
    torch.testing.assert_close(ours, sample(gaussian(), start, 600, LABELS, sampler), rtol=1e-4, atol=1e-4)


def test_a_start_off_the_grid_is_refused() -> None:
    with pytest.raises(AttarError, match=r"time 610 .* nearest is 600"):
        sample(gaussian(), clean(), 610, LABELS, Sampler())


@pytest.mark.parametrize("field", [{"solver": "euler"}, {"steps": 0}, {"steps": 1001}, {"spacing": "odd"}])
def test_impossible_samplers_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(AttarError, match=f"sampler.{next(iter(field))}"):
        Sampler(**field)  # type: ignore[arg-type]
