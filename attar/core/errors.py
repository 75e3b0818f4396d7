"""What went wrong, said so that the user can mend it. The command line prints these without a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class AttarError(Exception):
    """Bad input: names the file, field or class, and says what to do."""


class BadImage(AttarError):
    """An image file that cannot be decoded."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'minimax'?)" for a mistyped name, whatever its case; "" where nothing known is near."""
    return written_hint(similar_names(name, known))


def written_hint(near: Sequence[str]) -> str:
    """Names that may be meant, as they stand behind a mistyped one in a message; "" for none."""
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names that a mistyped one may mean: those that differ in case alone, else up to three near ones."""
    known = list(dict.fromkeys(known))
    folded: dict[str, list[str]] = {}
    for candidate in known:
        folded.setdefault(candidate.strip().casefold(), []).append(candidate)
    asked = name.strip().casefold()
    alike = [asked] if asked in folded else get_close_matches(asked, folded, n=3)
    near = [candidate for word in alike for candidate in folded[word]]
    return [candidate for candidate in near if candidate != name][:3]


def reason(error: Exception) -> str:
    """What went wrong, in words; of an error of the system neither its number nor the file, which stand elsewhere."""
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def explained(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns an error of these kinds into an AttarError of `what` and its text; an AttarError passes as it is."""
    try:
        yield
    except AttarError:
        raise
    except kinds as error:
        raise AttarError(f"{what}: {error}") from error


class NotFinite(AttarError):
    """A NaN or an infinity where there should be a number."""

    def __init__(self, text: str, rows: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.rows = tuple(rows)
        """The rows of a batch that it is in, where they are known."""


class Unwritable(AttarError):
    """A place that cannot be written: a full disk, a quota, missing rights."""

    def __init__(self, place: Path, why: str, remedy: str = "") -> None:
        super().__init__(place, why, remedy)
        self.place, self.why, self.remedy = place, why, remedy

    def __str__(self) -> str:
        return f"{self.place} cannot be written: {self.why}" + (f"; {self.remedy}" if self.remedy else "")
