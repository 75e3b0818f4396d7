"""Images of differing sizes as training images, and what a device computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attar.core.errors import AttarError
from attar.data import load_data
from attar.data.pixels import preprocess
from attar.evaluation import RECIPES, LabelledImages, Students, evaluate, modified, native, precision
from attar.evaluation.labelled_images import resized
from attar.evaluation.load_images import all_for_recipe, native_images
from attar.evaluation.native import Native
from attar.networks import build

SIZES = ((20, 31), (16, 16), (40, 18), (24, 24), (18, 18), (33, 20))
SOFT = modified(RECIPES.open("rded-soft-cifar"), {"epochs": 2, "size": 16, "crop": 0.5, "shuffle": 2, "batch": 4})


def pictures(sizes: Any = SIZES) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def images(sizes: Any = SIZES) -> LabelledImages:
    found = pictures(sizes)
    return LabelledImages(Native(len(found), found.__getitem__), np.arange(len(found)) % 2, ("a", "b"))


def folder(where: Path, sizes: Any = SIZES) -> Path:
    for number, pixels in enumerate(pictures(sizes)):
        file = where / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return where


def test_memory_is_bounded_and_what_is_not_kept_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, decoded = pictures(), list[int]()

    def decode(number: int) -> np.ndarray:
        decoded.append(number)
        return found[number]

    monkeypatch.setattr(native, "memory", lambda: native.SHARE * 3 * (20 * 31 + 16 * 16))
    some = Native(len(found), decode)
    assert sorted(decoded) == list(range(6))
    decoded.clear()
    shown = some[torch.tensor([3, 0, 1])]
    assert decoded == [3]
    for number, tensor in zip((3, 0, 1), shown, strict=True):
        assert np.array_equal(tensor.numpy(), found[number])
    assert isinstance(some.stacked(), Native)
    monkeypatch.undo()
    assert Native(len(found), decode).digest == some.digest
    assert Native(3, lambda i: found[i + 1]).digest != some.digest


def test_images_of_one_size_are_held_as_one_array() -> None:
    found = pictures([(8, 12)] * 3)
    stacked = Native(3, found.__getitem__).stacked()
    assert isinstance(stacked, np.ndarray)
    assert np.array_equal(stacked, np.stack(found))
    with pytest.raises(AttarError, match="differ in size"):
        images().pixels  # noqa: B018


def test_a_recipe_with_a_size_sees_real_images_as_they_are(tmp_path: Path, store: Any) -> None:
    data = load_data(str(folder(tmp_path)))
    found = all_for_recipe(data, RECIPES.open("rded-soft"), 16, "adm", store)
    assert isinstance(found.images, Native)
    assert found.side == 19, "the median of 16, 18, 18, 20, 20 and 24"
    for number in range(len(data)):
        assert np.array_equal(found.images.picture(number), np.asarray(data.open(number)))
    squares = all_for_recipe(data, RECIPES.open("quick"), 16, "adm", store)
    assert squares.pixels.shape == (len(data), 16, 16, 3)
    assert squares.labels.tolist() == data.labels.tolist()


def test_a_recipe_that_resizes_first_does_so_from_the_image_itself() -> None:
    """minimax-hard's squares are torchvision's Resize and CenterCrop of each image, not of a square made before."""
    recipe, train = modified(RECIPES.open("minimax-hard"), {"size": 12}), images()
    job = Students(train, train, recipe, "any", "cpu")
    assert isinstance(job.pictures, torch.Tensor)
    for number, pixels in enumerate(pictures()):
        expected = preprocess(Image.fromarray(pixels), 12, "resize-crop")
        assert np.abs(job.pictures[number].numpy().astype(int) - expected).max() <= 1
    assert torch.equal(job.pictures, torch.from_numpy(resized(train.images, 12)))


def test_networks_learn_from_images_of_differing_sizes(store: Any) -> None:
    teacher = build("convnet3-bn-w8", 2, 16, 0)
    test = LabelledImages(np.stack(pictures([(16, 16)] * 4)), np.arange(4) % 2, ("a", "b"))
    common: dict[str, Any] = {"network": "convnet3-bn-w8", "device": "cpu", "teacher": teacher}
    stored = {"views": "image", "scheme": "fp16", "box": "batch", "extra_forward": False}
    for recipe in (SOFT, modified(SOFT, stored)):
        first = evaluate(Students(images(), test, recipe, store=store, **common), (0,))
        again = evaluate(Students(images(), test, recipe, **common), (0,))
        assert first.accuracies == again.accuracies
        other = evaluate(Students(images(SIZES[::-1]), test, recipe, **common), (0,))
        assert (other.n_train, other.ipc) == (6, 3.0)


def test_an_image_that_cannot_be_decoded_is_named_before_training(tmp_path: Path) -> None:
    (folder(tmp_path) / "a" / "9.png").write_bytes(b"no picture")
    with pytest.raises(AttarError, match=r"9\.png"):
        native_images(load_data(str(tmp_path)))


@pytest.mark.parametrize("instructions", [False, True])
@pytest.mark.parametrize("asked", ["auto", "float32", "tf32", "float16", "bfloat16"])
def test_a_cpu_uses_bfloat16_where_it_multiplies_it(
    asked: Any, instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere float32, and the record says which."""
    monkeypatch.delenv("ATTAR_CPU_DTYPE")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": instructions})
    used = "bfloat16" if asked in ("auto", "bfloat16") and instructions else "float32"
    assert precision.resolve_precision("cpu", asked) == (torch.device("cpu"), used)
    small = LabelledImages(np.stack(pictures([(8, 8)] * 4)), np.arange(4) % 2, ("a", "b"))
    recipe = modified(RECIPES.open("quick"), {"steps": 1, "precision": asked})
    found = evaluate(Students(small, small, recipe, "convnet3-w8", "cpu"), (0,))
    assert found.precision == used


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), ("tf32", "float16", "bfloat16")), ((8, 0), ("tf32", "float16", "bfloat16")),
     ((7, 5), ("float32", "float16", "float32"))],
)  # fmt: skip
def test_what_a_gpu_uses(
    capability: tuple[int, int], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(precision, "resolve", lambda *_: (torch.device("cuda"), torch.bfloat16))
    asked: tuple[Any, ...] = ("tf32", "float16", "bfloat16")
    assert tuple(precision.resolve_precision("cuda", one)[1] for one in asked) == expected
