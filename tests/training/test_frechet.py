from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from training.frechet import feature_distance, frechet_distance

RNG = np.random.default_rng(0)


def covariance(width: int, rank: int) -> np.ndarray:
    factor = RNG.standard_normal((width, rank))
    return np.asarray(factor @ factor.T / rank)


def test_shifted_gaussians_are_the_squared_shift_apart() -> None:
    c, mean = covariance(5, 10), RNG.standard_normal(5)
    assert frechet_distance(mean, c, mean + np.array([3.0, 4.0, 0.0, 0.0, 0.0]), c) == pytest.approx(25.0)


def test_independent_coordinates_give_the_closed_form() -> None:
    std_1, std_2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.1])
    found = frechet_distance(np.zeros(3), np.diag(std_1**2), np.ones(3), np.diag(std_2**2))
    assert found == pytest.approx(3.0 + np.square(std_1 - std_2).sum())


def test_the_root_is_scipys() -> None:
    c_1, c_2 = covariance(8, 20), covariance(8, 20)
    expected = np.trace(c_1 + c_2 - 2.0 * scipy.linalg.sqrtm(c_1 @ c_2).real)
    assert frechet_distance(np.zeros(8), c_1, np.zeros(8), c_2) == pytest.approx(expected)


def test_singular_covariances_are_no_trouble() -> None:
    c_1, c_2 = covariance(10, 3), covariance(10, 2)
    distance = frechet_distance(np.zeros(10), c_1, np.zeros(10), c_2)
    assert 0.0 < distance < np.trace(c_1) + np.trace(c_2) + 1e-9
    assert frechet_distance(np.zeros(10), c_1, np.zeros(10), c_1) == pytest.approx(0.0, abs=1e-6)
    still = np.zeros((10, 10))
    assert frechet_distance(np.zeros(10), c_1, np.zeros(10), still) == pytest.approx(np.trace(c_1))


def test_distance_is_symmetric() -> None:
    one, other = RNG.standard_normal((40, 6)), 2 + RNG.standard_normal((50, 6))
    assert feature_distance(one, other) == pytest.approx(feature_distance(other, one))


def test_samples_of_one_distribution_come_nearer_the_more_there_are() -> None:
    def distance(count: int) -> float:
        return feature_distance(RNG.standard_normal((count, 8)), RNG.standard_normal((count, 8)))

    assert distance(20) > distance(200) > distance(5000) > 0.0


def test_features_of_width_one_are_welcome() -> None:
    one = np.array([[-1.0], [1.0]])
    assert feature_distance(one, one + 2.0) == pytest.approx(4.0)
