"""When prototypes appear, on curves whose answer is plain."""

from __future__ import annotations

import numpy as np

from model.emergence import LEAST_CHANGE, NEVER, Emergence, emergence_steps, emergence_timesteps


def curves(*rows: list[float]) -> np.ndarray:
    """Activations (k, m) from one list per prototype."""
    return np.array(rows, np.float32).T


def test_first_step_beyond_half_of_the_change_counts() -> None:
    assert emergence_steps(curves([0.0, 0.4, 0.5, 0.9, 1.0])).tolist() == [2]


def test_prototype_that_falls_back_emerges_only_when_it_stays() -> None:
    assert emergence_steps(curves([0.0, 0.9, 0.2, 0.8, 1.0])).tolist() == [3]


def test_fading_prototype_emerges_like_a_growing_one() -> None:
    assert emergence_steps(curves([2.0, 1.4, 0.9, 0.3, 0.0])).tolist() == [2]


def test_overshoot_counts_as_beyond() -> None:
    assert emergence_steps(curves([0.0, 3.0, 0.6, 1.0])).tolist() == [1]


def test_prototype_that_hardly_changes_never_emerges() -> None:
    almost = LEAST_CHANGE * 0.9
    assert emergence_steps(curves([1.0, 5.0, 1.0 + almost], [0.0, 0.0, 0.0])).tolist() == [NEVER, NEVER]


def test_change_at_the_last_step_emerges_there() -> None:
    assert emergence_steps(curves([0.0, 0.0, 0.0, 1.0])).tolist() == [3]


def test_several_images_at_once_and_timesteps_instead_of_steps() -> None:
    stacked = np.stack([curves([0.0, 1.0, 1.0], [1.0, 1.0, 1.0]), curves([0.0, 0.0, 1.0], [0.0, 1.0, 2.0])])
    timesteps = np.array([999, 500, 20])
    assert emergence_timesteps(stacked, timesteps).tolist() == [[500, NEVER], [20, 500]]


def test_summary_counts_only_images_in_which_a_prototype_emerges() -> None:
    over = Emergence.over_images(np.array([[100, NEVER, 7], [300, NEVER, NEVER], [500, NEVER, NEVER]]))
    np.testing.assert_array_equal(over.median, [300.0, np.nan, 7.0])
    np.testing.assert_array_equal(over.low, [200.0, np.nan, 7.0])
    np.testing.assert_array_equal(over.high, [400.0, np.nan, 7.0])
    np.testing.assert_array_equal(over.spread, [200.0, np.nan, 0.0])
    assert over.count.tolist() == [3, 0, 1]
