"""D3HR: moments, the search and its scores, closed-form matching, exact inversion, and sets made from statistics."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from toys import attar, learnt, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.artefacts import fit_artefact
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.methods.d3hr import class_moments, matching, scores
from attar.methods.d3hr.matching import matched, reference_draws, search
from attar.methods.d3hr.moments import Moments, error_of_mean
from attar.methods.d3hr.planes import places_on, planes
from attar.methods.d3hr.scores import ScoreFunction, kl_score, paper_score, sinkhorn_score
from attar.report import write_report
from attar.sets.distilled import open_distilled, verify

CLASSES = ["ant", "bee", "cat", "dog"]
FAST = {"sampler.steps": 5, "fit.steps": 5, "subsets": 50}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=12)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def spec_of(world: Path, **more: Any) -> Spec:
    return Spec(data=f"imagefolder:{world / 'data'}", prior=str(world / "dit"), device="cpu", **more)


def d3hr(**changes: Any) -> Any:
    return load_method("d3hr", {**FAST, **{name.replace("__", "."): value for name, value in changes.items()}})


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def gaussian() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 4, 4, generator=drawn(1)), 0.5 + torch.rand(4, 4, 4, generator=drawn(2))


def test_moments_of_parts_are_those_of_the_whole() -> None:
    z = torch.randn(17, 2, 3, 3, generator=drawn()) * 3 + 100
    merged = Moments.of(z[:0]).merged(Moments.of(z[:5])).merged(Moments.of(z[5:16])).merged(Moments.of(z[16:]))
    torch.testing.assert_close(merged.mean, z.double().mean(0))
    torch.testing.assert_close(merged.variance(), z.double().var(0))


def test_the_standard_error_is_what_means_of_samples_spread_by() -> None:
    values = torch.randn(40, generator=drawn(), dtype=torch.float64)
    means = torch.stack([values[torch.randperm(40, generator=drawn(k))[:10]].mean() for k in range(4000)])
    assert float(means.std()) == pytest.approx(error_of_mean(10, 40) * float(values.std()), rel=0.05)
    assert error_of_mean(40, 40) == 0


def test_per_class_bounds_how_many_are_inverted_and_says_what_that_costs(world: Path, store: Store) -> None:
    said: list[str] = []
    job = Job(spec_of(world), store, lambda text, fraction: said.append(text))
    fit = d3hr(fit__per_class=5).fit
    fitted = learnt(job, fit, [0])
    assert fitted["count"] == 5
    assert fit.passes([12]) == 5 * 4 * 2
    assert float(fitted["error_of_mean"]) == pytest.approx(((1 - 5 / 12) / 5) ** 0.5)
    several = learnt(job, d3hr(fit__per_class=5, fit__times=(200, 600), time=200).fit, [0])
    assert several["error_of_mean"] == fitted["error_of_mean"], "of no single time"
    assert learnt(job, d3hr().fit, [0])["error_of_mean"] == 0
    assert any("inverting ant (5 of 12: standard error of the mean 0.34 deviations)" in text for text in said)


def test_planes_are_principal_components() -> None:
    z = torch.randn(40, 2, 4, 3, 3, generator=drawn()) * torch.tensor([5.0, 3.0, 1.0, 1.0])[:, None, None] + 7
    found = planes(z)
    for at in range(2):
        rows = z[:, at].flatten(1).double()
        _, scales, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        alike = (found["axes"][at].flatten(1).double() @ axes[:2].T).abs()
        torch.testing.assert_close(alike, torch.eye(2).double(), atol=1e-4, rtol=0)
        torch.testing.assert_close(found["shares"][at], (scales.square() / scales.square().sum())[:2].float())
        torch.testing.assert_close(found["places"][at], places_on(found["axes"][at], z[:, at]), atol=1e-4, rtol=1e-4)
    assert planes(z[:2]) == {}
    assert all(bool(value.isfinite().all()) for value in planes(torch.ones(3, 1, 4, 3, 3)).values())


def test_a_set_keeps_where_its_starts_lie_among_real_ones(world: Path, tmp_path: Path, store: Store) -> None:
    job, method = Job(spec_of(world), store), d3hr()
    (folder,) = distill_sets(job, "d3hr", method, (2,), tmp_path / "out")
    one = open_distilled(folder)
    assert [each["label"] for each in one.manifest["noise"]] == [0, 1, 2, 3]
    fitted, told = learnt(job, method.fit, [1]), one.manifest["noise"][1]
    mean, std = method.statistics(fitted).values()
    axes = fitted["axes"][0].flatten(1)
    starts = (method.start(job, fitted, 1, 2).z - mean).flatten(1) @ axes.T
    assert told["starts"] == [pytest.approx(point, rel=1e-2, abs=1e-3) for point in starts.tolist()]
    spread = (axes * std.flatten().square()) @ axes.T
    assert told["spread"] == [pytest.approx(row, rel=1e-2, abs=1e-3) for row in spread.tolist()]
    assert len(told["real"]) == 12
    assert torch.tensor(told["real"]).mean(0).abs().max() < 1e-2, "the mean is in the middle"
    write_report([folder], [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "bee, map of the noises: 2 starts among 12 inverted real latents" in page
    symbol = page.split('<symbol id="n0-1"')[1].split("</symbol>")[0]
    strokes = [len(re.findall("M", path)) for path in re.findall(r'<path d="([^"]*)"', symbol)]
    assert strokes == [12, 1, 2 * 2], "real latents, the ellipse, two crosses"


def test_fits_of_before_have_no_map(world: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_moments, "planes", lambda _: {})
    (old,) = distill_sets(Job(spec_of(world), store), "d3hr", d3hr(), (2,), tmp_path / "old")
    monkeypatch.undo()
    (again,) = distill_sets(Job(spec_of(world), store), "d3hr", d3hr(), (2,), tmp_path / "again")
    (new,) = distill_sets(Job(spec_of(world), Store(tmp_path / "new")), "d3hr", d3hr(), (2,), tmp_path / "made")
    of_old, of_again, of_new = (open_distilled(folder).manifest for folder in (old, again, new))
    assert ["noise" in manifest for manifest in (of_old, of_again, of_new)] == [False, False, True]
    assert of_old["images"] == of_again["images"] == of_new["images"]
    assert of_old["run"] == of_again["run"] == of_new["run"]
    write_report([old], [], tmp_path / "page.html")
    assert "Where these images began" not in (tmp_path / "page.html").read_text()


def test_one_inversion_serves_several_times(world: Path, store: Store) -> None:
    job = Job(spec_of(world), store)
    methods = [d3hr(fit__times="200,400,600", time=time) for time in (200, 400, 600, None)]
    assert len({fit_artefact(job, method.fit, [0]).key for method in methods}) == 1
    fitted = learnt(job, methods[0].fit, [0])
    for method, time in zip(methods, (200, 400, 600, 600), strict=True):
        alone = d3hr(fit__times=time)
        assert method.start_time(job.prior) == time
        found = alone.statistics(learnt(job, alone.fit, [0]))
        for name, value in method.statistics(fitted).items():
            torch.testing.assert_close(value, found[name])


def test_the_search_keeps_the_group_with_the_lowest_score() -> None:
    mean, std = torch.full((2, 2, 2), 0.3), torch.full((2, 2, 2), 0.7)
    groups = mean + std * torch.randn(300, 4, 2, 2, 2, generator=drawn(5))
    for metric in (paper_score, kl_score, sinkhorn_score):
        best = search(mean, std, 4, [(5, 300)], metric)
        found = metric(groups.flatten(2), mean.flatten(), std.flatten())
        torch.testing.assert_close(best, groups[found.argmin()])


def test_the_search_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std = torch.zeros(4, 2, 2), torch.ones(4, 2, 2)
    whole = search(mean, std, 3, [(1, 500)], paper_score)
    monkeypatch.setattr(matching, "CHUNK", 500)
    assert torch.equal(whole, search(mean, std, 3, [(1, 500)], paper_score))


@pytest.mark.parametrize("metric", [paper_score, kl_score, sinkhorn_score])
def test_the_same_group_wins_whatever_an_accelerator_rounds(
    metric: ScoreFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for one that is wrong by nearly as much as it may be, now above and now below."""
    monkeypatch.setattr(matching, "CHUNK", 4000)
    mean, std = gaussian()
    look, glanced, scored = matching.elsewhere(mean, std, metric, torch.device("cpu")), list[float](), list[int]()

    def glance(noise: Tensor) -> float:
        glanced.append(look(noise) * (1 + 0.9 * matching.MARGIN * (-1) ** len(glanced)))
        return glanced[-1]

    def counted(groups: Tensor, *of_class: Tensor) -> Tensor:
        scored.append(len(groups))
        return metric(groups, *of_class)

    found = search(mean, std, 3, [(5, 2000)], counted, glance)
    assert torch.equal(found, search(mean, std, 3, [(5, 2000)], metric))
    assert len(glanced) == 100
    assert len(scored) < 30, "only pieces that can hold the best are scored twice"


