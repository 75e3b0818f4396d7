"""What a manifest says, in rows to read, and the commands that make the set again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attar.core.progress import duration
from attar.evaluation import RECIPES
from attar.evaluation.records import Record, assignments
from attar.sets.distilled import DistilledSet

_BROUGHT = ("preprocess", "output_size", "output_filter", "formation", "expanded_from")
MANY = 20
"""Lists longer than this are counted, not shown."""


def settings(manifest: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Heading -> (name, value) of everything that made a set, but its class names and its images' digests."""
    seconds = {name: duration(value) for name, value in manifest["seconds"].items()}
    known = {
        "Method": {**manifest["method"], "ipc": manifest["ipc"], "seed": manifest["seed"]},
        "Data": {**manifest["data"], **{name: manifest.get(name) for name in _BROUGHT if name in manifest}},
        "Prior": manifest["prior"] or {"source": "none"},
        "Soft labels": {"scheme": manifest["label_scheme"], **manifest["labelled_by"]} if "labels" in manifest else {},
        "Learnt from the data": {
            name: "none" if value is None else f"{value:,.6g}" for name, value in manifest.get("learnt", {}).items()
        },
        "Computing": {**manifest["machine"], **(manifest["compute"] or {})},
        "Wall time by stage": seconds or {"copying": "not timed"},
        "Versions": {"attar": manifest["attar"], **manifest["versions"]},
        "Identity": {"fingerprint": manifest["run"], "written": manifest["written"]},
    }
    return {heading: list(_flat(values)) for heading, values in known.items() if values}


def distill_command(distilled: DistilledSet) -> str:
    """The shell command that makes the set again: every field of the method is given, whatever its default is."""
    manifest = distilled.manifest
    if source := manifest.get("expanded_from"):
        return f"# DIR: the set {source['set']}\nattar expand DIR --out {shlex.quote(str(distilled.folder))}"
    if statistics := manifest["data"].get("regenerated_from"):
        words = f"--ipc {manifest['ipc']} --seed {manifest['seed']} --out {shlex.quote(str(distilled.folder))}"
        return f"# DIR: a set that keeps the statistics {statistics}\nattar regenerate DIR {words}"
    parts = [f"attar distill --data {shlex.quote(manifest['data']['spec'])}"]
    if manifest["prior"] is not None:
        parts[0] += f" --prior {shlex.quote(manifest['prior']['source'])}"
    parts += [other] if (other := _other_sources(manifest)) else []
    parts[0] += f" --method {shlex.quote(manifest['method']['name'])} --ipc {manifest['ipc']} --seed {manifest['seed']}"
    fields = {name: value for name, value in manifest["method"].items() if name != "name"}
    if teacher := manifest.get("selected_by"):
        fields["select"] = {**fields["select"], **teacher["named"]}
    if teacher := manifest.get("exemplars_by"):
        chosen = {**fields["fit"]["select"], **teacher["named"]}
        fields["fit"] = {**fields["fit"], "select": chosen}
    parts += [f"--set {shlex.quote(f'{name}={value}')}" for name, value in _fields(fields)]
    parts += [f"--classes {shlex.quote(','.join(distilled.classes))}"] if _nameable(distilled.classes) else []
    command = " \\\n  ".join([*parts, f"{_written_as(distilled)} --out {shlex.quote(str(distilled.folder))}"])
    return (
        command
        if _nameable(distilled.classes)
        else f"# of all classes; a part of them goes into a --config file\n{command}"
    )


def _written_as(distilled: DistilledSet) -> str:
    """The flags of how images are brought to their size, of the arithmetic, and of what is kept with them."""
    manifest = distilled.manifest
    last = f"--preprocess {manifest['preprocess']}"
    if manifest.get("output_size") is not None:
        last += f" --output-size {manifest['output_size']}"
    if distilled.formation > 1:
        last += f" --formation {distilled.formation}"
    if "output_filter" in manifest:
        last += f" --output-filter {manifest['output_filter']}"
    if manifest["compute"] is not None:
        last += f" --dtype {manifest['compute']['dtype']} --tile {manifest['compute']['tile']}"
    if manifest.get("keep_statistics"):
        last += " --keep-statistics"
    if "labels" in manifest:
        by = manifest["labelled_by"]["teacher"].replace(", ", ",")
        last += f" --labels {shlex.quote(manifest['label_scheme'])} --label-teacher {shlex.quote(by)}"
        last += f" --label-temperature {manifest['label_temperature']}" if "label_temperature" in manifest else ""
    if manifest["data"]["skipped"]:
        last += " --on-bad-image skip"
    return last


def evaluate_commands(records: Sequence[Record], labelled: bool) -> list[str]:
    """The shell commands that evaluate a set again. None for recipes and seeds that the command line cannot name.

    Args:
        labelled: whether the set holds soft labels, which `attar evaluate` learns from unless it is told otherwise.
    """
    nameable = (record for record in records if record.original in RECIPES and _first_seeds(record))
    return [_evaluate_command(record, labelled) for record in nameable]


def _first_seeds(record: Record) -> bool:
    """Whether the trainings have the seeds 0, 1, 2 ..., as those of `attar evaluate` have."""
    return record.trial is None or record.trial.seeds == tuple(range(record.n))


def _evaluate_command(record: Record, labelled: bool) -> str:
    changes, taught = record.changes or {}, list[str]()
    if record.labels is None and labelled:
        changes = {**changes, "labels": "hard"}
    if record.labels is not None and not (record.own_labels or (labelled and "own" not in record.labels)):
        taught = [f"--teacher {shlex.quote(record.taught_by.replace(', ', ','))}"] if record.taught_by else []
    parts = [
        f"attar evaluate {shlex.quote(record.set)} --recipe {record.original}",
        *(f"--set {shlex.quote(change)}" for change in assignments(changes)),
        f"--network {shlex.quote(record.network)} --seeds {record.n}",
        *taught,
    ]
    return " ".join([*parts, *([f"--test {shlex.quote(record.test)}"] if record.test else [])])


def _other_sources(manifest: Mapping[str, Any]) -> str:
    """The flags of what is not the prior's or the data's own; manifests of older versions lack some."""
    data, prior = manifest["data"], manifest["prior"] or {}
    flags = {
        "--imbalance-factor": data.get("imbalance_factor"),
        "--codec": prior.get("codec_source"),
        "--class-map": prior.get("class_map"),
        "--prompt": prior.get("prompt") if prior.get("prompts") is None else None,
        "--prompts": prior.get("prompts"),
        "--negative-prompt": prior.get("negative_prompt"),
    }
    given = [f"{flag} {shlex.quote(str(value))}" for flag, value in flags.items() if value is not None]
    return " ".join([*(["--hold-out"] if data.get("hold_out") else []), *given])


def _nameable(classes: Sequence[str]) -> bool:
    return len(classes) <= MANY and not any("," in name for name in classes)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if name == "is":
            if prefix:
                yield prefix.rstrip("."), value
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, f"{len(value)} of them" if len(value) > MANY else ", ".join(map(str, value)) or "none"
        else:
            yield prefix + name, "none" if value is None else str(value)


def _fields(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """What `--set` takes: (dotted name, value) of the fields of a method and its parts."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, ",".join(map(str, value))
        elif name != "is":
            yield prefix + name, "none" if value is None else str(value)
