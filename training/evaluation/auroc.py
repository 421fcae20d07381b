"""AUROC: how surely a single number tells images that have an attribute from images that do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from training.data import UNKNOWN

Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]


def auroc_matrix(scores: npt.NDArray[np.floating], attributes: Int8) -> Float64:
    """scores (N, m), attributes (N, K) of 1, 0 or UNKNOWN -> AUROC of every score for each attribute (K, m).

    The share of (with, without) pairs of images that the score puts in the right order, ties counting
    one half, from the ranks (Mann and Whitney 1947). Unknown images are left out; NaN where an attribute
    has not both values.
    """
    known_of_all = attributes != UNKNOWN  # (N, K)
    complete = known_of_all.all(axis=0)
    ranks = rankdata(scores, axis=0) if complete.any() else np.zeros(scores.shape)  # (N, m)
    result = np.full((attributes.shape[1], scores.shape[1]), np.nan)
    for k, known in enumerate(known_of_all.T):
        ranks_k = ranks if complete[k] else rankdata(scores[known], axis=0)
        positive = attributes[known, k] == 1
        num_positive, num_negative = int(positive.sum()), int((~positive).sum())
        if num_positive and num_negative:
            above = ranks_k[positive].sum(axis=0) - num_positive * (num_positive + 1) / 2.0
            result[k] = above / (num_positive * num_negative)
    return result
