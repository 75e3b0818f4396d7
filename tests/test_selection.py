"""Selection rules and features, each held to a second implementation; and the methods that are made of them."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from toys import save_folder, save_tiny_dit, save_tiny_sd

from attar.core.errors import AttarError
from attar.core.progress import quiet
from attar.core.store import Store
from attar.distillation.artefacts import artefacts, load_artefact
from attar.distillation.checks import planned
from attar.distillation.cluster_items import item_stages
from attar.distillation.run import distill_sets
from attar.experiments.spec import read_experiment
from attar.job import Job, Spec
from attar.methods import load_method, method_in_words
from attar.networks import build
from attar.priors import load_prior
from attar.priors.codec import to_uint8
from attar.priors.features import TIME, prior_features
from attar.priors.prompts import class_prompts
from attar.report.manifest_rows import distill_command
from attar.selection import Select, random_order
from attar.selection.features import ImageFeatures, teacher_for
from attar.selection.rules import FeatureRows, herding, k_center, margins, medoids, surest
from attar.sets.distilled import open_distilled
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

CLASSES = ["ant", "bee", "cat"]
EACH = 20


def points(n: int = 40, d: int = 5, seed: int = 0) -> FeatureRows:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def herded(rows: FeatureRows, count: int) -> list[int]:
    """iCaRL's algorithm 4 as it is written: the mean of all kept, the new one among them, is nearest to the mean."""
    x = torch.from_numpy(rows).double()
    kept: list[int] = []
    for _ in range(count):
        means = {i: x[[*kept, i]].mean(0) for i in range(len(x)) if i not in kept}
        kept.append(min(means, key=lambda i: float((means[i] - x.mean(0)).norm())))
    return kept


def spread(rows: FeatureRows, count: int) -> list[int]:
    """Greedy k-center on the whole matrix of distances."""
    x = torch.from_numpy(rows).double()
    away = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    kept = [int((x - x.mean(0)).norm(dim=1).argmin())]
    while len(kept) < count:
        rest = [i for i in range(len(x)) if i not in kept]
        kept.append(max(rest, key=lambda i: float(away[i, kept].min())))
    return kept


@pytest.mark.parametrize(("rule", "second"), [(herding, herded), (k_center, spread)])
@pytest.mark.parametrize("seed", range(3))
def test_a_rule_agrees_with_a_second_implementation(
    rule: Callable[[FeatureRows, int], Any], second: Callable[[FeatureRows, int], list[int]], seed: int
) -> None:
    rows = points(seed=seed)
    assert rule(rows, 12).tolist() == second(rows, 12)
    assert rule(rows, 5).tolist() == second(rows, 12)[:5], "a smaller choice is the beginning of a larger one"


def test_medoids_of_separate_clusters_are_their_most_central_members() -> None:
    """In well separated clusters k-means finds these, whose medoids are known by looking at every member."""
    centres = 100 * np.eye(4, 5, dtype=np.float32)
    rows = np.concatenate([points(9, seed=k) + centre for k, centre in enumerate(centres)])
    expected = {
        9 * k + min(range(9), key=lambda i: float(np.linalg.norm(part[i].astype(float) - part.mean(0, dtype=float))))
        for k, part in enumerate(np.split(rows, 4))
    }
    assert set(medoids(rows, 4).tolist()) == expected


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("rule", [herding, k_center, medoids])
def test_equal_candidates_are_kept_once_each_and_the_first_of_them_first(
    rule: Callable[[FeatureRows, int], Any],
) -> None:
    same = np.ones((6, 3), np.float32)
    assert rule(same, 4).tolist() == [0, 1, 2, 3]
    assert sorted(rule(points(7), 7).tolist()) == list(range(7))
    doubled = np.concatenate([points(5), points(5)])
    assert rule(doubled, 1)[0] < 5


def test_many_rows_are_compared_as_few_are() -> None:
    rows = np.concatenate([points(1500, 3), points(1500, 3)])
    assert max(k_center(rows, 30)) < 1500, "of two that are equal the first is kept, in whichever chunk it stands"


