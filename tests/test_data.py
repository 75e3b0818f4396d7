"""Image sets, their views and preprocessing, held to torchvision's and to closed forms."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from attar.core.errors import AttarError
from attar.data import ImageSet, load_data, load_pixels, preprocess, test_spec
from attar.data.imagenet import SUBSETS, members, subset, which_imagewoof
from attar.data.source_contract import Ints, labelled, unique_names
from attar.data.threads import one_ahead


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))


class Labels:
    """A source of labels without pixels."""

    def __init__(self, counts: list[int]) -> None:
        self.classes = tuple(f"class {label}" for label in range(len(counts)))
        self.labels = np.repeat(np.arange(len(counts)), counts)

    def name(self, index: int) -> str:
        return f"image {index}"

    def image(self, index: int) -> Image.Image:
        return Image.new("L", (2, 2), index % 256)

    def content(self, index: int) -> bytes:
        return str(index).encode()

    def signature(self, indices: Ints) -> object:
        return None


def with_counts(*counts: int) -> ImageSet:
    return ImageSet("labels", Labels(list(counts)), np.arange(sum(counts)), tuple(range(len(counts))))


def folder(root: Path, counts: dict[str, int]) -> Path:
    draws = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = draws.integers(0, 256, (9, 7, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_import_is_cheap() -> None:
    heavy = "torch", "torchvision", "sklearn", "pyarrow", "datasets", "timm"
    code = f"import sys, attar.data; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_digits() -> None:
    from sklearn.datasets import load_digits

    train, test, every = load_data("digits"), load_data("digits@test"), load_data("digits@all")
    assert train.spec == "digits@train"
    assert (len(train), len(test), len(every)) == (1433, 364, 1797)
    assert every.classes == tuple("0123456789")
    assert np.array_equal(every.labels, load_digits().target)
    pixels = load_pixels(every, range(1797), 8, "squash")
    assert np.array_equal(pixels, np.repeat(np.round(load_digits().images * 15.9375)[..., None], 3, -1))
    assert {train.name(i) for i in range(1433)}.isdisjoint(test.name(i) for i in range(364))
    share = np.bincount(test.labels) / np.bincount(every.labels)
    assert np.all((share > 0.19) & (share < 0.22))


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {"b": 12, "a": 3, "Z": 1, "Z/inner": 2})
    images, reference = load_data(str(root)), ImageFolder(str(root))
    assert images.spec == f"imagefolder:{root}"
    assert list(images.classes) == reference.classes
    assert images.labels.tolist() == reference.targets
    assert images.labels.dtype == np.int64
    for index in (0, 5, 17):
        assert np.array_equal(np.asarray(images.open(index)), reference[index][0])
        assert reference.samples[index][0] == str(root / images.name(index))


def test_splits_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    folder(root / "train", {"a": 3, "b": 2})
    folder(root / "val", {"a": 1, "b": 1})
    with pytest.raises(AttarError, match=r"splits train, val: .*@train, so that test images"):
        load_data(str(root))
    assert len(load_data(f"{root}@train")) == 5
    with pytest.raises(AttarError, match="no split 'test'; there are train, val"):
        load_data(f"imagefolder:{root}@test")
    monkeypatch.chdir(tmp_path)
    assert load_data("data@val").spec == f"imagefolder:{root}@val"
    assert test_spec("data@train") == f"imagefolder:{root}@val"
    assert test_spec(str(root / "train")) == f"imagefolder:{root}@val"
    with pytest.raises(AttarError, match="`test`"):
        test_spec("data@val")


def test_splits_may_be_named_in_capitals(tmp_path: Path) -> None:
    root = tmp_path / "data"
    folder(root / "Train", {"a": 3, "b": 2})
    folder(root / "TEST", {"a": 1, "b": 1})
    with pytest.raises(AttarError, match=r"splits Train, TEST: .*@Train, so that test images"):
        load_data(str(root))
    assert load_data(f"{root}@Train").classes == ("a", "b")
    assert test_spec(f"{root}@Train") == test_spec(str(root / "Train")) == f"imagefolder:{root}@TEST"
    with pytest.raises(AttarError, match="`test`"):
        test_spec(f"{root}@TEST")


def test_folders_named_as_splits_but_holding_images_are_classes(tmp_path: Path) -> None:
    assert load_data(str(folder(tmp_path / "data", {"train": 2, "bus": 2}))).classes == ("bus", "train")


def test_a_path_may_hold_an_at_sign(tmp_path: Path) -> None:
    plain = folder(tmp_path / "me@home", {"a": 1})
    assert load_data(str(plain)).spec == f"imagefolder:{plain}"
    folder(tmp_path / "x@y" / "test", {"a": 1})
    assert load_data(f"{tmp_path}/x@y@test").spec == f"imagefolder:{tmp_path}/x@y@test"
    assert load_data(f"{tmp_path}/x@y").spec == f"imagefolder:{tmp_path}/x@y@test"


def test_test_spec() -> None:
    assert test_spec("digits") == test_spec("digits@train") == "digits@test"
    for spec in ("digits@test", "digits@all"):
        with pytest.raises(AttarError, match="`test`"):
            test_spec(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "names no data"),
        ("parquet:", "names no data"),
        ("digit", r"did you mean 'digits'\?\); known are digits"),
        ("parqet:x", "did you mean 'parquet'"),
        ("digits@half", "no split 'half'; there are train, test, all"),
        ("parquet:/no/such", "no file or folder /no/such"),
        ("imagefolder:/no/such@train", "no file or folder /no/such@train"),
        ("/no/such", "neither a folder nor a known form"),
        ("torchvision:CIFAR11", "no data set 'CIFAR11' .did you mean 'CIFAR10'"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(AttarError, match=message):
        load_data(spec)


def test_a_folder_of_loose_images_is_explained(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 2})
    with pytest.raises(AttarError, match="no class folders"):
        load_data(str(tmp_path / "a"))


def test_a_distilled_set_is_not_one_class_called_images(tmp_path: Path) -> None:
    folder(tmp_path / "images", {"000_a": 1, "001_b": 1})
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(AttarError, match="class folders are in"):
        load_data(str(tmp_path))
    assert load_data(str(tmp_path / "images")).classes == ("000_a", "001_b")


def test_restricted_relabels_in_the_datas_order() -> None:
    images = with_counts(3, 2, 4)
    two = images.restricted(["class 2", "class 0", "class 2"])
    assert two.classes == ("class 0", "class 2")
    assert two.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert two.name(3) == "image 5"
    assert two.digest(1) == images.digest(2)
    assert two.restricted(["class 2"]).labels.tolist() == [0] * 4
    with pytest.raises(AttarError, match=r"'clas 1' \(did you mean 'class.*'nothing'"):
        images.restricted(["clas 1", "nothing", "class 0"])
    with pytest.raises(AttarError, match="no class is named"):
        images.restricted([])


def test_long_tail_is_that_of_cifar_lt() -> None:
    """The published counts of CIFAR-10-LT, and the published totals of CIFAR-100-LT."""
    ten = with_counts(*[5000] * 10)
    assert np.bincount(ten.long_tailed(100, 0).labels).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    hundred = with_counts(*[500] * 100)
    assert [len(hundred.long_tailed(factor, 0)) for factor in (100, 50, 10)] == [10847, 12608, 19573]
    assert len(ten.long_tailed(1, 0)) == 50_000


def test_long_tails_are_nested_and_keyed_by_name() -> None:
    images = with_counts(40, 40, 40, 7)
    wide, narrow = images.long_tailed(10, 3), images.long_tailed(100, 3)

    def names(some: ImageSet, label: int) -> list[str]:
        return [some.name(int(index)) for index in some.of_class(label)]

    assert np.bincount(wide.labels).tolist() == [40, 18, 8, 4]
    assert set(names(narrow, 1)) < set(names(wide, 1))
    assert names(wide, 1) == names(images.long_tailed(10, 3), 1)
    assert names(wide, 1) != names(images.long_tailed(10, 4), 1)
    assert min(np.bincount(with_counts(5, 5).long_tailed(1000, 0).labels)) == 1
    with pytest.raises(AttarError, match="at least 1"):
        images.long_tailed(0.1, 0)


def test_held_out_tenth() -> None:
    images = with_counts(100, 27, 2)
    rest, tenth = images.held_out()
    assert np.bincount(tenth.labels).tolist() == [10, 3, 1]
    kept, out = ({some.name(i) for i in range(len(some))} for some in (rest, tenth))
    assert kept.isdisjoint(out)
    assert len(kept | out) == 129
    alone = images.restricted(["class 1"]).held_out()[1]
    assert {alone.name(i) for i in range(3)} == {tenth.name(int(i)) for i in tenth.of_class(1)}
    assert images.held_out(1)[1].name(0) != tenth.name(0) or images.held_out(1)[1].name(1) != tenth.name(1)
    with pytest.raises(AttarError, match="single image"):
        with_counts(10, 1).held_out()


def test_digests_see_content_and_order_alone(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {"a": 3, "b": 2})
    images = load_data(str(root))
    moved = Path(shutil.copytree(root, tmp_path / "moved" / "data", copy_function=shutil.copyfile))
    assert [load_data(str(moved)).digest(label) for label in (0, 1)] == [images.digest(label) for label in (0, 1)]
    assert images.digest(0) != images.digest(1)
    (moved / "b" / "0.png").rename(moved / "b" / "9.png")
    (moved / "a" / "1.png").touch()
    after = load_data(str(moved))
    assert after.digest(0) == images.digest(0)
    assert after.digest(1) != images.digest(1)
    content = (root / "a" / "0.png").read_bytes()
    (root / "a" / "0.png").write_bytes(content[:-1] + b"?")
    assert load_data(str(root)).digest(0) != images.digest(0)


def test_digests_of_folders_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "data", {"a": 3})
    first = load_data(str(root)).digest(0)
    monkeypatch.setattr("attar.data.folder.Folder.content", lambda *_: pytest.fail("read again"))
    assert load_data(str(root)).digest(0) == first


def test_pickles_are_small_and_whole(tmp_path: Path) -> None:
    images = load_data("digits").restricted(["3", "5"]).held_out()[0]
    data = pickle.dumps(images)
    assert len(data) < 3000
    again = pickle.loads(data)
    assert (again.spec, again.classes, len(again)) == (images.spec, images.classes, len(images))
    assert np.array_equal(again.labels, images.labels)
    assert np.array_equal(np.asarray(again.open(7)), np.asarray(images.open(7)))
    code = "import sys, pickle; print(pickle.load(sys.stdin.buffer).name(7))"
    other = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert other.stdout.decode().strip() == images.name(7)


def test_a_pickle_of_data_that_has_since_changed_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", {"a": 3})
    data = pickle.dumps(load_data(str(root)))
    (root / "a" / "0.png").unlink()
    load_data(str(root))
    with pytest.raises(AttarError, match="has changed"):
        pickle.loads(data)


def test_labels_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        with_counts(2).labels[0] = 1


def adm_reference(image: Image.Image, size: int) -> np.ndarray:
    """As the paper's appendix says it, with the whole image resized before the crop."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.size[0] // 2, image.size[1] // 2), Image.Resampling.BOX)
    ratio = size / min(image.size)
    image = image.resize((round(image.size[0] * ratio), round(image.size[1] * ratio)), Image.Resampling.BICUBIC)
    left, top = (image.size[0] - size) // 2, (image.size[1] - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(64, 64), (33, 65), (200, 150), (31, 97), (32, 32), (5, 9), (1, 1), (300, 70)])
