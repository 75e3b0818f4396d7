from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from toys import GaussianPrior, linear_schedule, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.rng import noise
from attar.core.store import Store
from attar.diffusion import SCHEDULERS, SOLVERS, FixedPoint, Sampler, Schedule, grid, guided, invert, inverted, sample
from attar.distillation import pipeline
from attar.distillation.artefacts import artefacts, load_artefact
from attar.job import Job, Spec
from attar.methods.d3hr.class_moments import Invert
from attar.methods.prior_samples import PriorSamples

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


def exact_round_trip(guidance: float, how: FixedPoint) -> tuple[float, torch.Tensor]:
    """Its relative error, and the largest residual of each latent over all steps."""
    prior, z = gaussian(), clean()
    there = list(inverted(prior, z, LABELS, [t for t in grid(20) if t <= 600], guidance=guidance, exact=how))
    back = sample(prior, there[-1].z, 600, LABELS, Sampler(steps=20, guidance=guidance))
    residuals = [at.residual for at in there if at.residual is not None]
    return float((back - z).norm() / z.norm()), torch.stack(residuals).amax(0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_exact_inversion_is_undone_by_sampling(guidance: float) -> None:
    error, residual = exact_round_trip(guidance, FixedPoint(tolerance=1e-6))
    assert error < 1e-4
    assert float(residual.max()) <= 1e-6
    loose, _ = exact_round_trip(guidance, FixedPoint(iterations=1))
    assert error < loose / 100


def test_exact_inversion_says_which_latents_did_not_converge() -> None:
    _, residual = exact_round_trip(4.0, FixedPoint(tolerance=1e-6, iterations=2))
    assert bool((residual > 1e-6).any())


def test_a_latents_exact_inversion_does_not_depend_on_its_batch() -> None:
    prior, z, times = gaussian(), clean(), grid(20)[:13]
    together = invert(prior, z, LABELS, times, guidance=4, exact=FixedPoint())
    alone = torch.cat(
        [invert(prior, z[k : k + 1], LABELS[k : k + 1], times, guidance=4, exact=FixedPoint()) for k in range(4)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_dpm_plus_plus_needs_fewer_calls_than_ddim_from_the_time_of_d3hr() -> None:
    def error(solver: str, steps: int) -> float:
        prior, z = gaussian(), clean()
        start, spacing = prior.at(z, 600, LABELS), "leading" if solver == "ddim" else "log-snr"
        made = sample(prior, start, 600, LABELS, Sampler(solver=solver, steps=steps, guidance=1, spacing=spacing))
        assert prior.calls == (steps if solver == "dpm++" else 31)
        return float((made - z).norm() / z.norm())

    assert error("dpm++", 15) < error("dpm++", 10) < error("ddim", 50) / 2


def test_log_snr_times_are_even_from_any_start() -> None:
    schedule = linear_schedule()
    abar = schedule.alphas_cumprod
    for t in (300, 610, 999):
        times = schedule.even_times(t, 12)
        assert (times[0], times[-1], len(times)) == (10, t, 12)
        levels = torch.log(abar[times] / (1 - abar[times]))
        assert float(levels.diff().std() / levels.diff().mean().abs()) < 0.05
    assert schedule.even_times(4, 12) == [4]
    with pytest.raises(AttarError, match=r"log-snr: for ddim, ddpm, dpm\+\+; with PNDMScheduler set sampler.spacing"):
        Sampler(solver="PNDMScheduler", spacing="log-snr")
    for steps in (1, 1001):
        with pytest.raises(AttarError, match=f"sampler.steps {steps}: with sampler.spacing = log-snr choose 2 to 1000"):
            Sampler(solver="dpm++", spacing="log-snr", steps=steps)


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


@pytest.mark.parametrize("steps", [2, 10, 50, 250, 1000])
def test_the_linspace_grid_is_that_of_diffusers(steps: int) -> None:
    scheduler = DDIMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    assert grid(steps, "linspace") == scheduler.timesteps.tolist()[::-1]


def test_the_linspace_grid_rounds_sums_as_the_original_respacing_does() -> None:
    """It adds up a fractional stride; at odd numbers of steps, errors of the sum decide some ties (ADM)."""
    for steps in (7, 21, 51, 101):
        at, expected = 0.0, []
        for _ in range(steps):
            expected.append(round(at))
            at += 999 / (steps - 1)
        assert grid(steps, "linspace") == expected


STOCHASTIC = ("ddpm", "DDPMScheduler", "EulerAncestralDiscreteScheduler", "SASolverScheduler")
EVERY = [*SOLVERS, *SCHEDULERS]


def keyed(rows: range, shape: tuple[int, ...]) -> Callable[[int], torch.Tensor]:
    return lambda t: torch.stack([noise(shape, "step", row, t) for row in rows])


def walked(solver: str, steps: int, rows: slice, n: int = 4) -> torch.Tensor:
    """Samples of the Gaussian, in units of its deviation, beside the exact flow's: (2, rows, C, H, W)."""
    sampler = Sampler(solver=solver, steps=steps, guidance=1, spacing="trailing")
    t = grid(steps, "trailing")[int(0.8 * steps)]
    prior, y = gaussian(), torch.arange(n) % 3
    unit = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (MEAN, STD))
    start = prior.at(mean + std * unit, t, y)
    made = sample(prior, start[rows], t, y[rows], sampler, noise=keyed(range(n)[rows], (2, 8, 8)))
    return torch.stack([(made - mean[rows]) / std[rows], unit[rows]])


@pytest.mark.parametrize("solver", EVERY)
def test_every_solver_samples_the_gaussian(solver: str) -> None:

    def whole(steps: int) -> torch.Tensor:
        return walked(solver, steps, slice(None))

    if solver in STOCHASTIC:
        made, start = walked(solver, 60, slice(None), n=48)
        assert abs(float(made.std()) - 1) < 0.12
        assert abs(float(made.mean())) < 0.05
        assert abs(float((made * start).mean())) < 0.4
    else:
        coarse, fine = (float((made - exact).abs().max()) for made, exact in map(whole, (20, 100)))
        assert fine < 0.3
        assert fine < coarse / 2


@pytest.mark.parametrize("solver", EVERY)
def test_a_rows_bytes_do_not_depend_on_its_batch(solver: str) -> None:
    together = walked(solver, 10, slice(None))[0]
    apart = torch.cat([walked(solver, 10, rows)[0] for rows in (slice(0, 1), slice(1, 4))])
    assert torch.equal(together, apart)


def test_dpm_plus_plus_is_that_of_diffusers_and_of_second_order() -> None:
    made, named = (walked(solver, 15, slice(None)) for solver in ("dpm++", "DPMSolverMultistepScheduler"))
    torch.testing.assert_close(made, named, rtol=1e-4, atol=1e-4)
    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing", final_sigmas_type="zero")
    scheduler.set_timesteps(12)
    assert scheduler.timesteps.tolist() == grid(12, "trailing")[::-1]
    prior = gaussian()
    z = theirs = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        theirs = scheduler.step(guided(prior, theirs, int(t), LABELS, 3.0), t, theirs).prev_sample
    ours = sample(prior, z, 999, LABELS, Sampler(solver="dpm++", steps=12, guidance=3.0, spacing="trailing"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_ddpm_without_learned_variance_is_that_of_diffusers() -> None:
    prior, steps = gaussian(), 20
    scheduler = DDPMScheduler(clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    z = theirs = torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(5)
    for t in scheduler.timesteps:
        theirs = scheduler.step(guided(prior, theirs, int(t), LABELS, 3.0), t, theirs, generator=draw).prev_sample
    again = torch.Generator().manual_seed(5)
    sampler = Sampler(solver="ddpm", steps=steps, guidance=3.0)
    ours = sample(prior, z, 950, LABELS, sampler, noise=lambda t: torch.randn(z.shape, generator=again))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class LearnedVariance(GaussianPrior):
    """Its variance output makes each step's variance that of the exact reverse process, whatever the steps."""

    def __init__(self, times: list[int]) -> None:
        super().__init__(MEAN, STD)
        self.below = dict(zip(times, [-1, *times[:-1]], strict=True))

    def __call__(self, z: torch.Tensor, t: int, y: torch.Tensor) -> torch.Tensor:
        at, to = self.schedule.abar(t), self.schedule.abar(self.below[t])
        beta, posterior = 1 - at / to, (1 - at / to) * (1 - to) / (1 - at)
        spread = self.std[y] ** 2 * (1 - at) / (at * self.std[y] ** 2 + 1 - at)
        wanted = posterior + (beta * to**0.5 / (1 - at)) ** 2 * spread
        share = torch.log(wanted / max(posterior, 1e-20)) / torch.log(torch.tensor(beta / max(posterior, 1e-20)))
        return torch.cat([super().__call__(z, t, y), (2 * share - 1).reshape(-1, 1, 1, 1).expand_as(z)], dim=1)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_ddpm_with_the_exact_variance_is_exact_in_any_number_of_steps(label: int) -> None:
    """The output is linear in the start and in each step's noise: its mean and variance are read off unit inputs."""
    times = grid(6)
    rows = 2 + len(times) - 1
    z = torch.zeros(rows, 1, 1, 1)
    z[1] = 1

    def units(t: int) -> torch.Tensor:
        drawn = torch.zeros(rows, 1, 1, 1)
        drawn[1 + times.index(t)] = 1
        return drawn

    def moments(prior: GaussianPrior) -> tuple[float, float]:
        y = torch.full((rows,), label)
        sampler = Sampler(solver="ddpm", steps=6, guidance=1)
        made = sample(prior, z, times[-1], y, sampler, noise=units).flatten().double()
        abar, std = prior.schedule.abar(times[-1]), float(STD[label])
        gains = made[1:] - made[0]
        mean = made[0] + gains[0] * abar**0.5 * float(MEAN[label])
        return float(mean), float(gains[0] ** 2 * (abar * std**2 + 1 - abar) + gains[1:].square().sum())

    mean, variance = moments(LearnedVariance(times))
    first, std = gaussian().schedule.abar(times[0]), float(STD[label])
    assert mean == pytest.approx(float(MEAN[label]), abs=1e-4)
    assert variance == pytest.approx(first * std**4 / (first * std**2 + 1 - first), rel=1e-3)
    assert moments(gaussian())[1] < 0.95 * variance


@pytest.mark.parametrize("solver", ["ddpm", "EulerAncestralDiscreteScheduler"])
def test_solvers_that_draw_noise_ask_for_it(solver: str) -> None:
    with pytest.raises(AttarError, match="give `sample` a `noise`"):
        sample(gaussian(), clean(), 900, LABELS, Sampler(solver=solver))


@pytest.mark.parametrize("solver", ["ddpm", "EulerAncestralDiscreteScheduler"])
def test_candidates_do_not_depend_on_the_other_classes(solver: str, tmp_path: Path) -> None:
    data = str(save_folder(tmp_path / "data", ["a", "b", "c"], 1))
    prior = str(save_tiny_dit(tmp_path / "dit", ["a", "b", "c"]))
    method = PriorSamples(sampler=Sampler(solver=solver, steps=3))
    made = []
    for name, classes in (("all", None), ("one", ("b",))):
        spec = Spec(data=data, prior=prior, classes=classes, device="cpu")
        job = Job(spec, Store(tmp_path / name))
        candidates = pipeline.sample(job, method, artefacts(job, method, 3), {})
        made.append(load_artefact(job, candidates[job.classes.index("b")])["z"])
    assert torch.equal(*made)
    assert not torch.equal(made[0][0], made[0][1])


@pytest.mark.parametrize(
    ("solver", "field", "message"),
    [
        ("UniPCMultistepScheduler", {"spacing": "leading"}, r"sampler.spacing 'leading': .* choose .* trailing"),
        ("EulerDiscreteScheduler", {"clean_time": 0}, "sampler.clean_time 0: EulerDiscreteScheduler knows -1$"),
        ("PNDMScheduler", {"clean_time": 1}, "knows -1 and 0"),
    ],
)
def test_what_a_scheduler_cannot_do_is_refused(solver: str, field: dict[str, object], message: str) -> None:
    with pytest.raises(AttarError, match=message):
        Sampler(solver=solver, **field)  # type: ignore[arg-type]


def test_an_unknown_solver_lists_the_choices() -> None:
    with pytest.raises(AttarError) as caught:
        Sampler(solver="plms")
    assert all(name in str(caught.value) for name in ("ddim", "ddpm", "dpm++", "EulerDiscreteScheduler"))


def test_schedules_without_any_signal_are_refused() -> None:
    with pytest.raises(AttarError, match="zero signal"):
        Schedule(torch.tensor([0.9, 0.0]))


@pytest.mark.parametrize(
    "field",
    [
        {"solver": "euler"},
        {"steps": 0},
        {"steps": 1001},
        {"spacing": "odd"},
        {"clean_time": -2},
        {"clean_time": 1000},
        {"guidance": float("nan")},
        {"guidance": float("inf")},
        {"guided_channels": 0},
    ],
)
def test_impossible_samplers_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(AttarError, match=f"sampler.{next(iter(field))}"):
        Sampler(**field)  # type: ignore[arg-type]


def test_the_bounds_of_samplers_are_allowed() -> None:
    assert [Sampler(clean_time=time).clean_time for time in (-1, 999)] == [-1, 999]
    assert Sampler(guided_channels=1, guidance=0.5).guided_channels == 1


@pytest.mark.parametrize(
    "field", [{"clean_time": -2}, {"clean_time": 600}, {"guidance": float("nan")}, {"guidance": float("-inf")}]
)
def test_impossible_inversions_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(AttarError, match=rf"fit.{next(iter(field))}`? "):
        Invert(**field)  # type: ignore[arg-type]
    assert Invert(clean_time=580).path() == [600]
