"""The supervised loop: schedules in closed form, batches, decay, soft labels, replay."""

from __future__ import annotations

import math
import platform
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from attar.networks import build
from attar.training import Checkpoint, Plan, Precision, Shown, Step, Supervision, batches, rate, seeded, top1, train
from attar.training.augment import Augmentation, apply, draw, mixed, normalised
from attar.training.loop import _taught_most
from attar.training.meters import TrainAccuracy

PLAIN = Augmentation(size=8, normalise="half")


def two_colours(n: int = 40) -> tuple[Tensor, Tensor]:
    """Noisy red and blue images: easy to tell apart."""
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 120, (n, 8, 8, 3), generator=torch.Generator().manual_seed(0))
    noise[labels == 0, ..., 0] += 100
    noise[labels == 1, ..., 2] += 100
    return noise.to(torch.uint8), labels


def scheduled(scheduler: type, epochs: int, **options: Any) -> list[float]:
    """The factors of a scheduler of torch, epoch by epoch."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler(optimiser, **options)
    factors = []
    for _ in range(epochs):
        factors.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return factors


@pytest.mark.parametrize("epochs", [10, 12, 301])
def test_schedules_are_torchs(epochs: int) -> None:
    multistep = scheduled(MultiStepLR, epochs, milestones=[2 * epochs // 3, 5 * epochs // 6], gamma=0.2)
    assert [rate(Plan(epochs, schedule="multistep"), e) for e in range(epochs)] == pytest.approx(multistep)
    cosine = scheduled(CosineAnnealingLR, epochs, T_max=epochs)
    assert [rate(Plan(epochs, schedule="cosine"), e) for e in range(epochs)] == pytest.approx(cosine)
    half = scheduled(CosineAnnealingLR, epochs, T_max=2 * epochs)
    found = [rate(Plan(epochs, schedule="half-cosine"), e) for e in range(epochs)]
    assert found == pytest.approx(half)
    assert found[-1] == pytest.approx(0.5 * (1 + math.sin(math.pi / (2 * epochs))))


def test_the_triangle_rises_for_a_quarter_and_falls() -> None:
    found = [rate(Plan(steps=1000, schedule="triangle"), step) for step in range(1000)]
    assert found[0] == pytest.approx(0.2)
    assert found.index(max(found)) == 230
    assert max(found) == pytest.approx(1)
    assert found[615] == pytest.approx((1 + 0.07) / 2)
    assert found[-1] == pytest.approx(0.07, abs=2e-3)


def test_warmup_counts_steps_where_the_plan_does() -> None:
    plan = Plan(steps=8, schedule="constant", warmup=4)
    assert [rate(plan, step) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("n", "sizes"), [(20, [8, 8, 4]), (16, [8, 8]), (17, [8, 9]), (5, [5]), (1, [1])])
def test_epochs_show_every_image_once(n: int, sizes: list[int]) -> None:
    found = list(batches(n, Plan(epochs=3, batch=8), 0))
    for epoch in range(3):
        parts = [(last, index) for e, last, index in found if e == epoch]
        assert [len(index) for _, index in parts] == sizes
        assert [last for last, _ in parts] == [False] * (len(sizes) - 1) + [True]
        assert sorted(torch.cat([index for _, index in parts]).tolist()) == list(range(n))
    assert len(found) == 3 * len(sizes)


@pytest.mark.parametrize("n", [3, 50])
def test_steps_are_full_batches_that_show_images_equally_often(n: int) -> None:
    found = list(batches(n, Plan(steps=25, batch=8), 0))
    assert [len(index) for _, _, index in found] == [8] * 25
    times = Counter(torch.cat([index for _, _, index in found]).tolist())
    assert len(times) == n
    assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_it_learns(optimiser: Any) -> None:
    images, labels = two_colours()
    network = build("convnet3-bn-w8", 2, 8, 0)
    train(network, images, labels, Plan(steps=40, batch=16, optimiser=optimiser, lr=0.01), PLAIN, 0)
    assert top1(network, images, labels, "half") == 100
    assert top1(network, images, 1 - labels, "half") == 0


@pytest.mark.parametrize(("side", "rows"), [(8, [256, 44]), (128, [64] * 4 + [44]), (1025, [1, 1])])
def test_large_images_are_tested_few_at_a_time(side: int, rows: list[int]) -> None:
    network, met = nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), list[int]()
    network.register_forward_pre_hook(lambda _, views: met.append(len(views[0])))
    images = torch.zeros(sum(rows), side, side, 3, dtype=torch.uint8)
    assert top1(network, images, torch.zeros(sum(rows), dtype=torch.int64), "half") in (0, 100)
    assert met == rows


def test_vectors_are_not_decayed() -> None:
    images, labels = two_colours(4)
    frozen = {"lr": 0.1, "weight_decay": 0.5, "optimiser": "adamw", "epochs": 1}
    for vectors in (True, False):
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        for parameter in network.parameters():
            nn.init.ones_(parameter)
            parameter.register_hook(torch.zeros_like)  # no gradient: decay alone moves it
        train(network, images, labels, Plan(**frozen, decay_vectors=vectors), PLAIN, 0)  # type: ignore[arg-type]
        weight, bias = network.parameters()
        torch.testing.assert_close(weight, torch.full_like(weight, 0.95))
        torch.testing.assert_close(bias, torch.full_like(bias, 0.95 if vectors else 1.0))


def test_one_step_of_cutmix_by_hand() -> None:
    images, labels = two_colours(8)
    how = Augmentation(size=8, flip=True, mix="cutmix", normalise="half")
    told: list[Step] = []
    network = build("convnet3-w8", 2, 8, 0)
    twin = build("convnet3-w8", 2, 8, 0)
    train(network, images, labels, Plan(epochs=1, lr=0.1, momentum=0, weight_decay=0), how, 5, after=told.append)
    _, _, index = next(batches(8, Plan(epochs=1), 5, "order"))
    drawn = draw(how, 8, 5, "augment", 0)
    assert drawn.partner is not None
    assert drawn.own is not None
    target = drawn.own * F.one_hot(labels[index], 2) + (1 - drawn.own) * F.one_hot(labels[index][drawn.partner], 2)
    loss = F.cross_entropy(twin(mixed(apply(images[index], drawn, how), drawn)), target)
    loss.backward()
    torch.testing.assert_close(told[0].loss, loss.detach())
    for after, before in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(after, before.detach() - 0.1 * before.grad)  # type: ignore[operator]


def test_label_smoothing_and_nesterov_by_hand() -> None:
    images, labels = two_colours(8)
    network, twin = (build("convnet3-w8", 2, 8, 0) for _ in range(2))
    plan = Plan(epochs=2, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0, schedule="constant", label_smoothing=0.2)
    train(network, images, labels, plan, PLAIN, 0)
    target = 0.8 * F.one_hot(labels, 2) + 0.1
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(2):
        optimiser.zero_grad()
        (-target * F.log_softmax(twin(images.permute(0, 3, 1, 2) / 127.5 - 1), 1)).sum(1).mean().backward()
        optimiser.step()
    for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_soft_labels_at_a_temperature() -> None:
    images, labels = two_colours(8)
    network, teacher = build("convnet3-w8", 2, 8, 0), build("convnet3-w8", 2, 8, 1).eval()
    told: list[Step] = []
    plan = Plan(epochs=1, temperature=4.0, lr=0.0)
    train(network, images, labels, plan, PLAIN, 0, supervision=Supervision(teacher=teacher), after=told.append)
    x = images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        p, q = (F.softmax(n(x) / 4, 1) for n in (teacher, network))
    torch.testing.assert_close(told[0].loss, (p * (p / q).log()).sum(1).mean(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("mix", "first"), [("cutmix", "mixed"), ("mixup", "unmixed"), ("none", "unmixed")])
def test_the_extra_forward_pass_moves_batch_statistics_by_the_batch_that_rded_holds(mix: Any, first: str) -> None:
    images, labels = two_colours(8)
    how = Augmentation(size=8, crop=0.3, flip=True, mix=mix, normalise="half")
    found = {}
    for extra in (False, True):
        network = build("convnet3-bn-w8", 2, 8, 0)
        train(network, images, labels, Plan(epochs=1, extra_forward=extra), how, 0)
        found[extra] = dict(network.state_dict())
    torch.testing.assert_close(found[True]["0.weight"], found[False]["0.weight"])
    _, _, index = next(batches(8, Plan(epochs=1), 0, "order"))
    drawn = draw(how, 8, 0, "augment", 0)
    plain = apply(images[index], drawn, how)
    view = mixed(plain, drawn)
    twin = build("convnet3-bn-w8", 2, 8, 0)
    for seen in (view if first == "mixed" else plain, view):
        twin(seen)
    for name in ("1.num_batches_tracked", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[True][name], twin.state_dict()[name])
        assert not torch.equal(found[True][name], found[False][name])


def test_accumulated_parts_by_hand() -> None:
    """Batches of 6 in two parts of 10 images: 3 + 3, then 3 and 1, which joins them; each part has half of the loss."""
    images, labels = two_colours(10)
    network, twin = (build("convnet3-bn-w8", 2, 8, 0) for _ in range(2))
    plan = Plan(epochs=1, batch=6, accumulate=2, lr=0.1, momentum=0, weight_decay=0)
    told: list[Step] = []
    train(network, images, labels, plan, PLAIN, 0, after=told.append)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    for (_, _, index), parts in zip(batches(10, plan, 0, "order"), ([3, 3], [4]), strict=True):
        optimiser.zero_grad()
        for part in index.split(parts):
            (F.cross_entropy(twin(normalised(images[part], "half")), labels[part]) / 2).backward()
        optimiser.step()
    for name, ours in network.state_dict().items():
        torch.testing.assert_close(ours, twin.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert twin.state_dict()["1.num_batches_tracked"] == 3
    assert [step.images for step in told] == [6, 4]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_learns_nearly_the_same(precision: Precision) -> None:
    images, labels = two_colours(8)
    found = []
    both: tuple[Precision, ...] = ("float32", precision)
    for own in both:
        told: list[Step] = []
        plan = Plan(epochs=4, lr=0.01, precision=own)
        train(build("convnet3-bn-w8", 2, 8, 0), images, labels, plan, PLAIN, 0, after=told.append)
        found.append(torch.stack([step.loss for step in told]))
    torch.testing.assert_close(*found, rtol=0.05, atol=0.02)
    assert not torch.equal(*found)


def test_a_float16_training_goes_on_with_the_scale_that_it_had(tmp_path: Path) -> None:
    """The scale is halved twice before the interruption: from its first value, steps would be left out again."""
    images, labels = two_colours(16)
    plan = Plan(epochs=2, batch=4, lr=0.01, precision="float16")

    class Interrupted(Exception): ...

    def trained(stop: int = 0) -> dict[str, Tensor]:
        def after(step: Step) -> None:
            if step.done == stop:
                raise Interrupted

        network, checkpoint = build("convnet3-bn-w8", 2, 8, 0), Checkpoint(tmp_path, seconds=0)
        network.register_forward_hook(lambda module, inputs, logits: logits * 100)  # gradients that overflow at first
        train(network, images, labels, plan, PLAIN, 0, after=after, checkpoint=checkpoint)
        return dict(network.state_dict())

    with pytest.raises(Interrupted):
        trained(stop=6)
    kept = torch.load(tmp_path / ".checkpoint", weights_only=True)
    assert (kept["step"], kept["scaler"]["scale"] < 2**16) == (5, True)
    resumed = trained()
    (tmp_path / ".checkpoint").unlink()
    whole = trained()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def steps(epochs: int, batches: int, images: int, right: Any) -> list[Step]:
    """Those of a training of which `right(number)` views of each batch are given their label."""
    total, loss = epochs * batches, torch.zeros(())
    return [
        Step(i + 1, total, i // batches + 1, epochs, i % batches == batches - 1, images, loss, torch.tensor(right(i)))
        for i in range(total)
    ]


@pytest.mark.parametrize(("epochs", "batches", "images", "last"), [(3, 40, 10, 40), (100, 1, 10, 26), (4, 1, 10, 4)])
def test_the_fit_is_that_of_the_last_epoch_and_of_256_views_at_least(
    epochs: int, batches: int, images: int, last: int
) -> None:
    fit = TrainAccuracy()
    for step in steps(epochs, batches, images, lambda i: 9 if i >= epochs * batches - last else 0):
        fit.add(step)
    assert (fit.views, fit.share) == (last * images, 90.0)


def test_chance_is_the_largest_class_and_a_little_luck() -> None:
    fit = TrainAccuracy()
    for step in steps(100, 1, 10, lambda _: 1):
        fit.add(step)
    assert fit.chance(0.1) == pytest.approx(10 + 200 * (0.09 / 260) ** 0.5)
    assert fit.share <= fit.chance(0.1)
    assert fit.chance(1.0) == 100


def test_views_are_counted_against_what_they_were_taught_most_of() -> None:
    """Of mixtures the larger part's label, of soft labels the teacher's first."""
    images, labels = two_colours(8)
    nothing = Plan(epochs=1, batch=8, lr=0.0)
    for own, expected in ((0.75, 8), (0.25, 0)):
        shown = Shown(torch.zeros(8, 3, 8, 8), torch.zeros(8, 3, 8, 8), 1 - torch.arange(8) % 2, torch.tensor([[own]]))
        index = torch.arange(8)
        logits = F.one_hot(labels, 2).float()
        assert int((logits.argmax(1) == _taught_most(labels, index, shown, None)).sum()) == expected
    network, told = build("convnet3-w8", 2, 8, 0), list[Step]()
    plan = replace(nothing, temperature=1.0)
    train(network, images, 1 - labels, plan, PLAIN, 0, supervision=Supervision(teacher=network), after=told.append)
    assert int(told[0].correct) == 8


def test_replay_with_dropout_leaves_the_global_generator_alone() -> None:
    images, labels = two_colours(12)
    how = Augmentation(size=8, crop=0.5, flip=True, jitter=0.4, lighting=0.1, mix="cutmix")
    weights: list[Tensor] = []
    for state in (1, 2):
        head = nn.Linear(8, 2)
        network = nn.Sequential(build("convnet3-w8", 8, 8, 0), nn.Dropout(0.5), head)
        nn.init.constant_(head.weight, 0.1)
        nn.init.zeros_(head.bias)
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        train(network, images, labels, Plan(epochs=3, batch=4), how, 0)
        assert torch.equal(before, torch.random.get_rng_state())
        weights.append(head.weight)
    assert torch.equal(weights[0], weights[1])


def test_seeded() -> None:
    with seeded(torch.device("cpu"), 1):
        one = torch.randn(3)
    with seeded(torch.device("cpu"), 1):
        assert torch.equal(one, torch.randn(3))


PAGES = """
import resource, torch
from attar.training import memory_kept

def new_pages():  # of a tensor of 40 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with memory_kept():
    kept = min(new_pages() for _ in range(12))  # the heap settles after a few
print(kept, new_pages())
"""
"""In a process of its own: the heap of one that has run other tests has holes that are large enough."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
def test_memory_is_kept_and_given_back() -> None:
    kept, given_back = map(int, subprocess.check_output([sys.executable, "-c", PAGES], text=True).split())
    assert kept < given_back / 5
