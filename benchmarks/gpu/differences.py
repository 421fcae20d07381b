"""How far two computations of the same are apart."""

from __future__ import annotations

import numpy as np

from service.engine.runner import Float32, StepOutputs

STEP_TOLERANCE = {"fp32": 1e-4, "bf16": 0.05}
"""By the precision of the network: bf16 keeps 8 bits (1 in 256), and a value passes a dozen layers."""


def row_difference(found: Float32, expected: Float32) -> float:
    """Of any row (B, ...), relative to the row's largest expected value where that exceeds 1; NaN where a
    value is no number."""
    difference = np.abs(found - expected).reshape(len(expected), -1).max(axis=1)
    scale = np.abs(expected).reshape(len(expected), -1).max(axis=1)
    return float(np.max(difference / np.maximum(1.0, scale)))


def step_difference(found: StepOutputs, expected: StepOutputs) -> float:
    """The same over x_next, memory_next and x_0_hat."""
    return float(np.max([row_difference(vars(found)[name], vars(expected)[name]) for name in vars(found)]))