def test_preprocessing_is_that_of_the_references(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(shape[0]).integers(0, 256, (*shape, 3), np.uint8)
    image = Image.fromarray(pixels)
    for size in (32, 24):
        crop = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
        squash = transforms.Resize((size, size))
        assert np.array_equal(preprocess(image, size, "adm"), adm_reference(image, size))
        assert np.array_equal(preprocess(image, size, "resize-crop"), crop(image))
        assert np.array_equal(preprocess(image, size, "squash"), squash(image))


def test_the_part_of_a_panorama_is_the_part_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 700, 3), np.uint8)
    for how in ("adm", "resize-crop"):
        monkeypatch.setattr("attar.data.pixels.PANORAMA", 64)
        whole = preprocess(Image.fromarray(pixels), 24, how).astype(int)
        monkeypatch.setattr("attar.data.pixels.PANORAMA", 0)
        assert np.abs(preprocess(Image.fromarray(pixels), 24, how) - whole).max() <= 1


def test_unknown_preprocessing() -> None:
    with pytest.raises(AttarError, match="adm, resize-crop, squash"):
        preprocess(Image.new("RGB", (4, 4)), 4, "crop")


def test_load_pixels_is_open_and_preprocess() -> None:
    images = load_data("digits@test")
    indices = np.array([200, 3, 17, 3])
    pixels = load_pixels(images, indices, 16, "adm")
    assert pixels.shape == (4, 16, 16, 3)
    assert pixels.dtype == np.uint8
    for made, index in zip(pixels, indices, strict=True):
        assert np.array_equal(made, preprocess(images.open(int(index)), 16, "adm"))


