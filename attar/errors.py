"""What went wrong, said so that the user can mend it. The command line prints these without a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class AttarError(Exception):
    """Bad input: names the file, field or class, and says what to do."""


class BadImage(AttarError):
    """An image file that cannot be decoded."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'minimax'?)" for a mistyped name, whatever its case; "" where nothing known is near.

    Written behind the name in a message: names that differ in case alone come first, then up to three near ones.
    """
    from difflib import get_close_matches

    known = list(dict.fromkeys(known))
    folded: dict[str, list[str]] = {}
    for one in known:
        folded.setdefault(one.strip().casefold(), []).append(one)
    asked = name.strip().casefold()
    near = folded.get(asked) or [one for word in get_close_matches(asked, folded, n=3) for one in folded[word]]
    near = [one for one in near if one != name][:3]
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
