"""Any image that PIL reads, as upright RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from attar.core.errors import BadImage

MAX_PIXELS = 2**28
"""Larger images (above 268 million pixels, 805 MB as RGB) are refused: they are most likely decompression bombs."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def opened(data: bytes) -> Image.Image:
    """The encoded image, header read, pixels not yet; of an animation, the first frame.

    Sets PIL's process-wide limits: images up to MAX_PIXELS are opened, and truncated ones are errors even where
    another library has asked PIL to fill them with grey.
    """
    if not data:
        raise ValueError("it is empty")
    Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or 0)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise ValueError("not an image in a format that PIL reads") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than the {MAX_PIXELS} that are allowed")
    return image


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF says, as RGB.

    Transparent pixels are laid on white; 16-bit grey is divided by 257; floats are taken to run from 0 to 1. Colour
    profiles are not applied.

    Raises:
        ValueError: pixel values without a known range. PIL's own errors for what it cannot decode.
    """
    image.load()
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def read(file: Path) -> Image.Image:
    """The image in a file, upright, as RGB.

    Raises:
        BadImage: it cannot be decoded.
    """
    try:
        return upright(opened(file.read_bytes()))
    except Exception as error:
        raise BadImage(f"{file}: {decoding_error(error)}") from error


def decoding_error(error: Exception) -> str:
    """Why an image could not be decoded, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _from_deep_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):
        raise ValueError(
            f"grey values from {values.min():g} to {values.max():g}, where 0 to {top:g} is black to white; "
            "convert it to 8 bits"
        )
    return Image.fromarray(np.round(values * (255.0 / top)).astype(np.uint8)).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    turned = ImageCms.applyTransform(image, transform)
    assert turned is not None
    return turned
