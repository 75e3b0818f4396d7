"""What a step needs, made while the one before runs."""

from __future__ import annotations

import threading

import pytest

from attar.core.ahead import Ahead


def test_steps_are_made_once_each_one_ahead_of_the_caller() -> None:
    made, threads = list[int](), set[int]()

    def make(step: int) -> int:
        made.append(step)
        threads.add(threading.get_ident())
        return step**2

    ahead = Ahead(make, 5)
    assert [ahead(step) for step in range(5)] == [0, 1, 4, 9, 16]
    ahead._thread.shutdown()
    assert made == [0, 1, 2, 3, 4], "and none beyond the last"
    assert len(threads) == 2


def test_the_next_is_made_before_it_is_asked_for() -> None:
    begun = [threading.Event() for _ in range(3)]
    ahead = Ahead(lambda step: begun[step].set(), 3)
    ahead(0)
    assert begun[1].wait(5)
    assert not begun[2].is_set()


def test_a_resumed_run_begins_anywhere() -> None:
    ahead = Ahead(lambda step: step, 9)
    assert [ahead(step) for step in (6, 7, 3, 8)] == [6, 7, 3, 8]


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    ahead = Ahead(lambda step: step, 9)
    ahead(0)
    (own,) = set(threading.enumerate()) - before
    del ahead
    own.join(30)
    assert not own.is_alive()


def test_what_making_raises_is_raised_at_its_step() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise ValueError("one")
        return step

    ahead = Ahead(make, 3)
    assert ahead(0) == 0
    with pytest.raises(ValueError, match="one"):
        ahead(1)
