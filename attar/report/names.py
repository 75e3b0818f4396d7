"""Names as a page shows them to others: classes in words, no paths of this machine."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

_WORDNET = re.compile(r"n\d{8}")
_PLACE = re.compile(r"((?:[a-z]+:)?)(/.+?)((?:@[\w-]+)?)")
"""An absolute path, as it is or in a data spec: "imagefolder:/home/me/photos@train"."""


def class_title(name: str) -> str:
    """A class in words: of a WordNet id of ImageNet's what it means, of all others the name itself."""
    return _meanings().get(name, name) if _WORDNET.fullmatch(name) else name


@cache
def _meanings() -> dict[str, str]:
    """WordNet id -> its first synonym, or as many words as tell it from the others."""
    from attar.data.class_names import imagenet_names, imagenet_wnids

    firsts = [name.partition(",")[0] for name in imagenet_names()]
    each = Counter(firsts)
    pairs = zip(imagenet_wnids(), firsts, strict=True)
    return {wnid: first if each[first] == 1 else f"{first} ({wnid})" for wnid, first in pairs}


def portable(text: str) -> str:
    """A path, or a spec that names one, without the folders of this machine.

    It is told from the current folder, from the home folder, or by its last two names; all other text stays.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        return text
    path = Path(found[2])
    for root, short in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(root):
            return f"{found[1]}{short}{path.relative_to(root)}{found[3]}"
    return f"{found[1]}{Path(*path.parts[-2:]) if len(path.parts) > 2 else path.name}{found[3]}"


def portable_all(value: Any) -> Any:
    """The same of every text within tables and lists."""
    if isinstance(value, dict):
        return {key: portable_all(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable_all(one) for one in value]
    return portable(value) if isinstance(value, str) else value
