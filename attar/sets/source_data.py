"""The data behind a distilled set: the images that it was distilled from, those it is tested on, and what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attar.core.errors import AttarError
from attar.core.progress import Progress, silent
from attar.core.store import Store, fingerprint
from attar.core.wording import counted

if TYPE_CHECKING:
    from attar.core.progress import Say
    from attar.data import ImageSet
    from attar.sets.distilled import DistilledSet

REMEDY = (
    "bring back the images that it was made from, or distill it again "
    "(`attar evaluate` with `baseline=false` needs none)"
)
"""After an error about changed data."""


def tested_images(distilled: DistilledSet, test: str | None, store: Store, progress: Progress) -> ImageSet:
    """The images that a set is tested on: those of a spec, `held-out` (the tenth), or the test split of its own data.

    Raises:
        AttarError: they lack its classes, or the held-out tenth was not held out when the set was distilled.
    """
    from attar.data.degenerate import ACCIDENT

    accident = ACCIDENT if test == "held-out" else 1
    return without_unreadable(view_tested_on(distilled, test), distilled, store, progress, accident)


def view_tested_on(distilled: DistilledSet, test: str | None) -> ImageSet:
    """The same before any of them is read, unreadable ones among them; raises as `tested_images`."""
    from attar.data import load_data, load_held_out, test_spec

    data = distilled.manifest["data"]
    if test == "held-out":
        if not data.get("hold_out"):
            raise AttarError(
                f"`test` held-out: {distilled.folder} was distilled from all of its data; "
                "distill it with `hold_out`, too"
            )
        images = load_held_out(data["spec"])
    else:
        try:
            images = load_data(test or test_spec(data["spec"]))
        except AttarError as error:
            if test or not data.get("hold_out"):
                raise
            raise AttarError(f"{error}, such as `test` held-out, the tenth that no image of the set is from") from error
    picked = images.restricted(distilled.classes)
    if picked.classes != distilled.classes:
        raise AttarError(f"`test` {test}: its classes are in another order than those of {distilled.folder}")
    return picked


def real_images(distilled: DistilledSet, store: Store) -> ImageSet:
    """All images that a set was distilled from: its classes of its view of the data, without unreadable ones.

    Raises:
        AttarError: the data is not at hand, or not what it was.
    """
    every = view_of(distilled)
    if differs := _difference(distilled, every, store):
        raise AttarError(f"{differs}: {REMEDY}")
    return without_unreadable(of_its_classes(distilled, every), distilled, store)


def data_changes(distilled: DistilledSet, store: Store) -> str | None:
    """How the data at hand differs from what a set was distilled from, in words; None: not at all, or not known."""
    try:
        return _difference(distilled, view_of(distilled), store)
    except AttarError:
        return None


def whereabouts(distilled: DistilledSet) -> str:
    """Where a set's data are, in words: whether that place is on this machine; nothing of them is read."""
    from attar.data.sources import canonical_spec

    spec = distilled.manifest["data"]["spec"]
    if spec.startswith(("hf:", "torchvision:")):
        return f"its data are {spec}"
    try:
        canonical_spec(spec)
    except AttarError:
        return (
            f"note: its data, {spec}, are a place of another machine: `attar evaluate` with `baseline=false` and "
            "your own `test` images needs none, and `attar reproduce` takes yours as `data`"
        )
    return f"its data, {spec}, are on this machine, too; `attar evaluate` tells whether they are the same"


def check_data(distilled: DistilledSet, tests: ImageSet, baseline: bool, store: Store, say: Say) -> None:
    """Says what is to be known of the data of a set that is tested on some images: changes, and images that they share.

    Raises:
        AttarError: a `baseline` needs the data, and it has changed or is not at hand.
    """
    from attar.data import shared

    try:
        every = view_of(distilled)
    except AttarError:
        if baseline:
            raise
        return
    if differs := _difference(distilled, every, store):
        if baseline:
            raise AttarError(f"{differs}: {REMEDY}")
        say(f"note: {differs}")
    names = [name for name in distilled.classes if name in every.classes]
    if names and (both := shared(tests, every.restricted(names), store)):
        say(
            f"note: {both} of the {len(tests)} test images of {tests.spec} are training images of {every.spec}, too: "
            "accuracies on them are too high"
        )


def view_of(distilled: DistilledSet) -> ImageSet:
    """The images of a set's data, all of its classes."""
    from attar.data import load_view

    data = distilled.manifest["data"]
    return load_view(data["spec"], data.get("imbalance_factor"), data.get("hold_out", False))


def of_its_classes(distilled: DistilledSet, every: ImageSet) -> ImageSet:
    real = every.restricted(distilled.classes)
    if real.classes != distilled.classes:
        raise AttarError(f"{real.spec}: its classes are in another order than those of {distilled.folder}")
    return real


def _difference(distilled: DistilledSet, every: ImageSet, store: Store) -> str | None:
    """How data differs from what a set was distilled from, in words; None: not at all, or that is not known."""
    from attar.data import readable

    data = distilled.manifest["data"]
    if "fingerprint" not in data:
        return None
    text = f"{data['spec']} has changed since {distilled.folder} was distilled from it"
    if missing := [name for name in distilled.classes if name not in every.classes]:
        return f"{text} (it has no class {missing[0]!r} now)"
    real = every.restricted(distilled.classes)
    if data["skipped"]:
        real = readable(real, "skip", store)
    labels = range(len(real.classes))
    same_classes = real.classes == distilled.classes
    if same_classes and fingerprint([real.digest(label) for label in labels]) == data["fingerprint"]:
        return None
    pairs = zip(distilled.classes, data.get("counts", []), strict=False)
    counts = [(name, was, len(real.of_class(real.classes.index(name)))) for name, was in pairs]
    other = next(
        (f"{counted(now, 'image')} of class {name!r} now, {was:,} before" for name, was, now in counts if now != was),
        None,
    )
    return f"{text} ({other or 'other images, or in another order'})"


def without_unreadable(
    images: ImageSet, distilled: DistilledSet, store: Store, progress: Progress = silent, accident: int = 1
) -> ImageSet:
    """Without the images that cannot be read where the set was distilled without such; elsewhere they are an error."""
    from attar.data import readable

    return readable(images, "skip" if distilled.manifest["data"]["skipped"] else "error", store, progress, accident)
