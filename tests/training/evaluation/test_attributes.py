from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from model.statistics import ActivationStatistics
from training.data import UNKNOWN, Dataset
from training.evaluation.attributes import measure_attributes

NUM_IMAGES, M = 200, 3


def activations(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(3.0, 2.0, (NUM_IMAGES, M)).astype(np.float32)


def dataset(attributes: np.ndarray, names: tuple[str, ...]) -> Dataset:
    pixels = np.zeros((len(attributes), 1, 8, 8), np.uint8)
    return Dataset(pixels, np.zeros(len(attributes), np.int64), (), attributes.astype(np.int8), names)


def test_an_attribute_that_one_prototype_makes_is_found_there_with_its_sign() -> None:
    train_s, test_s = activations(0), activations(1)
    names = ("high 1", "low 2")
    train, test = (dataset(np.stack([s[:, 1] > 3, s[:, 2] < 2], 1), names) for s in (train_s, test_s))
    statistics = ActivationStatistics.measure(train_s)
    found = measure_attributes(train, test, train_s, test_s, statistics)
    assert found is not None
    (best,) = found.best(1, 1)
    assert (best.name, best.auroc, best.sign) == ("high 1", 1.0, 1)
    (best,) = found.best(2, 1)
    assert (best.name, best.auroc, best.sign) == ("low 2", 1.0, -1)
    logits = found.probe_logits(test_s, statistics)
    for k in range(2):
        assert found.probe_auroc[k] == pytest.approx(roc_auc_score(test.attributes[:, k], logits[:, k]))
        assert found.probe_auroc[k] > 0.99


def test_images_of_which_nothing_is_known_change_nothing() -> None:
    s = activations(2)
    values = (s[:, :1] + s[:, 1:2] > 6).astype(np.int8)
    statistics = ActivationStatistics.measure(s)
    known, unknown = s[:150], values.copy()
    unknown[150:] = UNKNOWN
    few = measure_attributes(
        dataset(values[:150], ("sum",)), dataset(values[:150], ("sum",)), known, known, statistics
    )
    all_of_them = measure_attributes(dataset(unknown, ("sum",)), dataset(unknown, ("sum",)), s, s, statistics)
    assert few is not None
    assert all_of_them is not None
    np.testing.assert_allclose(all_of_them.auroc, few.auroc)
    np.testing.assert_allclose(all_of_them.probe_weights, few.probe_weights, atol=1e-4)


def test_an_attribute_that_all_images_of_a_split_have_is_left_out() -> None:
    s = activations(3)
    both = np.stack([s[:, 0] > 3, s[:, 1] > 3], 1)
    constant = both.copy()
    constant[:, 0] = True
    names = ("always", "sometimes")
    statistics = ActivationStatistics.measure(s)
    for train, test in ((both, constant), (constant, both)):
        found = measure_attributes(dataset(train, names), dataset(test, names), s, s, statistics)
        assert found is not None
        assert found.names == ("sometimes",)
    nothing = dataset(constant[:, :1], names[:1])
    assert measure_attributes(nothing, nothing, s, s, statistics) is None


def test_classes_count_one_against_the_rest() -> None:
    s = activations(4)
    labels = s.argmax(axis=1).astype(np.int64)
    images = Dataset(np.zeros((NUM_IMAGES, 1, 8, 8), np.uint8), labels, ("first", "second", "third"))
    found = measure_attributes(images, images, s, s, ActivationStatistics.measure(s))
    assert found is not None
    assert [found.best(j, 1)[0].name for j in range(M)] == ["first", "second", "third"]
    assert (found.probe_auroc > 0.95).all()


def test_without_labels_there_are_no_attributes() -> None:
    s = activations(5)
    images = Dataset(np.zeros((NUM_IMAGES, 1, 8, 8), np.uint8), np.zeros(NUM_IMAGES, np.int64))
    assert measure_attributes(images, images, s, s, ActivationStatistics.measure(s)) is None
