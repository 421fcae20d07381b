"""A linear probe: how much of the labels the activations say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from training.data import UNKNOWN

FOLDS = 5

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class ProbeAccuracy:
    """Share of right answers: mean over folds of the training split, and on the held-out test split."""

    cross_validated: float
    test: float


@dataclass(frozen=True)
class ProbeAuroc:
    """AUROC, mean over `num_attributes`: cross-validated on the training split, and on the test split."""

    cross_validated: float
    test: float
    num_attributes: int


def linear_probe(
    train_activations: Float32,
    train_labels: Int64,
    test_activations: Float32,
    test_labels: Int64,
    *,
    folds: int = FOLDS,
) -> ProbeAccuracy:
    """Multinomial logistic regression on standardised activations (N, m); folds < 2 skips those."""
    classifier = _classifier()
    cross_validated = float("nan")
    if folds >= 2:
        scores = cross_val_score(classifier, train_activations, train_labels, cv=folds)
        cross_validated = float(scores.mean())
    classifier.fit(train_activations, train_labels)
    return ProbeAccuracy(cross_validated, float(classifier.score(test_activations, test_labels)))


def attribute_probe(
    train_activations: Float32,
    train_attributes: Int8,
    test_activations: Float32,
    test_attributes: Int8,
    *,
    folds: int = FOLDS,
) -> ProbeAuroc:
    """Logistic regression for each attribute (N, K) of 1, 0 or UNKNOWN on standardised activations (N, m).

    Unknown entries are left out. Left out as well are attributes that fewer than `folds` training images
    have or lack, or of which the test split has one value only; the means are NaN where none is left.
    Fewer than 2 folds skip those.
    """
    cross_validated, test = [], []
    for train_values, test_values in zip(train_attributes.T, test_attributes.T, strict=True):
        in_train, in_test = train_values != UNKNOWN, test_values != UNKNOWN
        has, known = int((train_values == 1).sum()), int(in_train.sum())
        if min(has, known - has) < max(folds, 1) or len(np.unique(test_values[in_test])) < 2:
            continue
        classifier = _classifier()
        s, values = train_activations[in_train], train_values[in_train]
        if folds >= 2:
            scores = cross_val_score(classifier, s, values, cv=folds, scoring="roc_auc")
            cross_validated.append(float(scores.mean()))
        logits = classifier.fit(s, values).decision_function(test_activations[in_test])
        test.append(float(roc_auc_score(test_values[in_test], logits)))
    if not test:
        return ProbeAuroc(float("nan"), float("nan"), 0)
    mean = float(np.mean(cross_validated)) if cross_validated else float("nan")
    return ProbeAuroc(mean, float(np.mean(test)), len(test))


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
