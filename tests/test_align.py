"""Representation alignment: a teacher's maps, the head that meets them, and the prior that is left without it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_prior import TINY, spec, weights
from torch import Tensor, nn
from toys import attar, save_folder

from attar.core.errors import AttarError
from attar.core.rng import generator
from attar.core.store import Store
from attar.diffusion.loss import forward_of
from attar.priors.codec import to_float
from attar.priors.folder import new_scheduler, read_card
from attar.priors.shared_embedders import untrained
from attar.priors.training import train as training
from attar.priors.training.align import Alignment, alignment
from attar.priors.training.latent_set import LatentSet
from attar.priors.training.optimise import Session
from attar.priors.training.run import train_new_prior
from attar.teachers.load import load_pretrained
from attar.teachers.maps import TeacherMaps, open_maps
from attar.teachers.settings import TeacherTraining
from attar.teachers.teacher import Pretrained
from attar.teachers.train import train_teacher
from attar.training.processes import accelerator

NAMES = ["cat", "dog"]
HELPER = accelerator("cpu", "float32")


@pytest.fixture(autouse=True)
def initialised() -> None:
    """Other tests take accelerate's state of the process away, which HELPER needs."""
    accelerator("cpu", "float32")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16 pixels, and a teacher of them."""
    root = tmp_path_factory.mktemp("align")
    save_folder(root / "data", NAMES, 12)
    asked = TeacherTraining(str(root / "data"), "convnet3-bn-w16", epochs=1, batch=8, device="cpu")
    train_teacher(asked, root / "teacher", store=Store(root / "cache"), say=lambda _: None)
    return root


@pytest.fixture(scope="module")
def teacher(world: Path) -> TeacherMaps:
    return open_maps(str(world / "teacher"))


def test_a_teachers_map_is_what_its_logits_are_made_of(world: Path, teacher: TeacherMaps) -> None:
    pretrained = load_pretrained(str(world / "teacher"), None, 2, 16)
    drawn = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=generator("images"))
    images = to_float(drawn.numpy())
    maps, deviations = teacher.encode(images)
    assert (teacher.size, teacher.shape, tuple(maps.shape)) == (16, (16, 2, 2), (3, 16, 2, 2))
    assert not deviations.any()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pretrained.mean, pretrained.std))
    with torch.no_grad():
        logits = pretrained.network((images / 2 + 0.5 - mean) / std)
        torch.testing.assert_close(list(pretrained.network.modules())[-1](maps.flatten(1)), logits)


class Tokens(nn.Module):
    """A network whose features are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.patches(x).flatten(2).mT).mean(1))
        return logits


