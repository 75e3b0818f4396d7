"""manifest.json, read: every key that anything here looks at has the type and the range that it was written with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attar.core.errors import AttarError
from attar.core.json_shapes import (
    DIGEST,
    FLAG,
    MEASURED,
    TABLE,
    TEXT,
    WHOLE,
    Many,
    Maybe,
    Shape,
    ValueKind,
    Values,
    mistake,
    number,
    read_json,
    whole,
)
from attar.core.wording import counted
from attar.data.pixels import PREPROCESSING
from attar.teachers.label_schemes import LEFT_OUT, is_temperature

FORMAT = 3
"""The newest: 3 where a set holds soft labels, whose files older versions take for strange ones; 2 where images are
mosaics, which still older ones take for images; all else is 1."""
MOST_WEIGHT = 1e9
"""The largest weight of an image: sums of ever larger ones would be no numbers any more."""
MOST_DISTANCE = 1e12
"""The largest distance on the way of images, for the same reason."""
LOOKED_AT = ("precision", "recall", "density", "coverage", "farthest", "nearest")
"""What a fine-tuning measures of itself."""

_TEACHER: Shape = {"named": {"teacher": TEXT, "teacher_classes": Maybe(TEXT), "teacher_normalise": Maybe(TEXT)}}
_DATA: Shape = {
    "spec": TEXT,
    "imbalance_factor?": Maybe(number(1)),
    "hold_out?": FLAG,
    "images": whole(1),
    "counts?": Many(whole(1)),
    "known_as?": Maybe(TEXT),
    "fingerprint": TEXT,
    "skipped": Many(TEXT),
    "regenerated_from?": TEXT,
}
_PRIOR: Shape = {
    "source": TEXT,
    "fingerprint?": TEXT,
    "codec?": TEXT,
    "labels?": Many(whole(0)),
    **{f"{name}?": Maybe(TEXT) for name in ("codec_source", "class_map", "prompt", "prompts", "negative_prompt")},
}
_LABELLER: Shape = {
    "teacher": TEXT,
    "network": TEXT,
    "accuracy": number(0, 100),
    "classes": TEXT,
    "looked_at?": TEXT,
    "advice?": {"temperature": ValueKind(f"a number above 0 or {LEFT_OUT}", is_temperature)},
}
_LOOK: Shape = {"step": whole(0), **{f"{name}?": Maybe(MEASURED) for name in LOOKED_AT}}
_PAIR = Many(number(-MOST_DISTANCE, MOST_DISTANCE), least=2)
_SHAPE: Shape = {
    "attar": TEXT,
    "run": TEXT,
    "method": {"name": TEXT},
    "ipc": whole(1),
    "seed": WHOLE,
    "classes": Many(TEXT, least=1, unique=True),
    "preprocess": ValueKind(f"one of {', '.join(PREPROCESSING)}", lambda x: isinstance(x, str) and x in PREPROCESSING),
    "output_size?": Maybe(whole(1)),
    "formation?": whole(1),
    "expanded_from?": {"set": DIGEST, "formation": whole(2)},
    "data": _DATA,
    "prior": Maybe(_PRIOR),
    "compute": Maybe({"device": TEXT, "dtype": TEXT, "tile": whole(1)}),
    "selected_by?": Maybe(_TEACHER),
    "exemplars_by?": Maybe(_TEACHER),
    "learnt?": Values(Maybe(MEASURED)),
    "weights?": Many(Many(number(0, MOST_WEIGHT))),
    "noise?": Many(
        {
            "label": whole(0),
            "shares": Many(number(0, 1), least=2),
            "real": Many(_PAIR, least=1),
            "spread": Many(_PAIR, least=2),
            "starts": Many(_PAIR, least=1),
        }
    ),
    "real_images?": Many(Many(Many(TEXT, least=1))),
    "way?": Many({"t": whole(0), "distance": number(0, MOST_DISTANCE)}, least=1),
    "measures?": Many({"looks": Many(_LOOK, least=1)}),
    "seconds": Values(number(0)),
    "machine": {"device": TEXT},
    "versions": Values(TEXT),
    "written": TEXT,
    "keep_statistics?": FLAG,
    "images": Values(DIGEST),
    "prototypes?": Values(DIGEST),
    "statistics?": Values(DIGEST),
    "labels?": Values(DIGEST),
    "label_scheme?": TEXT,
    "label_teacher?": TEXT,
    "label_temperature?": ValueKind("a number above 0 or auto", lambda x: x == "auto" or is_temperature(x)),
    "labelled_by?": _LABELLER,
    "card": DIGEST,
    "digest": DIGEST,
}
OF_LABELS = ("label_scheme", "label_teacher", "labelled_by")
"""What a manifest says of the soft labels that its set holds: the scheme, the teacher's digest, and who it is."""
CHOSEN = {"selected_by": ("select",), "exemplars_by": ("fit", "select")}
"""Where in the method the settings stand that go with a teacher."""


