"""Effects of interventions, on simulated differences whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from model.couplings import Effects, familywise_p, measure_effects, student_quantile

Float64 = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Float64]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape),
    "mostly nothing": lambda rng, shape: (rng.random(shape) < 0.3) * rng.standard_normal(shape),
}


def on_all_others(differences: Float64) -> Effects:
    """Of J interventions on J outcomes, of which number i is its own."""
    own = np.stack([differences[i, :, i] for i in range(len(differences))])
    return measure_effects(differences, own, ~np.eye(len(differences), dtype=bool), seed=0)


def centred(values: Float64) -> Float64:
    return np.asarray(values - values.mean())


@pytest.mark.parametrize("num_samples", [6, 8, 16, 32])
def test_intervals_hold_the_true_mean_as_often_as_they_say(num_samples: int) -> None:
    true_mean = 0.7
    rng = np.random.default_rng(num_samples)
    differences = true_mean + rng.standard_normal((1, num_samples, 3000))
    effect = measure_effects(differences, differences[:, :, 0], np.zeros((1, 3000), bool), seed=1).effect
    coverage = ((effect.low <= true_mean) & (true_mean <= effect.high)).mean()
    assert 0.92 <= coverage <= 0.97
    plain = np.quantile(
        rng.multinomial(num_samples, np.full(num_samples, 1 / num_samples), 2000)
        @ differences[0]
        / num_samples,
        [0.025, 0.975],
        axis=0,
    )
    assert coverage >= ((plain[0] <= true_mean) & (true_mean <= plain[1])).mean()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_one_family_in_twenty_without_effects_establishes_one(name: str) -> None:
    """300 worlds of 40 dependent hypotheses; the limits are three deviations of a binomial share."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        common = DISTRIBUTIONS[name](rng, (12, 1))
        differences = DISTRIBUTIONS[name](rng, (12, 40)) + common
        alarms += bool((familywise_p(differences, rng) <= 0.05).any())
    assert alarms / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_test_is_exact_where_one_effect_is_tested() -> None:
    """Few samples have few signs, so that all of them can be looked at."""
    differences = np.array([[0.9], [0.4], [-0.3], [1.2], [0.1], [0.6]])
    signs = np.array(list(product((-1.0, 1.0), repeat=6)))
    exact = (np.abs(signs @ differences) >= np.abs(differences.sum()) - 1e-9).mean()
    p = familywise_p(differences, np.random.default_rng(0))
    np.testing.assert_allclose(p, exact, atol=4 * np.sqrt(exact * (1 - exact) / 9999))


def test_each_p_is_that_of_the_largest_among_those_no_larger() -> None:
    """Stepping down: the strongest effect is held against all, the weakest against itself alone."""
    rng = np.random.default_rng(4)
    differences = rng.standard_normal((14, 3)) + np.array([3.0, 0.5, 0.0])
    p = familywise_p(differences, np.random.default_rng(0))
    strength = np.abs(differences.sum(axis=0)) / np.sqrt((differences**2).sum(axis=0))
    order = np.argsort(-strength)
    assert (np.diff(p[order]) >= 0.0).all()
    alone = familywise_p(differences[:, order[-1:]], np.random.default_rng(1))
    assert p[order[-1]] == pytest.approx(max(alone[0], p[order[1]]), abs=0.02)


def test_planted_coupling_is_established_and_ranks_first_and_alone() -> None:
    rng = np.random.default_rng(5)
    differences = 0.3 * rng.standard_normal((6, 16, 6))
    for i in range(6):
        differences[i, :, i] += 3.0
    differences[1, :, 4] -= 1.5
    effects = on_all_others(differences)
    assert np.argwhere(effects.is_established).tolist() == [[1, 4]]
    assert effects.ranked()[0] == (1, 4)
    assert len(effects.ranked()) == 30
    assert effects.leakage.value[1, 4] == pytest.approx(-0.5, abs=0.1)
    assert effects.leakage.low[1, 4] < -0.5 < effects.leakage.high[1, 4]
    assert effects.effect.high[1, 4] < 0.0
    assert np.isnan(np.diag(effects.p)).all()


def test_least_effect_ranks_and_not_the_luckiest_estimate() -> None:
    rng = np.random.default_rng(6)
    differences = 0.05 * rng.standard_normal((3, 24, 3))
    for i in range(3):
        differences[i, :, i] += 3.0
    differences[0, :, 1] += 1.0
    differences[0, :, 2] = 1.2 + 2.0 * centred(rng.standard_normal(24))
    effects = on_all_others(differences)
    assert abs(effects.effect.value[0, 2]) > abs(effects.effect.value[0, 1])
    assert effects.ranked()[0] == (0, 1)


def test_leakage_is_unknown_where_the_intervention_may_do_nothing() -> None:
    rng = np.random.default_rng(7)
    differences = rng.standard_normal((2, 12, 2))
    differences[0, :, 0] = centred(differences[0, :, 0])
    differences[1, :, 1] += 5.0
    effects = on_all_others(differences)
    for part in vars(effects.leakage).values():
        assert np.isnan(part[0]).all()
        assert np.isfinite(part[1]).all()


