"""Reading and decoding with a few threads: PIL and hashing release the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")


def in_threads(function: Callable[[Input], Output], items: Iterable[Input]) -> Iterator[Output]:
    """`map`, with one thread per core (at most 8) and no more than 64 results waiting; results come in order."""
    workers = min(8, os.cpu_count() or 1)
    left = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(left, 64)):
            yield from pool.map(function, batch)


def one_ahead(function: Callable[[Input], Output], items: Iterable[Input]) -> Iterator[Output]:
    """`map` that makes the next result in a thread while the last one is used."""
    left = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(function, item) for item in islice(left, 1)]
        while waiting:
            made = waiting.pop().result()
            waiting += [pool.submit(function, item) for item in islice(left, 1)]
            yield made
