"""Whether images show anything: not one image again and again, not single colours, no class a copy of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from attar.core.errors import AttarError
from attar.core.store import digest, fingerprint
from attar.core.wording import counted, listed

ACCIDENT = 2
"""Two equal images may be one that the data holds twice, chosen twice, and so may one in each of two classes."""


class ImageContents(NamedTuple):
    """What is noted of an image when it is decoded."""

    digest: str
    """The digest of its pixels."""
    plain: bool
    """Whether all of its pixels, more than one, are of a single colour."""

    @staticmethod
    def of(pixels: bytes) -> ImageContents:
        """What is noted of an image with these RGB values, pixel by pixel."""
        return ImageContents(digest(pixels), len(pixels) > 3 and pixels[3:] == pixels[:-3])


class ClassContents(NamedTuple):
    """What the images of a class show."""

    images: int
    """How many there are."""
    distinct: int
    """How many of them differ."""
    plain: int
    """How many are of a single colour."""
    digest: str
    """The digest of the distinct images, whatever their order."""

    @staticmethod
    def of(looks: Iterable[ImageContents]) -> ClassContents:
        """What the images show of which this was noted."""
        looks = list(looks)
        distinct = sorted({look.digest for look in looks})
        return ClassContents(len(looks), len(distinct), sum(look.plain for look in looks), fingerprint(distinct))


def check_contents(classes: Mapping[str, ClassContents], where: str, accident: int = 1) -> None:
    """Raises AttarError for classes of nothing but single colours, of equal images, or of the same images as another.

    As many equal images as an `accident` explains are a class all the same.
    """
    remedy = "give other images, or leave these classes out"
    if plain := [_named(name, of) for name, of in classes.items() if of.plain == of.images > 0]:
        raise AttarError(f"{where}: every image is of a single colour in {_classes(plain)}; {remedy}")
    if equal := [_named(name, of) for name, of in classes.items() if of.distinct == 1 and of.images > accident]:
        raise AttarError(f"{where}: all images are equal in {_classes(equal)}; {remedy}")
    bearers: dict[str, list[str]] = {}
    for name, of in ((name, of) for name, of in classes.items() if of.images >= accident):
        bearers.setdefault(of.digest, []).append(repr(name))
    if twins := next((names for names in bearers.values() if len(names) > 1), None):
        raise AttarError(
            f"{where}: the classes {listed(twins, 5)} hold the same images, so that their labels mean nothing; {remedy}"
        )


def _named(name: str, of: ClassContents) -> str:
    return f"{name!r} ({counted(of.images, 'image')})"


def _classes(names: list[str]) -> str:
    return f"class{'es' * (len(names) > 1)} {listed(names, 5)}"
