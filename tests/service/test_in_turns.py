"""A request's pieces of work: how many at once, and when they are given up."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.errors import DeadlineExceededError
from service.pipeline.in_turns import SAMPLES_IN_FLIGHT, in_turns


class Machine:
    """Takes a second for whatever is in flight together, and counts the largest such lot."""

    def __init__(self, seconds: float) -> None:
        self.left_s = seconds
        self.largest = 0
        self._step_s, self._growing_s = 1.0, 0.0
        self._waiting: list[asyncio.Future[None]] = []

    async def work(self, item: int) -> int:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._step, 3)
        await done
        return item

    def _step(self, rounds: int) -> None:
        """Later by some rounds of the loop, so that all who come at once are there."""
        if rounds:
            asyncio.get_running_loop().call_soon(self._step, rounds - 1)
            return
        self.left_s -= self._step_s
        self._step_s += self._growing_s
        self.largest = max(self.largest, len(self._waiting))
        for done in self._waiting:
            if not done.cancelled():
                done.set_result(None)
        self._waiting = []

    async def run(self, count: int, num_samples: int, *, growing_s: float = 0.0) -> list[int]:
        self._growing_s = growing_s
        return await in_turns(
            range(count),
            self.work,
            num_samples=num_samples,
            seconds_left=lambda: self.left_s,
            what="items",
        )


def test_results_are_in_order_and_no_more_than_fit_go_at_once() -> None:
    machine = Machine(100.0)
    assert asyncio.run(machine.run(20, SAMPLES_IN_FLIGHT // 4)) == list(range(20))
    assert machine.largest == 4


def test_the_first_alone_does_not_tell_the_pace_of_many_at_once() -> None:
    """Forty small items take two seconds, one and then all others: at the pace of the first it were forty."""
    machine = Machine(10.0)
    assert len(asyncio.run(machine.run(40, 1))) == 40
    assert machine.left_s == 8.0


def test_what_cannot_be_done_in_time_even_in_shared_batches_is_given_up_at_once() -> None:
    machine = Machine(5.0)
    with pytest.raises(DeadlineExceededError, match=r"99 more items need 24\.8 s or more"):
        asyncio.run(machine.run(100, SAMPLES_IN_FLIGHT // 4))
    assert machine.left_s == 4.0


def test_what_turns_out_too_slow_later_is_given_up_then() -> None:
    """The first and two lots of four would be done in time, were all of them as quick as the first."""
    machine = Machine(3.5)
    with pytest.raises(DeadlineExceededError, match="more items need"):
        asyncio.run(machine.run(9, SAMPLES_IN_FLIGHT // 4, growing_s=0.5))
    assert machine.left_s < 2.5  # what was left after the first


def test_a_piece_that_is_refused_for_its_time_says_what_to_do() -> None:
    async def work(item: int) -> int:
        raise DeadlineExceededError(f"item {item} needs an hour")

    with pytest.raises(DeadlineExceededError, match="item 0 needs an hour: ask for fewer prototypes"):
        asyncio.run(in_turns([0, 1], work, num_samples=1, seconds_left=lambda: 9.0, what="items"))


def test_one_at_a_time_is_given_up_after_the_first() -> None:
    machine = Machine(5.0)
    with pytest.raises(DeadlineExceededError, match=r"9 more items need 9\.0 s or more, 4\.0 s are left"):
        asyncio.run(machine.run(10, SAMPLES_IN_FLIGHT))
    assert machine.left_s == 4.0
