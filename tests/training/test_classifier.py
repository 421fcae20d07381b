from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from training.classifier import FEATURE_WIDTH, Classifier, can_classify, train_classifier
from training.data import UNKNOWN, Dataset


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


def test_attributes_are_learned_where_there_are_no_classes(tiny_dataset: Dataset) -> None:
    attributes = np.stack([tiny_dataset.labels % 2, tiny_dataset.labels > 4], axis=1).astype(np.int8)
    attributes[::5, 0] = UNKNOWN
    no_labels = np.zeros_like(tiny_dataset.labels)
    dataset = Dataset(tiny_dataset.pixels, no_labels, (), attributes, ("odd", "above 4"))
    classifier = train_classifier(dataset)
    assert classifier.head.out_features == 2
    assert classifier.accuracy(dataset) > 0.9
    wrong = dataclasses.replace(dataset, attributes=np.where(attributes == UNKNOWN, UNKNOWN, 1 - attributes))
    assert classifier.accuracy(wrong) < 0.1


def test_unknown_entries_teach_nothing(tiny_dataset: Dataset) -> None:
    known = np.stack([tiny_dataset.labels % 2, np.full(64, UNKNOWN)], axis=1).astype(np.int8)
    dataset = Dataset(tiny_dataset.pixels, np.zeros_like(tiny_dataset.labels), (), known, ("odd", "unknown"))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as train_classifier begins
        untrained = Classifier(1, 2)
    trained = train_classifier(dataset)
    # AdamW's decay alone moves the unknown attribute's scores: towards 0, in proportion.
    ratio = trained.head.weight[1] / untrained.head.weight[1].detach()
    assert float(ratio.min()) > 0.5
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=0.0)
    assert not torch.allclose(trained.head.weight[0], ratio.mean() * untrained.head.weight[0], atol=1e-2)


def test_there_must_be_something_to_learn(tiny_dataset: Dataset) -> None:
    nothing = Dataset(tiny_dataset.pixels, np.zeros_like(tiny_dataset.labels))
    unknown = dataclasses.replace(
        nothing, attributes=np.full((64, 1), UNKNOWN, np.int8), attribute_names=("unknown",)
    )
    for dataset in (nothing, unknown):
        assert not can_classify(dataset)
        with pytest.raises(ValueError, match="neither classes nor attributes"):
            train_classifier(dataset)
    assert can_classify(tiny_dataset)
