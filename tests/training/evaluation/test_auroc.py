from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.data import UNKNOWN
from training.evaluation.auroc import auroc_matrix

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_levels", [2, 5, 1000])  # many ties, some, hardly any
def test_auroc_is_sklearns_with_ties_and_unknown_entries(num_levels: int) -> None:
    scores = RNG.integers(0, num_levels, (200, 4)).astype(np.float32)
    attributes = RNG.integers(-1, 2, (200, 3)).astype(np.int8)
    attributes[:, 2] = RNG.integers(0, 2, 200)  # one without unknown entries
    found = auroc_matrix(scores, attributes)
    for k in range(3):
        known = attributes[:, k] != UNKNOWN
        for j in range(4):
            expected = roc_auc_score(attributes[known, k], scores[known, j])
            assert found[k, j] == pytest.approx(expected), (k, j)


def test_unknown_images_change_nothing() -> None:
    scores, attributes = RNG.standard_normal((50, 2)), RNG.integers(0, 2, (50, 1)).astype(np.int8)
    more_scores = np.concatenate([scores, 100 * np.ones((20, 2))])
    more = np.concatenate([attributes, np.full((20, 1), UNKNOWN, np.int8)])
    np.testing.assert_allclose(auroc_matrix(more_scores, more), auroc_matrix(scores, attributes))


def test_an_attribute_with_one_value_has_no_auroc() -> None:
    attributes = np.array([[1, UNKNOWN, 0], [1, UNKNOWN, 1]], np.int8)
    found = auroc_matrix(np.array([[0.0], [1.0]]), attributes)
    np.testing.assert_array_equal(found, [[np.nan], [np.nan], [1.0]])
