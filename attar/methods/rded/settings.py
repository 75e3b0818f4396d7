"""RDED: the settings of the crops and of the images that are composed of them; their checks."""

from __future__ import annotations

from dataclasses import dataclass

from attar.core.config import Range, check_ranges
from attar.job import Job
from attar.methods.base import ComposedImages
from attar.teachers.reference import TeacherReference


@dataclass(frozen=True)
class RDEDSettings(ComposedImages):
    """Who scores, how many crops of how many images, and how they stand in an image."""

    teacher: str | None = None
    """Who scores; it must be named, as for `attar evaluate`: a folder of `attar train-teacher` ..."""
    teacher_classes: str | None = None
    """A file with the teacher's class list, where it carries none."""
    teacher_normalise: str | None = None
    """Statistics of its input, where it carries none: imagenet, cifar or half."""
    pool: int = 300
    """Images of each class that are cropped: a random choice, or all where there are fewer (mipc in the code)."""
    crops: int = 5
    """Random crops of each: square, of 8 to 100 per cent of its area (num_crop in the code)."""
    factor: int | None = None
    """Crops in each row and column of an image; none: 2, but 1 for images of up to 64 pixels."""
    size: int | None = None
    """Side of the images, in pixels, which the recipe should have too; none: the usual shorter side of the data's
    images, at most 224. The code has 128 for its ConvNets on ImageNette, ImageWoof and ImageNet-100."""

    @property
    def reference(self) -> TeacherReference | None:
        """The teacher, in words."""
        if self.teacher is None:
            return None
        return TeacherReference(self.teacher, self.teacher_classes, self.teacher_normalise)

    def side(self, job: Job) -> int:
        """Side of the distilled images, in pixels."""
        return self.size or min(224, job.side)

    def grid(self, job: Job) -> int:
        """How many crops stand in each row and column."""
        return self.factor or (1 if self.side(job) <= 64 else 2)

    def needs(self, job: Job, ipc: int) -> int:
        return ipc * self.grid(job) ** 2

    # Checks of the settings

    def __post_init__(self) -> None:
        ranges: tuple[Range, ...] = (
            ("a whole number of 1 or more", lambda x: x >= 1, ("pool", "crops", "factor", "size")),
        )
        check_ranges(self, ranges, "rded")
