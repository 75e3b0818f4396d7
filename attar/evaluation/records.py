"""What evaluations came to: results, the records of them, and their words for a line of text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attar.core.progress import duration
from attar.core.wording import counted
from attar.evaluation.recipes import MODIFIED, counted_in

ALL_DATA = "all data"
"""The method of a record without a set: networks trained on the whole training set."""

SIGMAS = 3.0
"""Standard errors by which an accuracy must lie above guessing, or it may be luck."""


@dataclass(frozen=True)
class Result:
    """What networks, one for each training seed, came to on one set of images; accuracies are top-1 in per cent."""

    recipe: str
    """The recipe's name."""
    network: str
    """The network's name."""
    ipc: float
    """Training images per class, mean over the classes; 0 where an old record of all the data does not say it."""
    n_train: int
    """Training images."""
    n_test: int
    """Test images."""
    accuracies: tuple[float, ...]
    """After the last epoch, for each seed."""
    best: tuple[float, ...]
    """The best test during training, for each seed: chosen on the test set, so never the headline."""
    mean: float
    """Mean of the accuracies over the seeds."""
    std: float
    """Sample deviation over the seeds (n - 1); 0 for one seed."""
    seconds: float
    """Training and tests of all seeds, also of those that were found finished."""
    device: str
    """The device that it was trained on, in words."""
    learnt: tuple[float, ...] = ()
    """How well each network fits its training set, in per cent (attar.training.meters); none of old records."""
    chance: float = 0.0
    """Up to which of these, in per cent, a network may have learnt nothing (`TrainAccuracy.chance`)."""
    precision: str = "float32"
    """What the networks were trained and tested in: the recipe's, or float32 where the device lacks it."""
    labels: Mapping[str, Any] | None = None
    """How soft labels are stored (`SoftLabels.record`); None of hard ones."""
    curves: tuple[tuple[tuple[int, float], ...], ...] = ()
    """Of each seed all tests, as (epoch, accuracy), of recipes that count steps (step, accuracy); none where only the
    last was tested, nor of old records."""

    @property
    def n(self) -> int:
        """The number of training seeds."""
        return len(self.accuracies)

    @property
    def spread(self) -> float | None:
        """The deviation over the seeds; None of a single one."""
        return self.std if self.n > 1 else None

    @property
    def sampling(self) -> float:
        """The standard error of the mean, in points, that comes of there being no more test images than there are."""
        share = self.mean / 100
        return 100 * math.sqrt(share * (1 - share) / self.n_test)

    @property
    def classes(self) -> int:
        """The number of classes; 0 where an old record does not tell."""
        count = self.n_train / self.ipc if self.ipc else 0.0
        return round(count) if math.isfinite(count) else 0

    @property
    def unlearnt(self) -> str:
        """Which networks fit their own training set no better than chance, in words; nothing where all do better."""
        shares = [f"{share:.1f} %" for share in self.learnt if share <= self.chance]
        who = "the network" if self.n == 1 else f"{len(shares)} of {self.n} networks"
        its = "its" if len(shares) == 1 else "their"
        if shares and self.chance >= 100:
            if self.classes == 1:
                return "a network cannot be wrong about a single class: this measures nothing"
            return "too few training images were shown to tell learning from luck: train longer"
        text = f"{who} did not learn {its} training set ({', '.join(shares)}, as by chance): lower lr, or train longer"
        return text if shares else ""

    @property
    def accuracy(self) -> str:
        """Mean and deviation in words: "40.0 ± 1.0"."""
        return spread(f"{self.mean:.1f}", self.spread)


@dataclass(frozen=True)
class Trial:
    """Where a record belongs in an experiment."""

    item: str
    """The fingerprint of the set and of all that it is judged by."""
    judged: str
    """The fingerprint of what sets are judged by but the network (`attar.experiments.summary.judging_fingerprint`)."""
    label: str
    """The method's label in the experiment."""
    seeds: tuple[int, ...]
    """Seeds of the trainings."""
    distilling: float
    """Seconds that it took to make the set."""
    bytes: int
    """Size on disk of the set's images, and of the soft labels that it holds (of older records, of the images)."""
    pixels: int | None = None
    """Number of pixels of the set's images; None of old records."""


