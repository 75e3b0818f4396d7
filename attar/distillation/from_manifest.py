"""The job and the method that a distilled set was made with, read back from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.job import Spec

if TYPE_CHECKING:
    from attar.methods.base import Method
    from attar.sets.distilled import DistilledSet

OF_PRIOR = ("prompt", "prompts", "negative_prompt", "class_map")
"""Fields of a Spec that the manifest notes beside the prior, where they were of use."""


def damaged_manifest(origin: DistilledSet, wrong: str) -> AttarError:
    """An error that says what is wrong in a set's manifest."""
    return AttarError(f"{origin.folder / 'manifest.json'} is damaged: {wrong}; copy the set again, or distill it again")


def spec_of(origin: DistilledSet, *, device: str = "auto", **changes: Any) -> Spec:
    """The settings that the set was made with, but for changes that are not None.

    On a device of another kind, number format and tile are those that suit it.
    """
    from attar.core.batching import device_class, resolve

    manifest = origin.manifest
    made_with, compute = manifest["prior"] or {}, manifest["compute"]
    alike = compute is not None and device_class(resolve(device, "auto")[0]) == compute["device"]
    fields = {
        "data": manifest["data"]["spec"],
        "prior": made_with.get("source"),
        "codec": made_with.get("codec_source"),
        "seed": manifest["seed"],
        "preprocess": manifest["preprocess"],
        "output_size": manifest["output_size"],
        "output_filter": manifest.get("output_filter", Spec.output_filter),
        "formation": origin.formation,
        "dtype": compute["dtype"] if alike else "auto",
        "tile": compute["tile"] if alike else None,
        **{name: made_with[name] for name in OF_PRIOR if made_with.get(name) is not None},
    }
    return Spec(device=device, **fields | {name: value for name, value in changes.items() if value is not None})


def method_of(origin: DistilledSet, changes: Mapping[str, Any] | None = None) -> Method:
    """The method that the set was made with, with fields changed (by dotted names).

    Raises:
        AttarError: the manifest describes none, or a change does not fit.
    """
    from attar.methods import load_method
    from attar.sets.manifest import CHOSEN

    def fields(values: Mapping[str, Any]) -> dict[str, Any]:
        plain = {name: value for name, value in values.items() if name not in ("is", "name")}
        return {name: fields(value) if isinstance(value, Mapping) else value for name, value in plain.items()}

    name, own = origin.manifest["method"]["name"], fields(origin.manifest["method"])
    for teacher, path in CHOSEN.items():
        if origin.manifest.get(teacher):
            part = own
            for step in path:
                part = part[step]
            part |= origin.manifest[teacher]["named"]
    try:
        method = load_method(name, own)
    except AttarError as error:
        raise damaged_manifest(origin, f"method: {error}") from error
    return load_method(name, {**own, **changes}) if changes else method
