"""Distilled sets at addresses of fsspec: pushed with a marker written last, pulled and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attar.core.arguments import checked
from attar.core.errors import AttarError
from attar.core.progress import Say, quiet
from attar.core.store import digest
from attar.core.urls import file_system
from attar.sets.distilled import COMPLETE, KINDS, DistilledSet, open_distilled
from attar.sets.transfer import arriving, check_departing

MANIFEST = "manifest.json"
REMEDY = "choose another URL, or remove it"


@checked
def push_to_url(distilled: DistilledSet, url: str, *, say: Say = quiet, dry_run: bool = False) -> None:
    """Uploads a set: its manifest, all other files, and a marker last. Broken off, the same command goes on.

    Raises:
        AttarError: the set is damaged, something else is there, or the place cannot be opened or written.
    """
    place = _Place(url, *file_system(url))
    what = check_departing(distilled, say)
    if dry_run:
        say(f"{what} would be pushed to {url}")
        return
    own = {name: distilled.folder / name for name in (MANIFEST, *_other_files(distilled))}
    manifest = own[MANIFEST].read_bytes()
    with _spoken(url, "pushed; the same command goes on"):
        sizes = place.sizes()
        missing = {name: file for name, file in own.items() if sizes.get(name) != file.stat().st_size}
        if not missing and place.holds(manifest):
            say(f"{url} holds this set already: nothing to do")
            return
        _check_ours(place, manifest, sizes)
        if MANIFEST in missing:  # it says whose the files are that come after it
            place.write({MANIFEST: missing.pop(MANIFEST)})
        place.write(missing)
        _check_arrived(place, manifest, own)
        place.files.pipe_file(place.path(COMPLETE), _marker(manifest))
    say(f"pushed {what} to {url}")


@checked
def pull_from_url(url: str, out: Path, *, say: Say = quiet) -> None:
    """Downloads a set; `out` appears, whole, once every file of it has the digest that its manifest states.

    Raises:
        AttarError: something stands at `out`, there is no finished set at the URL, it is damaged, or cannot be read.
    """
    place = _Place(url, *file_system(url))
    with arriving(url, out, say) as partial:
        with _spoken(url, "pulled"):
            manifest = place.read(MANIFEST)
            if manifest is None:
                raise AttarError(f"{url}: holds no set that `attar push` wrote (no {MANIFEST})")
            if not place.holds(manifest):
                raise AttarError(f"{url}: its publishing was broken off: publish it again with `attar push`")
        (partial / MANIFEST).write_bytes(manifest)
        try:
            names = _other_files(open_distilled(partial))
        except AttarError as error:
            raise AttarError(f"{url}: holds no set that can be read: {error}") from error
        with _spoken(url, "pulled"):
            place.fetch(names, partial)


def _other_files(distilled: DistilledSet) -> list[str]:
    """The names of a set's files besides its manifest, as this lists them."""
    return ["README.md", *(name for kind in KINDS for name in distilled.manifest.get(kind, {}))]


def _marker(manifest: bytes) -> bytes:
    """What says that all of the set of this manifest is there."""
    return json.dumps({"manifest": digest(manifest)}).encode() + b"\n"


@dataclass(frozen=True)
class _Place:
    """A folder at an address."""

    url: str
    files: Any
    """The file system that it is in."""
    root: str
    """Its path there."""

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where there is none."""
        try:
            content: bytes = self.files.cat_file(self.path(name))
        except FileNotFoundError:
            return None
        return content

    def holds(self, manifest: bytes) -> bool:
        """Whether the set of this manifest is there, finished."""
        return self.read(MANIFEST) == manifest and self.read(COMPLETE) == _marker(manifest)

    def sizes(self) -> dict[str, int]:
        """The bytes of each file there, by its name."""
        self.files.invalidate_cache()
        try:
            found: dict[str, dict[str, Any]] = self.files.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        return {name.removeprefix(self.path("")): int(about.get("size") or 0) for name, about in found.items()}

    def write(self, sources: Mapping[str, Path]) -> None:
        """Uploads files to their names; stores of objects take several at once."""
        from fsspec.implementations.local import LocalFileSystem

        targets = [self.path(name) for name in sources]
        if isinstance(self.files, LocalFileSystem):  # others make the folders themselves
            for folder in {target.rpartition("/")[0] for target in targets}:
                self.files.makedirs(folder, exist_ok=True)
        if targets:
            self.files.put([str(file) for file in sources.values()], targets)

    def fetch(self, names: Iterable[str], folder: Path) -> None:
        """Downloads files to their names in a folder."""
        targets = {name: folder / name for name in names}
        for parent in {target.parent for target in targets.values()}:
            parent.mkdir(parents=True, exist_ok=True)
        try:
            self.files.get([self.path(name) for name in targets], [str(target) for target in targets.values()])
        except FileNotFoundError as error:
            raise AttarError(f"{self.url}: is not as it was written (missing: {error}); push it again") from error


def _check_ours(place: _Place, manifest: bytes, sizes: Mapping[str, int]) -> None:
    """Raises AttarError for a place that holds anything but the beginning of this set."""
    there = place.read(MANIFEST)
    if there is None:
        if sizes:
            raise AttarError(f"{place.url}: holds {min(sizes)} and no distilled set; {REMEDY}")
    elif not manifest.startswith(there):  # it may be half written
        other = "another set" if place.holds(there) else "another set, whose publishing was broken off"
        raise AttarError(f"{place.url}: holds {other}; {REMEDY}")


def _check_arrived(place: _Place, manifest: bytes, own: Mapping[str, Path]) -> None:
    """Raises AttarError unless all files of this set are there, each with all of its bytes."""
    sizes = place.sizes()
    if lost := [name for name, file in own.items() if sizes.get(name) != file.stat().st_size]:
        raise AttarError(f"{place.url}: {lost[0]} did not arrive whole; the same command goes on")
    if place.read(MANIFEST) != manifest:
        raise AttarError(f"{place.url}: another set was pushed there meanwhile; {REMEDY}")


@contextmanager
def _spoken(url: str, done: str) -> Iterator[None]:
    """What goes wrong at an address, as an error that names it."""
    try:
        yield
    except AttarError:
        raise
    except Exception as error:  # of whichever library reads and writes there
        why = " ".join(str(error).split()) or type(error).__name__
        what, _, remedy = done.partition("; ")
        raise AttarError(f"{url}: cannot be {what}: {why}" + (f"; {remedy}" if remedy else "")) from error
