"""Which evaluations stand between two recipes, or around one: the steps of a waterfall. Loads no torch.

Between two recipes their differences are taken over one after the other, each on top of those before, in the order of
`GROUPS`. An interaction of two changes counts for the later one, so that another order gives other steps, though the
same sum. Around one recipe each change is made alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attar.core.errors import AttarError, suggestion
from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import modified
from attar.evaluation.records import as_text

GROUPS: tuple[tuple[str, ...], ...] = (
    ("size", "resize_first"),
    ("shuffle",),
    ("crop",),
    ("flip",),
    ("jitter",),
    ("lighting",),
    ("dsa",),
    ("mix", "mix_probability", "mix_alpha"),
    ("normalise",),
    ("labels", "temperature", "views", "box", "scheme", "label_epochs"),
    ("extra_forward",),
    ("steps", "epochs", "warmup"),
    ("many_classes",),
    ("batch", "batch_doubled_at", "accumulate"),
    ("optimiser", "lr", "momentum", "weight_decay", "decay_vectors"),
    ("schedule",),
    ("precision",),
    ("compile",),
    ("test_resize",),
)
"""The fields of a recipe in the order in which they are changed: images, labels, training, test. Where the first of a
group differs, all of the group changes at once; where only others differ, each is a step of its own."""

BEST_EVERY = "10%"
"""How often a waterfall tests its ends as they train where neither recipe says it."""


@dataclass(frozen=True)
class RecipeStep:
    """One evaluation of a waterfall."""

    name: str
    """The field that was changed, or the first of a group; of the first step, the recipe."""
    changes: Mapping[str, tuple[Any, Any]]
    """Field -> (before, after)."""
    recipe: Recipe
    """The recipe after the change."""
    against: int | None
    """The number of the step that it differs from; None: the first step."""

    @property
    def summary(self) -> str:
        """The changes in words: "crop 0.5 → 0.08"."""
        texts = {field: [as_text(value) or "none" for value in pair] for field, pair in self.changes.items()}
        return "; ".join(f"{field} {old} → {new}" for field, (old, new) in texts.items())


def with_shared(start: Recipe, end: Recipe, changes: Mapping[str, Any]) -> tuple[Recipe, Recipe]:
    """Both recipes with the same fields changed, but epochs or steps left out of the one that counts in the other.

    Raises:
        AttarError: an unknown field, or a value that does not fit it.
    """
    recipes = [modified(start, dict(changes)), modified(end, dict(changes))]
    if (start.epochs is None) != (end.epochs is None):
        for number, recipe in enumerate((start, end)):
            if recipes[number].epochs is not None and recipes[number].steps is not None:
                other = "epochs" if recipe.epochs is None else "steps"
                recipes[number] = modified(recipe, {name: value for name, value in changes.items() if name != other})
    return recipes[0], recipes[1]


def steps_between(start: Recipe, end: Recipe, first: Sequence[str] = ()) -> list[RecipeStep]:
    """The steps from `start` to `end`, the groups of the fields named in `first` before the others.

    Groups that make no possible recipe by themselves (stored labels with a count of steps) are changed with the next.

    Raises:
        AttarError: the recipes train alike, or `first` names no field.
    """
    steps, changed, names = [RecipeStep(start.name, {}, start, None)], list[str](), list[str]()
    groups = list(_different(start, end, _ordered(first)))
    if not groups:
        raise AttarError(f"recipes {start.name} and {end.name} train alike: there is nothing to change one by one")
    for number, group in enumerate(groups):
        names, changed = [*names, group[0]], [*changed, *group]
        before, last = steps[-1].recipe, number == len(groups) - 1
        recipe = end if last else _possible(before, {field: getattr(end, field) for field in changed})
        if recipe is not None:
            steps.append(_step(" and ".join(names), before, recipe, changed, len(steps) - 1))
            names, changed = [], []
    return steps


def around(start: Recipe, changes: Sequence[Mapping[str, Any]]) -> list[RecipeStep]:
    """`start`, and it with each of the changes alone: field -> value, as text or as the field has it.

    Raises:
        AttarError: an unknown field, a value that does not fit it, or a change that changes nothing.
    """
    steps = [RecipeStep(start.name, {}, start, None)]
    for change in changes:
        recipe = modified(start, dict(change))
        every = dict.fromkeys([*change, *(field for group in GROUPS for field in group)])
        fields = [field for field in every if getattr(recipe, field) != getattr(start, field)]
        if not fields:
            given = ", ".join(f"{field} = {value}" for field, value in change.items())
            raise AttarError(f"recipe {start.name} already has {given}: change it to something else")
        steps.append(_step(" and ".join(fields[:2]), start, recipe, fields, 0))
    return steps


def ends(steps: Sequence[RecipeStep]) -> list[int]:
    """The numbers of the steps whose best epoch gets a bar: the first, and the last where the changes add up."""
    cumulative = all(step.against == number - 1 for number, step in enumerate(steps) if number)
    return sorted({0, len(steps) - 1} if cumulative else {0})


def with_tests(steps: Sequence[RecipeStep]) -> list[RecipeStep]:
    """The steps, with tests of the ends as they train where there are none: by `BEST_EVERY`, for `best` only."""
    if any(steps[number].recipe.test_every is not None for number in ends(steps)):
        return list(steps)
    return [
        replace(step, recipe=modified(step.recipe, {"test_every": BEST_EVERY})) if number in ends(steps) else step
        for number, step in enumerate(steps)
    ]


def _ordered(first: Sequence[str]) -> list[tuple[str, ...]]:
    known = [field for group in GROUPS for field in group]
    for field in first:
        if field not in known:
            hint = suggestion(field, known)
            raise AttarError(f"`order` {field}{hint}: no such field of a recipe; there are: {', '.join(known)}")
    ahead = list(dict.fromkeys(group for field in first for group in GROUPS if field in group))
    return [*ahead, *(group for group in GROUPS if group not in ahead)]


def _different(start: Recipe, end: Recipe, groups: Sequence[tuple[str, ...]]) -> Iterator[list[str]]:
    """The fields that differ: those that change at once in one list."""
    for group in groups:
        fields = [field for field in group if getattr(start, field) != getattr(end, field)]
        if group[0] in fields:
            yield fields
        else:
            yield from ([field] for field in fields)


def _possible(recipe: Recipe, changes: dict[str, Any]) -> Recipe | None:
    """The changed recipe; None if there cannot be such a one."""
    try:
        other = modified(recipe, {"temperature": recipe.temperature, **changes})
    except AttarError:
        return None
    return None if other.views == "image" and other.epochs is None else other


def _step(name: str, before: Recipe, after: Recipe, fields: Sequence[str], against: int) -> RecipeStep:
    return RecipeStep(
        name, {field: (getattr(before, field), getattr(after, field)) for field in fields}, after, against
    )
