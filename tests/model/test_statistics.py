from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.statistics import (
    QUANTILE_LEVELS,
    ActivationStatistics,
    StatisticsError,
    normal_cdf,
    normal_quantile,
)


def activations(count: int = 5000) -> npt.NDArray[np.float32]:
    """Three prototypes: the second skewed and tied to the first, the third apart."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal(count)
    second = np.exp(0.8 * first + 0.6 * rng.standard_normal(count))
    return np.column_stack([first, second, rng.uniform(0, 1, count)]).astype(np.float32)


def test_resampled_activations_have_the_measured_marginals() -> None:
    statistics = ActivationStatistics.measure(activations())
    drawn = statistics.resample(np.random.default_rng(1), 20_000)
    assert drawn.shape == (20_000, 3)
    assert drawn.dtype == np.float32
    quantiles = np.quantile(drawn, QUANTILE_LEVELS[9:90], axis=0).T
    np.testing.assert_allclose(quantiles, statistics.quantiles[:, 9:90], atol=0.1)
    assert (drawn.min(axis=0) >= statistics.minimum - 1e-6).all()
    assert (drawn.max(axis=0) <= statistics.maximum + 1e-6).all()


def test_resampled_activations_vary_together_as_measured() -> None:
    statistics = ActivationStatistics.measure(activations())
    again = ActivationStatistics.measure(statistics.resample(np.random.default_rng(1), 20_000))
    np.testing.assert_allclose(again.correlation, statistics.correlation, atol=0.03)
    assert statistics.correlation[0, 1] > 0.7


def test_the_same_seed_resamples_the_same() -> None:
    statistics = ActivationStatistics.measure(activations())
    one, other = (statistics.resample(np.random.default_rng(3), 4) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_one_prototype_alone_can_be_measured() -> None:
    statistics = ActivationStatistics.measure(activations()[:, :1])
    assert statistics.resample(np.random.default_rng(0), 7).shape == (7, 1)


def test_a_constant_prototype_resamples_to_its_constant() -> None:
    s = activations(100)
    s[:, 2] = 0.25
    drawn = ActivationStatistics.measure(s).resample(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(drawn[:, 2], np.full(50, 0.25, np.float32))


def test_statistics_survive_json_to_six_digits() -> None:
    statistics = ActivationStatistics.measure(activations())
    again = ActivationStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    for name in ("mean", "std", "minimum", "maximum", "quantiles", "correlation"):
        np.testing.assert_allclose(getattr(again, name), getattr(statistics, name), rtol=1e-5)
    assert again.to_dict() == statistics.to_dict()


def test_low_and_high_are_the_outer_quantiles() -> None:
    s = activations()
    statistics = ActivationStatistics.measure(s)
    np.testing.assert_allclose(statistics.low, np.quantile(s, 0.01, axis=0), rtol=1e-6)
    np.testing.assert_allclose(statistics.high, np.quantile(s, 0.99, axis=0), rtol=1e-6)


def damaged(**changes: Any) -> dict[str, Any]:
    return ActivationStatistics.measure(activations(100)).to_dict() | changes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (damaged(std=[1.0]), "std has shape"),
        (damaged(mean=[0.0, float("nan"), 0.0]), "mean has values that are not finite"),
        (damaged(quantiles=np.zeros((3, 99))[:, ::-1] - np.arange(99)), "quantiles do not ascend"),
        (damaged(mean="many"), "malformed"),
        (damaged(mean=None), "malformed|shape|finite"),
        (damaged(extra=[1.0]), "malformed"),
        ({"mean": [1.0]}, "malformed"),
        ([1, 2], "malformed"),
    ],
)
def test_malformed_statistics_are_refused(values: Any, message: str) -> None:
    with pytest.raises(StatisticsError, match=message):
        ActivationStatistics.from_dict(values)


def test_normal_quantile_inverts_the_distribution_function() -> None:
    levels = np.linspace(1e-4, 1 - 1e-4, 101)
    np.testing.assert_allclose(normal_cdf(normal_quantile(levels)), levels, atol=1e-6)
    assert normal_quantile(np.array([0.975]))[0] == pytest.approx(1.959964, abs=1e-4)


def test_standardised_activations_have_mean_0_and_deviation_1_unless_they_do_not_vary() -> None:
    s = activations()
    s[:, 2] = 5.0
    z = ActivationStatistics.measure(s).standardised(s)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(z.std(axis=0), [1.0, 1.0, 0.0], atol=1e-6)


def test_equal_activations_have_no_order_to_correlate() -> None:
    """Two that never vary, and one that rises with the image's number as equal ranks used to."""
    s = np.zeros((400, 3), np.float32)
    s[:, 2] = np.arange(400)
    correlation = ActivationStatistics.measure(s).correlation
    np.testing.assert_array_equal(correlation[:2], 0.0)
    assert correlation[2, 2] == pytest.approx(1.0)


def test_half_equal_activations_correlate_as_what_varies_in_them() -> None:
    rng = np.random.default_rng(0)
    common = rng.standard_normal(4000)
    s = np.stack([np.maximum(common, 0.0), -np.maximum(common, 0.0), rng.standard_normal(4000)], axis=1)
    correlation = ActivationStatistics.measure(s.astype(np.float32)).correlation
    assert correlation[0, 1] == pytest.approx(-1.0)
    assert abs(correlation[0, 2]) < 0.05


def test_what_hardly_varies_is_not_blown_up_by_a_rounding_error() -> None:
    s = np.array([[2.0, 1.0], [2.0 + 1e-6, 3.0]], np.float32)
    statistics = ActivationStatistics.measure(s)
    z = statistics.standardised(s + np.float32(1e-5))
    assert np.abs(z[:, 0]).max() < 0.2
    np.testing.assert_allclose(z[:, 1], [-1.0, 1.0], atol=1e-4)