def test_the_surest_are_those_of_the_lowest_loss() -> None:
    assert surest(np.array([2.0, 0.5, 1.0, 0.5, 3.0]), 4).tolist() == [1, 3, 2, 0]


def test_herding_comes_nearer_to_the_mean_than_chance() -> None:
    rows, draw = points(200, 8), np.random.default_rng(1)
    away = [np.linalg.norm(rows[draw.permutation(200)[:10]].mean(0) - rows.mean(0)) for _ in range(200)]
    assert np.linalg.norm(rows[herding(rows, 10)].mean(0) - rows.mean(0)) < min(away)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a colour for each class, some paler than others, a teacher of them, and a random prior."""
    root = tmp_path_factory.mktemp("world")
    save_folder(root / "data", CLASSES, each=EACH)
    for channel, name in enumerate(CLASSES):
        for index, file in enumerate(sorted((root / "data" / name).iterdir())):
            pixels = np.asarray(Image.open(file)).astype(float) * 0.3
            pixels[..., channel] += 10 + 8 * index
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    new = TeacherTraining(
        f"imagefolder:{root / 'data'}", network="convnet3-bn-w16", epochs=12, batch=18, lr=0.25, device="cpu"
    )
    train_teacher(new, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def job_of(world: Path, store: Store, prior: bool = False, **spec: Any) -> Job:
    where = str(world / "dit") if prior else None
    return Job(Spec(data=f"imagefolder:{world / 'data'}", prior=where, device="cpu", **spec), store)


def teacher_of(world: Path, **fields: Any) -> Select:
    return Select(teacher=str(world / "teacher"), **fields)


def outputs(world: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """A teacher's last features and logits of images (N, 3, H, W) from 0 to 1: a second implementation."""
    network: Any = build("convnet3-bn-w16", len(CLASSES), 16, seed=0).eval()
    network.load_state_dict(load_file(world / "teacher" / "model.safetensors"))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    with torch.no_grad():
        *body, head = network
        features = torch.nn.Sequential(*body)((images - mean) / std)
        return features, head(features)


def pictures(world: Path, name: str) -> Tensor:
    files = sorted((world / "data" / name).iterdir())
    return torch.stack([torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) / 255 for f in files])


def real_pool(job: Job, label: int) -> Tensor:
    return torch.from_numpy(job.images.of_class(label))


def test_a_teachers_features_and_losses(world: Path, store: Store) -> None:
    job, look = job_of(world, store), ImageFeatures("teacher", teacher_of(world, rule="confident").reference)
    for label, name in enumerate(CLASSES):
        features, logits = outputs(world, pictures(world, name))
        pool = real_pool(job, label)
        torch.testing.assert_close(torch.from_numpy(look.rows(job, label, pool)), features, rtol=1e-4, atol=1e-4)
        expected = F.cross_entropy(logits, torch.full((EACH,), label), reduction="none").double()
        torch.testing.assert_close(torch.from_numpy(look.losses(job, label, pool)), expected, rtol=1e-3, atol=1e-4)


