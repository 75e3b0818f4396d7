"""What all ways share by which a set goes elsewhere, and comes here: checked before it goes, and when it is here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attar.core.errors import AttarError
from attar.core.files import appearing
from attar.core.portable_paths import portable
from attar.core.progress import Say
from attar.core.wording import counted
from attar.data.output_places import check_place, occupied
from attar.sets.distilled import DistilledSet, check_undamaged, open_distilled, verify
from attar.sets.source_data import whereabouts


def check_departing(distilled: DistilledSet, say: Say) -> str:
    """What of a set is about to go, in words; says which folders and images of this machine its manifest names.

    Raises:
        AttarError: the set is damaged.
    """
    check_undamaged(distilled)
    if names := _folders(distilled):
        say(f"note: manifest.json names folders of this machine: {', '.join(names)}")
    if real := distilled.manifest.get("real_images"):
        say(f"note: README.md and manifest.json name the real images that it was made of, such as {real[0][0][0]}")
    return f"{counted(len(distilled.manifest['images']), 'image')} of {distilled.folder}"


@contextmanager
def arriving(source: str, out: Path, say: Say) -> Iterator[Path]:
    """Yields a folder for a set from elsewhere, which becomes `out` if every file of it is as its manifest states.

    Raises:
        AttarError: something stands at `out`, or the set is damaged; nothing is kept of it then.
    """
    check_place(out, "`out`", [])
    if occupied(out):
        raise AttarError(f"`out` {out}: something is there already; choose another folder, or remove it")
    with appearing(out, "choose another `out`") as partial:
        yield partial
        if problems := verify(partial):
            more = f"; {len(problems)} in all" if len(problems) > 1 else ""
            raise AttarError(f"{source}: is not as it was written ({problems[0]}{more}); nothing was kept of it")
    say(f"pulled {source} to {out}, all files as written")
    say(whereabouts(open_distilled(out)))


def _folders(distilled: DistilledSet) -> list[str]:
    """The sources in a manifest that are absolute paths."""
    manifest = distilled.manifest
    sources = [manifest["data"]["spec"], (manifest["prior"] or {}).get("source", "")]
    sources += manifest["labelled_by"]["teacher"].split(", ") if "labelled_by" in manifest else []
    return [source for source in sources if portable(source) != source]
