"""From one noise to another so that what lies between is as likely as either."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LEAST_SINE = 1e-4
"""Of the angle between two noises, below which they lie on one line, and so does the way between them."""


def slerp(start: Float32, end: Float32, weights: npt.ArrayLike) -> Float32:
    """Spherical interpolation of two arrays of one shape (...), at weights (n,) of `end` -> (n, ...).

    x(w) = sin((1 - w) θ) / sin θ · start + sin(w θ) / sin θ · end, θ the angle between them (Shoemake 1985;
    for x_T: Song et al. 2021, DDIM, section 5.3): the length of Gaussian noise is kept, which a straight way
    would shorten. Weights 0 and 1 give start and end themselves.
    """
    w = np.asarray(weights, dtype=np.float64)
    a, b = start.astype(np.float64).ravel(), end.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = float(np.arccos(np.clip(a @ b / lengths, -1.0, 1.0))) if lengths > 0.0 else 0.0
    if np.sin(angle) < LEAST_SINE:
        shares = 1.0 - w, w
    else:
        shares = np.sin((1.0 - w) * angle) / np.sin(angle), np.sin(w * angle) / np.sin(angle)
    between = shares[0][:, None] * a + shares[1][:, None] * b
    return np.asarray(between.reshape(len(w), *start.shape), dtype=np.float32)
