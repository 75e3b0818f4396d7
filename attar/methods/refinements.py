"""What a method's `refine` can be: one of these kinds, called by its name in small letters."""

from __future__ import annotations

from attar.methods.diver import Diver
from attar.methods.likelihood import Likelihood
from attar.methods.refine import Refinement

AnyRefinement = Refinement | Diver | Likelihood
"""The first is what `refine=true` makes."""
