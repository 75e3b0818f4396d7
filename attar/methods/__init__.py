"""Distillers: a file or a folder each, and their contract. Listing them imports neither them nor torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from attar.core.config import changed, field_rows
from attar.core.errors import AttarError
from attar.core.registry import Registry

if TYPE_CHECKING:
    from attar.methods.base import Method

_TABLE: dict[str, tuple[Method | str, str]] = {
    "random": ("attar.methods.real:Real", "random real images"),
    "herding": ("attar.methods.real:Real", "real images whose mean feature is nearest to their class's"),
    "k-center": (
        "attar.methods.real:Real",
        "real images that cover their class: each the farthest from those before",
    ),
    "medoid": ("attar.methods.real:Real", "real images nearest to k-means centres"),
    "margin": ("attar.methods.real:Real", "real images nearest to their class's mean and far from other classes'"),
    "confident": (
        "attar.methods.real:Real",
        "real images that a teacher classifies most surely; name it with `select.teacher`",
    ),
    "prior": ("attar.methods.prior_samples:PriorSamples", "plain samples of the prior"),
    "cao2": (
        "attar.methods.cao2:CaO2",
        "CaO2 (Wang et al., ICCV 2025): samples that a classifier gets right, made likelier; name it with "
        "`select.teacher`",
    ),
    "minimax": ("attar.methods.minimax.method:Minimax", "Minimax Diffusion (Gu et al., CVPR 2024): a tuned prior"),
    "rsm": ("attar.methods.rsm:RSM", "RSM (CVPR 2026), its training: a prior tuned to sparse latents"),
    "d4m": ("attar.methods.d4m:D4M", "D4M (Su et al., CVPR 2024): prototypes, noised and denoised"),
    "d4m-noise": (
        "attar.methods.prior_samples:PriorSamples",
        "the ablation of D4M: noise instead of prototypes",
    ),
    "mgd3": ("attar.methods.mgd3:MGD3", "MGD3 (Chan-Santiago et al., ICML 2025): samples drawn to their class's modes"),
    "tgdd": ("attar.methods.tgdd:TGDD", "TGDD (ECCV 2026): MGD3, drawn to the means of the clusters' central latents"),
    "igd": (
        "attar.methods.igd.method:IGD",
        "IGD (Chen et al., ICLR 2025): samples that teach a surrogate as real ones do, unlike one another",
    ),
    "ot": (
        "attar.methods.ot:OT",
        "OT (Cui et al., NeurIPS 2025): samples carried to real latents, without IGD's guides",
    ),
    "dmgd": (
        "attar.methods.dmgd:DMGD",
        "DMGD (CVPR 2026): diffused labels, and samples carried to their class's centroids",
    ),
    "dap": (
        "attar.methods.dap:DAP",
        "DAP (Su et al., ICLR 2026): samples drawn to what the prior sees in real ones",
    ),
    "cgs": ("attar.methods.cgs:CGS", "CGS (CVPR 2026): a class sampled together, apart and around its mean"),
    "d3hr": ("attar.methods.d3hr.method:D3HR", "D3HR (Zhao et al., ICML 2025): inversion and group matching"),
    "exemplars": (
        "attar.methods.exemplars.method:Exemplars",
        "our own: chosen real images, inverted and denoised with guidance",
    ),
    "rded": (
        "attar.methods.rded.method:RDED",
        "RDED (Sun et al., CVPR 2024): crops that a teacher finds most realistic",
    ),
}
"""name -> (its class, what it is)"""

PRESETS: dict[str, dict[str, Any]] = {
    "random": {"select.rule": "random"},
    "herding": {"select.rule": "herding"},
    "k-center": {"select.rule": "k-center"},
    "medoid": {"select.rule": "medoid"},
    "margin": {"select.rule": "margin"},
    "confident": {"select.rule": "confident"},
    "d4m-noise": {"sampler.solver": "checkpoint", "sampler.guidance": 8.0},
}
"""name -> the fields that it stands for, where it is not its class's defaults"""


class Methods(Registry["Method"]):
    """The registry of methods. A name stands for a class with some of its fields set."""

    def open(self, name: str, changes: Mapping[str, Any] | None = None) -> Method:
        """The method of that name with the fields in `changes` set, for example {"sampler.steps": 20}.

        Raises:
            AttarError: an unknown method or field, a value that does not fit, or another select.rule than the name's.
        """
        default = cast("type[Method]", super().open(name))()
        preset = PRESETS.get(name, {})
        try:
            method = changed(default, {**preset, **(changes or {})}, name)
        except AttarError as error:
            chosen_by = "fit.select.teacher"
            if not str(error).startswith("select.teacher ") or chosen_by not in (row[0] for row in field_rows(default)):
                raise
            raise AttarError(f"{error}; the teacher that chooses real images is `{chosen_by}`") from error
        rule = method.select.rule
        if rule != preset.get("select.rule", rule):
            own = [other for other in self if self._table[other][0] == self._table[name][0] and other != name]
            others = rule if rule in own else " or ".join(own)
            raise AttarError(f"{name} stands for a rule, and select.rule = {rule} is another: choose `method` {others}")
        return method


METHODS = Methods("method", _TABLE)

load_method = METHODS.open


def method_in_words(name: str) -> str:
    """A method in words: what its name stands for, what it does, and its fields with their defaults and meaning.

    Where the name stands for a rule on real images, the rule and the pool cannot be set, and are left out.
    """
    method, preset = METHODS.open(name), PRESETS.get(name, {})
    fixed = f" ({', '.join(f'{field} = {value}' for field, value in preset.items())})" if preset else ""
    refused = ("select.rule", "select.pool") if "select.rule" in preset else ()
    rows = [
        f"  {field} = {value}   ({kind})" + (f"\n      {about}" if about else "") if value else f"  {field}: {about}"
        for field, value, kind, about in field_rows(method, others=True)
        if field not in refused
    ]
    words = [inspect.getdoc(type(method)) or "", inspect.getdoc(inspect.getmodule(type(method))) or ""]
    return "\n".join([f"{name}: {METHODS.describe(name)}{fixed}", "", *words, "", "Fields:", *rows])
