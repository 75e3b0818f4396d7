"""Distillers: a file or a folder each, and their contract. Listing them imports neither them nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError, suggestion

if TYPE_CHECKING:
    from attar.methods.base import Method

METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "random": ("attar.methods.real:Real", {"select.rule": "random"}, "random real images"),
    "herding": (
        "attar.methods.real:Real",
        {"select.rule": "herding"},
        "real images whose mean feature is nearest to their class's",
    ),
    "k-center": (
        "attar.methods.real:Real",
        {"select.rule": "k-center"},
        "real images that cover their class: each the farthest from those before",
    ),
    "medoid": ("attar.methods.real:Real", {"select.rule": "medoid"}, "real images nearest to k-means centres"),
    "confident": (
        "attar.methods.real:Real",
        {"select.rule": "confident"},
        "real images that a teacher classifies most surely; name it with --set select.teacher=DIR",
    ),
    "prior": ("attar.methods.prior_samples:PriorSamples", {}, "plain samples of the prior"),
    "minimax": ("attar.methods.minimax.method:Minimax", {}, "Minimax Diffusion (Gu et al., CVPR 2024): a tuned prior"),
    "d4m": ("attar.methods.d4m:D4M", {}, "D4M (Su et al., CVPR 2024): prototypes, noised and denoised"),
    "d4m-noise": (
        "attar.methods.prior_samples:PriorSamples",
        {"sampler.solver": "checkpoint", "sampler.guidance": 8.0},
        "the ablation of D4M: noise instead of prototypes",
    ),
    "d3hr": ("attar.methods.d3hr.method:D3HR", {}, "D3HR (Zhao et al., ICML 2025): inversion and group matching"),
    "exemplars": (
        "attar.methods.exemplars:Exemplars",
        {},
        "our own: chosen real images, inverted and denoised with guidance",
    ),
    "rded": ("attar.methods.rded:RDED", {}, "RDED (Sun et al., CVPR 2024): crops that a teacher finds most realistic"),
}
"""name -> (dotted name of its class, fields that the name stands for, what it is)"""


def load_method(name: str, changes: dict[str, Any] | None = None) -> Method:
    """The method of that name with the fields in `changes` set, for example {"sampler.steps": 20}.

    Raises:
        AttarError: an unknown method or field, a value that does not fit, or another select.rule than the name's own.
    """
    import importlib
    from typing import cast

    from attar.core.config import changed

    known(name)
    dotted, fields, _ = METHODS[name]
    module, _, cls = dotted.partition(":")
    default = getattr(importlib.import_module(module), cls)()
    method = cast("Method", changed(default, {**fields, **(changes or {})}, name))
    rule = method.select.rule
    if rule != fields.get("select.rule", rule):
        own = [other for other, (whose, *_) in METHODS.items() if whose == dotted and other != name]
        others = rule if rule in own else " or ".join(own)
        raise AttarError(f"{name} stands for a rule, and select.rule = {rule} is another: choose --method {others}")
    return method


def known(name: str) -> None:
    """Raises AttarError unless there is a method of that name."""
    if name not in METHODS:
        raise AttarError(f"no method {name!r}{suggestion(name, METHODS)}; there are: {', '.join(METHODS)}")


def described(name: str) -> str:
    """A method in words: what its name stands for, what it does, and its fields with their defaults and meaning.

    Where the name stands for a rule on real images, the rule and the pool cannot be set, and are left out.
    """
    import inspect

    from attar.core.config import field_rows

    method = load_method(name)
    _, fixed, short = METHODS[name]
    told = f" ({', '.join(f'{field} = {value}' for field, value in fixed.items())})" if fixed else ""
    refused = ("select.rule", "select.pool") if "select.rule" in fixed else ()
    module = inspect.getdoc(inspect.getmodule(type(method))) or ""
    rows = [
        f"  {field} = {value}   ({kind})" + (f"\n      {about}" if about else "") if value else f"  {field}: {about}"
        for field, value, kind, about in field_rows(method)
        if field not in refused
    ]
    words = [inspect.getdoc(type(method)) or "", module]
    return "\n".join([f"{name}: {short}{told}", "", *words, "", "Fields (--set field=value):", *rows])
