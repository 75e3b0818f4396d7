"""Image sources -> class-indexed images; views of them; integrity; preprocessing."""

from attar.data.imageset import ImageSet, load_data
from attar.data.integrity import looked_at, readable, readable_parts, still_to_look_at
from attar.data.overlap import shared
from attar.data.pixels import PREPROCESSING, at_side, load_pixels, preprocess
from attar.data.sources import test_spec
from attar.data.subsets import load_held_out, load_view, only_side, usual_side

__all__ = [
    "PREPROCESSING",
    "ImageSet",
    "at_side",
    "load_data",
    "load_held_out",
    "load_pixels",
    "load_view",
    "looked_at",
    "only_side",
    "preprocess",
    "readable",
    "readable_parts",
    "shared",
    "still_to_look_at",
    "test_spec",
    "usual_side",
]