def test_real_photographs(shared: Callable[[str], Path], tmp_path: Path) -> None:
    photos = sorted(shared("data/photos").glob("*.JPEG"))
    for photo in photos:
        (tmp_path / "photos" / photo.stem).mkdir(parents=True)
        shutil.copy(photo, tmp_path / "photos" / photo.stem)
    images = load_data(str(tmp_path / "photos"))
    assert len(images) == len(images.classes) == 64
    assert load_pixels(images, range(64), 64, "adm").std() > 20


def test_labels_of_every_kind() -> None:
    assert labelled([1, 0], ["a", "b"], "x")[0] == ("a", "b")
    classes, labels = labelled(["dog", "cat", "dog"], None, "x")
    assert (classes, labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert labelled([0, 1, 2], ["crane", "hen", "crane"], "x")[0] == ("crane", "hen", "crane (2)")
    assert labelled([1, 0], None, "x")[0] == ("0", "1")
    assert labelled([True, False], None, "x")[0] == ("0", "1")
    for values, names, message in [
        ([0, -1], None, "row 1 has label -1, which means unlabelled"),
        ([0, 5], ["a", "b"], "row 1 has label 5, but only 2"),
        ([0, 2, 2], None, "no images of class '1'"),
        ([0, 2**62], None, f"row 1 has label {2**62}, but the data has 2 images: labels count from 0"),
        ([0, 2**70], ["a"], f"row 1 has label {2**70}, but only 1 class in the list of names"),
        ([0, None], None, "row 0 has no label|row 1 has no label"),
        (["a", None], None, "row 1 has no label"),
        (["a", " "], None, "row 1 has no label"),
        ([1, 0.5], None, "row 1 has the label 0.5, a float; labels are whole numbers or text"),
        ([1.0, float("nan")], None, "row 0 has the label 1.0, a float"),
        ([0, float("nan")], None, "row 1 has no label"),
        ([0, "a"], None, "row 1 has the label 'a', where that of the first image is 0"),
        (["a", "cat/1.PNG"], None, "row 1 has the label 'cat/1.PNG', which is the path of an image"),
        ([[0, 1], [1]], None, r"row 0 has the label \[0, 1\], a list"),
        ([], None, "no images"),
    ]:
        with pytest.raises(AttarError, match=message):
            labelled(values, names, "x")  # type: ignore[arg-type]


def test_imagenet_subsets_are_imagenet_classes() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    for name in SUBSETS:
        ids = subset(name)
        assert len(ids) == len(set(ids)) == (100 if "100" in name else 10)
        assert set(ids) <= set(info.label_names())
    first = [info.label_name_to_description(wnid).split(",")[0] for wnid in subset("imagenet10-idc")]
    assert first[:3] == ["bonnet", "green mamba", "langur"]
    assert info.label_name_to_description(subset("imagewoof")[-1]).startswith("dingo")
    assert len(set(subset("imagenet100-cmc")) & set(subset("imagenet100-kaggle"))) == 8
    assert which_imagewoof(9_025) == "imagewoof, fastai's"
    assert which_imagewoof(10) is None
    with pytest.raises(AttarError, match="imagenette, imagewoof"):
        subset("imagenet100")


def test_members_of_a_subset_by_whatever_name_the_data_has() -> None:
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    ids = info.label_names()
    assert members("imagewoof", ids) == subset("imagewoof")
    assert members("imagewoof", [f"{wnid}_some name" for wnid in ids])[0] == "n02086240_some name"
    words = unique_names(info.label_descriptions())
    named = members("imagenet100-kaggle", words)
    assert [ids[words.index(name)] for name in named] == list(subset("imagenet100-kaggle"))
    said = r"lacks 2 of the 10 classes of imagewoof: n02086240 \(Shih-Tzu\), n02115641 \(dingo"
    with pytest.raises(AttarError, match=said):
        members("imagewoof", subset("imagewoof")[1:-1])


def test_the_next_is_made_while_the_last_is_used_and_errors_come_in_their_place() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make(number: int) -> int:
        begun[number].set()
        if number == 2:
            raise AttarError("broken")
        return number

    made = one_ahead(make, range(3))
    assert next(made) == 0
    assert begun[1].wait(10)
    assert next(made) == 1
    with pytest.raises(AttarError, match="broken"):
        next(made)
    assert list(one_ahead(make, [])) == []
