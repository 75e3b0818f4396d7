"""A teacher in words: frozen, picklable, what keys and manifests hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class TeacherReference:
    """A teacher in words, as flags and files give it."""

    source: str
    """A folder of `attar train-teacher`, timm/NAME, torchvision/NAME, or NETWORK:FILE."""
    classes: str | None = None
    """A file with its class list, where it carries none."""
    normalise: str | None = None
    """Statistics of its input, where it carries none: imagenet, cifar or half; None: the recipe's."""

    @property
    def anywhere(self) -> TeacherReference:
        """The same teacher, named so that it is found from any working directory."""
        network, colon, file = self.source.partition(":")
        source, classes = self.source, self.classes and str(Path(self.classes).absolute())
        if Path(source).is_dir():
            source = str(Path(source).absolute())
        elif colon:
            source = f"{network}:{Path(file).expanduser().absolute()}"
        return TeacherReference(source, classes, self.normalise)
