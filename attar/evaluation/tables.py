"""Tables in words, by IPC or by network, as recipes hold them: "9:15, 49:50, 100" and "vit: 1e-4, 1e-3"."""

from __future__ import annotations

from attar.errors import AttarError


def by_ipc(table: int | str, ipc: float, field: str) -> int:
    """The entry of a table such as "9:15, 49:50, 100" for so many images per class."""
    return int(number_by_ipc(table, ipc, field))


def number_by_ipc(table: float | str, ipc: float, field: str) -> float:
    """The same of a table of numbers that need not be whole."""
    for limit, value in entries(table, field):
        if not limit or ipc <= _number(limit, field, table):
            return value
    raise AttarError(
        f'{field} = {table!r}: nothing for {ipc:g} images per class; end it with a plain number ("10:64, 100")'
    )


def by_network(table: float | str, network: str, field: str) -> float:
    """The entry of a table such as "vit: 1e-4, 1e-3" for a network's name."""
    for part, value in entries(table, field):
        if part in network:
            return value
    raise AttarError(f'{field} = {table!r}: nothing for {network}; end it with a plain number ("vit: 1e-4, 1e-3")')


def entries(table: float | str, field: str) -> list[tuple[str, float]]:
    """(what stands before the colon, or nothing, and the number after it) for each entry."""
    pairs = [entry.rpartition(":") for entry in str(table).split(",")]
    return [(before.strip(), _number(value, field, table)) for before, _, value in pairs]


def _number(text: str, field: str, table: object) -> float:
    try:
        return float(text)
    except ValueError:
        raise AttarError(
            f'{field} = {table!r}: {text.strip()!r} is not a number (a table reads "10:64, 100")'
        ) from None