def read_manifest(file: Path) -> dict[str, Any]:
    """The manifest in a file.

    Raises:
        AttarError: names the key that is missing, or is not what it must be; or a newer Attar wrote it.
    """
    manifest = read_json(file)
    wrong = mistake(manifest, {"format": whole(1)})
    if wrong is None and manifest["format"] > FORMAT:
        raise AttarError(f"{file}: written by a newer Attar (format {manifest['format']}) than this one ({FORMAT})")
    wrong = wrong or mistake(manifest, _SHAPE) or _misfit(manifest)
    if wrong is not None:
        raise AttarError(f"{file} is damaged: {wrong}; copy the set again, or distill it again")
    return dict(manifest)


def _misfit(manifest: dict[str, Any]) -> str | None:
    """What does not go together in a manifest whose keys are all right by themselves."""
    for teacher, path in CHOSEN.items():
        settings = manifest["method"]
        for name in path if manifest.get(teacher) else ():
            settings = settings.get(name) if isinstance(settings, dict) else None
        if (wrong := mistake(settings, TABLE, f"method.{'.'.join(path)}")) is not None:
            return f"{wrong}, and {teacher} says more of it"
    if "labels" in manifest and (lacking := [name for name in OF_LABELS if name not in manifest]):
        return f"{lacking[0]} is missing, and labels are there"
    for name in ("data.counts", "prior.labels"):
        head, key = name.split(".")
        count = len((manifest[head] or {}).get(key, manifest["classes"]))
        if count != len(manifest["classes"]):
            return f"{name} has {counted(count, 'number')} for {counted(len(manifest['classes']), 'class')}"
    if any(one["label"] >= len(manifest["classes"]) for one in manifest.get("noise", ())):
        return f"noise is of a class that is none of the {len(manifest['classes'])} of the set"
    wrong = _misfit_of_real_images(manifest.get("real_images"), manifest)
    return wrong or _misfit_of_weights(manifest.get("weights"), manifest)


def _misfit_of_real_images(names: list[list[list[str]]] | None, manifest: dict[str, Any]) -> str | None:
    """Whether there are names for each image."""
    if names is None or [len(own) for own in names] == [manifest["ipc"]] * len(manifest["classes"]):
        return None
    return "real_images are not of each image of the set"


def _misfit_of_weights(weights: list[list[float]] | None, manifest: dict[str, Any]) -> str | None:
    """Whether there is a weight for each picture, and one above 0 in each class."""
    if weights is None:
        return None
    classes, each = manifest["classes"], manifest["ipc"] * manifest.get("formation", 1) ** 2
    if len(weights) != len(classes):
        return f"weights are of {counted(len(weights), 'class')}, and the set has {len(classes)}"
    for name, own in zip(classes, weights, strict=True):
        if len(own) != each:
            return f"weights of {name!r} are {len(own)}, for {counted(each, 'image')}"
        if not any(own):
            return f"weights of {name!r} are all 0"
    return None
