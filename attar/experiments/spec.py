"""An experiment in a TOML file: what `attar compare` runs.

title, status         what it is; what it came to ("not yet measured here")
data, prior ...       flags of `attar distill` for all methods, but not --seed
                      (a prior, its settings, output_size: for those that ask one)
formation             of all methods, or of one: images stored stay IPC, and
                      networks learn from formation^2 times as many
labels, label_teacher soft labels that sets hold, one an image, and whose: of
                      all methods, or of one ("fixed", "fixed-int8", "none";
                      several teachers as "A,B"; default: the method's own)
ipc                   images per class: a number or a list
distillation_seeds    of each method: how many (default 1), or which
seeds                 of the trainings on each set: how many (3), or which,
                      or "paired": one training by the set's own seed
test                  test images, or held-out (with hold_out = true);
                      default: the test split of the data
references            labels of the methods that the others are compared with
                      (default: random, where there is one)
out                   folder for sets, results.json, tables and figures

[methods.LABEL]       a method in the comparison; a label is of letters, digits
                      and -_.+
    method            a name of `attar list methods` (default: the label)
    set               its fields: {"sampler.steps" = 20}
    data, prior ...   flags of `attar distill` for this method alone
[evaluations.LABEL]   how the sets are judged
    recipe            a name of `attar list recipes` (default: the label)
    networks          names of `attar list networks`
    set               fields of the recipe: {scheme = "fixed"} for a soft label an image
    methods, ipc      only these of the methods, of the images per class
    seeds             of these trainings: how many, which, or "paired"
    teacher           of recipes with soft labels: as of `attar evaluate`; a list of several labels by their mean. Left
                      out, with the sets' own scheme in set: networks learn from
                      the labels that the sets hold
    teacher_classes, teacher_normalise
[[published]]         numbers to stand beside, of one method and network
    method, network   a label; a network of the evaluations
    accuracy          by IPC, with a deviation if known: {10 = 41, 50 = [57, 1]}
    recipe, source    its protocol in words; paper and table
    evaluation        the label that it stands beside (default: any)
[planned]             for --dry-run where the data or the prior are elsewhere
    images, classes   how many
    prior             an architecture: DiT-XL/2-256, stable-diffusion-v1-5

Paths are relative to the current directory. Any other key is an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.arguments import checked
from attar.core.config import changed, parsed
from attar.core.errors import AttarError, reason
from attar.core.hub_ids import near
from attar.core.limits import IPC, check_most
from attar.core.toml_tables import TomlTable, keyed, known, labelled_tables, numbers, seed_list, table, texts
from attar.distillation.labelling import label_teacher
from attar.evaluation import Recipe, named_recipe
from attar.job import FOR_PRIOR, Job, Spec
from attar.methods import load_method
from attar.networks import check
from attar.teachers.reference import TeacherReference

if TYPE_CHECKING:
    from attar.methods.base import Method

_OWN = ("title", "status", "ipc", "distillation_seeds", "seeds", "test", "references", "out")
_TABLES = ("methods", "evaluations", "published", "planned")
_SAMPLED = ("output_size", "output_filter")
"""What real images have no use for: without a formation, methods that copy or compose them do not take it over from the
head of the file."""
_EVALUATION = ("recipe", "networks", "set", "methods", "ipc", "seeds")
_TEACHER = ("teacher", "teacher_classes", "teacher_normalise")
_PUBLISHED = ("method", "network", "accuracy", "recipe", "source", "evaluation")


@dataclass(frozen=True)
class Contender:
    """A method with its settings, under a label of its own."""

    label: str
    """Its name in tables and folders."""
    name: str
    """The method's name."""
    method: Method
    """The method, its fields set."""
    spec: Spec
    """The job with seed 0; each distillation seed takes its place."""

    @property
    def labelled_by(self) -> TeacherReference | None:
        """Who gives the labels that its sets hold; None where they hold none.

        Raises:
            AttarError: nobody is named.
        """
        return label_teacher(self.spec, self.method)


