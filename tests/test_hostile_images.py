"""What the wild holds: each image arrives upright as RGB, or is refused by name before any long work."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageFile
from toys import save_folder

from attar.core.errors import AttarError, BadImage
from attar.core.store import Store
from attar.data import ImageSet, load_data, load_held_out, load_pixels, preprocess, readable
from attar.data.decode import MAX_PIXELS, opened, upright
from attar.priors.training.settings import Material
from attar.priors.training.task import TrainingRun

RAMP = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    image = upright(opened(data))
    assert image.mode == "RGB"
    return np.asarray(image)


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def good(number: int) -> bytes:
    """An image that differs from those of other numbers."""
    return encoded(Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)), "PNG")


GOOD, BETTER = good(0), good(1)
LARGE_JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")


def test_grey_and_sixteen_bit_grey() -> None:
    assert np.array_equal(decoded(encoded(Image.fromarray(RAMP), "PNG"))[..., 1], RAMP)
    deep = RAMP.astype(np.uint16) * 257
    assert np.array_equal(decoded(encoded(Image.fromarray(deep), "PNG"))[..., 1], RAMP)
    assert np.array_equal(decoded(encoded(Image.fromarray(deep), "TIFF"))[..., 1], RAMP)
    assert np.array_equal(decoded(encoded(Image.fromarray(deep.astype(np.int32), "I"), "TIFF"))[..., 1], RAMP)


def test_float_grey_runs_from_0_to_1_or_is_refused() -> None:
    unit = (RAMP / 255).astype(np.float32)
    assert np.array_equal(decoded(encoded(Image.fromarray(unit), "TIFF"))[..., 1], RAMP)
    for values in (unit * 255, unit - 1, np.full_like(unit, np.nan)):
        with pytest.raises(ValueError, match="0 to 1 is black to white"):
            decoded(encoded(Image.fromarray(values), "TIFF"))


def test_one_bit() -> None:
    bits = Image.fromarray(RAMP > 100)
    assert bits.mode == "1"
    assert np.array_equal(decoded(encoded(bits, "PNG"))[..., 0], np.where(RAMP > 100, 255, 0))


def test_cmyk_jpeg() -> None:
    for ink, colour in {
        (0, 0, 0, 0): (255, 255, 255),
        (255, 0, 0, 0): (0, 255, 255),
        (0, 0, 0, 255): (0, 0, 0),
    }.items():
        data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        assert np.abs(decoded(data).astype(int) - colour).max() <= 3


def test_transparency_is_laid_on_white() -> None:
    ink = Image.new("RGBA", (4, 4), (200, 0, 100, 0))
    ink.putpixel((1, 2), (200, 0, 100, 255))
    ink.putpixel((2, 2), (0, 0, 0, 51))
    pixels = decoded(encoded(ink, "PNG"))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[2, 1]) == (200, 0, 100)
    assert tuple(pixels[2, 2]) == (204, 204, 204)
    grey = Image.new("LA", (4, 4), (0, 0))
    assert decoded(encoded(grey, "PNG")).min() == 255


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    assert tuple(decoded(encoded(palette, "PNG"))[0, 0]) == (10, 20, 30)
    for form in ("PNG", "GIF"):
        pixels = decoded(encoded(palette, form, transparency=0))
        assert tuple(pixels[0, 0]) == (255, 255, 255)
        assert tuple(pixels[3, 3]) == (40, 50, 60)
    grey = decoded(encoded(Image.fromarray(RAMP), "PNG", transparency=0))
    assert tuple(grey[0, 0]) == (255, 255, 255)


def test_ycbcr_hsv_and_lab() -> None:
    assert np.abs(np.asarray(upright(Image.fromarray(COLOURS).convert("YCbCr"))).astype(int) - COLOURS).max() <= 3
    assert tuple(np.asarray(upright(Image.new("HSV", (2, 2), (0, 255, 255))))[0, 0]) == (255, 0, 0)
    for light, grey in {0: 0, 255: 255, 137: 128}.items():  # L* = 53.6 is the middle of sRGB
        data = encoded(Image.new("LAB", (2, 2), (light, 128, 128)), "TIFF")
        assert np.abs(decoded(data).astype(int) - grey).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form: str, orientation: int) -> None:
    """The four corners say how the image was turned; stored so that turning it back gives the original."""
    scene = np.zeros((16, 32, 3), np.uint8)
    scene[:8, :16], scene[:8, 16:], scene[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1],
        5: scene.swapaxes(0, 1), 6: np.rot90(scene, 1), 7: np.rot90(scene.swapaxes(0, 1), 2), 8: np.rot90(scene, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options.get(form, {}))
    pixels = decoded(data)
    assert pixels.shape == scene.shape
    assert np.abs(pixels.astype(int) - scene).max() <= 5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse_the_pixels() -> None:
    data = encoded(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xffgarbage")
    assert decoded(data).shape == (8, 8, 3)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert np.abs(decoded(data)[4, 4].astype(int) - (255, 0, 0)).max() <= 8


def test_one_pixel_and_twenty_thousand_pixels(tmp_path: Path) -> None:
    wide = np.zeros((40, 20_000, 3), np.uint8)
    wide[:, 9_900:10_100] = (0, 200, 0)
    root = folder_of(
        tmp_path / "data",
        {
            "a/one.png": encoded(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG"),
            "a/wide.png": encoded(Image.fromarray(wide), "PNG"),
        },
    )
    images = load_data(str(root))
    for how in ("adm", "resize-crop"):
        pixels = load_pixels(images, [0, 1], 32, how)
        assert (pixels[0] == (10, 20, 30)).all()
        assert (pixels[1] == (0, 200, 0)).all()


def test_a_thin_panorama_needs_little_memory() -> None:
    """Resized whole it would be 256 x 5,120,000 pixels, 3.9 GB."""
    assert preprocess(Image.new("RGB", (20_000, 1), "red"), 256, "adm").shape == (256, 256, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_unread() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = encoded(Image.new("1", (8, 8)), "BMP")
    forged = header[:18] + side.to_bytes(4, "little") * 2 + header[26:]
    with pytest.raises(ValueError, match="more than the"):
        opened(forged)
    huge = header[:18] + (2 * side).to_bytes(4, "little") * 2 + header[26:]
    with pytest.raises(Exception, match="decompression bomb"):
        opened(huge)


TRUNCATED: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: LARGE_JPEG[: len(LARGE_JPEG) // 2],
    "JPEG, its last bytes": lambda: LARGE_JPEG[:-40],
    "progressive JPEG": lambda: encoded(Image.open(io.BytesIO(LARGE_JPEG)), "JPEG", progressive=True)[:2500],
    "PNG": lambda: (data := encoded(Image.open(io.BytesIO(LARGE_JPEG)), "PNG"))[: len(data) // 2],
    "BMP": lambda: encoded(Image.fromarray(COLOURS), "BMP")[:-20],
    "TIFF": lambda: encoded(Image.fromarray(COLOURS), "TIFF")[:60],
    "WEBP": lambda: encoded(Image.open(io.BytesIO(LARGE_JPEG)), "WEBP")[:600],
    "GIF": lambda: encoded(Image.open(io.BytesIO(LARGE_JPEG)), "GIF")[:1500],
    "nothing": lambda: b"",
    "text": lambda: b"<html>404 not found</html>",
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("what", TRUNCATED)
def test_what_cannot_be_decoded_is_refused_by_name(tmp_path: Path, store: Store, what: str) -> None:
    root = folder_of(
        tmp_path / "data", {"cat/bad.jpg": TRUNCATED[what](), "cat/good.png": GOOD, "dog/good.png": BETTER}
    )
    images = load_data(str(root))
    with pytest.raises(BadImage, match=r"^cat/bad\.jpg: \w"):
        images.open(0)
    with pytest.raises(AttarError, match=r"(?s)1 of 3 images.*cat/bad\.jpg: .*`on_bad_image=skip`"):
        readable(images, "error", store)
    rest = readable(images, "skip", store)
    assert rest.skipped == ("cat/bad.jpg",)
    assert rest.classes == ("cat", "dog")
    assert [rest.name(index) for index in range(len(rest))] == ["cat/good.png", "dog/good.png"]


def test_truncated_images_stay_errors_where_another_library_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(OSError, match="truncated"):
        decoded(TRUNCATED["JPEG"]())


def test_every_unreadable_file_is_listed(tmp_path: Path, store: Store) -> None:
    files = {f"{name}/{i:02}.jpg": b"no image" for name in ("cat", "dog") for i in range(15)}
    root = folder_of(tmp_path / "data", {**files, "cat/good.png": GOOD, "dog/good.png": BETTER})
    with pytest.raises(AttarError) as error:
        readable(load_data(str(root)), "error", store)
    text = str(error.value)
    assert "30 of 32 images" in text
    assert all(f"  {name}: " in text for name in files)
    assert len(readable(load_data(str(root)), "skip", store).skipped) == 30


def test_a_class_without_a_readable_image_is_an_error(tmp_path: Path, store: Store) -> None:
    root = folder_of(tmp_path / "data", {"cat/bad.jpg": b"no image", "dog/good.png": GOOD})
    with pytest.raises(AttarError, match=r"(?s)class 'cat'.*cat/bad\.jpg"):
        readable(load_data(str(root)), "skip", store)


def test_the_second_check_reads_no_image(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "data", {"cat/bad.jpg": b"no image", "cat/good.png": GOOD})
    first = readable(load_data(str(root)), "skip", store)
    monkeypatch.setattr("attar.data.imageset.upright", lambda image: pytest.fail("decoded again"))
    again = readable(load_data(str(root)), "skip", store)
    assert again.skipped == first.skipped == ("cat/bad.jpg",)
    (root / "cat/bad.jpg").write_bytes(GOOD)
    with pytest.raises(BaseException, match="decoded again"):
        readable(load_data(str(root)), "skip", store)


def test_an_empty_class_is_an_error(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data", {"cat/a.png": GOOD, "dog/notes.txt": b"", "dog/.hidden.png": GOOD})
    (root / "emu").mkdir()
    with pytest.raises(AttarError, match=r"(?s)data/dog.*data/emu"):
        load_data(str(root))


def test_what_is_no_image_by_its_name_is_passed_over(tmp_path: Path) -> None:
    names = ["notes.txt", "Thumbs.db", ".DS_Store", "._a.png", "desktop.ini"]
    root = folder_of(tmp_path / "data", {"cat/A.JPEG": LARGE_JPEG, **{f"cat/{name}": b"?" for name in names}})
    (root / "README.md").write_text("loose")
    (root / ".git").mkdir()
    images = load_data(str(root))
    assert images.classes == ("cat",)
    assert [images.name(index) for index in range(len(images))] == ["cat/A.JPEG"]


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="the file system's names are not in UTF-8")
def test_class_names_are_kept_verbatim(tmp_path: Path, store: Store) -> None:
    names = ["a b", 'say "hi"', "it's", "<script>", "Brötchen", "犬", "semi;colon", "percent %20", "back\\slash", "-rf"]
    root = folder_of(tmp_path / "data", {f"{name}/1.png": good(number) for number, name in enumerate(names)})
    images = readable(load_data(f"imagefolder:{root}"), "error", store)
    assert images.classes == tuple(sorted(names))
    assert images.restricted(["犬", "<script>"]).classes == ("<script>", "犬")


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    away = folder_of(tmp_path / "elsewhere", {"1.png": GOOD, "2.png": BETTER})
    root = folder_of(tmp_path / "data", {"cat/0.png": good(2)})
    os.symlink(away, root / "dog")
    os.symlink(away / "1.png", root / "cat" / "9.png")
    os.symlink(root / "cat", root / "cat" / "loop")
    images = load_data(str(root))
    assert [images.name(i) for i in range(len(images))] == ["cat/0.png", "cat/9.png", "dog/1.png", "dog/2.png"]
    assert images.open(1).size == (8, 8)
    os.symlink(tmp_path / "gone.png", root / "cat" / "broken.png")
    with pytest.raises(BadImage, match=r"cat/broken\.png"):
        load_data(str(root)).open(2)
    assert readable(load_data(str(root)), "skip", Store(tmp_path / "cache")).skipped == ("cat/broken.png",)


def test_the_held_out_tenth_is_the_same_whatever_cannot_be_read(tmp_path: Path, store: Store) -> None:
    files = {f"{name}/{i:02}.png": good(i + 20 * (name == "cat")) for name in ("cat", "dog") for i in range(20)}
    root = folder_of(tmp_path / "data", files)

    def names(images: ImageSet) -> list[str]:
        return [images.name(index) for index in range(len(images))]

    held = names(load_held_out(str(root)))
    bad = [held[0], *[f"cat/{i:02}.png" for i in range(20) if f"cat/{i:02}.png" not in held][:4]]
    folder_of(root, dict.fromkeys(bad, b"no image"))
    train, tenth = TrainingRun(Material(str(root), on_bad_image="skip"), store).images
    assert names(tenth) == held[1:]
    assert len(train) == 32
    assert set(train.skipped + tenth.skipped) == set(bad)
    with pytest.raises(AttarError) as error:
        _ = TrainingRun(Material(str(root)), store).images
    assert all(f"  {name}: " in str(error.value) for name in bad)


def test_why_an_image_cannot_be_read_is_asked_of_itself(tmp_path: Path, store: Store) -> None:
    """The store knows classes by their content: a link that leads nowhere and an empty file are both no bytes."""
    for name in ("one", "two"):
        save_folder(tmp_path / name, ["ant"], each=2)
    (tmp_path / "one" / "ant" / "x.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "two" / "ant" / "x.png").touch()
    for name, why in (("one", str(tmp_path / "one")), ("two", "it is empty")):
        with pytest.raises(AttarError) as error:
            readable(load_data(str(tmp_path / name)), "error", store)
        assert why in str(error.value)
    assert str(tmp_path / "one") not in str(error.value)
