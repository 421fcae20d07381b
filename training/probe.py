"""A linear probe: how much of the labels the activations say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ProbeAccuracy:
    """Share of right answers: mean over folds of the training split, and on the held-out test split."""

    cross_validated: float
    test: float


def linear_probe(
    train_activations: Float32,
    train_labels: Int64,
    test_activations: Float32,
    test_labels: Int64,
    *,
    folds: int = 5,
) -> ProbeAccuracy:
    """Multinomial logistic regression on standardised activations (N, m); folds < 2 skips those."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    cross_validated = float("nan")
    if folds >= 2:
        scores = cross_val_score(classifier, train_activations, train_labels, cv=folds)
        cross_validated = float(scores.mean())
    classifier.fit(train_activations, train_labels)
    return ProbeAccuracy(cross_validated, float(classifier.score(test_activations, test_labels)))