@dataclass(frozen=True)
class Evaluation:
    """A recipe and the networks that are trained by it."""

    label: str
    """Its name in tables."""
    recipe: Recipe
    """What networks are trained by."""
    networks: tuple[str, ...]
    """Names of the networks."""
    methods: tuple[str, ...]
    """Labels of those whose sets are judged by it."""
    ipcs: tuple[int, ...]
    """Images per class at which sets are judged by it."""
    seeds: tuple[int, ...]
    """Seeds of its trainings; none: each set is trained on once, by the seed that it was distilled with."""
    teacher: TeacherReference | None
    """Who labels, where the recipe learns from soft labels; None: the sets hold them."""

    @property
    def own_labels(self) -> bool:
        """Whether networks learn from the soft labels that the sets hold."""
        return self.recipe.labels == "soft" and self.teacher is None


@dataclass(frozen=True)
class Published:
    """What a paper reports for one method and network."""

    method: str
    """The method's name in tables."""
    network: str
    """The network's name."""
    recipe: str
    """The paper's protocol, in words."""
    source: str
    """The paper, and its table."""
    accuracy: Mapping[int, tuple[float, float | None]]
    """IPC -> (mean, standard deviation if published), in per cent."""
    evaluation: str | None
    """The label of the evaluation that it stands beside; None: any with this network."""


@dataclass(frozen=True)
class Planned:
    """What a dry run takes for granted where the data or the prior are not on this machine."""

    images: int
    """Images of the data, all classes together."""
    classes: int
    """Number of classes."""
    prior: str
    """The name of an architecture (attar.priors.training.weightless)."""


@dataclass(frozen=True)
class Experiment:
    """A checked experiment: its methods, fields, recipes and networks all exist."""

    file: Path
    """The TOML file that it was read from."""
    title: str
    """The heading of its tables."""
    status: str
    """What is known of its results so far, in words."""
    out: Path
    """Folder of its sets and results."""
    ipcs: tuple[int, ...]
    """Images per class, rising."""
    distillation_seeds: tuple[int, ...]
    """Seeds that each method distills with."""
    test: str | None
    """The test images; None: the test split of the data."""
    references: tuple[str, ...]
    """Labels of the methods that others are compared with."""
    contenders: tuple[Contender, ...]
    """The methods."""
    evaluations: tuple[Evaluation, ...]
    """What their sets are judged by."""
    published: tuple[Published, ...]
    """What papers report, beside the results."""
    planned: Planned | None
    """What a dry run takes for granted; None: nothing."""

    def ipcs_of(self, contender: Contender) -> tuple[int, ...]:
        """The IPCs at which a method is judged; all, where it is not."""
        own = [evaluation for evaluation in self.evaluations if contender.label in evaluation.methods]
        judged = {ipc for evaluation in own for ipc in evaluation.ipcs}
        return tuple(ipc for ipc in self.ipcs if ipc in judged) or self.ipcs

    def folder(self, contender: Contender, seed: int, ipc: int) -> Path:
        """Where a distilled set lies: the layout does not depend on which other IPCs and seeds there are."""
        return self.out / "sets" / contender.label / f"seed-{seed}" / f"ipc-{ipc:03d}"