def test_an_accelerator_that_says_nothing_is_not_believed() -> None:
    mean, std = gaussian()
    found = search(mean, std, 3, [(5, 200)], paper_score, lambda noise: float("nan"))
    assert torch.equal(found, search(mean, std, 3, [(5, 200)], paper_score))


def test_a_prior_on_an_accelerator_is_searched_for_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from attar.methods.d3hr import method as module

    asked = []
    monkeypatch.setattr(module, "elsewhere", lambda mean, std, metric, device: asked.append(device))
    mean, std = gaussian()
    for device in ("cpu", "meta"):
        d3hr()._group({"mean": mean, "std": std}, 2, 0, torch.device(device))
    assert asked == [torch.device("meta")]


def test_the_draws_of_the_reference_code_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written from its loop: seeds i * 12345, so many groups of each by torch.normal, the best of all kept."""
    monkeypatch.setattr(matching, "REFERENCE_DRAW", 40)
    mean, std = gaussian()
    best, lowest = mean, float("inf")
    for seed in (0, 12345, 24690):
        torch.manual_seed(seed)
        groups = torch.normal(mean.flatten().expand(40, 3, -1), std.flatten().expand(40, 3, -1))
        found = paper_score(groups, mean.flatten(), std.flatten())
        if found.min() < lowest:
            best, lowest = groups[found.argmin()].view(3, 4, 4, 4), float(found.min())
    assert reference_draws(100) == [(0, 40), (12345, 40), (24690, 20)]
    torch.testing.assert_close(search(mean, std, 3, reference_draws(120), paper_score), best)


def test_quirks_draw_the_same_for_every_seed_and_class(world: Path, store: Store) -> None:
    method = d3hr(reference_quirks=True)
    fitted = {"mean": torch.zeros(1, 4, 8, 8), "variance": torch.ones(1, 4, 8, 8)}
    jobs = [Job(spec_of(world, seed=seed), store) for seed in (0, 1)]
    starts = [method.start(job, fitted, label, 2) for job in jobs for label in (0, 1)]
    assert all(torch.equal(start.z, starts[0].z) for start in starts)
    own = [d3hr().start(job, fitted, label, 2).z for job in jobs for label in (0, 1)]
    assert not any(torch.equal(one, own[0]) for one in own[1:])


def test_a_feature_that_never_varies_does_not_spoil_the_search() -> None:
    std = torch.tensor([0.0, 1.0, 1.0, 1.0]).reshape(1, 2, 2)
    for metric in (paper_score, kl_score, sinkhorn_score):
        best = search(torch.full((1, 2, 2), 0.3), std, 3, [(0, 200)], metric)
        assert len({tuple(row.flatten().tolist()) for row in best}) == 3
    with pytest.raises(AttarError, match="not finite"):
        search(torch.full((1, 2, 2), float("nan")), std, 3, [(0, 200)], paper_score)


@pytest.mark.parametrize("metric", [paper_score, kl_score, sinkhorn_score])
def test_a_group_of_one_is_scored_by_its_mean_alone(metric: ScoreFunction) -> None:
    groups, mean, std = torch.randn(6, 1, 9), torch.zeros(9), torch.ones(9)
    torch.testing.assert_close(metric(groups, mean, std), groups[:, 0].norm(dim=1))


def test_the_weights_of_the_score_weigh_its_parts() -> None:
    mean, std = gaussian()
    groups = mean.flatten() + std.flatten() * torch.randn(5, 3, 64, generator=drawn())
    parts = [
        paper_score(groups, mean.flatten(), std.flatten(), mean_weight=a, std_weight=b, skew_weight=c)
        for a, b, c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    torch.testing.assert_close(parts[0], (groups.mean(1) - mean.flatten()).norm(dim=1))
    torch.testing.assert_close(parts[1], (groups.std(1) - std.flatten()).norm(dim=1))
    torch.testing.assert_close(paper_score(groups, mean.flatten(), std.flatten()), parts[0] + parts[1] + 0.1 * parts[2])


def test_kl_is_that_of_torch() -> None:
    mean, std = (part.flatten() for part in gaussian())
    groups = mean + std * torch.randn(5, 4, 64, generator=drawn())
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, std), normal(groups.mean(1), groups.std(1))).sum(1)
    torch.testing.assert_close(kl_score(groups, mean, std), expected)


def test_sinkhorn_comes_near_the_exact_transport() -> None:
    """Of as many latents as the cloud has, the exact one is an assignment (scipy)."""
    from scipy.optimize import linear_sum_assignment

    from attar.core.rng import noise

    mean, std = torch.zeros(8), torch.ones(8)
    cloud = noise((scores.CLOUD, 8), "d3hr", "sinkhorn")
    group = torch.randn(1, scores.CLOUD, 8, generator=drawn())
    costs = torch.cdist(group[0], cloud).square() / 8
    exact = costs[linear_sum_assignment(costs.numpy())].mean()
    found = sinkhorn_score(group, mean, std, blur=0.01, iterations=500)
    assert float(exact) * 0.99 < float(found) < float(exact) * 1.1
    shifted = sinkhorn_score(group + 3, mean, std)
    assert float(shifted) > float(found) + 5


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_a_matched_group_has_the_moments_and_the_norms_of_its_class(n: int) -> None:
    mean, std = gaussian()
    group = matched(mean, std, n, drawn())
    torch.testing.assert_close(group.mean(0), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(group.std(0, correction=0), std, rtol=1e-4, atol=1e-5)
    energy = group.square().sum() / n
    torch.testing.assert_close(energy, (mean.square() + std.square()).sum(), rtol=1e-4, atol=1e-5)
    best = search(mean, std, n, [(0, 200)], paper_score)
    flat = partial(paper_score, mean=mean.flatten(), std=std.flatten())
    assert float(flat(group[None].flatten(2))) < 0.8 * float(flat(best[None].flatten(2)))


def test_one_and_two_matched_latents() -> None:
    """One cannot have the mean and a deviation, so that it deviates over its features; two mirror each other."""
    mean, std = gaussian()
    one = matched(mean, std, 1, drawn())
    torch.testing.assert_close(((one[0] - mean) / std).square().mean(), torch.tensor(1.0))
    two = matched(mean, std, 2, drawn())
    torch.testing.assert_close(two[0] - mean, mean - two[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((two[0] - mean).abs(), std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"matching": "moments"}, {"score": "kl"}, {"score": "sinkhorn"}])
def test_other_matchings_make_sets(world: Path, tmp_path: Path, store: Store, changes: dict[str, Any]) -> None:
    sets = [
        distill_sets(Job(spec_of(world), store), "d3hr", d3hr(**more), (2,), tmp_path / str(number))[0]
        for number, more in enumerate(({}, changes))
    ]
    plain, other = (open_distilled(folder).manifest["images"] for folder in sets)
    assert len(other) == 8
    assert plain != other


def test_the_fast_solver_starts_at_the_matched_time(world: Path, tmp_path: Path, store: Store) -> None:
    from attar.distillation.device_speed import passes_per_image

    fast = {**FAST, "sampler.solver": "dpm++", "sampler.steps": 12, "sampler.spacing": "log-snr"}
    method: Any = load_method("d3hr", fast)
    (folder,) = distill_sets(Job(spec_of(world), store), "d3hr", method, (1,), tmp_path / "out")
    assert verify(folder) == []
    assert passes_per_image(Job(spec_of(world), store), method) == 12 * 2


def test_exact_inversion_reports_how_exact_it_was(world: Path, tmp_path: Path, store: Store) -> None:
    method = d3hr(fit__exact=True, fit__guidance=1)
    (folder,) = distill_sets(Job(spec_of(world), store), "d3hr", method, (1,), tmp_path / "out")
    told = open_distilled(folder).manifest["learnt"]
    assert told["count"] == 48
    assert told["error_of_mean"] == 0
    assert told["unconverged"] == 0
    assert 0 < told["round_trip"] < 1e-3
    hurried = d3hr(fit__exact=True, fit__iterations=1, fit__tolerance=1e-7).fit
    assert learnt(Job(spec_of(world), store), hurried, [0])["unconverged"] == 1


def test_exact_inversion_is_in_float32() -> None:
    class Half:
        dtype = torch.bfloat16

    with pytest.raises(AttarError, match="`dtype=float32`"):
        d3hr(fit__exact=True).fit.check(Half())
    d3hr().fit.check(Half())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler.spacing": "log-snr", "reference_quirks": True}, "choose leading"),
        ({"fit.times": 610}, "nearest is 600"),
        ({"fit.times": "600,500"}, "rising"),
        ({"time": 500}, "none of d3hr.fit.times 600"),
        ({"sampler.steps": 7}, "not on the sampler's grid"),
        ({"subsets": 0}, "at least 1"),
        ({"score": "skew"}, "choose one of paper, kl, sinkhorn"),
        ({"fit.per_class": 1}, "at least 2"),
        ({"fit.tolerance": 0}, "above 0"),
        ({"fit.times": 980, "reference_quirks": True}, "below the last time"),
        ({"guidance": 3}, "d3hr has no field 'guidance'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AttarError, match=said):
        load_method("d3hr", changes)


@pytest.fixture(scope="module")
def kept(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of IPC 1 and 3 with statistics, of two of three times' moments one."""
    root = tmp_path_factory.mktemp("kept")
    method, spec = d3hr(fit__times="400,600", time=400), spec_of(world, keep_statistics=True, seed=3)
    distill_sets(Job(spec, Store(root / "cache")), "d3hr", method, (1, 3), root / "sets")
    return root / "sets"


