from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.encoder import similarity
from training.evaluation.prototypes import distance_at, prototype_figures

RNG = np.random.default_rng(0)


def figures(
    config: ModelConfig, *, train_s: np.ndarray, cells: np.ndarray, test_s: np.ndarray
) -> dict[str, float]:
    config = dataclasses.replace(
        config, encoder=dataclasses.replace(config.encoder, num_prototypes=train_s.shape[1])
    )
    return prototype_figures(config, train_s.astype(np.float32), cells, test_s.astype(np.float32))


def apart(m: int) -> dict[str, np.ndarray]:
    """m prototypes with exemplars in images of their own and activations that are independent."""
    train_s = RNG.uniform(0.0, 1.0, (20, m))
    train_s[np.arange(m), np.arange(m)] = 2.0
    return {
        "train_s": train_s,
        "cells": np.zeros((20, m), np.int64),
        "test_s": RNG.standard_normal((500, m)),
    }


def test_prototypes_that_differ_are_no_duplicates(tiny_config: ModelConfig) -> None:
    found = figures(tiny_config, **apart(5))
    assert found["num_duplicates"] == 0
    assert found["num_distinct_exemplars"] == found["num_prototypes"] == 5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_prototypes_that_rise_and_fall_together_are_duplicates(tiny_config: ModelConfig, sign: float) -> None:
    data = apart(5)
    data["test_s"][:, 4] = sign * data["test_s"][:, 1] + 0.1 * data["test_s"][:, 4]
    assert figures(tiny_config, **data)["num_duplicates"] == 2
    data["test_s"][:, 4] += data["test_s"][:, 2]  # a correlation of .7
    assert figures(tiny_config, **data)["num_duplicates"] == 0


def test_prototypes_with_one_nearest_patch_are_duplicates(tiny_config: ModelConfig) -> None:
    data = apart(5)
    data["train_s"][7, :3] = 3.0
    data["cells"][7, 2] = 3  # the same image, another place
    found = figures(tiny_config, **data)
    assert found["num_duplicates"] == 2
    assert found["num_distinct_exemplars"] == 4


def test_spread_and_distance_tell_of_the_worst_prototype(tiny_config: ModelConfig) -> None:
    data = apart(3)
    data["test_s"] *= [0.0, 1.0, 2.0]
    near, far = (float(similarity(torch.tensor(d))) for d in (0.0, 2.0))
    data["train_s"] = np.full((20, 3), 0.01)
    data["train_s"][[0, 1, 2], [0, 1, 2]] = [near, far, near]
    found = figures(tiny_config, **data)
    assert found["raw_spread_min"] == 0.0
    assert found["raw_spread_mean"] == pytest.approx(1.0, abs=0.1)
    assert found["nearest_train_patch_distance_max"] == pytest.approx(2.0, rel=1e-4)
    assert found["nearest_train_patch_distance_mean"] == pytest.approx(2.0 / 3.0, rel=1e-4)


def test_distance_is_the_inverse_of_similarity() -> None:
    distances = torch.tensor([0.0, 1e-3, 0.5, 3.0, 100.0], dtype=torch.float64)
    np.testing.assert_allclose(distance_at(similarity(distances).numpy()), distances, atol=1e-9)
    assert math.isfinite(distance_at(np.zeros(1))[0])
