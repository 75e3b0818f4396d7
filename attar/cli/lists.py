"""The commands that tell what there is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from attar import __version__
from attar.cli.flags import FieldOptions, Settings, made
from attar.cli.shared import say, showing
from attar.core.errors import AttarError, suggestion
from attar.evaluation.side_by_side import side_by_side
from attar.job import Spec

LISTED: dict[str, str] = {
    "methods": "attar.methods:METHODS",
    "networks": "attar.networks:NETWORKS",
    "recipes": "attar.evaluation.recipes:RECIPES",
    "sources": "attar.data.sources:SOURCES",
    "priors": "attar.priors:PRIORS",
    "rules": "attar.selection.rules:RULES",
}
"""The registries, one for each kind of thing that has names."""


def version(wanted: bool) -> None:
    """Print Attar's version and stop."""
    if wanted:
        say(__version__)
        raise typer.Exit


def list_(
    what: Annotated[str, typer.Argument(help="methods, networks, recipes, sources (of data), priors or rules")],
    names: Annotated[list[str] | None, typer.Argument(help="Of recipes: only these")] = None,
) -> None:
    """List methods, networks, recipes, data sources, priors or selection rules; recipes with every field."""
    if names and what != "recipes":
        raise AttarError(f"list {what} {names[0]}: only recipes are listed by name")
    if what not in LISTED:
        raise AttarError(f"list {what}{suggestion(what, LISTED)}: choose {' or '.join(LISTED)}")
    if what == "recipes":
        say(side_by_side(names or None))
        return
    module, _, attribute = LISTED[what].partition(":")
    registry = getattr(importlib.import_module(module), attribute)
    width = max(map(len, registry))
    for name in registry:
        say(f"{name:<{width}}  {registry.describe(name)}")


def describe(method: Annotated[str, typer.Argument(help="A method's name")]) -> None:
    """Show a method: what it does, its fields, their defaults, and where they stand in the paper."""
    from attar.methods import method_in_words

    say(method_in_words(method))


def describe_prior(
    source: Annotated[str, typer.Argument(help="As --prior of `attar distill`")],
    settings: Annotated[
        Settings, FieldOptions(Spec, only=("codec", "class_map", "prompt", "prompts", "negative_prompt"))
    ],
    data: Annotated[str | None, typer.Option(help="Images: show which of the prior's classes theirs are")] = None,
) -> None:
    """Show a prior: size, latents, codec, schedule, conventions, classes, and how the data's classes match."""
    from attar.data import load_data
    from attar.data.class_names import read_class_map
    from attar.priors import load_prior, takes_prompts
    from attar.priors.describe import described_match, prior_in_words
    from attar.priors.prompts import class_prompts

    spec = made(Spec, settings, "describe-prior", data=data or "")
    images = None if data is None else load_data(data)
    mapping = None if spec.class_map is None else read_class_map(Path(spec.class_map))
    prompts = None
    if takes_prompts(source) or settings.keys() & {"prompt", "prompts", "negative_prompt"}:
        names = () if images is None else images.classes
        file = None if spec.prompts is None else Path(spec.prompts)
        prompts = class_prompts(names, names, spec.prompt, file, spec.negative_prompt)
    with showing() as progress:
        prior = load_prior(source, device="cpu", tile=1, codec=spec.codec, prompts=prompts, progress=progress)
    say(prior_in_words(prior))
    if images is not None:
        say(described_match(prior, images.classes, mapping))
