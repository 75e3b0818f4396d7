"""Where a recipe's soft labels come from: a teacher as the student learns, or labels stored, found again, or made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from attar.core.batching import device_class
from attar.core.errors import AttarError
from attar.core.progress import Progress
from attar.core.store import Artefact, Store
from attar.evaluation.recipe import Recipe
from attar.teachers.label_schemes import Scheme
from attar.teachers.soft_labels import FORMAT, Labelling, StoredLabels, Views, whole_images, write_labels
from attar.teachers.teacher import Teacher, digest_of
from attar.training.augment import Augmentation, arithmetic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attar.evaluation.labelled_images import LabelledImages
    from attar.training import DeviceImages, Plan, Precision


def views_of(recipe: Recipe, plan: Plan, how: Augmentation, count: int) -> Views | None:
    """The views of `count` images by image and epoch, where the recipe draws them so.

    Raises:
        AttarError: the recipe counts steps, not epochs.
    """
    if recipe.views == "batch":
        return None
    if plan.epochs is None:
        raise AttarError(f"recipe {recipe.name}: views = image needs epochs: set steps to none and epochs to a number")
    batch = plan.batch if recipe.box == "batch" else 1
    epochs = min(recipe.label_epochs or plan.epochs, plan.epochs)
    return Views(how, count, epochs=epochs, box=recipe.box, batch=batch)


def whole_views(images: LabelledImages, teacher: nn.Module | None, given: StoredLabels | None) -> Views:
    """What fixed labels are of: the whole images, at the size that their teacher knows, or else at their own."""
    size = teacher.size if isinstance(teacher, Teacher) else None
    if teacher is None and given is not None:
        size = given.side
    return whole_images(len(images.labels), size or images.side)


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """The soft labels of one set by one recipe.

    Raises:
        AttarError: neither a teacher nor labels; labels that the recipe cannot use, or that are not of this set, its
            views and this teacher.
    """

    recipe: Recipe
    views: Views | None
    """What is labelled; None: whatever views the student is shown, as it learns."""
    images: str
    """Digest of the set."""
    classes: int
    teacher: nn.Module | None
    given: StoredLabels | None = None
    store: Store | None = None
    """Where labels are kept that are made here; None: in a folder that is removed in the end."""
    precision: Precision = "float32"
    """What the teacher computes them in; stored ones may be of any."""

    def __post_init__(self) -> None:
        name = self.recipe.name
        if self.teacher is None and self.given is None:
            raise AttarError(
                f"recipe {name} learns from a teacher's soft labels: name the teacher with `teacher`, or give stored "
                "labels with `labels`"
            )
        if self.given is not None:
            if self.given.fixed and not self.recipe.fixed:
                scheme = self.given.scheme.fixed_name
                raise AttarError(f"{self.given.folder} holds a label an image: set scheme = {scheme} of recipe {name}")
            if self.recipe.fixed and not self.given.fixed:
                raise AttarError(
                    f"{self.given.folder} holds labels of views, and recipe {name} has scheme = {self.recipe.scheme}: "
                    "leave that out, or make one label an image with `attar relabel`"
                )
            if self.labelling is None:
                raise AttarError(f"recipe {name} uses no stored labels: choose fkd-soft, or set views and scheme")
            self.given.check(self.labelling)

    @cached_property
    def by(self) -> str:
        """The digest of the teacher."""
        if self.teacher is not None:
            return digest_of(self.teacher)
        assert self.given is not None, "checked when it was made"
        return self.given.teacher

    @cached_property
    def labelling(self) -> Labelling | None:
        """What the stored labels depend on; None where the teacher labels as the student learns."""
        recipe = self.recipe
        if recipe.scheme == "online" or self.views is None:
            return None
        scheme = Scheme.named(recipe.scheme)
        temperature = None if scheme.top is None else recipe.temperature
        precision = self.precision if self.given is None else self.given.precision
        looked_at = None if self.given is None else self.given.looked_at
        return Labelling(self.views, self.images, self.by, self.classes, scheme, temperature, precision, looked_at)

    def stored(
        self, images: Callable[[], DeviceImages], device: torch.device, progress: Progress
    ) -> StoredLabels | None:
        """The stored labels of images, made on the device if they are not there yet; None: the teacher is asked."""
        labelling, teacher = self.labelling, self.teacher
        if self.given is not None or labelling is None:
            return self.given
        assert teacher is not None

        def make(folder: Path) -> None:
            write_labels(folder, labelling, images(), teacher, progress)

        store = self.store or Store(Path(self._folder.name))
        inputs = {"labels": labelling, "format": FORMAT}
        inputs |= {"device": device_class(device), "torch": torch.__version__}
        inputs |= arithmetic(labelling.views.how, device)
        return StoredLabels(store.once(Artefact("soft-labels", inputs), make))

    def of_images(self, stored: StoredLabels) -> Tensor:
        """(N, classes): each image's probabilities at the recipe's temperature, of fixed labels, on the CPU."""
        return (stored(0, torch.arange(stored.count)) / self.recipe.temperature).softmax(1)

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="attar-labels-")

    @property
    def identity(self) -> Any:
        """The labels as keys hold them: equal ones, equal labels."""
        return {"teacher": self.by} if self.labelling is None else self.labelling

    def record(self) -> dict[str, Any]:
        """The digest of the "teacher", the "scheme", how many "epochs" have labels of their own, the "bytes" stored."""
        if self.labelling is None:
            return {"teacher": self.by, "scheme": "online", "epochs": None, "bytes": 0}
        views, size = self.labelling.views, self.labelling.bytes
        return {"teacher": self.by, "scheme": self.recipe.scheme, "epochs": views.epochs, "bytes": size}
