"""Which candidates of a class are kept: rules for any pool, real or generated."""

from attar.selection.select import Select, random_order

__all__ = ["Select", "random_order"]
