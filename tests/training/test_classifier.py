from __future__ import annotations

import numpy as np
import torch

from training.classifier import FEATURE_WIDTH, train_classifier
from training.data import Dataset


def test_training_is_repeatable_and_leaves_the_callers_randomness_alone(tiny_dataset: Dataset) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = train_classifier(tiny_dataset)
    assert torch.equal(torch.rand(3), expected)
    other = train_classifier(tiny_dataset)
    for value, again in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(value, again)
    assert one.accuracy(tiny_dataset) > 0.9


def test_features_do_not_depend_on_the_batch(tiny_dataset: Dataset) -> None:
    classifier = train_classifier(tiny_dataset)
    features = classifier.features(tiny_dataset.pixels)
    assert features.shape == (64, FEATURE_WIDTH)
    np.testing.assert_allclose(
        classifier.features(tiny_dataset.pixels, batch_size=5), features, rtol=1e-4, atol=1e-4
    )
