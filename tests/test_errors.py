"""Suggestions for what was mistyped."""

import pytest

from attar.core.errors import suggestion
from attar.core.wording import counted

KNOWN = ("minimax", "d3hr", "Cat", "cats")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("minimx", " (did you mean 'minimax'?)"),
        ("MINIMAX", " (did you mean 'minimax'?)"),
        (" minimax ", " (did you mean 'minimax'?)"),
        ("cat", " (did you mean 'Cat'?)"),
        ("catz", " (did you mean 'Cat' or 'cats'?)"),
        ("zebra", ""),
        ("", ""),
    ],
)
def test_a_suggestion_names_what_is_near_whatever_its_case(name: str, hint: str) -> None:
    assert suggestion(name, KNOWN) == hint


def test_a_known_name_is_not_suggested_for_itself() -> None:
    assert suggestion("Cat", ("Cat", "cat")) == " (did you mean 'cat'?)"
    assert suggestion("d3hr", KNOWN) == ""


def test_one_thing_and_several() -> None:
    assert counted(1, "class") == "1 class"
    assert [counted(count, "image") for count in (0, 1, 1000)] == ["0 images", "1 image", "1,000 images"]