def test_where_nothing_changes_nothing_is_established() -> None:
    effects = on_all_others(np.zeros((3, 8, 3)))
    assert not effects.is_established.any()
    np.testing.assert_array_equal(effects.p[~np.eye(3, dtype=bool)], 1.0)
    np.testing.assert_array_equal(effects.effect.low, 0.0)
    np.testing.assert_array_equal(effects.least, 0.0)


def test_the_same_change_in_every_sample_is_established() -> None:
    effects = on_all_others(np.ones((2, 12, 2)))
    assert effects.is_established.tolist() == [[False, True], [True, False]]
    np.testing.assert_allclose(effects.effect.high, 1.0)


def test_one_outcome_alone_has_no_others_to_couple_with() -> None:
    effects = on_all_others(np.ones((1, 6, 1)))
    assert effects.ranked() == []
    assert not effects.is_established.any()


def test_a_seed_gives_the_same_numbers() -> None:
    differences = np.random.default_rng(8).standard_normal((2, 9, 2))
    one, other = on_all_others(differences), on_all_others(differences)
    np.testing.assert_array_equal(one.p, other.p)
    np.testing.assert_array_equal(one.effect.low, other.effect.low)


@pytest.mark.parametrize("degrees_of_freedom", [5, 15, 100])
def test_student_quantiles_are_scipys(degrees_of_freedom: int) -> None:
    for level in (0.5, 0.9, 0.975, 0.9995):
        expected = stats.t.ppf(level, degrees_of_freedom)
        assert student_quantile(level, degrees_of_freedom) == pytest.approx(expected, abs=1e-4)


def test_what_proceed_raises_ends_the_work_at_any_time() -> None:
    class EndedError(Exception): ...

    differences = np.random.default_rng(0).standard_normal((3, 8, 3))

    def measure(*, allowed: float) -> int:
        """How often `proceed` was called, with an end at the call after so many."""
        num_calls = 0

        def proceed() -> None:
            nonlocal num_calls
            num_calls += 1
            if num_calls > allowed:
                raise EndedError

        measure_effects(differences, differences[:, :, 0], np.ones((3, 3), bool), seed=0, proceed=proceed)
        return num_calls

    num_calls = measure(allowed=np.inf)
    assert num_calls > len(differences)  # for each intervention, and then in the tests
    for allowed in range(num_calls):
        with pytest.raises(EndedError):
            measure(allowed=allowed)


@pytest.mark.parametrize(
    ("mean", "asked", "beyond"),
    [(1.0, 2.0, 0.0), (2.0, 1.0, 1.0), (-1.0, 2.0, -1.0), (-2.0, -1.0, -1.0), (1.0, 0.0, 1.0)],
)
def test_only_what_goes_beyond_what_was_asked_counts(mean: float, asked: float, beyond: float) -> None:
    noise = centred(np.random.default_rng(0).normal(0, 0.1, 16))
    differences = (mean + noise)[None, :, None]
    own = np.full((1, 16), 4.0)
    effects = measure_effects(
        differences, own, np.ones((1, 1), bool), seed=0, asked=np.full_like(differences, asked)
    )
    assert effects.effect.value[0, 0] == pytest.approx(mean)
    assert effects.beyond.value[0, 0] == pytest.approx(beyond)
    assert effects.leakage.value[0, 0] == pytest.approx(beyond / 4.0)
    assert effects.is_established[0, 0] == (beyond != 0.0)
    assert beyond != 0.0 or effects.p[0, 0] == 1.0


def test_what_does_not_go_beyond_the_request_ranks_last_and_by_its_effect() -> None:
    rng = np.random.default_rng(0)
    means, asked = np.array([0.3, 0.9, 2.0, 0.6]), np.array([1.0, 1.0, 1.0, 3.0])
    differences = (means + np.stack([centred(rng.normal(0, 0.1, 12)) for _ in means], axis=1))[None]
    found = measure_effects(
        differences,
        np.full((1, 12), 4.0),
        np.ones((1, 4), bool),
        seed=0,
        asked=np.broadcast_to(asked, differences.shape),
    )
    assert found.ranked() == [(0, 2), (0, 1), (0, 3), (0, 0)]


def test_a_model_that_does_just_what_is_asked_seldom_goes_beyond() -> None:
    """At most 1 of 20 families of 20 names one; 9 of these 60 would be seen with a probability below 0.5%."""
    rng = np.random.default_rng(0)
    asked = np.broadcast_to(rng.normal(0, 2, 20), (1, 12, 20))
    alarms = 0
    for i in range(60):
        differences = asked + rng.standard_normal((1, 12, 20))
        found = measure_effects(
            differences, differences[:, :, 0], np.ones((1, 20), bool), seed=i, asked=asked
        )
        alarms += bool(found.is_established.any())
    assert alarms <= 8