def test_confident_keeps_the_most_probable_and_a_share_is_chosen_from_them(world: Path, store: Store) -> None:
    job = job_of(world, store)
    for label, name in enumerate(CLASSES):
        features, logits = outputs(world, pictures(world, name))
        best = logits.softmax(1)[:, label].argsort(descending=True)
        pool = real_pool(job, label)
        assert teacher_of(world, rule="confident")(job, label, pool, 6).tolist() == best[:6].tolist()
        typical = np.sort(best[: EACH // 2].numpy())
        expected = typical[k_center(features.numpy()[typical], 4)]
        assert teacher_of(world, rule="k-center", share=0.5)(job, label, pool, 4).tolist() == expected.tolist()
        some = teacher_of(world, rule="random", share=0.1)(job, label, pool, 5)
        assert set(some.tolist()) == set(best[:5].tolist()), "never fewer than are to be kept"


def test_random_is_what_it_was(world: Path, store: Store) -> None:
    """The baseline of every evaluation: its images must not change."""
    assert random_order(0, "ant", 12).tolist() == [9, 10, 11, 8, 6, 2, 3, 4, 1, 5, 0, 7]
    job = job_of(world, store, seed=3)
    assert Select(rule="random")(job, 1, real_pool(job, 1), 5).tolist() == random_order(3, "bee", EACH)[:5].tolist()
    assert Select()(job, 1, real_pool(job, 1), 3).tolist() == [0, 1, 2]


def test_pixels_and_latents(world: Path, store: Store) -> None:
    job = job_of(world, store, prior=True)
    pool = real_pool(job, 2)
    large = [
        np.asarray(Image.fromarray(np.uint8(255 * p.permute(1, 2, 0) + 0.5)).resize((32, 32), 3))
        for p in pictures(world, "cat")
    ]
    expected = np.stack(large).transpose(0, 3, 1, 2).reshape(EACH, -1) / 127.5 - 1
    np.testing.assert_allclose(ImageFeatures("pixels").rows(job, 2, pool), expected, atol=1e-5)
    mean, _ = job.codec.encode(2 * pictures(world, "cat") - 1)
    found = torch.from_numpy(ImageFeatures("latents").rows(job, 2, pool))
    torch.testing.assert_close(found, mean.flatten(1), rtol=0.01, atol=0.01)  # bfloat16 on disk
    torch.testing.assert_close(ImageFeatures("latents").rows(job, 2, mean), mean.flatten(1).numpy())


def test_the_priors_middle_layer(world: Path, store: Store) -> None:
    """Against the transformer's blocks, called one by one."""
    job = job_of(world, store, prior=True)
    z = torch.randn(5, *job.codec.shape, generator=torch.Generator().manual_seed(0))
    network: Any = job.prior.network
    transformer = network.transformer
    noised = job.prior.schedule.abar(TIME) ** 0.5 * z
    with torch.no_grad():
        hidden, times, null = transformer.pos_embed(noised), torch.full((5,), TIME), torch.full((5,), job.prior.null)
        for block in transformer.transformer_blocks[: len(transformer.transformer_blocks) // 2 + 1]:
            hidden = block(hidden, timestep=times, class_labels=null)
    torch.testing.assert_close(prior_features(job.prior, z), hidden.mean(1), rtol=1e-4, atol=1e-5)
    assert not any(block._forward_hooks for block in transformer.transformer_blocks)
    torch.testing.assert_close(ImageFeatures("prior").rows(job, 0, z), prior_features(job.prior, z).numpy())


def test_a_unets_middle_layer_is_one_row_for_each_latent(tmp_path: Path) -> None:
    told = class_prompts(CLASSES, CLASSES, "{name}", None, None)
    prior = load_prior(str(save_tiny_sd(tmp_path / "sd")), device="cpu", tile=1, prompts=told, store=Store(tmp_path))
    found = prior_features(prior, torch.randn(5, *prior.codec.shape, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (5, 16)
    assert len(found.unique(dim=0)) == 5


def test_generated_images_are_judged_as_they_are_decoded(world: Path, store: Store) -> None:
    job, look = (
        job_of(world, store, prior=True),
        ImageFeatures("teacher", teacher_of(world, rule="confident").reference),
    )
    z = torch.randn(7, *job.codec.shape, generator=torch.Generator().manual_seed(0))
    decoded = (((job.codec.decode(z) + 1) * 127.5).round().clamp(0, 255)) / 255
    features, logits = outputs(world, decoded)
    np.testing.assert_allclose(look.rows(job, 1, z), features, rtol=1e-3, atol=1e-3)
    best = logits.softmax(1)[:, 1].argsort(descending=True)
    assert teacher_of(world, rule="confident", pool=7)(job, 1, z, 3).tolist() == best[:3].tolist()


def test_features_are_made_once_for_all_rules_and_ipcs(world: Path, store: Store, tmp_path: Path) -> None:
    for number, (rule, share) in enumerate(itertools.product(("herding", "k-center", "medoid"), (1.0, 0.5))):
        chosen = load_method(rule, {"select.teacher": str(world / "teacher"), "select.share": share})
        distill_sets(Job(job_of(world, store).spec, store), rule, chosen, (1, 3), tmp_path / str(number))
    assert len(list((store.root / "features").glob("[!.]*"))) == len(CLASSES)


@pytest.mark.usefixtures("ticking")
def test_a_teacher_is_known_by_what_it_is_and_not_by_where_it_lies(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, method = job_of(world, store), load_method("confident", {"select.teacher": str(world / "teacher")})
    (out,) = distill_sets(Job(job.spec, store), "confident", method, (2,), tmp_path / "out")
    monkeypatch.chdir(world)
    said: list[str] = []
    moved = load_method("confident", {"select.teacher": "teacher"})
    distill_sets(Job(job.spec, store), "confident", moved, (2,), out, say=said.append)
    assert any("already there" in text for text in said)
    one = open_distilled(out)
    assert str(world) not in str(one.manifest["method"])
    assert one.manifest["selected_by"]["named"]["teacher"] == str(world / "teacher")
    assert one.manifest["selected_by"]["accuracy"] > 60
    assert one.manifest["seconds"]["features"] > 0
    teacher = shlex.quote(f"select.teacher={world / 'teacher'}")
    assert f"--set {teacher}" in distill_command(one)
    weights = load_file(world / "teacher" / "model.safetensors")
    weights["13.bias"] += 0.01
    save_file(weights, tmp_path / "other.safetensors")
    other = f"convnet3-bn-w16:{tmp_path / 'other.safetensors'}"
    fields = {"select.teacher": other, "select.teacher_normalise": "cifar"}
    with pytest.raises(AttarError, match="another run"):
        distill_sets(Job(job.spec, store), "confident", load_method("confident", fields), (2,), out)


def test_a_part_of_the_classes_is_judged_among_all_that_the_teacher_knows(world: Path, store: Store) -> None:
    whole, some = job_of(world, store), job_of(world, store, classes=("cat", "ant"))
    look = ImageFeatures("teacher", teacher_of(world, rule="confident").reference)
    np.testing.assert_array_equal(look.losses(some, 1, real_pool(some, 1)), look.losses(whole, 2, real_pool(whole, 2)))
    alone = job_of(world, store, classes=("bee",))
    assert look.teacher is not None
    assert teacher_for(alone, look.teacher).logits == [1]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("confident", {}, "`select.teacher` is missing, the classifier whose surest images are kept"),
        ("herding", {"select.features": "teacher"}, "`select.teacher` is missing"),
        ("herding", {"select.share": 0.5}, "`select.teacher` is missing"),
        ("herding", {"select.features": "prior"}, "`select.features` prior: name a `prior`, or"),
        ("confident", {"select.teacher": "nowhere"}, "`teacher` nowhere: there is no such folder"),
        ("random", {"select.teacher": "nowhere"}, "select.rule random asks no teacher here"),
        ("random", {"select.features": "pixels"}, "only herding, k-center, medoid, margin compare features"),
        ("herding", {"select.teacher_normalise": "half"}, "name select.teacher too"),
        ("herding", {"select.share": 0}, "above 0, at most 1"),
        ("confident", {"select.share": 0.5}, "of no use to select.rule confident"),
        ("herding", {"select.pool": 10}, "real images are chosen from all of their class"),
        ("k-center", {"select.rule": "farthest"}, "choose one of first, random, herding"),
        ("herding", {"select.rule": "random"}, "select.rule = random is another: choose `method` random$"),
        ("random", {"select.rule": "k-center"}, "select.rule = k-center is another: choose `method` k-center$"),
        (
            "random",
            {"select": {"rule": "first"}},
            "choose `method` herding or k-center or medoid or margin or confident$",
        ),
        ("prior", {"select.rule": "herding", "select.pool": 2}, "generate more than are kept"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    world: Path, store: Store, tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    job = job_of(world, store, prior=name == "prior")
    with pytest.raises(AttarError, match=message):
        distill_sets(Job(job.spec, store), name, load_method(name, fields), (2, 4), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list((store.root / "features").glob("*"))


def test_a_teacher_of_other_classes_is_refused(world: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\nant\nbee\n")
    select = teacher_of(world, rule="confident", teacher_classes=str(tmp_path / "names.txt"))
    with pytest.raises(AttarError, match=r"another order.*`teacher_classes`"):
        select.try_teacher(job_of(world, store))


def test_any_method_chooses_among_what_it_makes(world: Path, store: Store, tmp_path: Path) -> None:
    job = job_of(world, store, prior=True)
    steps = {"sampler.steps": 4, "select.pool": 6}
    teacher = {"select.rule": "confident", "select.teacher": str(world / "teacher")}
    pools = [
        distill_sets(Job(job.spec, store), "prior", load_method("prior", {**steps, **more}), ipcs, tmp_path / str(k))[0]
        for k, (more, ipcs) in enumerate(((({}), (6,)), (teacher, (2, 3)), ({"select.rule": "herding"}, (2,))))
    ]
    assert len(list((store.root / "candidates").glob("[!.]*"))) == len(CLASSES), "one pool serves all rules"
    made, best, spread_out = (
        [[np.asarray(Image.open(file)) for file in files] for files in open_distilled(pool).files()] for pool in pools
    )
    for label in range(len(CLASSES)):
        images = torch.from_numpy(np.stack(made[label])).permute(0, 3, 1, 2) / 255
        losses = F.cross_entropy(outputs(world, images)[1], torch.full((6,), label), reduction="none")
        expected = [made[label][i] for i in losses.argsort()[:2]]
        assert all(np.array_equal(one, two) for one, two in zip(best[label], expected, strict=True))
        assert len(spread_out[label]) == 2


def test_a_rule_on_real_images_describes_itself() -> None:
    head, *text = method_in_words("confident").splitlines()
    assert head.startswith("confident: real images that a teacher classifies most surely; name it with `select.t")
    assert head.endswith("(select.rule = confident)")
    assert any("(one of auto, teacher, prior, latents, pixels)" in line for line in text)
    assert not any(line.startswith(("  select.rule =", "  select.pool =")) for line in text)


def test_a_dry_run_counts_what_is_to_be_looked_at(world: Path, store: Store, tmp_path: Path) -> None:
    for prior, fields, message in (
        (False, {"select.teacher": str(world / "teacher")}, "60 images for the teacher to look at"),
        (True, {}, "60 images to encode"),
        (True, {"select.features": "prior"}, "60 images for the prior to look at"),
    ):
        job, method, said = job_of(world, store, prior), load_method("herding", fields), list[str]()
        distill_sets(Job(job.spec, store, dry=True), "herding", method, (1, 2), tmp_path / "out", say=said.append)
        assert message in said[-1]
        distill_sets(Job(job.spec, store), "herding", method, (1, 2), tmp_path / message)
        distill_sets(Job(job.spec, store, dry=True), "herding", method, (1, 2), tmp_path / "out", say=said.append)
        assert "look at" not in said[-1]
        assert "encode" not in said[-1]


def test_experiments_name_them(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    file.write_text(
        f"""data = "imagefolder:{world / "data"}"
ipc = [1, 2]
out = "{tmp_path / "out"}"
[methods.random]
[methods.confident]
set = {{"select.teacher" = "teacher"}}
[methods.typical-then-spread]
method = "k-center"
set = {{select = {{teacher = "teacher", share = 0.2}}}}
[evaluations.quick]
networks = ["convnet3"]
"""
    )
    _, confident, mixed = read_experiment(file).contenders
    assert confident.method.select == Select("confident", teacher="teacher")
    assert mixed.method.select == replace(Select("k-center"), teacher="teacher", share=0.2)


def test_margins_are_differences_of_squared_distances() -> None:
    rows, means = points(9, 4), points(3, 4, seed=1).astype(float)
    own, *others = ((torch.from_numpy(rows).double() - torch.from_numpy(mean)).norm(dim=1) ** 2 for mean in means)
    expected = own - torch.stack(others).amin(0)
    np.testing.assert_allclose(margins(rows, means[0], list(means[1:])), expected.numpy(), rtol=1e-9)


def test_a_joint_choice_keeps_what_is_far_from_the_candidates_of_other_classes(
    world: Path, store: Store, tmp_path: Path
) -> None:
    job, select = job_of(world, store, prior=True), Select(rule="margin", pool=6)
    method: Any = load_method("prior", {"sampler.steps": 4, "select.rule": "margin", "select.pool": 6})
    (out,) = distill_sets(job, "prior", method, (2,), tmp_path / "out")
    made = artefacts(job, method, 2).candidates
    pools = {label: load_artefact(job, made[label])["z"] for label in job.labels}
    means = {label: pool.flatten(1).double().mean(0) for label, pool in pools.items()}
    choice = select.among(job, {label: partial(pools.__getitem__, label) for label in pools})
    for label, pool in pools.items():
        away = {other: (pool.flatten(1).double() - mean).norm(dim=1) ** 2 for other, mean in means.items()}
        nearest = torch.stack([far for other, far in away.items() if other != label]).amin(0)
        expected = (away[label] - nearest).argsort()[:2]
        assert choice(job, label, pool, 2).tolist() == expected.tolist()
        shown = [np.asarray(Image.open(file)) for file in open_distilled(out).files()[label]]
        np.testing.assert_array_equal(np.stack(shown), to_uint8(job.codec.decode(pool[expected])))


def test_a_joint_choice_of_real_images_depends_on_the_other_classes(world: Path, store: Store, tmp_path: Path) -> None:
    method, kept = load_method("margin", {"select.features": "pixels"}), []
    for number, classes in enumerate((("ant", "bee"), ("ant", "cat"))):
        (out,) = distill_sets(job_of(world, store, classes=classes), "margin", method, (3,), tmp_path / str(number))
        kept.append([file.read_bytes() for file in open_distilled(out).files()[0]])
    assert len(set(map(tuple, kept))) == 2
    with pytest.raises(AttarError, match=r"select.rule` margin: it compares classes; give it two or more"):
        distill_sets(job_of(world, store, classes=("ant",)), "margin", method, (3,), tmp_path / "one")


def test_what_is_refined_of_a_joint_choice_is_known_by_the_candidates_of_all_classes(world: Path, store: Store) -> None:
    for rule, same in (("margin", False), ("herding", True)):
        fields = {"sampler.steps": 4, "select.rule": rule, "select.pool": 6, "refine.steps": 1}
        method: Any = load_method("prior", fields)
        all_three, two = (
            artefacts(job_of(world, store, prior=True, classes=classes), method, 2)
            for classes in (("ant", "bee", "cat"), ("ant", "bee"))
        )
        assert all_three.candidates[0].key == two.candidates[0].key
        assert (all_three.refined[0].key == two.refined[0].key) is same


def test_workers_leave_a_joint_choice_to_the_run(world: Path, store: Store, tmp_path: Path) -> None:
    fields = {"sampler.steps": 4, "select.rule": "margin", "select.pool": 6, "refine.steps": 1}
    job, method = job_of(world, store, prior=True), load_method("prior", fields)
    plan = planned(job, "prior", method, (2,), tmp_path / "out", quiet)
    for items in item_stages(plan, (2,)):
        for item in items:
            item.make()
            assert item.done
    asked = plan.artefacts[2]
    assert all(map(store.has, asked.candidates.values()))
    assert not any(map(store.has, asked.refined.values()))


def test_a_fit_cannot_choose_jointly(world: Path, store: Store, tmp_path: Path) -> None:
    method = load_method("exemplars", {"fit.select.rule": "margin"})
    with pytest.raises(AttarError, match=r"fit.select.rule margin: a fit sees a class by itself"):
        distill_sets(job_of(world, store, prior=True), "exemplars", method, (1,), tmp_path / "out")
