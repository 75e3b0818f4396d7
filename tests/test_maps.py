"""Maps of classes: their axes, held to a decomposition in full; what is kept of them, and what a page shows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.distillation.run import distill_sets
from attar.job import Job, Spec
from attar.methods import load_method
from attar.report import write_report
from attar.report.maps import maps_of
from attar.sets.distilled import DistilledSet, open_distilled
from attar.sets.maps import principal_map
from attar.sets.near_copies import Metrics, folder_of, nearest, read_nearest

CLASSES = ["ant", "bee"]
EACH = 12
FIELDS: dict[str, dict[str, Any]] = {"d4m": {"sampler.steps": 3}}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[DistilledSet]:
    """Two sets of the same data, measured: of random images, and of images that began from prototypes."""
    tmp_path = tmp_path_factory.mktemp("maps")
    store = Store(tmp_path / "cache")
    save_folder(tmp_path / "data", CLASSES, each=EACH)
    save_tiny_dit(tmp_path / "dit", CLASSES)
    spec = Spec(data=str(tmp_path / "data"), prior=str(tmp_path / "dit"), device="cpu")
    made = []
    for name in ("random", "d4m"):
        (folder,) = distill_sets(Job(spec, store), name, load_method(name, FIELDS.get(name)), (3,), tmp_path / name)
        made.append(open_distilled(folder))
        nearest(made[-1], Metrics(("pixels", "latents"), prior=str(tmp_path / "dit"), device="cpu"), store=store)
    return made


def test_the_axes_are_the_real_images_principal_components() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 5)) * [9, 4, 1, 1, 1] + 3
    images, chosen = rng.normal(size=(2, 5)), np.arange(7)
    found = principal_map(rows, chosen, images, [])
    _, scales, axes = np.linalg.svd(rows - rows.mean(0))
    assert found["variance"] == pytest.approx((scales**2 / (scales**2).sum())[:2], abs=1e-4)
    for places, points in ((found["real"], rows[chosen]), (found["images"], images)):
        expected = (points - rows.mean(0)) @ axes[:2].T
        assert np.abs(places) == pytest.approx(np.abs(expected), rel=1e-3)
    assert found["starts"] == []


def test_very_few_images_and_those_that_are_all_alike_have_a_place_or_none() -> None:
    one = np.ones((1, 4))
    assert principal_map(np.zeros((2, 4)), np.arange(2), one, one)["variance"] == []
    alike = principal_map(np.zeros((3, 4)), np.arange(3), one, one)
    assert alike["variance"] == [0, 0]
    assert alike["real"] == [[0, 0]] * 3


def test_sets_of_the_same_data_have_the_same_axes(sets: list[DistilledSet]) -> None:
    random, d4m = (read_nearest(one) for one in sets)
    for of_random, of_d4m in zip(random, d4m, strict=True):
        for one, other in zip(of_random.maps, of_d4m.maps, strict=True):
            assert one["real"] == other["real"]
            assert one["variance"] == other["variance"]
            assert (len(one["real"]), len(one["images"]), one["starts"]) == (EACH, 3, [])
            assert len(other["starts"]) == 3
            away = np.linalg.norm(np.array(one["images"])[:, None] - np.array(one["real"]), axis=2)
            assert away.min(1).max() < 0.05 * away.max(), "random images are real ones"


def test_the_page_shows_latents_rather_than_pixels(sets: list[DistilledSet], tmp_path: Path) -> None:
    folders = [one.folder for one in sets]
    write_report(folders, [], tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    symbols = re.findall(r'<symbol id="(m\d-\d)".*?</symbol>', source)
    assert symbols == ["m0-0", "m0-1", "m1-0", "m1-1"]
    assert sorted(re.findall(r'<use href="#(m\d-\d)"/>', source)) == sorted(symbols * 2), "by set, and by class"
    assert "d4m, IPC 3, class bee, map of latents: 3 images and 3 prototypes among 12 real ones" in source
    assert "random, IPC 3, class bee, map of latents: 3 images among 12 real ones" in source
    assert source.count("</span> their prototypes") == 1


def test_each_point_is_one_stroke_within_the_frame(sets: list[DistilledSet]) -> None:
    (_, maps) = maps_of(sets, [[0, 1]] * 2, [0, 1])
    real, halo, images, starts = re.findall(r'<path d="([^"]*)"', maps[1].symbol)
    strokes = [len(re.findall("M", path)) for path in (real, halo, images, starts)]
    assert strokes == [EACH, 3, 3, 2 * 3], "a prototype is a cross"
    side = float(re.findall(r'viewBox="0 0 (\S+)', maps[1].symbol)[0])
    assert all(0 <= float(place) <= side for path in (real, images, starts) for place in re.findall(r"-?[\d.]+", path))
    assert "var(--series-1)" in maps[1].symbol


def _copied(distilled: DistilledSet, out: Path) -> tuple[DistilledSet, Path, Any]:
    """A copy of a set, with the file and what it holds of how far images are from real ones."""
    for folder in (distilled.folder, folder_of(distilled)):
        shutil.copytree(folder, out / folder.name)
    copy = open_distilled(out / distilled.folder.name)
    file = folder_of(copy) / "nearest.json"
    return copy, file, json.loads(file.read_text())


def test_an_image_far_from_all_real_ones_is_within_the_frame(sets: list[DistilledSet], tmp_path: Path) -> None:
    copy, file, kept = _copied(sets[0], tmp_path)
    for measure in kept["measures"]:
        measure["maps"][0]["images"][0] = [-1e3, 1e3]
    file.write_text(json.dumps(kept))
    ((drawn, *_),) = [list(maps.values()) for maps in maps_of([copy], [[0]], [0])]
    _, _, images = re.findall(r'<path d="([^"]*)"', drawn.symbol)
    assert len(re.findall("M", images)) == 3, "what is outside is not drawn"


def test_damaged_maps_are_named(sets: list[DistilledSet], tmp_path: Path) -> None:
    copy, file, kept = _copied(sets[0], tmp_path)
    kept["measures"][0]["maps"].pop()
    file.write_text(json.dumps(kept))
    with pytest.raises(AttarError, match=r"nearest\.json is damaged: pixels: not one map for each class"):
        read_nearest(copy)
    kept["measures"][0]["maps"].append({"variance": [], "real": [[1]], "images": [], "starts": []})
    file.write_text(json.dumps(kept))
    with pytest.raises(AttarError, match=r"nearest\.json is damaged: measures\[0\]\.maps\[1\]\.real"):
        read_nearest(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"maps": [{"variance": [0.5], "real": [], "images": [], "starts": []}] * len(CLASSES)}, "a map without real"),
        ({"maps": [{"variance": [], "real": [[1e300, 0]], "images": [], "starts": []}]}, "not a number from -1e"),
        ({"numbers": [[0, 1, 10**6]] * len(CLASSES)}, "a number of a real image, of which there are"),
        ({"distances": [[0, 1, 1e300]] * len(CLASSES)}, "not a number from 0 to 1e"),
    ],
)
def test_what_a_page_cannot_draw_is_damage(
    sets: list[DistilledSet], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    for folder in (sets[0].folder, folder_of(sets[0])):
        shutil.copytree(folder, tmp_path / folder.name)
    file = folder_of(copy := open_distilled(tmp_path / sets[0].folder.name)) / "nearest.json"
    kept = json.loads(file.read_text())
    kept["measures"][0] |= change
    file.write_text(json.dumps(kept))
    with pytest.raises(AttarError, match=said):
        write_report([copy.folder], [], tmp_path / "page.html")
