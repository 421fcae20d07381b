"""A failing item of a batch fails alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.errors import OutOfMemoryError
from service.engine.isolation import run_isolated


class Recorder:
    """Runs slices; raises for those that hold a bad position or are longer than memory allows."""

    def __init__(self, *, bad: frozenset[int] = frozenset(), fits: int = 1000) -> None:
        self.bad = bad
        self.fits = fits
        self.done: list[int] = []
        self.calls: list[tuple[int, int]] = []

    def __call__(self, part: slice) -> None:
        self.calls.append((part.start, part.stop))
        if part.stop - part.start > self.fits:
            raise OutOfMemoryError("too many")
        positions = range(part.start, part.stop)
        if self.bad.intersection(positions):
            raise RuntimeError("bad item")
        self.done += positions


def test_batch_without_fault_is_one_call() -> None:
    run = Recorder()
    failures = run_isolated(run, 8, limit=8)
    assert run.calls == [(0, 8)]
    assert failures.errors == {}
    assert failures.out_of_memory_at is None


def test_nothing_to_run_is_no_call() -> None:
    run = Recorder()
    run_isolated(run, 0, limit=8)
    assert run.calls == []


def test_no_call_is_longer_than_the_limit() -> None:
    run = Recorder()
    failures = run_isolated(run, 10, limit=4)
    assert sorted(run.calls) == [(0, 4), (4, 8), (8, 10)]
    assert failures.num_calls == 3


def test_one_bad_item_costs_two_calls_per_halving() -> None:
    run = Recorder(bad=frozenset({21}))
    failures = run_isolated(run, 64, limit=64)
    assert list(failures.errors) == [21]
    assert len(run.calls) == 1 + 2 * 6


def test_error_of_a_bad_item_is_its_own() -> None:
    failures = run_isolated(Recorder(bad=frozenset({1})), 4, limit=4)
    assert isinstance(failures.errors[1], RuntimeError)


def test_smallest_size_that_ran_out_of_memory_is_told() -> None:
    failures = run_isolated(Recorder(fits=3), 16, limit=16)
    assert failures.errors == {}
    assert failures.out_of_memory_at == 4


def test_memory_for_not_even_one_item_fails_each_of_them() -> None:
    failures = run_isolated(Recorder(fits=0), 3, limit=8)
    assert sorted(failures.errors) == [0, 1, 2]
    assert failures.out_of_memory_at == 1


def test_errors_that_end_a_thread_are_not_held_back() -> None:
    def run(part: slice) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        run_isolated(run, 4, limit=4)


@given(
    count=st.integers(0, 40),
    limit=st.integers(1, 50),
    fits=st.integers(1, 50),
    bad=st.frozensets(st.integers(0, 39)),
)
def test_good_items_are_done_once_and_bad_ones_fail(
    count: int, limit: int, fits: int, bad: frozenset[int]
) -> None:
    run = Recorder(bad=bad, fits=fits)
    failures = run_isolated(run, count, limit)
    assert sorted(failures.errors) == sorted(i for i in bad if i < count)
    assert sorted(run.done) == [i for i in range(count) if i not in bad]
