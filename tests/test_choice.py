"""A run that names no method, and an evaluation that names no network: what is chosen, and that it is said."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import attar, save_folder, save_tiny_dit, tint

import attar as package
from attar.core.errors import AttarError
from attar.distillation import run
from attar.distillation import run_without_method as choice
from attar.evaluation import RECIPES
from attar.evaluation.conditions import Conditions
from attar.evaluation.suited import suited
from attar.methods.exemplars.race import Outcome, TypicalRace
from attar.networks import suited_convnet
from attar.sets.distilled import find_distilled

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of several sizes, each class of a colour of its own; and a short training."""
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(choice, "STEPS", 30)
    root = save_folder(tmp_path / "photos", CLASSES, each=10, size=40)
    for channel, name in enumerate(CLASSES):
        for number, file in enumerate(sorted((root / name).iterdir())):
            pixels = np.zeros((40 + number % 3, 40, 3), np.uint8)
            with Image.open(file) as picture:
                pixels[:40, :, channel] = np.array(picture)[..., channel]
            Image.fromarray(pixels).save(file)
    return root


@pytest.mark.parametrize(
    ("outcome", "shares"), [(Outcome(60.0, 50.0, 1.0, 9), (0.02, 0.2)), (Outcome(50.0, 50.0, 1.0, 9), (1.0, 1.0))]
)
def test_real_images_are_chosen_with_a_teacher_that_is_trained_first(
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Outcome,
    shares: tuple[float, float],
) -> None:
    monkeypatch.setattr(TypicalRace, "outcome", lambda _: outcome)
    words = ["distill", "--data", photos, "--ipc", "1,2", "--device", "cpu", "--out", "out"]
    assert attar(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert "neither a --method nor a --prior is named: herding among the images that a small teacher" in told
    assert "convnet4-bn-w48 is trained first at 40 pixels, in out.teacher" in told
    assert "`attar train-prior` trains one" in told
    assert f"{outcome.typical:.1f} % of the images left out are right after typical ones, 50.0 % after any" in told
    for ipc, share in zip((1, 2), shares, strict=True):
        manifest = json.loads(Path(f"out/ipc-{ipc:03d}/manifest.json").read_text())
        assert manifest["method"]["name"] == "herding"
        assert manifest["method"]["select"]["share"] == share
        assert len(manifest["images"]) == 3 * ipc
    assert attar(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert "out.teacher is already there" in told
    assert told.count("is already there\n") == 2


def test_a_prior_makes_exemplars(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    prior = save_tiny_dit(tmp_path / "dit", CLASSES)
    (out,) = package.distill(str(photos), prior=str(prior), ipc=1, out="out", device="cpu", tile=1, say=said.append)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["method"]["name"] == "exemplars"
    assert manifest["method"]["fit"]["select"]["rule"] == "herding"
    assert manifest["method"]["fit"]["select"]["teacher"] is not None
    assert said[0].startswith("no `method` is named: exemplars")


@pytest.mark.parametrize("of_prior", [False, True])
def test_a_folder_called_tilde_is_where_the_teacher_is_looked_for(photos: Path, tmp_path: Path, of_prior: bool) -> None:
    prior: dict[str, Any] = {"prior": str(save_tiny_dit(tmp_path / "dit", CLASSES)), "tile": 1} if of_prior else {}
    package.distill(str(photos), ipc=1, out="~/out", device="cpu", **prior)
    assert (tmp_path / "~" / "out" / "manifest.json").is_file()


@pytest.mark.parametrize(("ipc", "shown"), [([1], "3 s left"), ([1, 2], "3 s left of this item")])
def test_the_time_left_is_told_of_each_of_several_sets(
    photos: Path, monkeypatch: pytest.MonkeyPatch, ipc: list[int], shown: str
) -> None:
    told = list[str]()
    monkeypatch.setattr(run, "distill_sets", lambda job, *_, **__: job.progress("encoding; 3 s left", 0.5))
    package.distill(str(photos), ipc=ipc, out="out", device="cpu", progress=lambda text, _: told.append(text))
    assert [text for text in told if text.startswith("encoding;")] == [f"encoding; {shown}"] * len(ipc)


def test_a_dry_run_trains_no_teacher(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert attar(monkeypatch, "distill", "--data", photos, "--ipc", 1, "--out", "out", "--dry-run") == 0
    assert "the images are chosen when the teacher is there" in capsys.readouterr().out
    assert not list(Path().glob("out*"))


def test_a_dry_run_runs_no_race(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ["distill", "--data", photos, "--ipc", 1, "--device", "cpu", "--out", "out"]
    assert attar(monkeypatch, *words) == 0
    assert attar(monkeypatch, *words, "--dry-run") == 0
    assert "nothing left to do" in capsys.readouterr().out
    shutil.rmtree("cache/race")
    monkeypatch.setattr(TypicalRace, "_run", lambda _: pytest.fail("a dry run"))
    assert attar(monkeypatch, *words, "--dry-run") == 0
    assert "a race decides whether typical images are chosen, or any" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--ipc", 11], "--ipc 11: more real images than these classes have"),
        (["--ipc", 1, "--set", "select.rule=random"], "--set is of a method: name one as --method"),
        (["--ipc", 1, "--explain"], "--explain is of a method: name one as --method"),
        (["--ipc", 1, "--imbalance-factor", 5], "--imbalance-factor 5: name a --method"),
        (["--ipc", 1, "--preprocess", "adn"], "--preprocess adn (did you mean 'adm'?)"),
        (["--ipc", 1, "--tile", 2], "--tile 2: herding asks no prior"),
    ],
)
def test_what_is_wrong_is_said_before_the_teacher_is_trained(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, more: list[object], told: str
) -> None:
    assert attar(monkeypatch, "distill", "--data", photos, "--out", "out", *more) == 2
    assert told in capsys.readouterr().err
    assert not Path("out.teacher").exists()


def test_a_set_of_another_method_is_seen_first(photos: Path, tmp_path: Path) -> None:
    package.distill(str(photos), method="random", ipc=1, out="out")
    with pytest.raises(AttarError, match="out is a set of random, and herding is the choice here"):
        package.distill(str(photos), ipc=1, out="out")
    assert not Path("out.teacher").exists()


def test_fields_are_of_a_method(photos: Path) -> None:
    with pytest.raises(AttarError, match="name one as `method`"):
        package.distill(str(photos), ipc=1, out="out", fields={"select.share": 0.5})


def test_imagenets_classes_are_told_of_its_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_folder(tmp_path / "data", ["n01440764", "English springer"], each=4)
    assert attar(monkeypatch, "distill", "--data", data, "--ipc", 1, "--out", tmp_path / "out", "--dry-run") == 0
    assert "the classes are ImageNet's: --prior facebook/DiT-XL-2-256 makes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "names", "why_not", "taken"),
    [
        ("cuda", ["tench", "English springer"], "", True),
        ("cuda", ["tench", "English springer"], "small", False),
        ("cpu", ["tench", "English springer"], "", False),
        ("cuda", ["ant", "gryphon"], "", False),
        ("cuda", ["crane", "English springer"], "", False),
        ("cuda", ["tench", "English springer"], "the hub cannot be reached", False),
    ],
)
def test_on_a_gpu_the_hubs_prior_makes_exemplars_of_imagenets_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, names: list[str], why_not: str, taken: bool
) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    prior = save_tiny_dit(tmp_path / "dit", ["tench", "English springer"])
    data, said = save_folder(tmp_path / "data", names, each=10), list[str]()
    tint(data)
    monkeypatch.setattr(choice, "STEPS", 30)
    hub = "attar.distillation.hub_prior"
    monkeypatch.setattr(f"{hub}.DIT", str(prior))
    monkeypatch.setattr(f"{hub}.resolve", lambda *_: (torch.device(kind), torch.float32))
    monkeypatch.setattr(f"{hub}.why_not_on_hub", lambda _: why_not.removeprefix("small"))
    monkeypatch.setattr(f"{hub}.LEAST", 17 if why_not == "small" else 16)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    out = tmp_path / "out"
    (folder,) = package.distill(str(data), ipc=1, out=out, device="cpu", classes=names, say=said.append)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["method"]["name"] == ("exemplars" if taken else "herding")
    assert said[0].startswith(f"no `prior` is named: {prior}") == taken
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = package.distill(str(data), ipc=1, out=tmp_path / "offline", device="cpu", say=said.append)
    assert json.loads((again[0] / "manifest.json").read_text())["method"]["name"] == "herding"


@pytest.mark.parametrize(
    ("side", "network", "size"), [(28, "convnet3", None), (40, "convnet4-w48", None), (100, "convnet4-w48", 64)]
)
def test_network_and_size_suit_the_images(tmp_path: Path, side: int, network: str, size: int | None) -> None:
    data = save_folder(tmp_path / "data", ["ant", "bee"], each=2, size=side)
    package.distill(str(data), method="random", ipc=2, out=tmp_path / "out")
    sets, quick, asked = find_distilled(tmp_path / "out"), RECIPES.open("quick"), Conditions(("convnet3",), (0,))
    said: list[str] = []
    recipe, conditions = suited(sets, quick, asked, any_size=True, any_network=True, say=said.append)
    assert (conditions.networks, recipe.size) == ((network,), size)
    assert len(said) == (side > 32)
    assert suited(sets, quick, asked, any_size=False, any_network=False, say=said.append) == (quick, asked)


def test_the_deepest_convnet_that_halves_an_image_to_four_pixels() -> None:
    assert [suited_convnet(size) for size in (8, 32, 64, 128, 224)] == [f"convnet{n}" for n in (3, 3, 4, 5, 6)]


def test_an_evaluation_says_what_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        save_folder(tmp_path / "data" / split, ["ant", "bee"], each=2, size=80)
    package.distill("data@train", method="random", ipc=1, out="out")
    assert attar(monkeypatch, "evaluate", "out", "--dry-run", "--device", "cpu") == 0
    told = "the set's images have 80 pixels: convnet4-w48 sees them at 64; choose others with --network, and"
    assert told in capsys.readouterr().out
    assert attar(monkeypatch, "evaluate", "out", "--dry-run", "--recipe", "quick", "--network", "convnet3") == 0
    assert "sees them" not in capsys.readouterr().out


def test_the_time_told_of_a_set_is_that_of_all_its_stages(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.distillation import checks, run

    clock, said = [0.0], list[str]()
    monkeypatch.setattr(run, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def later(*given: Any, **named: Any) -> Any:
            clock[0] += seconds
            return function(*given, **named)

        return later

    monkeypatch.setattr(checks, "planned", slow(checks.planned, 5))
    monkeypatch.setattr(run, "make", slow(run.make, 2))
    package.distill(str(photos), method="random", ipc=[1, 2], out="out", say=said.append)
    assert [line.rpartition(" in ")[2] for line in said if line.startswith("wrote")] == ["7.0 s", "2.0 s"]


@pytest.mark.parametrize(("classes", "each"), [(CLASSES[:2], 2), (CLASSES[:1], 4)])
def test_of_few_images_a_set_is_made_all_the_same(
    photos: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str], each: int
) -> None:
    """As few as could not prove that a teacher is above chance."""
    for name in CLASSES:
        for file in sorted((photos / name).iterdir())[each if name in classes else 0 :]:
            file.unlink()
    for name in set(CLASSES) - set(classes):
        (photos / name).rmdir()
    package.distill(str(photos), ipc=1, out="out", device="cpu")
    assert len(json.loads(Path("out/manifest.json").read_text())["images"]) == len(classes)


def test_images_that_no_teacher_learns_from_are_refused_with_a_way_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["distill", "--data", photos, "--ipc", 1, "--out", "out"]
    tiny = save_folder(Path("tiny"), CLASSES, each=4, size=5)
    assert attar(monkeypatch, "distill", "--data", tiny, *words[3:]) == 2
    assert "5 pixels are too few, 8 are needed; where no --method is named, a small teacher chooses: name one" in (
        capsys.readouterr().err
    )
    for file in sorted((photos / "cat").iterdir())[1:]:
        file.unlink()
    assert attar(monkeypatch, *words) == 2
    assert "class 'cat' has a single image: none can be held out; where no --method is named" in capsys.readouterr().err
    assert not Path("out.teacher").exists()


def test_an_engine_that_is_not_there_is_said_before_the_teacher_is_trained(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AttarError, match="Ray is not installed"):
        package.distill(str(photos), ipc=1, out="out", engine="ray")
    assert not Path("out.teacher").exists()


def test_a_score_sees_the_images_as_an_evaluation_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        save_folder(tmp_path / "data" / split, ["ant", "bee"], each=2, size=80)
    package.distill("data@train", method="random", ipc=1, out="out")
    quick = ["--set", "steps=1", "--seeds", 1, "--device", "cpu"]
    assert attar(monkeypatch, "score", "out", *quick, "--full-accuracy", 90, "--json", "s.json") == 0
    sees = "the set's images have 80 pixels: convnet4-w48 sees them at 64; choose others with --network, and"
    assert sees in capsys.readouterr().out
    scores = json.loads(Path("s.json").read_text())
    assert (scores["network"], scores["changes"]["size"]) == ("convnet4-w48", 64)
    assert attar(monkeypatch, "evaluate", "out", *quick, "--json", "r.json") == 0
    (record,) = json.loads(Path("r.json").read_text())
    assert (record["network"], record["changes"]) == (scores["network"], scores["changes"])
    assert record["accuracies"] == scores["records"]["own"]["accuracies"]
    capsys.readouterr()
    assert attar(monkeypatch, "score", "out", "--network", "convnet3-w8", *quick, "--dry-run") == 0
    assert "pixels: convnet3-w8 sees them at 64; choose another size with --set size=224 of" in capsys.readouterr().out
    assert attar(monkeypatch, "score", "out", "--recipe", "quick", "--network", "convnet3-w8", *quick, "--dry-run") == 0
    assert "sees them" not in capsys.readouterr().out
