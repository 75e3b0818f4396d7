"""The commands that look into the cache: what is there, what it was made of, and what may go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from attar import api
from attar.cli.shared import say, say_json
from attar.core.cache import OLDER, CacheContents, CachedArtefact, Unfinished, contents, subject
from attar.core.errors import AttarError
from attar.core.fingerprints import is_artefact, is_named
from attar.core.progress import duration
from attar.core.prune import Pruned, bytes_of, prune, seconds_of
from attar.core.wording import listed

if TYPE_CHECKING:
    from attar.core.why_not_cached import ChangedInput
    from attar.distillation.explain_run import Missing, Reuse

app = typer.Typer(no_args_is_help=False, rich_markup_mode=None)

KindOption = Annotated[str | None, typer.Option(help="Only this kind: latents, fit, candidates, evaluation ...")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts")]
SHORT = 12
"""Digits of a key that are shown, of 32; any beginning that is unique will do."""


@app.callback(invoke_without_command=True)
def cache(context: typer.Context, kind: KindOption = None, as_json: Json = False) -> None:
    """Show what is in the cache, by kind; with --kind, every artefact of one kind.

    An artefact is a piece of work that is done once: the latents of a class, a fit, an evaluation. Its key is the
    fingerprint of all that it was made of, so a run that asks for the same again finds it there.

    The cache is the folder ATTAR_CACHE, by default the platform's user cache folder. It may be deleted at any time.
    """
    if context.invoked_subcommand is not None:
        return
    cached = contents(kind=kind)
    if as_json:
        say_json(_contents_json(cached))
    elif kind is None:
        _show_kinds(cached)
    else:
        _show_artefacts(cached)


@app.command(cls=TyperCommand)
def explain(
    what: Annotated[str, typer.Argument(help="A key or its beginning, or the folder of a distilled set")],
    as_json: Json = False,
) -> None:
    """Say what an artefact, or a distilled set, was made of: its inputs, the artefacts among them, when, how long.

    A key may be cut short, as 3f2a, or fit/3f2a where two kinds share a beginning. `attar cache --kind fit` lists keys.

    For a run that is about to be made: `attar distill ... --explain` says what it will find in the cache, and for what
    it will not find, which inputs differ from the nearest that is there.
    """
    record = api.explain(what)
    if as_json:
        say_json(_record_json(record))
        return
    for line in lines_of_artefact(record):
        say(line)


@app.command("prune", cls=TyperCommand)
def prune_(
    older_than: Annotated[
        str | None, typer.Option(help="Remove what was not used for this long: 45m, 12h, 30d or 8w")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Remove the least recently used until this much is left: 500MB, 50GB or 2TB")
    ] = None,
    kind: KindOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing")] = False,
    as_json: Json = False,
) -> None:
    """Remove what was not used for long, or what is too much; the least recently used goes first.

    It may be called while jobs run: what they have used since they began stays, and so does what they work on.
    Interrupted work, with its checkpoints, goes by --older-than alone. What a run finds gone it makes again.
    """
    if older_than is None and max_size is None:
        raise AttarError("say what may go: --older-than 30d, --max-size 50GB, or both")
    done = prune(
        older_than=None if older_than is None else seconds_of(older_than, "--older-than"),
        max_size=None if max_size is None else bytes_of(max_size, "--max-size"),
        kind=kind,
        dry_run=dry_run,
    )
    if as_json:
        say_json(_pruned_json(done))
        return
    for line in pruned(done, dry_run):
        say(line)


def lines_of_artefact(record: CachedArtefact) -> Iterable[str]:
    """What an artefact is and was made of, line by line."""
    of = subject(record.inputs)
    yield f"{record.kind} {record.key}" + (f", of {of}" if of else "")
    yield f"  in {record.folder}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.made))
    yield f"  made {when} in {duration(record.seconds)}, last used {_ago(record.used)}"
    yield f"  {_size(record.bytes)}: {', '.join(f'{name} {_size(size)}' for name, size in record.files.items())}"
    if record.wrong:
        yield f"  it will not be used: {_wrong(record)}"
    if not record.inputs:
        return
    known = {other.key: other for other in contents(record.folder.parent.parent).records}
    yield "made of"
    for name, value in record.inputs.items():
        yield from _branch(name, value, known, "  ")


def _branch(name: str, value: Any, known: dict[str, CachedArtefact], indent: str) -> Iterable[str]:
    """An input, and what is in it."""
    if isinstance(value, dict) and not is_named(value) and not is_artefact(value):
        inner = {key: part for key, part in value.items() if key != "is"}
        if set(inner) == {"count", "digest"}:
            yield f"{indent}{name}: {inner['count']:,}, digest {inner['digest'][:SHORT]}"
            return
        yield f"{indent}{name}" + (f": {value['is']}" if "is" in value else "")
        for key, part in inner.items():
            yield from _branch(key, part, known, indent + "  ")
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        yield f"{indent}{name}"
        for part in value:
            yield f"{indent}  {_inline(part, known)}"
    else:
        yield f"{indent}{name}: {_inline(value, known)}"


def _inline(value: Any, known: dict[str, CachedArtefact]) -> str:
    """A value on one line; of an artefact, also what it is of and whether it is still there."""
    if is_artefact(value):
        record = known.get(value["key"])
        of = subject(record.inputs) if record else "no longer in the cache"
        return f"{value['artefact']} {value['key'][:SHORT]}" + (f" ({of})" if of else "")
    if isinstance(value, dict) and not is_named(value):
        return ", ".join(f"{name} {_inline(part, known)}" for name, part in value.items())
    return word(value)


def word(value: Any) -> str:
    """A value as a reader sees it: digests are cut short."""
    if is_named(value):
        return f"{value['named']} ({value['digest'][:SHORT]})"
    if is_artefact(value):
        return f"{value['artefact']} {value['key'][:SHORT]}"
    if isinstance(value, dict):
        return str(value["is"]) if "is" in value else ", ".join(f"{name} {word(part)}" for name, part in value.items())
    if isinstance(value, list):
        return f"{len(value)} artefacts" if value and is_artefact(value[0]) else ", ".join(map(word, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text[:SHORT] if len(text) == 32 and set(text) <= set("0123456789abcdef") else text


def reused(reuse: Reuse) -> Iterable[str]:
    """What a run will find in the cache and what differs from what it will not find, line by line."""
    yield f"in the cache {reuse.root}:"
    every = [*reuse.found, *(absent.artefact for absent in reuse.missing)]
    kinds = dict.fromkeys(artefact.kind for artefact in every)
    if not kinds:
        yield "  this run needs nothing of it"
    for kind in kinds:
        found = [artefact for artefact in reuse.found if artefact.kind == kind]
        if found:
            yield f"  {kind}: {len(found)} found ({_of([subject(dict(artefact.recorded)) for artefact in found])})"
        by_words: dict[str, list[Missing]] = {}
        for absent in (absent for absent in reuse.missing if absent.artefact.kind == kind):
            by_words.setdefault(_why(absent), []).append(absent)
        for words, missing in by_words.items():
            of = _of([subject(absent.artefact.recorded) for absent in missing])
            yield f"  {kind}: {len(missing)} to make ({of}); {words}"


def _of(subjects: list[str]) -> str:
    return listed(list(dict.fromkeys(subjects)), 3)


def _why(missing: Missing) -> str:
    """Why an artefact is not there: what differs from the nearest that is."""
    if missing.nearest is None:
        return "there is none of this kind"
    return "; ".join(dict.fromkeys(map(_differs, missing.nearest.differences)))


def _differs(difference: ChangedInput) -> str:
    """`fit.guidance 4.0, in the cache 1.5`."""
    asked, cached = word(difference.asked), word(difference.cached)
    if difference.field.endswith("digest") or asked == cached:
        return f"{difference.field.removesuffix('.digest')} of other content"
    return f"{difference.field} {asked}, in the cache {cached}"


def pruned(done: Pruned, dry_run: bool) -> Iterable[str]:
    """What a pruning did, line by line."""
    verb = "would remove" if dry_run else "removed"
    kinds = dict.fromkeys(item.kind for item in done.removed)
    for kind in kinds:
        items = [item for item in done.removed if item.kind == kind]
        finished = [item for item in items if isinstance(item, CachedArtefact)]
        oldest = _ago(items[0].used)
        rest = f", {len(items) - len(finished)} unfinished" if len(finished) < len(items) else ""
        size = _size(sum(item.bytes for item in items))
        yield f"{verb} {kind}: {len(finished)} finished{rest}, {size}; last used {oldest}"
    if done.in_use:
        size = _size(sum(item.bytes for item in done.in_use))
        yield f"kept {len(done.in_use)}, {size}: running jobs have used them"
    yield f"{'would free' if dry_run else 'freed'} {_size(done.freed)}; {_size(done.left)} are left"


def _show_kinds(cached: CacheContents) -> None:
    kinds = dict.fromkeys(record.kind for record in cached.records)
    rows = []
    for kind in kinds:
        records = [record for record in cached.records if record.kind == kind]
        made, used = min(record.made for record in records), max(record.used for record in records)
        took = duration(sum(record.seconds for record in records))
        size = _size(sum(record.bytes for record in records))
        rows.append([kind, f"{len(records):,}", size, took, _ago(made), _ago(used)])
    if rows:
        _table(["kind", "count", "size", "took", "oldest made", "last used"], rows)
    say(f"{len(cached.records):,} artefacts, {_size(cached.bytes)}, in {cached.root}")
    _say_odd(cached)


def _show_artefacts(cached: CacheContents) -> None:
    rows = [
        [
            record.key[:SHORT],
            subject(record.inputs),
            _size(record.bytes),
            duration(record.seconds),
            _ago(record.used),
            _wrong(record),
        ]
        for record in cached.records
    ]
    if rows:
        _table(["key", "of", "size", "took", "last used", ""], rows)
    _say_odd(cached)


def _say_odd(cached: CacheContents) -> None:
    """What is not finished, and what will not be used."""
    for item in cached.unfinished:
        state = "being made" if item.running else "left over from a removal" if item.left_over else "interrupted"
        say(
            f"{item.kind} {item.key[:SHORT]}: {state}, {_size(item.bytes)}, written to {_ago(item.used)}: {item.folder}"
        )
    for record in (record for record in cached.records if record.wrong):
        if record.wrong != OLDER:
            say(f"{record.kind} {record.key[:SHORT]}: {_wrong(record)}")
    if older := [record for record in cached.records if record.wrong == OLDER]:
        size = _size(sum(record.bytes for record in older))
        say(f"{len(older)} are of an older Attar, {size}: no run uses them any more")


def _wrong(record: CachedArtefact) -> str:
    return f"damaged ({record.wrong})" if record.wrong and record.wrong != OLDER else record.wrong


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in ("count", "size", "took") else "left")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def _size(count: float) -> str:
    """Bytes in words, to about two digits."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" or count >= 100 else f"{count:.1f} {units[0]}"


def _ago(when: float) -> str:
    return f"{duration(max(0.0, time.time() - when))} ago"


def _record_json(record: CachedArtefact) -> dict[str, Any]:
    return {**asdict(record), "folder": str(record.folder), "bytes": record.bytes}


def _contents_json(cached: CacheContents) -> dict[str, Any]:
    return {
        "folder": str(cached.root),
        "bytes": cached.bytes,
        "artefacts": [_record_json(record) for record in cached.records],
        "unfinished": [{**asdict(item), "folder": str(item.folder)} for item in cached.unfinished],
    }


def _pruned_json(done: Pruned) -> dict[str, Any]:
    def items(some: Sequence[CachedArtefact | Unfinished]) -> list[dict[str, Any]]:
        return [{"kind": item.kind, "key": item.key, "bytes": item.bytes, "used": item.used} for item in some]

    return {"removed": items(done.removed), "in_use": items(done.in_use), "freed": done.freed, "left": done.left}