@checked
def read_experiment(file: Path) -> Experiment:
    """The experiment in a TOML file, all of its words checked; no data and no prior is opened.

    Raises:
        AttarError: names the file, and the key, method, field, recipe or network that does not exist or does not fit.
    """
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
        return _experiment(file, written)
    except OSError as error:
        hint = "" if file.exists() else near(str(file)) or _shipped(file)
        raise AttarError(f"{file}{hint} cannot be read: {reason(error)}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AttarError(f"{file} is not TOML: {error}") from error
    except (ValueError, AttarError) as error:
        raise AttarError(f"{file}: {error}") from error


def _shipped(file: Path) -> str:
    """ " (did you mean 'experiments/cifar10.toml'?)": the files beside the source that are called alike."""
    return near(str(Path("experiments") / file.name)) if Path("experiments").is_dir() else ""


def _experiment(file: Path, written: TomlTable) -> Experiment:
    shared = _spec_fields()
    top = _unadvised(keyed(written, (*_OWN, *_TABLES, *shared), "the file"), "the file")
    for needed in ("data", "ipc", "out", "methods", "evaluations"):
        if needed not in top:
            raise AttarError(f"{needed} is missing")
    ipcs = numbers(top["ipc"], "ipc")
    check_most("`ipc`", max(ipcs), IPC)
    defaults = {name: value for name, value in top.items() if name in shared}
    methods = labelled_tables(top["methods"], "methods")
    contenders = tuple(_contender(label, own, defaults) for label, own in methods.items())
    if "label_teacher" in top and not any(contender.spec.labels for contender in contenders):
        raise AttarError('label_teacher in the file: gives labels: ask for them with labels = "fixed"')
    judging = labelled_tables(top["evaluations"], "evaluations")
    usual = {"ipc": list(ipcs), "seeds": top.get("seeds", 3), "methods": list(methods)}
    _training_seeds(usual["seeds"], "seeds")
    evaluations = tuple(_evaluation(label, own, usual) for label, own in judging.items())
    for evaluation in evaluations:
        _check_labels(evaluation, contenders)
    test = parsed(top.get("test"), str | None, "test")
    if test == "held-out" and not all(contender.spec.hold_out for contender in contenders):
        raise AttarError('test = "held-out" needs hold_out = true')
    references = tuple(texts(top.get("references", [label for label in methods if label == "random"]), "references"))
    for label in references:
        known(label, methods, "references", "method")
    return Experiment(
        file=file,
        title=parsed(top.get("title", file.stem), str, "title"),
        status=parsed(top.get("status", ""), str, "status"),
        out=_place(top["out"]),
        ipcs=ipcs,
        distillation_seeds=seed_list(top.get("distillation_seeds", 1), "distillation_seeds"),
        test=test,
        references=references,
        contenders=contenders,
        evaluations=evaluations,
        published=tuple(_published(own, judging) for own in _tables(top.get("published", []), "published")),
        planned=_planned(top["planned"]) if "planned" in top else None,
    )


def _place(written: Any) -> Path:
    if not (text := parsed(written, str, "out")):
        raise AttarError("out is empty: name a folder")
    return Path(text)


def _tables(written: Any, name: str) -> list[Any]:
    if not isinstance(written, list):
        raise AttarError(f"{name} = {written!r}: must be tables, each headed [[{name}]]")
    return written


def _spec_fields() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Spec) if field.name != "seed")


def _unadvised(own: TomlTable, where: str) -> TomlTable:
    """The same table; raises AttarError for a temperature of a set, where one recipe is to judge all of them."""
    if "label_temperature" in own:
        raise AttarError(
            f"label_temperature in {where}: all sets are judged at one; name it in [evaluations.LABEL], set = "
            '{scheme = "fixed", temperature = 2}'
        )
    return own


def _check_labels(evaluation: Evaluation, contenders: Sequence[Contender]) -> None:
    """Raises AttarError where networks are to learn from labels of sets that hold none, or of another scheme."""
    recipe = evaluation.recipe
    for contender in contenders if evaluation.own_labels else ():
        if contender.label in evaluation.methods and contender.spec.labels != recipe.scheme:
            other = (
                f', or let the sets hold them: labels = "{recipe.scheme}" and label_teacher; those of '
                f"{contender.label} hold {contender.spec.labels or 'none'}"
            )
            raise AttarError(
                f"[evaluations.{evaluation.label}]: recipe {recipe.name} learns from soft labels: name a teacher"
                f"{other if recipe.fixed else ''}"
            )