@dataclass(frozen=True, kw_only=True)
class Record(Result):
    """A result, what it is of, and what stands beside it."""

    set: str
    """The set's folder; none of `ALL_DATA`."""
    method: str
    """The name of the set's method, or `ALL_DATA`."""
    seed: int | None = None
    """Seed of the distillation."""
    teacher: Mapping[str, Any] | None = None
    """Who gave soft labels: "source" (or a list), "digest", "accuracy" ... (`attar.evaluation.teaching.summary`)."""
    formation: int = 1
    """Of the set: it has IPC mosaics of this many parts in each row and column, and all parts are trained on."""
    reduced_by: int = 1
    """By how much the random images beside the set are reduced, and enlarged again: as its parts once were."""
    weighted: bool | None = None
    """Whether images weighed what the set says, or all the same; None of sets without weights."""
    layout: str | None = None
    """How the files of a set that another code wrote are laid out."""
    baseline: Result | None = None
    """Random real images, as many, by the same recipe."""
    test: str | None = None
    """Where the test images are from."""
    changes: Mapping[str, Any] | None = None
    """The fields that differ from the recipe that it is named after."""
    trial: Trial | None = None
    """Where it belongs in an experiment; None outside of one."""

    @classmethod
    def of(cls, result: Result, **about: Any) -> Record:
        """A result with the other fields of its record; these win where both have one."""
        return cls(**{**vars(result), **about})

    @property
    def stored(self) -> str:
        """The set's images of a class in words: "IPC 10", "IPC 10 (2 x 2)" of mosaics, "IPC 10, weighted"."""
        grid = f" ({self.formation} x {self.formation})" if self.formation > 1 else ""
        return f"IPC {self.ipc}{grid}" + ("" if self.weighted is None else f", {self.weighing}")

    @property
    def weighing(self) -> str:
        """What becomes of the set's weights, in words; nothing where it has none."""
        return {None: "", True: "weighted", False: "weights ignored"}[self.weighted]

    @property
    def of_all_data(self) -> bool:
        """Whether it is of the whole training set."""
        return self.method == ALL_DATA

    @property
    def path(self) -> str:
        """The set's absolute path; nothing where there is no set."""
        return str(Path(self.set).resolve()) if self.set else ""

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is of: the set, what judged it, training seeds where an experiment chose them.

        A later record takes the place of one with the same identity.
        """
        seeds = ",".join(map(str, self.trial.seeds if self.trial else ()))
        return self.path, *self.judged_by, seeds, *([self.weighing] if self.weighted is False else [])

    @property
    def judged_by(self) -> tuple[str, ...]:
        """Recipe, its changes as JSON, network, test images, who labelled what: results of equal ones share a table."""
        changes, own = json.dumps(self.changes or {}, sort_keys=True), ["own labels"] if self.own_labels else []
        return self.original, changes, self.network, self.test or "", (self.teacher or {}).get("digest", ""), *own

    @property
    def own_labels(self) -> bool:
        """Whether the soft labels are those that the set holds itself; False of older records."""
        return bool((self.labels or {}).get("own"))

    @property
    def taught_by(self) -> str:
        """Who gave the soft labels: one name, or several with commas between them; nothing where nobody did."""
        source = (self.teacher or {}).get("source", "")
        return source if isinstance(source, str) else ", ".join(source)

    @property
    def original(self) -> str:
        """The name of the recipe that the changes were made to; of older records, the recipe's own."""
        return self.recipe if self.changes is None else self.recipe.removesuffix(MODIFIED)

    @property
    def counted_in(self) -> str:
        """What its curves count: "steps" or "epochs"."""
        return counted_in(self.original, self.changes or {})

    @property
    def protocol(self) -> str:
        """What it was judged by, in words, as `in_words` says it, with who labelled and how that is stored."""
        labelled = ""
        if self.teacher and self.labels:
            size = f", {self.labels['bytes']:,} bytes" if self.labels["bytes"] else ""
            whose = "own labels" if self.own_labels else "labels"
            labelled = f", {whose} of {self.taught_by}, {self.labels['scheme']}{size}"
        return in_words(self.original, self.changes or {}, self.test, labelled)

    @property
    def difference(self) -> float | None:
        """How many points the mean lies above that of random real images; None where these were not evaluated."""
        return None if self.baseline is None else self.mean - self.baseline.mean

    @property
    def row(self) -> str:
        """The record in one line for the terminal, and one for each of its notes."""
        parts = [ALL_DATA] if self.of_all_data else [self.set or ALL_DATA, self.method, self.stored]
        parts += [self.network, f"{self.accuracy} % (n = {self.n}, last epoch)"]
        if self.baseline is not None:
            parts.append(f"random {self.baseline.accuracy} %, difference {signed(self.mean - self.baseline.mean)}")
        line = "  ".join([*parts, duration(self.seconds)])
        return "\n".join([line, *(f"  note: {note}" for note in self.notes)])

    @property
    def classes(self) -> int:
        """The number of classes; 0 where an old record does not tell."""
        return round(super().classes / self.formation**2)

    @property
    def failures(self) -> list[str]:
        """Which networks did not learn, a line each for the set and for the random images."""
        beside = "" if self.baseline is None else self.baseline.unlearnt
        return [*filter(None, [self.unlearnt, beside and f"random real images: {beside}"])]

    @property
    def notes(self) -> list[str]:
        """What is to be known before the accuracies are believed, a line each."""
        return self.failures + ([] if self.unlearnt else self._guessed)

    @property
    def _guessed(self) -> list[str]:
        """That the mean lies within some standard errors of what guessing is right in, of so many test images."""
        guess = 1 / max(self.classes, 1)
        luck = SIGMAS * math.sqrt(guess * (1 - guess) / self.n_test)
        if self.classes < 2 or self.mean / 100 > guess + luck:
            return []
        tested = f"n = {self.n}, {counted(self.n_test, 'test image')}"
        return [f"{self.mean:.1f} % cannot be told from guessing among {self.classes} classes ({tested})"]

    def as_json(self) -> dict[str, Any]:
        """The record as a file holds it."""
        entry = asdict(self, dict_factory=_json_ready)
        trial = entry.pop("trial") or {}
        for name in ("layout", "test", "changes", "formation", "reduced_by", "weighted"):
            if entry[name] == getattr(Record, name):
                del entry[name]
        for result in filter(None, (entry, entry["baseline"])):
            if not result["curves"]:
                del result["curves"]
        head = {name: entry.pop(name) for name in ("set", "method", "seed", "teacher")}
        return {**head, **entry, **trial}


def in_words(recipe: str, changes: Mapping[str, Any], test: str | None = None, labelled: str = "") -> str:
    """A recipe with its changes, and the test images: "quick with flip=false, steps=300; tested on digits@test"."""
    changed = f" with {', '.join(assignments(changes))}" if changes else ""
    return f"{recipe}{changed}{labelled}{f'; tested on {test}' if test else ''}"


def assignments(changes: Mapping[str, Any]) -> list[str]:
    """The changes of a recipe as `--set` takes them, by field: "flip=false", "steps=300"."""
    return [f"{name}={as_text(value)}" for name, value in sorted(changes.items())]


def spread(mean: str, std: float | None) -> str:
    """A mean with its deviation: "40.0 ± 1.0"; the mean alone where there is none."""
    return mean if std is None else f"{mean} ± {std:.1f}"


def signed(points: float) -> str:
    """A difference with its sign; the minus is the typographer's, and what rounds to zero has no sign."""
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}") if round(points, 1) else "0.0"


def _json_ready(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}


def as_text(value: Any) -> str:
    """A field's value as the command line takes it: none, true, "7,8"."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(as_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
