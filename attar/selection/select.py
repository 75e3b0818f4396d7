"""A selection rule with its settings: which of a class's candidates are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from attar.core.arguments import check_fields
from attar.core.errors import AttarError
from attar.core.limits import IPC, check_most
from attar.core.rng import generator
from attar.core.store import canonical
from attar.selection.rules import BY_TEACHER, COMPARING, JOINT, RANKING, RULES, Indices, Numbers, margins, surest
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from torch import Tensor

    from attar.job import Job
    from attar.selection.features import FeatureKind, ImageFeatures
    from attar.teachers.teacher import SingleTeacher

ClassMeans = Mapping[int, Numbers]
"""By label, the mean features (D,) of a class's candidates."""
NO_MEANS: ClassMeans = {}
NONE: Indices = np.array([], np.int64)
TEACHER = ("teacher", "teacher_classes", "teacher_normalise")


@dataclass(frozen=True)
class Select:
    """Which of a class's candidates are kept, on any pool, real or generated. Ties go to the earlier candidate.

    A smaller IPC's choice is the beginning of a larger one's; not so for medoid, nor where the larger IPC is more than
    the share that is chosen from. Only random depends on the seed.
    """

    rule: Literal["first", "random", "herding", "k-center", "medoid", "margin", "confident", "correct"] = "first"
    """`first` made; `random`; `herding`: their mean comes near the mean of all; `k-center`: each is the farthest from
    those before it; `medoid`: the nearest to the centres of as many k-means clusters; `margin`: of all classes jointly,
    those that are nearer to the mean of their own class's candidates than to that of any other's by the most;
    `confident`: those that a teacher classifies most surely; `correct`: those that it classifies rightly, the surest
    first, then the others."""
    pool: int = 0
    """How many images are generated to choose from, at least, whatever the IPC; real ones are chosen from all."""
    share: float = 1.0
    """The share of the candidates that is chosen from: those that the teacher classifies most surely."""
    features: Literal["auto", "teacher", "prior", "latents", "pixels"] = "auto"
    """What herding, k-center, medoid and margin compare: a `teacher`'s last features, the `prior`'s middle layer,
    `latents` or `pixels`; auto: the teacher's if one is named, else latents if there is a prior, else pixels."""
    teacher: str | None = None
    """A folder of `attar train-teacher`, timm/NAME, torchvision/NAME, or NETWORK:FILE."""
    teacher_classes: str | None = None
    """A file with its class list, where it carries none."""
    teacher_normalise: str | None = None
    """Statistics of its input, where it carries none: imagenet, cifar or half."""

    def __post_init__(self) -> None:
        RULES.check(self.rule)
        check_fields(self, "select")
        if self.pool < 0:
            raise AttarError(f"select.pool {self.pool}: must be 0 or more")
        check_most("`select.pool`", self.pool, IPC)
        if not 0 < self.share <= 1:
            raise AttarError(f"select.share {self.share}: above 0, at most 1")
        if self.share < 1 and self.rule in ("first", *RANKING):
            raise AttarError(f"select.share {self.share}: of no use to select.rule {self.rule}; choose another")
        if self.features != "auto" and self.rule not in COMPARING:
            raise AttarError(f"select.features {self.features}: only {', '.join(COMPARING)} compare features")
        useful = self.ranks or (self.rule in COMPARING and self.features in ("auto", "teacher"))
        for name in TEACHER:
            if getattr(self, name) is not None and not (useful and self.teacher is not None):
                asks_none = f"select.rule {self.rule} asks no teacher here; with a select.share below 1 it would"
                why = "name select.teacher too" if useful else asks_none
                raise AttarError(f"select.{name} {getattr(self, name)}: {why}")

    @property
    def ranks(self) -> bool:
        """Whether a teacher is asked how sure it is."""
        return self.rule in RANKING or self.share < 1

    @property
    def compares(self) -> bool:
        """Whether features are compared."""
        return self.rule in COMPARING

    @property
    def joint(self) -> bool:
        """Whether a class's choice depends on the candidates of all classes (`among`)."""
        return self.rule in JOINT

    @property
    def reference(self) -> TeacherReference | None:
        """The teacher, in words."""
        if self.teacher is None:
            return None
        return TeacherReference(self.teacher, self.teacher_classes, self.teacher_normalise)

    def candidates(self, ipc: int) -> int:
        """How many candidates are to be made for `ipc` of them to be kept."""
        return max(ipc, self.pool)

    def ranked(self) -> ImageFeatures | None:
        """What tells how sure a teacher is; None where none is asked."""
        return self._features("answers" if self.rule == "correct" else "teacher") if self.ranks else None

    def compared(self, job: Job) -> ImageFeatures | None:
        """The features that the rule compares; None of the rules that compare none."""
        if not self.compares:
            return None
        if self.features == "teacher" or (self.features == "auto" and self.teacher is not None):
            return self._features("teacher")
        if self.features == "auto":
            return self._features("pixels" if job.spec.prior is None else "latents")
        return self._features(self.features)

    def _features(self, of: FeatureKind | Literal["answers"]) -> ImageFeatures:
        from attar.selection.features import ImageFeatures

        return ImageFeatures(of, self.reference if of in BY_TEACHER else None)

    def needed_features(self, job: Job) -> list[ImageFeatures]:
        """All that is to be known of each candidate before any is kept."""
        return list(dict.fromkeys(features for features in (self.ranked(), self.compared(job)) if features is not None))

    def uses_prior(self, job: Job) -> bool:
        """Whether candidates are compared by what a prior makes of them."""
        return any(features.of in ("prior", "latents") for features in self.needed_features(job))

    def check(self, job: Job, ipcs: Sequence[int], generated: bool) -> None:
        """Raises AttarError where it lacks a teacher or a prior, or there is nothing to choose from; opens nothing."""
        if generated and self.rule != "first" and all(self.candidates(ipc) <= ipc for ipc in ipcs):
            raise AttarError(f"`select.rule` {self.rule}: generate more than are kept, with `select.pool=100`")
        if not generated and self.pool:
            raise AttarError(f"select.pool {self.pool}: real images are chosen from all of their class; leave it out")
        if self.joint and len(job.labels) < 2:
            raise AttarError(f"`select.rule` {self.rule}: it compares classes; give it two or more")
        for features in self.needed_features(job):
            if features.of in ("prior", "latents") and job.spec.prior is None:
                raise AttarError(f"`select.features` {features.of}: name a `prior`, or choose pixels or teacher")
            if features.of in BY_TEACHER and features.teacher is None:
                why = "features are compared"
                if self.ranks:
                    why = "surest images are kept" if self.rule in RANKING else "surest share is chosen from"
                raise AttarError(
                    f"`select.teacher` is missing, the classifier whose {why}: name it with `select.teacher=DIR` "
                    "(`attar train-teacher` makes one), timm/NAME, torchvision/NAME or NETWORK:FILE"
                )

    def try_teacher(self, job: Job) -> SingleTeacher | None:
        """Its teacher, opened and tried on images of the data; None where it asks none.

        Raises:
            AttarError: there is no such teacher, or it fails a check of `attar.teachers.check`.
        """
        from attar.selection.features import teacher_for

        return None if self.reference is None else teacher_for(job, self.reference)

    def identity(self, job: Job) -> Any:
        """Its fields as keys and manifests hold them: what `auto` is, and the teacher by digest, wherever it lies."""
        compared, teacher = self.compared(job), self.try_teacher(job)
        resolved = self
        if compared is not None:
            assert compared.of != "answers", "no rule compares them"
            resolved = replace(self, features=compared.of)
        if teacher is not None:
            resolved = replace(resolved, teacher=teacher.key, teacher_classes=None, teacher_normalise=None)
        return canonical(resolved)

    def teacher_summary(self, job: Job) -> dict[str, Any] | None:
        """What a manifest says of its teacher: how it was named, and how it did when it was tried."""
        teacher = self.try_teacher(job)
        if teacher is None:
            return None
        named = {name: getattr(self, name) for name in TEACHER}
        return {
            "named": named,
            "network": teacher.network_key,
            "accuracy": teacher.accuracy,
            "classes": teacher.matched,
        }

    def among(self, job: Job, pools: Mapping[int, Callable[[], Tensor]]) -> Callable[[Job, int, Tensor, int], Tensor]:
        """This choice, told what a joint one has to know of the pools of all classes: their mean features."""
        compared = self.compared(job)
        if not self.joint or compared is None:
            return self
        means = {label: compared.rows(job, label, pool()).mean(0, dtype=np.float64) for label, pool in pools.items()}
        return partial(self._kept, left_out=NONE, means=means)

    def __call__(self, job: Job, label: int, pool: Tensor, ipc: int) -> Tensor:
        """Which of a class's candidates are kept: indices (ipc,) into the pool, in the order of the choice.

        The pool holds latents (N, C, H, W), or the numbers (N,) in the data set of all of the class's real images; a
        joint choice is made `among` the pools of all classes.
        """
        return self._kept(job, label, pool, ipc, NONE)

    def of_others(self, job: Job, label: int, pool: Tensor, ipc: int, left_out: Indices) -> Tensor:
        """Which are kept where some are left out: indices (ipc,) into the pool, none of those in `left_out`."""
        return self._kept(job, label, pool, ipc, left_out)

    def _kept(
        self, job: Job, label: int, pool: Tensor, ipc: int, left_out: Indices, means: ClassMeans = NO_MEANS
    ) -> Tensor:
        import torch

        among = self._share(job, label, pool, ipc, left_out)
        return torch.from_numpy(among[RULES.open(self.rule)(self._values(job, label, pool, among, means), ipc)])

    def _share(self, job: Job, label: int, pool: Tensor, ipc: int, left_out: Indices) -> Indices:
        """The candidates that are chosen from, in their order: all, or the share that the teacher is surest of."""
        ranked, every = self.ranked(), np.arange(len(pool))
        if len(left_out):
            every = np.delete(every, left_out)
        if ranked is None or self.share == 1:
            return every
        losses = ranked.losses(job, label, pool)[every]
        return every[np.sort(surest(losses, max(ipc, round(self.share * len(every)))))]

    def _values(self, job: Job, label: int, pool: Tensor, among: Indices, means: ClassMeans) -> Any:
        """What the rule goes by: features, losses or an order of the candidates that are chosen from."""
        compared = self.compared(job)
        if compared is not None:
            rows = compared.rows(job, label, pool)[among]
            others = [mean for other, mean in means.items() if other != label]
            return margins(rows, means[label], others) if self.joint else rows
        if self.rule in RANKING:
            ranked = self.ranked()
            assert ranked is not None, "this rule asks a teacher"
            return ranked.losses(job, label, pool)[among]
        if self.rule == "random":
            return random_order(job.spec.seed, job.classes[label], len(among)).numpy()
        return np.arange(len(among))


def random_order(seed: int, class_name: str, pool: int) -> Tensor:
    """The order in which the images of a class are chosen at random: the method `random`, and every baseline."""
    import torch

    return torch.randperm(pool, generator=generator(seed, "select", class_name))
