"""Measured effects: what they are made of, and which cannot be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from model.effects import EffectsError, MeasuredEffects
from model.statistics import ActivationStatistics

M, N = 3, 12


@pytest.fixture(scope="module")
def statistics() -> ActivationStatistics:
    s = np.random.default_rng(0).uniform(1.0, 4.0, (500, M)) * np.array([1.0, 2.0, 0.5])
    return ActivationStatistics.measure(s.astype(np.float32))


@pytest.fixture(scope="module")
def effects(statistics: ActivationStatistics) -> MeasuredEffects:
    """Prototype 0 moves by 0.8 of its way and 1 by -0.3 of it, more or less; the others move nothing."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0.0, 1.0, (M, N, M)).astype(np.float32)
    high = low.copy()
    way = statistics.high[0] - statistics.low[0]
    high[0, :, 0] += 0.8 * way
    high[0, :, 1] += (-0.3 + 0.1 * np.tile([-1.0, 1.0], N // 2)) * way
    return MeasuredEffects.of(low, high, statistics)


def test_effects_are_changes_for_each_unit_driven(effects: MeasuredEffects) -> None:
    expected = np.zeros((M, M))
    expected[0, :2] = 0.8, -0.3
    np.testing.assert_allclose(effects.mean, expected, atol=1e-6)
    assert effects.spread[0, 1] == pytest.approx(0.1 * np.sqrt(N / (N - 1)), rel=1e-4)
    assert effects.standard_error[0, 1] == pytest.approx(0.1 / np.sqrt(N - 1), rel=1e-4)
    assert effects.num_samples == N


def test_effects_over_the_whole_range_are_in_deviations(
    effects: MeasuredEffects, statistics: ActivationStatistics
) -> None:
    mean, error = effects.over_range(statistics)
    way = statistics.high[0] - statistics.low[0]
    assert mean[0, 1] == pytest.approx(-0.3 * way / statistics.std[1], rel=1e-4)
    assert error[0, 1] == pytest.approx(0.1 / np.sqrt(N - 1) * way / statistics.std[1], rel=1e-4)


def test_a_prototype_that_cannot_be_driven_has_no_effects(statistics: ActivationStatistics) -> None:
    constant = ActivationStatistics.measure(np.full((10, M), 2.0, np.float32))
    low = np.zeros((M, N, M), np.float32)
    found = MeasuredEffects.of(low, low + 1.0, constant)
    np.testing.assert_array_equal(found.mean, 0.0)
    assert np.isfinite(found.over_range(constant)[0]).all()


def test_effects_survive_json(effects: MeasuredEffects) -> None:
    again = MeasuredEffects.from_dict(json.loads(json.dumps(effects.to_dict())))
    np.testing.assert_allclose(again.mean, effects.mean, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(again.spread, effects.spread, rtol=1e-3, atol=1e-7)
    assert again.num_samples == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [[1.0]]}, r"spread has shape \(3, 3\), not \(1, 1\)"),
        ({"mean": [[1.0, 2.0]] * 3}, r"mean has shape \(3, 2\), not \(3, 3\)"),
        ({"mean": [[float("nan")] * 3] * 3}, "mean has values that are not finite"),
        ({"spread": [[-1.0] * 3] * 3}, "spread has values below 0"),
        ({"mean": "much"}, "malformed"),
        ({"mean": [[1.0], [1.0, 2.0]]}, "malformed"),
        ({"num_samples": 1}, "at least 2 samples, not 1"),
        ({"num_samples": 2.0}, "num_samples must be int"),
        ({"num_samples": True}, "num_samples must be int"),
    ],
)
def test_effects_that_cannot_be_are_refused(
    effects: MeasuredEffects, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EffectsError, match=message):
        MeasuredEffects.from_dict(effects.to_dict() | change)


@pytest.mark.parametrize("values", [{}, [], 1, "effects"])
def test_what_is_no_effects_at_all_is_refused(values: Any) -> None:
    with pytest.raises(EffectsError):
        MeasuredEffects.from_dict(values)
