"""Classes as a page names them: in words."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

_WORDNET = re.compile(r"n\d{8}")


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
