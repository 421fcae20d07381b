from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from model.attributes import Attributes, AttributesError
from model.statistics import ActivationStatistics


def attributes(**changes: Any) -> Attributes:
    """Two prototypes, three attributes."""
    values: dict[str, Any] = {
        "names": ("hat", "smile", "beard"),
        "auroc": np.array([[0.9, 0.05, 0.5], [0.6, 0.5, 0.3]]),
        "probe_weights": np.array([[1.0, 0.0], [0.0, -2.0], [3.0, 1.0]]),
        "probe_biases": np.array([0.0, 1.0, -1.0]),
        "probe_auroc": np.array([0.9, 0.95, 0.7]),
        "probe_low": np.array([-4.0, -3.0, -2.0]),
        "probe_high": np.array([2.0, 3.0, 4.0]),
    }
    return Attributes(**(values | changes))


def test_the_best_attributes_count_either_sign() -> None:
    found = attributes().best(0, 2)
    assert [(one.name, one.sign) for one in found] == [("smile", -1), ("hat", 1)]
    assert [one.auroc for one in found] == pytest.approx([0.95, 0.9])
    assert [one.name for one in attributes().best(1, 9)] == ["beard", "hat", "smile"]


def test_probes_read_standardised_activations() -> None:
    s = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)
    statistics = ActivationStatistics.measure(s)  # means 2 and 20, deviations 1 and 10
    expected = [[-1.0, 3.0, -5.0], [1.0, -1.0, 3.0]]
    np.testing.assert_allclose(attributes().probe_logits(s, statistics), expected)


def test_log_odds_are_measured_in_their_own_spread_over_the_data() -> None:
    rng = np.random.default_rng(0)
    s = rng.multivariate_normal([3.0, -1.0], [[4.0, 1.2], [1.2, 1.0]], 20_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    logits = attributes().probe_logits(s, statistics)
    spread, correlation = (
        of(statistics) for of in (attributes().logit_spread, attributes().logit_correlation)
    )
    np.testing.assert_allclose(spread, logits.std(axis=0), rtol=0.01)
    np.testing.assert_allclose(correlation, np.corrcoef(logits, s, rowvar=False)[:3, 3:], atol=0.01)
    np.testing.assert_allclose(
        attributes().logit_correlations(statistics), np.corrcoef(logits, rowvar=False), atol=0.01
    )


def test_a_moved_attribute_takes_along_what_is_confused_with_it_unless_that_is_held() -> None:
    rng = np.random.default_rng(0)
    covariance = [[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 1.0]]
    s = rng.multivariate_normal([4.0, 4.0, 4.0], covariance, 20_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    probes = attributes(
        auroc=np.full((3, 3), 0.5),
        probe_weights=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]),
        probe_low=np.full(3, -9.0),
    )
    free = probes.directions([0], statistics)[:, 0]
    holding, back = probes.directions([0], statistics, held=[1]).T
    weights = probes.probe_weights / statistics.spread
    assert weights[0] @ free == pytest.approx(weights[0] @ holding) == pytest.approx(1.0)
    assert weights[1] @ free == pytest.approx(0.6, abs=0.02)  # the correlation of the two entries
    assert 0.0 < weights[1] @ holding < 0.5
    assert weights[0] @ back == pytest.approx(0.0, abs=1e-9)
    assert 0.0 < weights[1] @ back < 1.0
    given = np.full((1, 3), 4.0, np.float32)
    before = probes.probe_logits(given, statistics)[0]
    reached = [
        probes.probe_logits(probes.moved(given, 0, np.array([2.0]), statistics, held=held), statistics)[0]
        for held in ((), (1,))
    ]
    assert [logits[0] for logits in reached] == pytest.approx([2.0, 2.0], abs=0.01)
    assert abs(reached[1][1] - before[1]) < 0.1 < abs(reached[0][1] - before[1])


