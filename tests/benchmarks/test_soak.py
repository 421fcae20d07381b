"""The soak's arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.service_process import Resources
from benchmarks.soak.report import is_clean, periods_table
from benchmarks.soak.watch import Sample, memory_slope, slope


def test_slope_of_a_line_is_exact() -> None:
    seconds = np.arange(0.0, 600.0)
    found = slope(list(seconds), list(100.0 + seconds / 60.0))
    assert found.per_hour == pytest.approx(60.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_error_of_the_slope_covers_noise() -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(0.0, 600.0)
    found = slope(list(seconds), list(100.0 + rng.standard_normal(600)))
    assert 0.0 < abs(found.per_hour) < 3 * found.error


def test_slope_of_two_points_is_not_a_number() -> None:
    assert math.isnan(slope([0.0, 1.0], [5.0, 6.0]).per_hour)


def test_memory_slope_leaves_the_first_half_out() -> None:
    rss = [100.0 + second for second in range(100)] + [200.0] * 101
    samples = [Sample(float(i), Resources(mib, 4, 20)) for i, mib in enumerate(rss)]
    assert memory_slope(samples).per_hour == pytest.approx(0.0, abs=1e-6)


def test_periods_are_five_minutes_by_when_a_request_was_sent() -> None:
    records = [Record(1000.0 + at_s, 0.25, Outcome.OK, 200) for at_s in (0.0, 299.0, 300.0)]
    lines = periods_table(records, started_at=1000.0).splitlines()
    assert lines[2].startswith("| minute 0 to 5 | 2 |")
    assert lines[3].startswith("| minute 5 to 10 | 1 |")
    assert lines[3].endswith("| 0.250 | 0.250 | 0.250 |")


@pytest.mark.parametrize("outcome", Outcome)
def test_only_hung_lost_and_wrong_answers_make_a_soak_fail(outcome: Outcome) -> None:
    expected = outcome not in (Outcome.HUNG, Outcome.LOST, Outcome.WRONG)
    assert is_clean([Record(0.0, 0.1, outcome)]) is expected
