"""The grid of an experiment: every method and seed distilled, every set evaluated; what is done is not done again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from attar.core.engine import LOCAL, Engine
from attar.core.errors import AttarError, suggestion
from attar.core.files import expand_user
from attar.core.hub_ids import check_there, near
from attar.core.progress import Progress, Say, of_item, quiet, silent
from attar.core.store import Store, fingerprint
from attar.core.whole_command import StageForecast
from attar.core.whole_grid import WholeGrid
from attar.core.wording import counted
from attar.data.output_places import check_place
from attar.data.sources import canonical_spec
from attar.distillation.run import distill_sets
from attar.evaluation.conditions import Conditions
from attar.evaluation.evaluator import REVISION
from attar.evaluation.outlook import training_kinds
from attar.evaluation.records import Record, Trial
from attar.evaluation.records_file import read_records, write_record
from attar.evaluation.run import evaluate_sets
from attar.experiments.forecast import TrainingKind, forecast, why_unusable
from attar.experiments.spec import Contender, Evaluation, Experiment
from attar.experiments.summary import Summary, judging_fingerprint, summarise
from attar.job import Job
from attar.priors import TRAIN
from attar.sets.distilled import DistilledSet, open_distilled, stored
from attar.teachers.reference import TeacherReference

KEYS = ("data", "test", "prior", "codec", "teacher", "label_teacher")
"""What names a file or folder in an experiment."""


def compare(
    experiment: Experiment,
    *,
    only: Sequence[str] = (),
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    show: Callable[[Summary], None] = lambda summary: None,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> Summary:
    """Runs what is missing of an experiment, and keeps the records in results.json in its folder.

    A method or an evaluation that fails once the work has begun does not stop the others. `only` names the methods to
    run by their labels, all of them if none; the summary has all that there are results of. `show` is called with all
    results after each new one.

    Raises:
        AttarError: something is wrong with the experiment or its inputs; before any long work.
    """
    grid = Grid(_narrowed(experiment, only), store, WholeGrid(progress), say, engine)
    data = [contender.spec.data for contender in experiment.contenders]
    check_place(experiment.out, "`out`", [*data, experiment.test], adds=["results.json"])
    before = summarise(experiment, grid.records())
    if dry_run and experiment.planned and (reason := why_unusable(grid.experiment)):
        say(forecast(grid.experiment, reason, store, progress).words)
        return before
    check_places(grid.experiment, dry_run)
    grid.check()
    trainings = sum(len(grid.missing(item)) * len(item.seeds) for item in grid.items())
    if dry_run or trainings:
        expected = forecast(grid.experiment, None, store, progress)
        say(expected.words)
        grid.foresee(expected.trainings)
    say(f"{counted(trainings, 'training')} left; what is in the cache is not done again")
    if dry_run:
        return before
    failures = tuple(grid.run(lambda: show(summarise(experiment, grid.records()))))
    return replace(summarise(experiment, grid.records()), failures=failures)


def _narrowed(experiment: Experiment, only: Sequence[str]) -> Experiment:
    labels = [contender.label for contender in experiment.contenders]
    for label in only:
        if label not in labels:
            hint = suggestion(label, labels)
            raise AttarError(f"`only` {label}{hint}: {experiment.file} has the methods {', '.join(labels)}")
    chosen = tuple(contender for contender in experiment.contenders if not only or contender.label in only)
    return replace(experiment, contenders=chosen)


def check_places(experiment: Experiment, dry_run: bool = False) -> None:
    """Raises AttarError, which names the keys to edit, where a file or folder of an experiment is not here.

    It passes on what the head of the file says of its needs. A dry run does without the teachers of evaluations.
    """
    places = _made_of(experiment) | ({} if dry_run else _judged_by(experiment))
    missing = {place: why for place in places if (why := _why_absent(*place))}
    if missing:
        keys = [key for key in KEYS if key in {key for key, _ in missing}]
        raise AttarError(
            f"{experiment.file} names what is not here (its paths are relative to the current folder, {Path.cwd()}):\n"
            + "".join(f"  {missing[place]}\n" for place in sorted(missing, key=lambda place: KEYS.index(place[0])))
            + _needs(experiment.file)
            + f"edit {' and '.join(filter(None, [', '.join(keys[:-1]), keys[-1]]))} in the file to say where yours are"
        )


def _made_of(experiment: Experiment) -> dict[tuple[str, str | None], None]:
    """What sets are made of, by the key in the file and its value."""
    places: dict[tuple[str, str | None], None] = {}
    for contender in experiment.contenders:
        spec = contender.spec
        named = {"data": spec.data, "prior": spec.prior, "codec": spec.codec, "test": experiment.test}
        places |= dict.fromkeys([*named.items(), *(("teacher", source) for source in _teachers(contender.method))])
        if spec.label_teacher is not None:
            places |= dict.fromkeys(("label_teacher", source) for source in _sources(spec.label_teacher))
    return places


def _judged_by(experiment: Experiment) -> dict[tuple[str, str | None], None]:
    """The teachers of the evaluations, likewise."""
    teachers = [evaluation.teacher for evaluation in experiment.evaluations if evaluation.teacher is not None]
    return dict.fromkeys(("teacher", source) for teacher in teachers for source in teacher.sources)


def _sources(named: str) -> tuple[str, ...]:
    """The teachers that a text names, each by itself."""
    return TeacherReference.from_text([named]).sources


def _teachers(part: Any) -> Iterator[str]:
    """The teachers that a method's fields name, those of its parts included."""
    for field_ in fields(part) if is_dataclass(part) else ():
        value = getattr(part, field_.name)
        if field_.name == "teacher" and isinstance(value, str):
            yield value
        else:
            yield from _teachers(value)