def _contender(label: str, written: TomlTable, defaults: TomlTable) -> Contender:
    from attar.methods.base import LatentMethod

    where = f"[methods.{label}]"
    own = _unadvised(keyed(written, ("method", "set", *_spec_fields()), where), where)
    name, changes = parsed(own.pop("method", label), str, f"{where} method"), own.pop("set", {})
    method = load_method(name, table(changes, f"{where} set"))
    settings = {**defaults, **own}
    if "label_teacher" not in own and parsed(settings.get("labels"), str | None, f"{where} labels") is None:
        settings.pop("label_teacher", None)
    spec = changed(Spec(data=parsed(settings.pop("data"), str, f"{where} data")), settings, where)
    if not isinstance(method, LatentMethod):
        idle: tuple[str, ...] = () if method.select.uses_prior(Job(spec)) else ("prior", *FOR_PRIOR)
        idle += _SAMPLED if spec.formation == 1 else ()
        spec = replace(spec, **{field: getattr(Spec, field) for field in idle if field not in own})
    contender = Contender(label, name, method, spec)
    try:
        _ = contender.labelled_by
    except AttarError as error:
        raise AttarError(f"{where}: {error}") from error
    return contender


def _evaluation(label: str, written: TomlTable, usual: TomlTable) -> Evaluation:
    where = f"[evaluations.{label}]"
    own = keyed(written, (*_EVALUATION, *_TEACHER), where)
    name = parsed(own.get("recipe", label), str, f"{where} recipe")
    recipe = named_recipe(name, table(own.get("set", {}), f"{where} set"))
    networks = texts(own.get("networks", []), f"{where} networks")
    if not networks:
        raise AttarError(f"{where} networks is missing: a list of names (`attar list networks`)")
    for network in networks:
        check(network)
    own = {**usual, **own}
    ipcs, methods = numbers(own["ipc"], f"{where} ipc"), texts(own["methods"], f"{where} methods")
    for ipc in ipcs:
        known(str(ipc), list(map(str, usual["ipc"])), f"{where} ipc", "IPC")
    for method in methods:
        known(method, usual["methods"], f"{where} methods", "method")
    if (source := own.get("teacher")) is not None:
        texts(source, f"{where} teacher")
    classes, normalise = (parsed(own.get(name), str | None, f"{where} {name}") for name in _TEACHER[1:])
    if source is not None and recipe.labels != "soft":
        raise AttarError(f"{where}: recipe {recipe.name} has no use for a teacher")
    if source is None and (classes or normalise):
        raise AttarError(f"{where}: teacher_classes and teacher_normalise say more of a teacher, which is missing")
    teacher = None if source is None else TeacherReference.of(source, classes, normalise)
    judging = _training_seeds(own["seeds"], f"{where} seeds")
    return Evaluation(label, recipe, tuple(networks), tuple(methods), ipcs, judging, teacher)


def _training_seeds(written: Any, where: str) -> tuple[int, ...]:
    if isinstance(written, str) and written != "paired":
        raise AttarError(f'{where} = {written!r}: give a number, a list of seeds, or "paired"')
    return () if written == "paired" else seed_list(written, where)


def _published(written: Any, evaluations: Collection[str]) -> Published:
    own = keyed(table(written, "[[published]]"), _PUBLISHED, "[[published]]")
    for needed in ("method", "network", "accuracy", "source"):
        if needed not in own:
            raise AttarError(f"[[published]] {needed} is missing")
    texts = {name: parsed(own.get(name, ""), str, f"[[published]] {name}") for name in _PUBLISHED if name != "accuracy"}
    check(texts["network"])
    if texts["evaluation"]:
        known(texts["evaluation"], evaluations, "[[published]]", "evaluation")
    accuracy = {}
    for ipc, value in table(own["accuracy"], "[[published]] accuracy").items():
        where = f"[[published]] accuracy of {texts['method']}, IPC {ipc}"
        mean, std = value if isinstance(value, list) and len(value) == 2 else (value, None)
        accuracy[parsed(ipc, int, where)] = (parsed(mean, float, where), parsed(std, float | None, where))
    return Published(**{**texts, "evaluation": texts["evaluation"] or None}, accuracy=accuracy)


def _planned(written: Any) -> Planned:
    where = "[planned]"
    own = keyed(table(written, where), ("images", "classes", "prior"), where)
    images, classes = (parsed(own.get(name), int, f"{where} {name}") for name in ("images", "classes"))
    if not 1 <= classes <= images:
        raise AttarError(f"{where} images = {images}, classes = {classes}: at least one class, and an image of each")
    return Planned(images, classes, parsed(own.get("prior"), str, f"{where} prior"))