def test_any_ipc_is_made_from_the_statistics_without_the_data(
    kept: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    prior = shutil.copytree(world / "dit", tmp_path / "moved")
    monkeypatch.setattr("attar.data.load_view", lambda *_: pytest.fail("the data was opened"))
    words = ["regenerate", kept / "ipc-001", "--ipc", "1,2,3", "--out", tmp_path / "out", "--prior", prior]
    assert attar(monkeypatch, *words) == 0
    for ipc, count in ((1, 4), (2, 8), (3, 12)):
        one = open_distilled(tmp_path / "out" / f"ipc-{ipc:03d}")
        assert verify(one.folder) == []
        assert len(one.manifest["images"]) == count
        if ipc != 2:
            assert one.manifest["images"] == open_distilled(kept / f"ipc-{ipc:03d}").manifest["images"]
    assert one.manifest["data"]["spec"] == open_distilled(kept / "ipc-001").manifest["data"]["spec"]
    capsys.readouterr()
    assert attar(monkeypatch, *words) == 0
    assert "already there" in capsys.readouterr().out
    assert attar(monkeypatch, *words, "--seed", 4) == 2


def test_statistics_are_the_means_and_deviations_of_the_classes(kept: Path, world: Path, store: Store) -> None:
    folder, job, method = kept / "ipc-003", Job(spec_of(world), store), d3hr(fit__times=400)
    arrays = load_file(folder / "statistics.safetensors")
    for label in job.labels:
        for name, value in method.statistics(learnt(job, method.fit, [label])).items():
            torch.testing.assert_close(arrays[name][label], value)
    assert verify(folder) == []
    copy = shutil.copytree(folder, store.root / "copy")
    (copy / "statistics.safetensors").write_bytes(b"")
    assert verify(copy) == ["altered: statistics.safetensors"]


def test_what_cannot_be_regenerated_is_refused(
    kept: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refused(*words: object) -> str:
        assert attar(monkeypatch, "regenerate", *words, "--ipc", 1, "--out", tmp_path / "out") == 2
        return str(capsys.readouterr().err)

    distill_sets(Job(spec_of(world), Store(tmp_path / "cache")), "d3hr", d3hr(), (1,), tmp_path / "plain")
    assert "keep_statistics" in refused(tmp_path / "plain")
    other = save_tiny_dit(tmp_path / "other", CLASSES, learned_sigma=False)
    assert "is not the prior" in refused(kept / "ipc-001", "--prior", other)
    copy = shutil.copytree(kept / "ipc-001", tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "seed": 9}))
    assert "damaged" in refused(copy)
    with pytest.raises(AttarError, match="`keep_statistics`: prior learns no mean"):
        distill_sets(Job(spec_of(world, keep_statistics=True)), "prior", load_method("prior"), (1,), tmp_path / "p")
    refined = load_method("d3hr", {"refine": "true"})
    with pytest.raises(AttarError, match="without the data, which refine needs"):
        distill_sets(Job(spec_of(world, keep_statistics=True)), "d3hr", refined, (1,), tmp_path / "p")


