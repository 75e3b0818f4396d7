"""Parsers of what others write, given anything: they end in a result or in an AttarError, never in another one."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from test_report import write_set
from toys import save_folder

from attar.cli.flags import _written as read_config
from attar.core.errors import AttarError
from attar.data.class_names import match, named, read_class_map
from attar.data.parquet import load
from attar.data.sources import SOURCES, canonical_spec, places
from attar.experiments.spec import read_experiment
from attar.priors.prompts import class_prompts
from attar.sets.distilled import open_distilled
from attar.sets.manifest import read_manifest
from attar.teachers.load import read_classes

anything = partial(
    settings,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The same examples on every machine, whatever its speed."""

TEXT = some.text(max_size=12)
SCALARS = some.none() | some.booleans() | some.integers(-(10**20), 10**20) | some.floats() | TEXT
DEEP = b"[" * 100_000
"""As JSON, and behind a name as TOML, more than Python's parsers can hold."""
VALUES = some.recursive(
    SCALARS, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


def ends(call: Callable[..., Any], *given: Any) -> None:
    """Calls, and lets every error through but an AttarError."""
    with suppress(AttarError):
        call(*given)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled set and a folder of images."""
    root = tmp_path_factory.mktemp("fuzz")
    write_set(root / "set")
    save_folder(root / "data" / "train", ["a", "b"], each=1)
    return root


def places_in(value: Any) -> list[tuple[Any, ...]]:
    """Where in an object there is anything that could be something else."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, one in pairs for path in ((key,), *((key, *below) for below in places_in(one)))]


@anything(max_examples=150)
@given(data=some.data())
def test_a_manifest_with_anything_in_it(world: Path, data: some.DataObject) -> None:
    folder = world / "set"
    file = world / "edited" / "manifest.json"
    manifest = json.loads((folder / "manifest.json").read_text())
    *above, last = data.draw(some.sampled_from(places_in(manifest)))
    place = manifest
    for key in above:
        place = place[key]
    place[last] = data.draw(VALUES)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(manifest))
    ends(open_distilled, file.parent)


@anything(max_examples=80)
@given(written=some.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
@example(written=DEEP)
def test_a_manifest_of_anything(world: Path, written: bytes) -> None:
    (world / "m.json").write_bytes(written)
    ends(read_manifest, world / "m.json")


KEYS = some.text(string.ascii_letters + "_-. ", min_size=1, max_size=8)
TOML = some.dictionaries(
    KEYS,
    some.integers()
    | some.booleans()
    | some.floats(allow_nan=False)
    | TEXT
    | some.lists(some.integers() | TEXT, max_size=3),
    max_size=4,
)


def as_toml(table: dict[str, Any]) -> str:
    """Of one level: JSON's texts, numbers and lists are TOML's, but for its escapes of characters beyond 16 bits."""
    return "\n".join(f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())


@pytest.mark.parametrize("suffix", ["toml", "json"])
@anything(max_examples=80)
@given(
    written=some.binary(max_size=40)
    | TEXT.map(str.encode)
    | VALUES.map(lambda v: json.dumps(v).encode())
    | TOML.map(lambda t: as_toml(t).encode("utf-8", "surrogatepass"))
)
@example(written=DEEP)
@example(written=b"a = " + DEEP)
def test_class_maps_class_lists_and_prompts_of_anything(world: Path, suffix: str, written: bytes) -> None:
    file = world / f"map.{suffix}"
    file.write_bytes(written)
    with suppress(AttarError):
        mapping = read_class_map(file)
        ends(match, ["a", "b"], ["b", "a, c"], 2, ["a", "b"], mapping)
        ends(match, ["a", "b"], None, 2, ["a", "b"], mapping)
    ends(read_classes, file)
    ends(lambda: class_prompts(["a", "b"], ["a"], file=file))


@anything(max_examples=60)
@given(
    known=some.lists(TEXT, max_size=4),
    names=some.lists(TEXT, max_size=4, unique=True),
    mapping=some.dictionaries(TEXT, some.integers(-3, 5) | TEXT, max_size=3),
)
def test_classes_of_any_name_are_matched_or_refused(
    known: list[str], names: list[str], mapping: dict[str, Any]
) -> None:
    ends(match, names, known, len(known), names, {name: value for name, value in mapping.items() if name in names})


@anything(max_examples=60)
@given(table=VALUES, count=some.integers(0, 3))
def test_names_of_a_priors_classes(table: Any, count: int) -> None:
    ends(named, table, count, "here")


SECTIONS = ("method", "evaluate", "run", "set", "network", "experiment", "data", "seeds", "ipc", "prior", "out")


@anything(max_examples=120)
@given(table=some.dictionaries(some.sampled_from(SECTIONS), VALUES, max_size=5), written=some.binary(max_size=30))
@example(table={}, written=b"a = " + DEEP)
def test_an_experiment_of_anything(world: Path, table: dict[str, Any], written: bytes) -> None:
    for text in (as_toml_tables(table).encode("utf-8", "surrogatepass"), written):
        (world / "e.toml").write_bytes(text)
        ends(read_experiment, world / "e.toml")
        ends(read_config, world / "e.toml", list(SECTIONS))


def as_toml_tables(table: dict[str, Any], above: str = "") -> str:
    """Of any depth; what TOML has no words for becomes a text."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    plain = {key: value if isinstance(value, bool | int | str) else repr(value) for key, value in plain.items()}
    lines = [as_toml(plain)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += [f"[{above}{json.dumps(key)}]", as_toml_tables(value, f"{above}{json.dumps(key)}.")]
    return "\n".join(lines)


SPECS = some.lists(
    some.sampled_from([*SOURCES, ":", "@", "/", "..", "~", "train", "data", "d.parquet", "\0", "\ud800", " ", "hf:a/b"])
    | TEXT,
    max_size=5,
).map("".join)


@anything(max_examples=100)
@given(spec=SPECS)
def test_data_in_any_words(world: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if spec.partition(":")[0] in ("hf", "torchvision") and spec.partition(":")[2].strip():
        return  # what the libraries are asked for is theirs to refuse
    monkeypatch.chdir(world)
    ends(canonical_spec, spec)
    ends(places, spec)


@anything(max_examples=80)
@given(
    metadata=some.binary(max_size=30)
    | VALUES.map(lambda v: json.dumps(v).encode())
    | some.fixed_dictionaries({"label": VALUES, "image": VALUES}).map(
        lambda v: json.dumps({"info": {"features": v}}).encode()
    )
    | VALUES.map(lambda v: json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": v}}}}).encode()),
    labels=some.lists(some.integers(-2, 3) | some.none(), min_size=2, max_size=2)
    | some.lists(TEXT, min_size=2, max_size=2),
)
@example(metadata=DEEP, labels=[0, 1])
def test_parquet_with_any_metadata(world: Path, metadata: bytes, labels: list[Any]) -> None:
    table = pa.table({"image": [b"x", b"y"], "label": labels}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, world / "t.parquet")
    ends(load, str(world / "t.parquet"), None)


@anything(max_examples=80)
@given(place=some.integers(0, 2**16), byte=some.integers(0, 255), cut=some.booleans())
def test_a_parquet_file_that_is_damaged_anywhere(world: Path, place: int, byte: int, cut: bool) -> None:
    pq.write_table(pa.table({"image": [b"x", b"y"], "label": ["a", "b"]}), world / "t.parquet")
    written = bytearray((world / "t.parquet").read_bytes())
    place %= len(written)
    written[place] = byte
    (world / "t.parquet").write_bytes(written[:place] if cut else written)
    ends(load, str(world / "t.parquet"), None)
