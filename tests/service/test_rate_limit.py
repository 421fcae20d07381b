"""A token bucket for each client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rate_limit import Rate, RateLimiter


class Clock:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "per_second", "burst"), [("10/s", 10.0, 10), ("300/m", 5.0, 300), ("7200/h", 2.0, 7200)]
)
def test_rate_is_read_per_second_minute_or_hour(text: str, per_second: float, burst: int) -> None:
    rate = Rate.parse(text)
    assert rate.per_second == pytest.approx(per_second)
    assert rate.burst == burst
    assert Rate.parse(text, burst=3).burst == 3


@pytest.mark.parametrize(
    "text", ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10 / s", "10/s ", "1e3/s", "٣/s"]
)
def test_what_is_no_rate_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate: write N/s, N/m or N/h") as failure:
        Rate.parse(text)
    assert repr(text) in str(failure.value)


def test_burst_passes_and_the_next_request_waits_for_a_token() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate.parse("2/s", burst=3), clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("a") == pytest.approx(0.5)
    clock.now += 0.25
    assert limiter.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert limiter.take("a") == 0.0
    assert limiter.take("a") == pytest.approx(0.5)


def test_clients_have_buckets_of_their_own() -> None:
    limiter = RateLimiter(Rate.parse("1/h"), clock=Clock())
    assert limiter.take("a") == 0.0
    assert limiter.take("a") > 0.0
    assert limiter.take("b") == 0.0


def test_pause_fills_the_bucket_to_the_burst_and_no_further() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate.parse("1/s", burst=2), clock=clock)
    limiter.take("a")
    clock.now += 1e6
    assert [limiter.take("a") == 0.0 for _ in range(3)] == [True, True, False]


def test_no_more_buckets_are_kept_than_allowed_and_those_used_last_stay() -> None:
    limiter = RateLimiter(Rate.parse("1/h"), max_clients=3, clock=Clock())
    for i in range(100):
        limiter.take("regular")
        limiter.take(f"passer-by {i}")
    assert len(limiter) == 3
    assert limiter.take("regular") > 0.0
    assert limiter.take("passer-by 99") > 0.0


@given(
    count=st.integers(1, 50),
    unit=st.sampled_from("smh"),
    burst=st.integers(1, 20),
    pauses=st.lists(st.floats(0.0, 100.0), max_size=60),
)
def test_never_more_than_the_burst_and_what_time_refilled(
    count: int, unit: str, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    rate = Rate(count, unit, burst)
    limiter = RateLimiter(rate, clock=clock)
    started, admitted = clock.now, 0
    for pause in pauses:
        clock.now += pause
        admitted += limiter.take("a") == 0.0
        assert admitted <= burst + (clock.now - started) * rate.per_second + 1e-6


@given(count=st.integers(1, 1000), burst=st.integers(1, 5), unit=st.sampled_from("smh"))
def test_client_that_waits_as_told_is_admitted(count: int, burst: int, unit: str) -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(count, unit, burst), clock=clock)
    for _ in range(burst):
        limiter.take("a")
    for _ in range(3):
        clock.now += limiter.take("a")
        assert limiter.take("a") == 0.0