def test_two_attributes_that_are_moved_leave_each_other() -> None:
    rng = np.random.default_rng(1)
    s = rng.multivariate_normal([4.0, 4.0], [[1.0, 0.8], [0.8, 1.0]], 5_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    weights = attributes().probe_weights[:2] / statistics.spread
    np.testing.assert_allclose(weights @ attributes().directions([0, 1], statistics), np.eye(2), atol=1e-9)


def test_what_holds_an_attribute_raises_it_by_half_at_most() -> None:
    rng = np.random.default_rng(1)
    s = rng.multivariate_normal([4.0, 4.0], [[1.0, 0.8], [0.8, 1.0]], 5_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    weights = attributes().probe_weights / statistics.spread
    assert weights[0] @ attributes().directions([], statistics, held=[0])[:, 0] == pytest.approx(0.5)
    together = np.diag(weights @ attributes().directions([], statistics, held=[0, 1, 2]))
    assert ((together > 0.0) & (together < 0.5)).all()


def test_two_attributes_that_say_the_same_share_one_change() -> None:
    rng = np.random.default_rng(1)
    s = rng.multivariate_normal([4.0, 4.0], [[1.0, 0.8], [0.8, 1.0]], 5_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    twins = attributes(probe_weights=np.array([[1.0, 0.3], [1.0 + 1e-7, 0.3], [0.0, 1.0]]))
    alone = twins.directions([0], statistics)[:, 0]
    for direction in twins.directions([0, 1], statistics).T:
        np.testing.assert_allclose(direction, alone / 2.0, rtol=1e-5)
    moved = twins.moved(s[:1], 0, np.array([1.0]), statistics, held=[1])
    assert twins.probe_logits(moved, statistics)[0, 0] == pytest.approx(1.0, abs=0.01)  # the edit comes first


def test_a_probe_that_says_nothing_has_no_direction() -> None:
    statistics = ActivationStatistics.measure(np.array([[1.0, 10.0], [3.0, 30.0]], np.float32))
    silent = attributes(probe_weights=np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert not silent.directions([0], statistics).any()
    assert not silent.directions([1], statistics, held=[0])[:, 1].any()


def test_others_take_over_what_an_activation_at_its_bound_leaves() -> None:
    rng = np.random.default_rng(0)
    s = rng.multivariate_normal([3.0, 5.0], [[1.0, 0.7], [0.7, 1.0]], 20_000).astype(np.float32)
    statistics = ActivationStatistics.measure(s)
    given = np.array([[statistics.high[0] - 0.01, 4.0], [9.0, 4.0]], np.float32)
    moved = attributes().moved(given, 2, np.full(2, 6.0), statistics)
    np.testing.assert_allclose(attributes().probe_logits(moved, statistics)[:, 2], 6.0, atol=0.01)
    np.testing.assert_allclose(moved[0, 0], statistics.high[0])
    assert moved[0, 1] <= statistics.high[1]
    beyond = attributes().moved(given, 2, np.full(2, 99.0), statistics)
    np.testing.assert_allclose(beyond[:, 0], [statistics.high[0], 9.0])  # no farther out than it was
    np.testing.assert_allclose(beyond[:, 1], statistics.high[1])


def test_json_keeps_attributes() -> None:
    again = Attributes.from_dict(json.loads(json.dumps(attributes().to_dict())))
    assert again.names == attributes().names
    for name in ("auroc", "probe_weights", "probe_biases", "probe_auroc", "probe_low", "probe_high"):
        np.testing.assert_array_equal(getattr(again, name), getattr(attributes(), name))


def damaged(**changes: Any) -> dict[str, Any]:
    return attributes().to_dict() | changes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (damaged(names=["hat", "hat", "beard"]), "need distinct names"),
        (damaged(names=[]), "need distinct names"),
        (damaged(names=["hat", "smile"]), r"auroc has shape \(2, 3\), not \(2, 2\)"),
        (damaged(names=["hat", "smile", 3]), "names must be a list of strings"),
        (damaged(names="hat"), "names must be a list of strings"),
        (damaged(probe_weights=[[1.0, 0.0]]), "probe_weights has shape"),
        (damaged(probe_biases=[0.0, float("nan"), 0.0]), "probe_biases has values that are not finite"),
        (damaged(auroc=[[0.5, 0.5, 1.5], [0.5, 0.5, 0.5]]), "auroc has values outside 0 … 1"),
        (damaged(auroc=0.5), "malformed"),
        (damaged(auroc="many"), "malformed"),
        (damaged(extra=[1.0]), "malformed"),
        ({"names": ["hat"]}, "malformed"),
        ({}, "attributes lack 'names'"),
        ([1, 2], "malformed"),
    ],
)
def test_malformed_attributes_are_refused(values: Any, message: str) -> None:
    with pytest.raises(AttributesError, match=message):
        Attributes.from_dict(values)
