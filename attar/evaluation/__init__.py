"""How a set is judged: recipes, the evaluator that trains networks, records. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attar.evaluation.recipe import Recipe
from attar.evaluation.recipes import RECIPES, changes, modified, named_recipe
from attar.evaluation.records import Record, Result

if TYPE_CHECKING:
    from attar.evaluation.evaluator import LabelledImages, Students, evaluate

__all__ = [
    "RECIPES",
    "LabelledImages",
    "Recipe",
    "Record",
    "Result",
    "Students",
    "changes",
    "evaluate",
    "modified",
    "named_recipe",
]


def __getattr__(name: str) -> Any:
    if name in ("LabelledImages", "Students", "evaluate"):
        from attar.evaluation import evaluator

        return getattr(evaluator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
