"""What the evaluations of one set share, and what it is scored by, in words. Loads no torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.evaluation import Recipe
from attar.teachers.reference import TeacherReference


@dataclass(frozen=True)
class Conditions:
    """What all evaluations of one set share, whatever the recipe."""

    network: str
    """The network that is trained."""
    seeds: tuple[int, ...]
    """Seeds of the trainings."""
    test: str | None = None
    """Where the test images are from; None: the test split of the set's data."""
    baseline: bool = False
    """Whether random real images are evaluated beside the set in every one."""
    teacher: TeacherReference | None = None
    """Who labels, where a recipe learns from soft labels."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""


@dataclass(frozen=True)
class Protocol:
    """What a set is scored by."""

    own: Recipe
    """The protocol that its accuracy is usually reported by."""
    full_accuracy: float | None = None
    """Accuracy of all the data with hard labels, as a fraction; None: a network is trained on it, once."""
    full_epochs: int = 30
    """Epochs of the training on all the data, where its accuracy is not given."""
    weight: float = 0.5
    """Weight of IOR in LRS, and of the augmented evaluation in ARS, from 0 to 1."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.full_epochs < 1:
            raise AttarError(f"`full_epochs` {self.full_epochs}: at least 1")
        if not 0 <= self.weight <= 1:
            raise AttarError(f"`weight` {self.weight}: a number from 0 to 1")
