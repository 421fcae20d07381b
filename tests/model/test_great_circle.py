"""The way between two noises."""

from __future__ import annotations

import numpy as np
import pytest

from model.great_circle import slerp

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.standard_normal((2, 3, 16, 16)).astype(np.float32)
WEIGHTS = np.linspace(0.0, 1.0, 9)


def test_ends_are_the_noises_themselves() -> None:
    between = slerp(FIRST, SECOND, WEIGHTS)
    assert between.shape == (9, 3, 16, 16)
    assert np.array_equal(between[0], FIRST)
    assert np.array_equal(between[-1], SECOND)


def test_the_length_of_noise_is_kept_where_a_straight_way_shortens_it() -> None:
    lengths = np.linalg.norm(slerp(FIRST, SECOND, WEIGHTS).reshape(9, -1), axis=1)
    shortest = min(lengths[0], lengths[-1])
    assert lengths.min() > 0.98 * shortest
    assert np.linalg.norm((FIRST + SECOND) / 2) < 0.8 * shortest


def test_angles_grow_evenly() -> None:
    first, second = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    between = slerp(first, second, WEIGHTS)
    assert np.allclose(np.arctan2(between[:, 1], between[:, 0]), WEIGHTS * np.pi / 2, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_noises_on_one_line_are_joined_by_it(factor: float) -> None:
    second = (factor * FIRST).astype(np.float32)
    between = slerp(FIRST, second, [0.0, 0.25, 1.0])
    assert np.allclose(between[1], 0.75 * FIRST + 0.25 * second, atol=1e-5)
    assert np.array_equal(between[2], second)
