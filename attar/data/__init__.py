"""Image sources -> class-indexed images; views of them; integrity; preprocessing."""

from attar.data.imageset import ImageSet, load_data
from attar.data.integrity import readable
from attar.data.pixels import PREPROCESSING, load_pixels, preprocess
from attar.data.spec import test_spec

__all__ = ["PREPROCESSING", "ImageSet", "load_data", "load_pixels", "preprocess", "readable", "test_spec"]
