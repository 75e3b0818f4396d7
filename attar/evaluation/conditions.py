"""What evaluations share, whatever the recipe, in words. Loads no torch, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.limits import SEEDS, check_most, check_seed
from attar.evaluation.recipe import Recipe
from attar.networks import check
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from attar.sets.distilled import DistilledSet


@dataclass(frozen=True)
class Conditions:
    """How distilled sets are evaluated, beside the recipe."""

    networks: tuple[str, ...]
    """The networks that are trained, each by itself."""
    seeds: tuple[int, ...]
    """Seeds of the trainings."""
    test: str | None = None
    """Where the test images are from; None: the test split of the set's data."""
    baseline: bool = True
    """Whether random real images of the same count are evaluated beside each set; with the same teacher, and labels of
    their own."""
    teacher: TeacherReference | None = None
    """Who labels, where a recipe learns from soft labels."""
    labels: Path | None = None
    """What `attar relabel` wrote for the set."""
    own_labels: bool = False
    """Whether the soft labels are those that each set holds itself."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1 or mps."""
    weights: bool = True
    """Whether images weigh what their set says; of sets without weights all weigh the same."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.seeds:
            raise AttarError("`seeds` 0: at least 1")
        for seed in self.seeds:
            check_seed("`seeds`", seed)
        check_most("`seeds`", len(self.seeds), SEEDS)
        if not self.networks:
            raise AttarError("`network` is empty: name at least one (`attar list networks`)")
        for name, values in (("network", self.networks), ("seeds", self.seeds)):
            if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
                raise AttarError(f"`{name}`: {twice[0]} stands there twice")
        for network in self.networks:
            check(network)

    @property
    def network(self) -> str:
        """The network, where one alone is trained.

        Raises:
            AttarError: there are several.
        """
        if len(self.networks) != 1:
            raise AttarError(f"`network` {','.join(self.networks)}: name one")
        return self.networks[0]

    def labels_of(self, distilled: DistilledSet) -> Path | None:
        """The folder of the stored labels that a set is learnt with; None: there are none."""
        return distilled.labels if self.own_labels else self.labels

    def check(self, recipe: Recipe) -> None:
        """Raises AttarError unless a teacher or labels are given where the recipe needs them, and nowhere else."""
        given = self.teacher or self.labels or self.own_labels
        if recipe.labels == "hard" and given:
            raise AttarError(
                f"recipe {recipe.name} learns from hard labels, without {'`teacher`' if self.teacher else '`labels`'}: "
                "choose rded-soft, d3hr-soft or fkd-soft (`attar list recipes`), or set scheme = fixed"
            )
        if recipe.labels == "soft" and not given:
            raise AttarError(
                f"recipe {recipe.name} learns from a teacher's soft labels: name the teacher with `teacher` "
                "(`attar train-teacher` makes one), or give stored labels with `labels` (`attar relabel`)"
            )
