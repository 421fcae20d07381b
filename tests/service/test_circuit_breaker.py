"""When a circuit opens and closes, told by a clock that goes when told to."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.cache.cache import CacheUnavailableError
from service.cache.circuit_breaker import Circuit, CircuitBreaker

PAUSE_S = 5.0


class Breaker:
    """A breaker that opens at the third failure, its clock, and what it told of itself."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seen: list[Circuit] = []
        self.breaker = CircuitBreaker(
            max_failures=3, pause_s=PAUSE_S, clock=lambda: self.now, watch=self.seen.append
        )

    def succeed(self) -> None:
        with self.breaker.attempt((OSError,)):
            pass

    def fail(self, error: BaseException | None = None) -> None:
        error = error or OSError("no")
        with pytest.raises(type(error)), self.breaker.attempt((OSError,)):
            raise error

    def is_refused(self) -> bool:
        try:
            self.succeed()
        except CacheUnavailableError:
            return True
        return False


@pytest.fixture
def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.fail()
    return breaker


def test_circuit_opens_at_the_last_of_the_failures_in_a_row() -> None:
    breaker = Breaker()
    breaker.fail()
    breaker.fail()
    assert breaker.seen == []
    breaker.fail()
    assert breaker.seen == [Circuit.OPEN]
    assert breaker.breaker.circuit is Circuit.OPEN


def test_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.fail()
        breaker.fail()
        breaker.succeed()
    assert breaker.breaker.circuit is Circuit.CLOSED


def test_open_circuit_refuses_until_the_pause_is_over(opened: Breaker) -> None:
    opened.now = PAUSE_S - 0.1
    assert opened.is_refused()
    opened.now = PAUSE_S
    assert not opened.is_refused()
    assert opened.breaker.circuit is Circuit.CLOSED
    assert opened.seen == [Circuit.OPEN, Circuit.CLOSED]


def test_only_one_call_probes_at_a_time(opened: Breaker) -> None:
    opened.now = PAUSE_S
    with opened.breaker.attempt((OSError,)):
        assert opened.breaker.circuit is Circuit.HALF_OPEN
        assert opened.is_refused()
    assert not opened.is_refused()


def test_probe_that_fails_starts_another_pause(opened: Breaker) -> None:
    opened.now = PAUSE_S
    opened.fail()
    assert opened.is_refused()
    opened.now = 2 * PAUSE_S - 0.1
    assert opened.is_refused()
    opened.now = 2 * PAUSE_S
    assert not opened.is_refused()


def test_probe_that_was_given_up_leaves_the_next_call_to_probe(opened: Breaker) -> None:
    opened.now = PAUSE_S
    opened.fail(KeyboardInterrupt())
    assert opened.breaker.circuit is Circuit.OPEN
    assert not opened.is_refused()


def test_exception_of_another_kind_is_no_failure() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.fail(KeyError("x"))
    assert breaker.breaker.circuit is Circuit.CLOSED


def test_call_begun_before_the_opening_does_not_prolong_the_pause() -> None:
    breaker = Breaker()

    def fail_late() -> None:
        with breaker.breaker.attempt((OSError,)):
            for _ in range(3):
                breaker.fail()
            breaker.now = PAUSE_S / 2
            raise OSError("late")

    with pytest.raises(OSError, match="late"):
        fail_late()
    assert breaker.seen == [Circuit.OPEN]
    breaker.now = PAUSE_S
    assert not breaker.is_refused()


def test_call_begun_before_the_opening_does_not_close_the_circuit() -> None:
    breaker = Breaker()
    with breaker.breaker.attempt((OSError,)):
        for _ in range(3):
            breaker.fail()
    assert breaker.breaker.circuit is Circuit.OPEN
    assert breaker.seen == [Circuit.OPEN]
    assert breaker.is_refused()


def test_only_the_probe_closes_the_circuit_whatever_ends_while_it_runs() -> None:
    breaker = Breaker()

    def probe_fails_after_an_old_call_succeeded() -> None:
        with ExitStack() as probe:
            with breaker.breaker.attempt((OSError,)):
                for _ in range(3):
                    breaker.fail()
                breaker.now = PAUSE_S
                probe.enter_context(breaker.breaker.attempt((OSError,)))
            assert breaker.breaker.circuit is Circuit.HALF_OPEN
            assert breaker.is_refused()
            raise OSError("probe")

    with pytest.raises(OSError, match="probe"):
        probe_fails_after_an_old_call_succeeded()
    assert breaker.breaker.circuit is Circuit.OPEN
    assert breaker.seen == [Circuit.OPEN]


def test_calls_begun_before_the_opening_do_not_count_after_the_closing() -> None:
    breaker = Breaker()

    def old_calls_fail_after_a_probe_succeeded() -> None:
        with ExitStack() as old_calls:
            for _ in range(3):
                old_calls.enter_context(breaker.breaker.attempt((OSError,)))
            for _ in range(3):
                breaker.fail()
            breaker.now = PAUSE_S
            breaker.succeed()
            raise OSError("late")

    with pytest.raises(OSError, match="late"):
        old_calls_fail_after_a_probe_succeeded()
    assert breaker.breaker.circuit is Circuit.CLOSED
    assert breaker.seen == [Circuit.OPEN, Circuit.CLOSED]


class BreakerMachine(RuleBasedStateMachine):
    """Calls one after the other, and others that began long ago, against what the definition says."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.failures = 0
        self.opened_at: float | None = None
        self.old_calls: list[AbstractContextManager[None]] = []

    @property
    def refuses(self) -> bool:
        return self.opened_at is not None and self.breaker.now < self.opened_at + PAUSE_S

    @precondition(lambda self: self.opened_at is None)
    @rule()
    def begins_and_goes_on_past_an_opening(self) -> None:
        call = self.breaker.breaker.attempt((OSError,))
        call.__enter__()
        self.old_calls.append(call)
        while self.opened_at is None:
            self.fails()

    @precondition(lambda self: self.old_calls)
    @rule(error=st.sampled_from([None, OSError("late"), KeyError("late")]))
    def call_begun_before_an_opening_ends(self, error: Exception | None) -> None:
        call = self.old_calls.pop()
        if error is None:
            call.__exit__(None, None, None)
        else:
            assert not call.__exit__(type(error), error, None)

    @rule(seconds=st.sampled_from([0.5, 2.5, 5.0]))
    def wait(self, seconds: float) -> None:
        self.breaker.now += seconds

    @precondition(lambda self: self.refuses)
    @rule()
    def refused(self) -> None:
        assert self.breaker.is_refused()

    @precondition(lambda self: not self.refuses)
    @rule()
    def works(self) -> None:
        self.breaker.succeed()
        self.failures, self.opened_at = 0, None

    @precondition(lambda self: not self.refuses)
    @rule()
    def fails(self) -> None:
        self.breaker.fail()
        self.failures += 1
        if self.failures >= 3:
            self.opened_at = self.breaker.now

    @invariant()
    def circuit_is_open_exactly_after_failures(self) -> None:
        is_closed = self.breaker.breaker.circuit is Circuit.CLOSED
        assert is_closed == (self.opened_at is None)

    @invariant()
    def every_opening_and_closing_was_told_once(self) -> None:
        told = self.breaker.seen
        is_closed = self.breaker.breaker.circuit is Circuit.CLOSED
        assert told == [Circuit.OPEN, Circuit.CLOSED] * (len(told) // 2) + [Circuit.OPEN] * (len(told) % 2)
        assert is_closed == (len(told) % 2 == 0)


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