def _needs(file: Path) -> str:
    """What the comment at the head of a file says after "Needs:", as a line."""
    found = re.search(r"^# Needs: +(.+(?:\n#  +.+)*)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return "it needs " + re.sub(r"\n#  +", " ", found[1]) + "\n" if found else ""


def _why_absent(key: str, value: str | None) -> str:
    """Why a file or folder cannot be found; nothing where it can, or where it need not be on this machine."""
    if not value or value in ("held-out", "pixel", "digits"):
        return ""
    if key in ("teacher", "label_teacher"):
        return _why_no_teacher(value, key)
    if key == "prior" and value == TRAIN:
        return "prior = train: `attar distill` alone trains one first; name the folder that it wrote, OUT.prior"
    try:
        if key in ("prior", "codec"):
            check_there(value, f"{key} =")
        elif not value.startswith(("hf:", "torchvision:")):
            canonical_spec(value)
    except AttarError as error:
        return str(error) if key in ("prior", "codec") else f"{key} = {error}"
    return ""


def _why_no_teacher(source: str, key: str = "teacher") -> str:
    """Why a teacher cannot be found; nothing where it can, or where a library has it."""
    place = source.partition(":")[2] or source
    if source.startswith(("timm/", "torchvision/")) or expand_user(source).is_dir() or expand_user(place).exists():
        return ""
    return f"{key} = {source}{near(place)}: there is no such file or folder; `attar train-teacher` makes one"


@dataclass(frozen=True)
class SetEvaluation:
    """One set to be judged by one recipe: by all of its networks, with all training seeds."""

    contender: Contender
    seed: int
    """Seed of the distillation."""
    ipc: int
    evaluation: Evaluation

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the trainings."""
        return self.evaluation.seeds or (self.seed,)

    def __str__(self) -> str:
        return f"{self.contender.label}, seed {self.seed}, IPC {self.ipc}, {self.evaluation.label}"


@dataclass(frozen=True)
class Grid:
    """The work of an experiment, and who hears how it goes."""

    experiment: Experiment
    store: Store | None
    whole: WholeGrid
    say: Say
    engine: Engine = LOCAL
    """Who makes the items of each distillation and evaluation."""
    noted: set[str] = field(default_factory=set)
    """What was said already of several sets."""

    def pairs(self) -> Iterator[tuple[Contender, int]]:
        """Every method with every distillation seed."""
        for seed in self.experiment.distillation_seeds:
            for contender in self.experiment.contenders:
                yield contender, seed

    def items(self) -> Iterator[SetEvaluation]:
        """All that is to be judged, in an order that fills a column of a table before the next one begins."""
        for evaluation in self.experiment.evaluations:
            for ipc in evaluation.ipcs:
                for contender, seed in self.pairs():
                    if contender.label in evaluation.methods:
                        yield SetEvaluation(contender, seed, ipc, evaluation)

    def records(self) -> list[Record]:
        """All results that there are in the experiment's folder."""
        file = self.experiment.out / "results.json"
        return read_records(file) if file.exists() else []

    def check(self) -> None:
        """Looks at all inputs, and says what each distillation still takes.

        Raises:
            AttarError: all that is wrong with any of them.
        """
        wrong: dict[str, list[str]] = {}
        for contender, seed in self.pairs():
            said: list[str] = []
            try:
                self._distill(contender, seed, said.append, dry_run=True)
                self.say(f"{contender.label}, seed {seed}: {said[-1]}")
            except AttarError as error:
                wrong.setdefault(str(error), []).append(contender.label)
        if wrong:
            each = (f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in wrong.items())
            raise AttarError("\n".join(each))

    def foresee(self, trainings: Mapping[TrainingKind, float]) -> None:
        """Takes the seconds of a training of each kind, for the time left; those of sets are known once checked."""
        for item in self.items():
            evaluation, formation = item.evaluation, item.contender.spec.formation
            self.whole.named(str(item)).foresee(
                {
                    network: StageForecast(
                        len(item.seeds) * trainings[evaluation.label, network, item.ipc, formation],
                        kinds=training_kinds(evaluation.recipe, network, item.ipc * formation**2),
                    )
                    for network in self.missing(item)
                }
            )

    def over(self, label: str, ipc: int) -> None:
        """What was foreseen of an evaluation will not be done: others take its place."""
        for item in self.items():
            if (item.evaluation.label, item.ipc) == (label, ipc):
                self.whole.over(str(item))

    def check_teachers(self) -> None:
        """Raises AttarError where a teacher's folder or file is not there."""
        for evaluation in self.experiment.evaluations:
            for source in evaluation.teacher.sources if evaluation.teacher else ():
                if why := _why_no_teacher(source):
                    raise AttarError(f"[evaluations.{evaluation.label}] {why}")

    def run(self, after: Callable[[], None]) -> Iterator[str]:
        """Makes and judges all that is missing, and calls `after` after each network; yields what failed."""
        with self.engine.cluster():
            yield from self.distill()
            for item in self.items():
                yield from self.evaluate(item, after)

    def distill(self) -> Iterator[str]:
        """Makes the sets that are not there yet; yields what failed."""
        for contender, seed in self.pairs():
            name = f"{contender.label}, seed {seed}"
            if all(self.experiment.folder(contender, seed, ipc).is_dir() for ipc in self.experiment.ipcs_of(contender)):
                continue
            try:
                self._distill(contender, seed, partial(self._say_of, name))
            except AttarError as error:
                self.say(f"{name}: failed: {error}")
                yield f"distilling {name}: {error}"
        for item in self.items():
            if not self._folder(item).is_dir():
                self.whole.over(str(item))

    def _folder(self, item: SetEvaluation) -> Path:
        return self.experiment.folder(item.contender, item.seed, item.ipc)

    def _item(self, name: str) -> AbstractContextManager[Progress]:
        """By what an item that runs tells its progress; where others work ahead, each item tells its own time."""
        return self.whole.item(name) if self.engine.is_local else nullcontext(of_item(self.whole.progress))

    def _distill(self, contender: Contender, seed: int, say: Say, dry_run: bool = False) -> None:
        ipcs = self.experiment.ipcs_of(contender)
        folders = [self.experiment.folder(contender, seed, ipc) for ipc in ipcs]
        out = folders[0] if len(folders) == 1 else folders[0].parent
        name = f"{contender.label}, seed {seed}"
        with nullcontext(self.whole.named(name)) if dry_run else self._item(name) as progress:
            job = Job(replace(contender.spec, seed=seed), self.store, progress, dry_run)
            distill_sets(job, contender.name, contender.method, ipcs, out, say=say, engine=self.engine)

    def _note(self, text: str) -> None:
        """Says what is the same of many sets once."""
        if text not in self.noted:
            self.noted.add(text)
            self.say(text)

    def _say_of(self, name: str, text: str) -> None:
        self.say(f"{name}: {text}")

    def missing(self, item: SetEvaluation) -> list[str]:
        """The networks that the item has no result of yet: all of them, where the set is not there."""
        folder = self._folder(item)
        if not folder.is_dir():
            return list(item.evaluation.networks)
        trials = (record.trial for record in self.records() if record.trial)
        done = {trial.item for trial in trials if trial.label == item.contender.label}
        distilled = open_distilled(folder)
        return [network for network in item.evaluation.networks if self._key(item, network, distilled) not in done]

    def _key(self, item: SetEvaluation, network: str, distilled: DistilledSet) -> str:
        """The fingerprint of a result: of the set, and of all that it is judged by."""
        terms = judging_fingerprint(self.experiment, item.evaluation, item.contender)
        return fingerprint(distilled.manifest["digest"], terms, network, REVISION, item.seeds)

    def evaluate(self, item: SetEvaluation, after: Callable[[], None]) -> Iterator[str]:
        """Evaluates what is missing of an item, and calls `after` after each network; yields what failed."""
        folder, networks = self._folder(item), self.missing(item)
        while networks and folder.is_dir():
            try:
                with self._item(str(item)) as progress:
                    for record in self._evaluate(item, open_distilled(folder), tuple(networks), progress):
                        write_record(self.experiment.out / "results.json", record)
                        networks.remove(record.network)
                        after()
            except AttarError as error:
                named = f"{item}, {networks.pop(0)}" if networks else str(item)
                self.say(f"{named}: failed: {error}")
                yield f"evaluating {named}: {error}"

    def _evaluate(
        self, item: SetEvaluation, distilled: DistilledSet, networks: Sequence[str], progress: Progress
    ) -> Iterator[Record]:
        evaluation, device = item.evaluation, item.contender.spec.device
        common = (tuple(networks), item.seeds, self.experiment.test, False, evaluation.teacher)
        conditions = Conditions(*common, own_labels=evaluation.own_labels, device=device)
        how: dict[str, Any] = {"store": self.store, "progress": progress, "say": self._note, "engine": self.engine}
        for record in evaluate_sets([distilled.folder], evaluation.recipe, conditions, **how):
            self.say(f"{evaluation.label}: {record.row}")
            yield replace(record, trial=self._trial(item, record.network, distilled))

    def _trial(self, item: SetEvaluation, network: str, distilled: DistilledSet) -> Trial:
        """What a summary needs to know of a record beside its numbers."""
        held = stored(distilled)
        return Trial(
            item=self._key(item, network, distilled),
            judged=judging_fingerprint(self.experiment, item.evaluation, item.contender),
            label=item.contender.label,
            seeds=item.seeds,
            distilling=round(sum(distilled.manifest["seconds"].values()), 3),
            bytes=held.bytes,
            pixels=held.pixels,
        )
