from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from training.probe import linear_probe


def split(seed: int, count: int = 300) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Three classes around three corners; the second column is a thousand times wider than the first."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    s = (corners[labels] + 0.1 * rng.standard_normal((count, 2))) * [1.0, 1000.0]
    return s.astype(np.float32), labels.astype(np.int64)


def test_classes_that_lie_apart_are_told_apart() -> None:
    accuracy = linear_probe(*split(0), *split(1))
    assert accuracy.test > 0.98
    assert accuracy.cross_validated > 0.98


def test_labels_that_s_says_nothing_about_are_guessed() -> None:
    s, _ = split(0)
    _, labels = split(5)
    accuracy = linear_probe(s, labels, *split(1))
    assert accuracy.test < 0.6
    assert accuracy.cross_validated == pytest.approx(1 / 3, abs=0.12)


def test_fewer_than_two_folds_skip_the_cross_validation() -> None:
    assert math.isnan(linear_probe(*split(0), *split(1), folds=0).cross_validated)
