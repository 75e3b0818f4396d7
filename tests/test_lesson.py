"""What a linear classifier learns from samples and from real images, as a prior's last line and its card say it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_prior import spec
from toys import save_folder

from attar.core.store import Store
from attar.data import load_data
from attar.networks.random_features import RandomFeatures
from attar.priors.folder import read_card
from attar.priors.training.lesson import open_lesson, random_real
from attar.priors.training.run import train_new_prior
from attar.priors.training.sample_quality import quality_in_words


@pytest.mark.parametrize(
    ("taught", "told"),
    [
        (40.0, r"learns from 500 of them is right on 40\.0% of held-out images, from random real ones on 34\.0%$"),
        (34.0, "34.0%: no more than random real images teach, which may be the better set; train it longer"),
    ],
)
def test_samples_that_teach_no_more_than_random_images_are_said_to(taught: float, told: str) -> None:
    """Whatever share of them a classifier gives their class."""
    measures = {"accuracy": 69.0, "accuracy_real": 65.0, "samples": 500, "taught": taught, "taught_real": 34.0}
    assert re.search(told, quality_in_words(measures, 10))
    del measures["taught"]
    assert quality_in_words(measures, 10).endswith("chance 10.0%)"), "of a training begun before this was measured"


def test_right_labels_teach_and_wrong_ones_do_not(shared: Callable[[str], Path]) -> None:
    train_images, held = load_data(f"parquet:{shared('data/cifar10')}@train").held_out()
    lesson = open_lesson(held, 32, "adm")
    assert lesson is not None
    pixels, labels = random_real(train_images, 205, 32, "adm")
    assert [int((labels == label).sum()) for label in range(10)] == [21] * 5 + [20] * 5
    right = lesson(pixels, labels)
    assert right > 20 > 14 > lesson(pixels, (labels + 1) % 10)
    assert lesson(pixels, labels) == right


def test_large_images_are_seen_small_and_too_many_are_not_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sides = load_data(str(save_folder(tmp_path / "images", ["a", "b"], 8, size=80))), set[int]()
    plain = RandomFeatures._seen

    def noted(seen: RandomFeatures, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
        sides.add(pixels.shape[1])
        return plain(seen, pixels)

    monkeypatch.setattr(RandomFeatures, "_seen", noted)
    monkeypatch.setattr("attar.priors.training.lesson.MOST", 10)
    lesson = open_lesson(images, 80, "adm")
    assert lesson is not None
    pixels, labels = random_real(images, 10, 80, "adm")
    wrong = torch.cat([pixels, pixels]), torch.cat([labels, 1 - labels])
    assert lesson(*wrong) == lesson(pixels, labels), "those after the first ten are not learnt from"
    assert lesson(pixels, 1 - labels) != lesson(pixels, labels)
    assert sides == {64}


def test_tiny_images_are_seen_enlarged(tmp_path: Path) -> None:
    images = load_data(str(save_folder(tmp_path / "images", ["a", "b"], 8, size=4)))
    lesson = open_lesson(images, 4, "adm")
    assert lesson is not None
    pixels, labels = random_real(images, 16, 4, "adm")
    assert lesson(pixels, labels) > 90, "they are the images that are tested"


def test_one_class_or_one_image_held_out_has_no_lesson(tmp_path: Path) -> None:
    images = load_data(str(save_folder(tmp_path / "images", ["a", "b"], 6)))
    assert open_lesson(images, 16, "adm") is not None
    assert open_lesson(images.chosen([0]), 16, "adm") is None
    assert open_lesson(images.restricted(["a"]), 16, "adm") is None


def test_card_and_last_line_say_what_samples_teach(tmp_path: Path, store: Store) -> None:
    data, said = save_folder(tmp_path / "images", ["a", "b", "c"], 12), list[str]()
    train_new_prior(spec(data), tmp_path / "out", store=store, say=said.append)
    measures = read_card(tmp_path / "out")["measures"]
    assert f"is right on {measures['taught'] / 100:.1%} of held-out images" in said[-1]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"is right on {measures['taught']:.1f} %" in card
    assert f"real ones, on {measures['taught_real']:.1f} %" in card
