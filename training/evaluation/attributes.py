"""What the labels of a data set say of s: which attributes single activations tell, and linear probes."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from model.attributes import Attributes
from model.statistics import ActivationStatistics
from training.data import UNKNOWN, Dataset
from training.evaluation.auroc import auroc_matrix
from training.evaluation.tad import one_vs_rest

log = logging.getLogger(__name__)

PROBE_LEVELS = (0.01, 0.99)

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


def measure_attributes(
    train: Dataset,
    test: Dataset,
    train_activations: Float32,
    test_activations: Float32,
    statistics: ActivationStatistics,
) -> Attributes | None:
    """AUROC of every activation for every attribute on the test split, and probes fitted to the training one.

    s is (N, m) for each split; the attributes are the data set's, or its classes one against the rest. A
    probe is a logistic regression (L2, C = 1) on s standardised by `statistics`. Images of which an
    attribute is not known are left out of it, and so are attributes that all or no known images of a split
    have. None where nothing is left.
    """
    names, train_values = _labelled(train)
    _, test_values = _labelled(test)
    measured = [
        k for k in range(len(names)) if _has_both(train_values[:, k]) and _has_both(test_values[:, k])
    ]
    if len(measured) < len(names):
        left_out = [name for k, name in enumerate(names) if k not in measured]
        log.info("attributes that some split has not both with and without: %s", ", ".join(left_out))
    if not measured:
        return None
    weights, biases, aurocs, quantiles = [], [], [], []
    z_train, z_test = statistics.standardised(train_activations), statistics.standardised(test_activations)
    for k in measured:
        in_train, in_test = train_values[:, k] != UNKNOWN, test_values[:, k] != UNKNOWN
        probe = LogisticRegression(max_iter=1000).fit(z_train[in_train], train_values[in_train, k])
        weights.append(probe.coef_[0])
        biases.append(probe.intercept_[0])
        logits = probe.decision_function(z_test[in_test])
        aurocs.append(roc_auc_score(test_values[in_test, k], logits))
        quantiles.append(np.quantile(probe.decision_function(z_train), PROBE_LEVELS))
    return Attributes(
        names=tuple(names[k] for k in measured),
        auroc=auroc_matrix(test_activations, test_values[:, measured]).T,
        probe_weights=np.array(weights),
        probe_biases=np.array(biases),
        probe_auroc=np.array(aurocs),
        probe_low=np.array(quantiles)[:, 0],
        probe_high=np.array(quantiles)[:, 1],
    )


def _labelled(dataset: Dataset) -> tuple[tuple[str, ...], Int8]:
    """Names (K) and values (N, K) of 1, 0 or UNKNOWN."""
    if dataset.attribute_names:
        return dataset.attribute_names, dataset.attributes
    return dataset.class_names, one_vs_rest(dataset.labels, len(dataset.class_names))


def _has_both(values: Int8) -> bool:
    return bool((values == 1).any() and (values == 0).any())
