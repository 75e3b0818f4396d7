"""The prompts of a text-conditioned prior: one for each class, and the negative one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attar.core import toml_tables
from attar.core.errors import AttarError
from attar.core.wording import listed
from attar.data.class_names import imagenet_wnids, is_imagenet

if TYPE_CHECKING:
    from timm.data import ImageNetInfo

TEMPLATE = "{name}"
NEGATIVE = "cartoon, anime, painting"
"""D4M's negative prompt: that of Stable Diffusion here, unless another is given."""


@dataclass(frozen=True)
class Prompts:
    """A prompt for each class, and the negative prompt."""

    classes: tuple[str, ...] = ()
    """Class names by label, of the whole data set, so that a class's label does not depend on which are distilled."""
    texts: tuple[str | None, ...] = ()
    """Prompts by label; None for classes that are not to be distilled."""
    negative: str = NEGATIVE
    """What no image shall be, in words."""


def class_prompts(
    classes: Sequence[str],
    wanted: Sequence[str],
    template: str = TEMPLATE,
    file: Path | None = None,
    negative: str | None = None,
) -> Prompts:
    """The prompts of the `wanted` among the data's `classes`: from a template, or from a file by class name.

    In a template {name} stands for the class name as it is ("tench, Tinca tinca"), or for the names that belong to a
    WordNet id ("n01440764"), followed by what it means ("crane: lifts and moves heavy objects; ...") where two of the
    data's classes of ImageNet share a name. The file is a TOML or JSON table: class name = prompt.

    Raises:
        AttarError: a template without {name}, a template beside a file, a file that cannot be read, or that lacks a
            wanted class or has one that the data has not: all of them are listed; a class of the data is called by a
            WordNet id that is not ImageNet's, and there is no file.
    """
    if file is None:
        names = _distinct_names(classes)
        texts = {name: template.replace("{name}", names[name]) for name in wanted}
        if "{name}" not in template:
            raise AttarError(f"`prompt` {template!r}: must contain {{name}}, which stands for the class name")
    elif template != TEMPLATE:
        raise AttarError("`prompt` and `prompts`: give one of them")
    else:
        texts = _read(file)
        if strangers := [name for name in texts if name not in set(classes)]:
            raise AttarError(f"`prompts` {file}: the data has no class {listed(strangers)}")
        if missing := [name for name in wanted if name not in texts]:
            raise AttarError(f"`prompts` {file}: no prompt for {listed(missing)}")
    chosen = set(wanted)
    by_label = tuple(texts[name] if name in chosen else None for name in classes)
    return Prompts(tuple(classes), by_label, NEGATIVE if negative is None else negative)


def _distinct_names(classes: Sequence[str]) -> dict[str, str]:
    """Each class's name in words; for ImageNet's classes that share one, its meaning too."""
    bearers = Counter(map(spoken, classes))
    ids = imagenet_wnids() if is_imagenet(classes) else classes
    return {
        name: spoken(wnid, detailed=True) if bearers[spoken(name)] > 1 else spoken(name)
        for name, wnid in zip(classes, ids, strict=True)
    }


def spoken(name: str, detailed: bool = False) -> str:
    """A class name in words: the names of a WordNet id, and no "(517)" behind the second crane.

    `detailed` adds the meaning of a WordNet id.

    Raises:
        AttarError: no WordNet id of ImageNet's.
    """
    wnid = re.match(r"n\d{8}(?=[ _-]|$)", name)
    if wnid is None:
        return re.sub(r" \(\d+\)$", "", name)
    try:
        return str(_imagenet().label_name_to_description(wnid.group(), detailed=detailed))
    except KeyError as error:
        raise AttarError(
            f"class {name!r}: ImageNet has no such WordNet id; give prompts with `prompts` FILE"
        ) from error


@cache
def _imagenet() -> ImageNetInfo:
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet22k")


def _read(file: Path) -> dict[str, str]:
    table = toml_tables.read_table_file(file, "prompts")
    if not isinstance(table, Mapping) or not all(isinstance(prompt, str) for prompt in table.values()):
        raise AttarError(f"`prompts` {file}: must be a table of prompts (texts) by class name")
    return dict(table)
