"""Fréchet distance between two sets of features, each summed up as a Gaussian."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def feature_distance(features_1: npt.NDArray[np.floating], features_2: npt.NDArray[np.floating]) -> float:
    """Fréchet distance between the Gaussians fitted to features (N, D) and (M, D); N, M >= 2.

    It falls as more samples are drawn: compare distances of equally many samples only.
    """
    first, second = features_1.astype(np.float64), features_2.astype(np.float64)
    return frechet_distance(
        first.mean(axis=0),
        np.atleast_2d(np.cov(first, rowvar=False)),
        second.mean(axis=0),
        np.atleast_2d(np.cov(second, rowvar=False)),
    )


def frechet_distance(mean_1: Float64, covariance_1: Float64, mean_2: Float64, covariance_2: Float64) -> float:
    """|μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½) (Dowson and Landau 1982; Heusel et al. 2017, eq. 6).

    means (D,), covariances (D, D), symmetric and possibly singular. The trace of the root is taken
    from the eigenvalues of the symmetric C₁^½ C₂ C₁^½, which are those of C₁ C₂: no complex numbers
    appear, and rounding below zero is clipped.
    """
    eigenvalues, vectors = np.linalg.eigh(covariance_1)
    root_1 = (vectors * np.sqrt(np.clip(eigenvalues, 0.0, None))) @ vectors.T  # C₁^½, (D, D)
    product = root_1 @ covariance_2 @ root_1
    squares = np.linalg.eigvalsh((product + product.T) / 2.0)
    root_trace = np.sqrt(np.clip(squares, 0.0, None)).sum()
    distance = (
        np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2.0 * root_trace
    )
    return max(float(distance), 0.0)