def test_a_dry_run_takes_a_large_prior_at_its_word(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attar.distillation.regenerate import regenerate

    monkeypatch.setattr("attar.priors.unread.LARGE", 0)
    said = list[str]()
    cache = Store(tmp_path / "cache")
    regenerate(kept / "ipc-001", [2], tmp_path / "two", store=cache, say=said.append, dry_run=True)
    assert "network passes" in "\n".join(said)


def test_the_report_says_how_a_regenerated_set_was_made(kept: Path, tmp_path: Path) -> None:
    from attar.distillation.regenerate import regenerate
    from attar.report.manifest_rows import distill_command

    (folder,) = regenerate(kept / "ipc-001", [2], tmp_path / "two", store=Store(tmp_path / "cache"), say=lambda _: None)
    assert f"attar regenerate DIR --ipc 2 --seed 3 --out {shlex.quote(str(folder))}" in distill_command(
        open_distilled(folder)
    )
    assert "--keep-statistics" in distill_command(open_distilled(kept / "ipc-001"))


def test_a_set_that_needs_the_data_again_is_not_regenerated(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.distillation.regenerate import regenerate

    method: Any = load_method("d3hr", {"select.pool": 2, "subsets": 10})
    out, store = tmp_path / "out", Store(tmp_path / "cache")
    (folder,) = distill_sets(Job(spec_of(world, keep_statistics=True), store), "d3hr", method, (1,), out)
    monkeypatch.setattr("attar.distillation.checks.needs_data", lambda method: "refine")
    with pytest.raises(AttarError, match="cannot be made again without the data, which refine needs"):
        regenerate(folder, [1], tmp_path / "again", store=store)


@pytest.mark.shared
@pytest.mark.slow
def test_matched_starts_have_the_norms_of_real_inverted_latents(shared: Callable[[str], Path], store: Store) -> None:
    from attar.core.progress import Meter, silent

    data, prior = f"parquet:{shared('data/cifar10')}@train", str(shared("priors/cifar10-dit"))
    job = Job(Spec(data=data, prior=prior, classes=("cat",), device="cpu"), store)
    method: Any = load_method("d3hr", {"fit.guidance": 1, "matching": "moments"})
    z = next(iter(job.latents.shards(0, 32))).sampled(0, "cat")
    inverted, _ = method.fit.inverted_at_times(
        job.prior, z, job.conditions([0]).expand(32), Meter(silent, "", 32, "images")
    )
    moments, real = Moments.of(inverted), inverted.flatten(1).norm(dim=1).mean()
    fitted = {"mean": moments.mean, "variance": moments.variance()}
    for n in (1, 2, 3, 10, 50):
        norms = method.start(job, fitted, 0, n).z.flatten(1).norm(dim=1)
        assert float(norms.mean()) == pytest.approx(float(real), rel=0.05)


@pytest.mark.shared
@pytest.mark.slow
def test_exact_inversion_of_real_images(shared: Callable[[str], Path], store: Store) -> None:
    data, prior = f"parquet:{shared('data/cifar10')}@train", str(shared("priors/cifar10-dit"))
    job = Job(Spec(data=data, prior=prior, classes=("cat",), device="cpu", tile=1), store)
    for guidance in (1, 4):
        fields = {"fit.guidance": guidance, "fit.per_class": 2, "fit.steps": 20, "fit.exact": True}
        method: Any = load_method("d3hr", fields)
        fitted = learnt(job, method.fit, [0])
        assert float(fitted["round_trip"]) < 1e-3
        assert float(fitted["unconverged"]) == 0


def test_the_best_group_is_the_same_however_many_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std = torch.zeros(1, 2, 8), torch.ones(1, 2, 8)
    found = []
    for cached in (1, 200, 2**22):
        monkeypatch.setattr("attar.methods.d3hr.matching.CACHED", cached)
        found.append(search(mean, std, 3, [(0, 50), (1, 25)], paper_score))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