class Squeezed(nn.Sequential):
    """A network whose logits come of other features than its last map's."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(128, 5), nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("network", "size", "told"),
    [
        (Tokens, 16, "it makes no feature map; give a convolutional network"),
        (Squeezed, 16, "its logits are not made of its last map, 8 x 4 x 4, but of 5 features"),
        (Squeezed, None, "the size of its images is not known"),
    ],
)
def test_what_has_no_map_is_refused(
    network: type[nn.Module], size: int | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = (0.5, 0.5, 0.5)
    given = Pretrained("x", network().eval(), None, size, half, half, 2)
    monkeypatch.setattr("attar.teachers.maps.load_pretrained", lambda *_: given)
    with pytest.raises(AttarError, match=f"`align` x: {told}"):
        open_maps("x")


def test_latents_know_whose_maps_are_theirs() -> None:
    picked, draw = torch.arange(4).repeat(50), generator("draw")
    two = LatentSet(torch.arange(8.0).view(8, 1, 1, 1), None, torch.zeros(4, dtype=torch.int64))
    z, rows = two.views(picked, draw)
    assert torch.equal(z.flatten().long(), rows)
    assert set(rows.tolist()) == set(range(8))
    pixels = LatentSet(torch.tensor([0.0, 1.0]).expand(4, 1, 1, 2), None, torch.zeros(4).long(), mirrored=True)
    z, rows = pixels.views(picked, draw)
    assert torch.equal(z[:, 0, 0, 0] == 1, rows >= 4)
    assert torch.equal(rows % 4, picked)


def aligned(teacher: TeacherMaps, maps: Tensor, weight: float = 2.0) -> Alignment:
    return Alignment(teacher, nn.Identity(), nn.Identity(), weight, maps)


def test_each_token_is_held_to_its_own_place(teacher: TeacherMaps) -> None:
    maps = torch.randn(3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    rows, loss = torch.tensor([2, 0]), aligned(teacher, maps).loss
    tokens = maps[rows].flatten(2).mT
    assert float(loss(5 * tokens, maps[rows], HELPER)) == pytest.approx(0, abs=1e-5)
    assert float(loss(-tokens, maps[rows], HELPER)) == pytest.approx(4, abs=1e-5)
    assert float(loss(tokens.flip(1), maps[rows], HELPER)) > 1
    assert float(loss(tokens, maps[rows.flip(0)], HELPER)) > 1
    coarse = maps.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5))
    flat = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="nearest")
    assert float(aligned(teacher, flat).loss(coarse[rows].flatten(2).mT, flat[rows], HELPER)) < 0.3


def test_the_block_in_the_middle_is_aligned(teacher: TeacherMaps) -> None:
    network = untrained((3, 8, 8), 2, replace(TINY, layers=5), 0)
    chosen = alignment(network, teacher, TINY, torch.device("cpu")).block
    assert chosen is network.transformer.transformer_blocks[2]


def test_a_training_moves_tokens_towards_the_teacher(teacher: TeacherMaps, tmp_path: Path) -> None:
    plan = replace(TINY, steps=40, learning_rate=1e-2, align_weight=5.0)
    network = untrained((3, 8, 8), 2, plan, 0)
    z = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data, maps = LatentSet(z, None, torch.arange(6) % 2), torch.randn(6, 16, 2, 2, generator=generator("maps"))
    both = alignment(network, teacher, plan, torch.device("cpu")).to(maps)

    def gap() -> float:
        with torch.no_grad(), both.watching() as tokens:
            network(z, torch.full((6,), 200), data.labels)
            return float(both.loss(tokens[0], maps, HELPER))

    before = gap()
    parameters = [*network.parameters(), *both.head.parameters()]
    session = Session(tmp_path, HELPER, "x")
    training.train_network(network, data, new_scheduler("epsilon"), plan, session, parameters, align=both)
    assert gap() < before - 0.5


def test_images_are_held_to_the_maps_of_the_view_that_was_drawn(teacher: TeacherMaps) -> None:
    rows, plan = torch.arange(12.0).view(-1, 1, 1, 1), replace(TINY, batch=200)
    data = LatentSet(rows.expand(12, 3, 8, 8), None, torch.arange(6) % 2)
    both = aligned(teacher, rows.expand(12, 16, 2, 2))
    forward = forward_of(new_scheduler("epsilon"), torch.device("cpu"))
    batch = training._drawn(data, forward, 2, plan, HELPER, both, 0)
    assert batch.maps is not None
    assert torch.equal(batch.maps[:, 0, 0, 0], batch.z[:, 0, 0, 0])
    assert set(batch.z.unique().tolist()) == set(range(12)), "mirrored images, too"


def test_an_aligned_prior_resumes_and_keeps_no_head(
    world: Path, teacher: TeacherMaps, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    asked, said = spec(world / "data", align=str(world / "teacher")), list[str]()
    train_new_prior(asked, tmp_path / "whole", store=Store(tmp_path / "other"), say=said.append, teacher=teacher)
    assert "for the teacher's maps" in said[0]
    head = 16 * 16 + 16 + 16 * 16 + 16 + 16 * 16 + 16
    total = sum(value.numel() for value in untrained((3, 8, 8), 2, TINY, 0).parameters())
    assert f"a DiT of {total:,} parameters ({total + head:,} trained)" in said[0]
    drawn, died = generator, list[int]()

    def dies(*parts: str | int) -> torch.Generator:
        if parts[-1] == 7 and not died:
            died.append(7)
            raise KeyboardInterrupt
        return drawn(*parts)

    monkeypatch.setattr(training, "generator", dies)
    with pytest.raises(KeyboardInterrupt):
        train_new_prior(asked, tmp_path / "out", store=store, say=lambda _: None, teacher=teacher)
    train_new_prior(asked, tmp_path / "out", store=store, say=said.append, teacher=teacher)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    train_new_prior(spec(world / "data"), tmp_path / "plain", store=store, say=lambda _: None)
    plain = weights(tmp_path / "plain")
    assert plain.keys() == whole.keys()
    assert any(not torch.equal(plain[name], whole[name]) for name in plain)
    keys = [read_card(tmp_path / name)["key"] for name in ("whole", "out", "plain")]
    assert keys[0] == keys[1] != keys[2]
    moved = shutil.copytree(world / "teacher", tmp_path / "moved")
    elsewhere = replace(asked, align=str(moved))
    train_new_prior(elsewhere, tmp_path / "out", store=store, say=said.append, teacher=open_maps(str(moved)))
    assert "nothing to do" in said[-1]


def test_a_teacher_is_given_where_one_is_named(world: Path, tmp_path: Path, store: Store) -> None:
    with pytest.raises(AttarError, match="`align` teacher: give `teacher`, opened by"):
        train_new_prior(spec(world / "data", align="teacher"), tmp_path / "out", store=store)


def test_the_command_opens_the_teacher(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    run = ["train-prior", "--data", world / "data", "--size", 8, "--device", "cpu", "--out", tmp_path / "out"]
    run += ["--hidden", 16, "--layers", 2, "--heads", 2, "--steps", 2, "--batch", 4, "--dry-run"]
    assert attar(monkeypatch, *run, "--align", world / "teacher", "--align-weight", 0.25) == 0
    out, hint = capsys.readouterr().out, "aligned with a teacher of the same images (--align) it would learn more"
    assert "for the teacher's maps" in out
    assert hint not in out
    assert attar(monkeypatch, *run) == 0
    assert hint in capsys.readouterr().out
    assert attar(monkeypatch, *run, "--align", "nowhere") == 2
