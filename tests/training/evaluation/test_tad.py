from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import mutual_info_score

from training.data import UNKNOWN
from training.evaluation.tad import one_vs_rest, shared_entropy, total_auroc_difference

Int8 = npt.NDArray[np.int8]
RNG = np.random.default_rng(0)


def independent(count: int = 2000, num: int = 3) -> Int8:
    return RNG.integers(0, 2, (count, num)).astype(np.int8)


def noise(count: int, width: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal((count, width)).astype(np.float32)


def test_a_prototype_of_its_own_captures_an_attribute_by_either_sign() -> None:
    attributes = independent()
    s = noise(2000, 5)
    s[:, 3] = attributes[:, 0]
    s[:, 1] = -attributes[:, 2].astype(np.float32)
    found = total_auroc_difference(s, attributes, ("a", "b", "c"))
    assert [(one.name, one.prototype) for one in found.captured] == [("a", 3), ("c", 1)]
    assert found.num_attributes == 3
    assert found.captured[0].auroc == found.captured[1].auroc == 1.0
    assert found.tad == pytest.approx(1.0, abs=0.1)  # two attributes, second best near chance


def test_an_attribute_that_two_prototypes_tell_adds_nothing() -> None:
    attributes = independent(num=1)
    s = np.repeat(attributes, 2, axis=1).astype(np.float32)
    found = total_auroc_difference(s, attributes, ("a",))
    assert len(found.captured) == 1
    assert found.tad == 0.0


@pytest.mark.parametrize(("share_right", "captured"), [(0.77, 1), (0.73, 0)])
def test_an_auroc_below_three_quarters_does_not_capture(share_right: float, captured: int) -> None:
    values = np.array([[1], [0]] * 100, np.int8)
    s = values.astype(np.float32)
    num_wrong = round(100 * (1.0 - share_right))
    s[: 2 * num_wrong] = 1.0 - s[: 2 * num_wrong]  # as many of both values: the AUROC is the share
    found = total_auroc_difference(s, values, ("a",))
    assert len(found.captured) == captured
    assert found.tad == pytest.approx((share_right - 0.5) * captured)  # a single prototype: against chance


def test_attributes_that_tell_one_another_are_not_captured() -> None:
    first = independent(num=1)
    attributes = np.concatenate([first, 1 - first], axis=1)
    s = np.concatenate([first, noise(2000, 1)], axis=1).astype(np.float32)
    assert total_auroc_difference(s, attributes, ("a", "not a")).captured == ()
    assert len(total_auroc_difference(s, first, ("a",)).captured) == 1


def test_attributes_without_both_values_are_not_counted() -> None:
    attributes = independent()
    attributes[:, 1] = 1
    attributes[:, 2] = UNKNOWN
    found = total_auroc_difference(attributes.astype(np.float32), attributes, ("a", "always", "unknown"))
    assert [one.name for one in found.captured] == ["a"]
    assert found.num_attributes == 1


def test_shared_entropy_is_mutual_information_over_entropy() -> None:
    attributes = independent()
    attributes[:600, 1] = attributes[:600, 0]
    attributes[1500:, 2] = UNKNOWN
    found = shared_entropy(attributes)
    for k in range(3):
        for other in range(3):
            both = (attributes[:, k] != UNKNOWN) & (attributes[:, other] != UNKNOWN)
            one, two = attributes[both, k], attributes[both, other]
            expected = 0.0 if k == other else mutual_info_score(one, two) / mutual_info_score(one, one)
            assert found[k, other] == pytest.approx(expected, abs=1e-9), (k, other)


def test_shared_entropy_of_what_does_not_vary_is_zero() -> None:
    attributes = np.array([[1, 0, UNKNOWN]] * 4, np.int8)
    np.testing.assert_array_equal(shared_entropy(attributes), np.zeros((3, 3)))


@pytest.mark.parametrize(("num_classes", "can_be_captured"), [(3, False), (10, True)])
def test_few_classes_say_too_much_of_one_another(num_classes: int, can_be_captured: bool) -> None:
    labels = np.arange(30 * num_classes) % num_classes
    attributes = one_vs_rest(labels, num_classes)
    np.testing.assert_array_equal(attributes.sum(axis=1), 1)
    names = tuple(str(label) for label in range(num_classes))
    found = total_auroc_difference(attributes.astype(np.float32), attributes, names)
    assert len(found.captured) == (num_classes if can_be_captured else 0)
