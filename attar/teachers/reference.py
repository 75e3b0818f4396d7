"""A teacher in words: frozen, picklable, what keys and manifests hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attar.core.arguments import check_fields, checked
from attar.core.errors import AttarError
from attar.core.files import expand_user


@dataclass(frozen=True)
class TeacherReference:
    """A teacher in words. `attar.teachers.open.open_teacher` opens it."""

    source: str | tuple[str, ...]
    """Who gives soft labels: a folder of `attar train-teacher`, timm/NAME or torchvision/NAME (pretrained), or
    NETWORK:FILE, a checkpoint; several, as A,B: the mean of their logits."""
    classes: str | None = None
    """A file with the teacher's class names in the order of its logits: one a line, a JSON list, or TOML classes."""
    normalise: str | None = None
    """Statistics of the input of a teacher that carries none: imagenet, cifar or half; none: the recipe's."""

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    @checked
    def of(sources: str | Sequence[str], classes: str | None = None, normalise: str | None = None) -> TeacherReference:
        """One teacher, or several, as Python and TOML give them.

        Raises:
            AttarError: none, or one twice.
        """
        members = (sources,) if isinstance(sources, str) else tuple(sources)
        if not all(members) or not members:
            raise AttarError("`teacher`: a name is missing")
        if len(set(members)) < len(members):
            twice = next(name for name in members if members.count(name) > 1)
            raise AttarError(f"`teacher` {twice}: is named twice; a mean counts each teacher once")
        return TeacherReference(members if len(members) > 1 else members[0], classes, normalise)

    @staticmethod
    def from_text(texts: Sequence[str], classes: str | None = None, normalise: str | None = None) -> TeacherReference:
        """The same from the texts of a flag, each one name or several with commas between them."""
        return TeacherReference.of([name.strip() for text in texts for name in text.split(",")], classes, normalise)

    @property
    def sources(self) -> tuple[str, ...]:
        """One name for each teacher."""
        return (self.source,) if isinstance(self.source, str) else self.source

    def __str__(self) -> str:
        return ", ".join(self.sources)

    @property
    def anywhere(self) -> TeacherReference:
        """The same teacher, named so that it is found from any working directory."""
        classes = self.classes and str(Path(self.classes).absolute())
        return TeacherReference.of([_anywhere(source) for source in self.sources], classes, self.normalise)


def _anywhere(source: str) -> str:
    network, colon, file = source.partition(":")
    if expand_user(source).is_dir():
        return str(expand_user(source).absolute())
    return f"{network}:{expand_user(file).absolute()}" if colon else source
