from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from training.data import UNKNOWN
from training.probe import attribute_probe, linear_probe


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


def attribute_split(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """s whose first two columns are noisy copies of two attributes, and a third attribute apart from s."""
    rng = np.random.default_rng(seed)
    attributes = rng.integers(0, 2, (300, 3)).astype(np.int8)
    s = np.zeros((300, 3))
    s[:, :2] = attributes[:, :2] + 0.1 * rng.standard_normal((300, 2))
    s[:, 2] = 1000.0 * rng.standard_normal(300)
    return s.astype(np.float32), attributes


def test_attributes_that_s_tells_have_an_auroc_near_one_and_others_near_a_half() -> None:
    (train_s, train), (test_s, test) = attribute_split(0), attribute_split(1)
    told = attribute_probe(train_s, train[:, :2], test_s, test[:, :2])
    assert told.num_attributes == 2
    assert min(told.test, told.cross_validated) > 0.99
    apart = attribute_probe(train_s, train[:, 2:], test_s, test[:, 2:])
    assert apart.test == pytest.approx(0.5, abs=0.1)
    assert apart.cross_validated == pytest.approx(0.5, abs=0.1)
    together = attribute_probe(train_s, train, test_s, test)
    assert together.test == pytest.approx((2 * told.test + apart.test) / 3)
    assert together.cross_validated == pytest.approx((2 * told.cross_validated + apart.cross_validated) / 3)


def test_unknown_entries_are_left_out_of_both_splits() -> None:
    (train_s, train), (test_s, test) = attribute_split(0), attribute_split(1)
    expected = attribute_probe(train_s[:200], train[:200], test_s[:200], test[:200])
    train[200:], test[200:] = UNKNOWN, UNKNOWN
    assert attribute_probe(train_s, train, test_s, test) == expected


@pytest.mark.parametrize("of_train", [True, False])
def test_attributes_with_too_few_of_one_value_are_not_counted(of_train: bool) -> None:
    (train_s, train), (test_s, test) = attribute_split(0), attribute_split(1)
    expected = attribute_probe(train_s, train[:, 1:], test_s, test[:, 1:])
    if of_train:
        train[:, 0] = 0
        train[:4, 0] = 1  # fewer than folds
    else:
        test[:, 0] = 1
    assert attribute_probe(train_s, train, test_s, test) == expected
    none = attribute_probe(train_s, train[:, :1], test_s, test[:, :1])
    assert none.num_attributes == 0
    assert math.isnan(none.test)
