"""The commands that tell what there is."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from attar import __version__
from attar.cli.flags import ClassMap, Codec, NegativePrompt, Prompt, PromptFile, say, showing
from attar.core.errors import AttarError, suggestion
from attar.evaluation.side_by_side import side_by_side

LISTED: dict[str, str] = {
    "methods": "attar.methods:METHODS",
    "networks": "attar.networks:NETWORKS",
    "recipes": "attar.evaluation.recipes:RECIPES",
    "sources": "attar.data.spec:SOURCES",
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
    from attar.methods import described

    say(described(method))


def describe_prior(
    source: Annotated[str, typer.Argument(help="As --prior of `attar distill`")],
    data: Annotated[str | None, typer.Option(help="Images: show which of the prior's classes theirs are")] = None,
    codec: Codec = None,
    class_map: ClassMap = None,
    prompt: Prompt = None,
    prompts: PromptFile = None,
    negative_prompt: NegativePrompt = None,
) -> None:
    """Show a prior: size, latents, codec, schedule, conventions, classes, and how the data's classes match."""
    from attar.data import load_data
    from attar.data.class_names import read_class_map
    from attar.priors import load_prior, takes_prompts
    from attar.priors.describe import described, described_match
    from attar.priors.prompts import TEMPLATE, class_prompts

    images = None if data is None else load_data(data)
    mapping = None if class_map is None else read_class_map(class_map)
    told = None
    if takes_prompts(source) or any(flag is not None for flag in (prompt, prompts, negative_prompt)):
        names = () if images is None else images.classes
        told = class_prompts(names, names, prompt or TEMPLATE, prompts, negative_prompt)
    with showing() as progress:
        prior = load_prior(source, device="cpu", tile=1, codec=codec, prompts=told, progress=progress)
    say(described(prior))
    if images is not None:
        say(described_match(prior, images.classes, mapping))
