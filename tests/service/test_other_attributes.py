"""What an edit did to attributes that it does not name: all of them, how far, and what of it was asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from service.engine.jobs import Timing
from service.pipeline.editing import EditedImage, plan_edit
from service.pipeline.edits import Edit, attribute_target
from service.pipeline.known_images import Encoding
from service.pipeline.other_attributes import OtherAttribute, other_attributes

Float32 = npt.NDArray[np.float32]

BAG = Edit(None, "max", attribute="Bag")
UNIT_ERROR = 1e-3
"""Of activations that are float32, in standard deviations."""


@pytest.fixture(scope="module")
def usual(bundle: Bundle) -> Float32:
    assert bundle.statistics is not None
    return bundle.statistics.mean.astype(np.float32)


def moved(bundle: Bundle, s: Float32, name: str, deviations: float) -> Float32:
    """s with the log-odds of an attribute that many standard deviations higher."""
    target = attribute_target(bundle, name)
    return (s + deviations * target.unit * target.direction).astype(np.float32)


def edited(
    bundle: Bundle,
    before: Float32,
    *,
    edit: Edit = BAG,
    asked: Float32 | None = None,
    achieved: Float32 | None = None,
    reconstruction: Float32 | None = None,
) -> EditedImage:
    """An image that was edited to these activations; what is not given is as before."""
    pixels = np.zeros(bundle.config.image.shape, np.uint8)
    maps = np.zeros((len(before), 1, 1), np.float32)
    asked = before if asked is None else asked
    return EditedImage(
        plan=plan_edit(bundle, [edit]),
        source=Encoding(pixels, "", before, maps, False),
        edited=pixels,
        reconstruction=pixels,
        asked=asked,
        driven=asked,
        achieved=before if achieved is None else achieved,
        rounds=1,
        reconstruction_activations=before if reconstruction is None else reconstruction,
        clamped=[],
        timing=Timing(0.0, 0.0),
    )


def found(bundle: Bundle, image: EditedImage, name: str) -> OtherAttribute:
    others = other_attributes(bundle, image)
    assert others is not None
    (other,) = (other for other in others if other.name == name)
    return other


def test_others_are_all_that_no_edit_names_the_most_changed_first(bundle: Bundle, usual: Float32) -> None:
    assert bundle.attributes is not None
    achieved = moved(bundle, usual, "Trouser", 2.0)
    others = other_attributes(bundle, edited(bundle, usual, achieved=achieved))
    assert others is not None
    assert {other.name for other in others} == set(bundle.attributes.names) - {"Bag"}
    assert others[0].name == "Trouser"
    sizes = [abs(other.change) for other in others]
    assert sizes == sorted(sizes, reverse=True)
    of_prototype = other_attributes(bundle, edited(bundle, usual, edit=Edit(21, "max")))
    assert of_prototype is not None
    assert len(of_prototype) == len(bundle.attributes.names)


def test_what_was_asked_is_told_apart_from_what_came(bundle: Bundle, usual: Float32) -> None:
    image = edited(
        bundle,
        usual,
        asked=moved(bundle, usual, "Trouser", 0.4),
        achieved=moved(bundle, usual, "Trouser", -0.9),
    )
    target, other = attribute_target(bundle, "Trouser"), found(bundle, image, "Trouser")
    assert other.before == pytest.approx(float(target.value(usual)), abs=1e-4)
    assert (other.achieved - other.before) / target.unit == pytest.approx(other.change)
    assert other.change == pytest.approx(-0.9, abs=UNIT_ERROR)
    assert other.asked_change == pytest.approx(0.4, abs=UNIT_ERROR)
    assert other.is_notable


@pytest.mark.parametrize(
    ("achieved", "reconstruction", "is_notable"),
    [
        (0.6, 0.0, True),
        (-0.6, 0.0, True),
        (0.4, 0.0, False),
        (0.4, -0.3, False),  # far from the reconstruction, near to what was before
        (0.8, 0.7, False),  # so it comes back without an edit, too
        (1.3, 0.7, True),
    ],
)
def test_notable_is_half_a_deviation_from_before_and_from_the_reconstruction(
    bundle: Bundle, usual: Float32, achieved: float, reconstruction: float, is_notable: bool
) -> None:
    image = edited(
        bundle,
        usual,
        achieved=moved(bundle, usual, "Sandal", achieved),
        reconstruction=moved(bundle, usual, "Sandal", reconstruction),
    )
    assert found(bundle, image, "Sandal").is_notable == is_notable


def test_a_model_without_labels_tells_of_none(bundle: Bundle, usual: Float32) -> None:
    unlabelled = dataclasses.replace(bundle, attributes=None)
    assert other_attributes(unlabelled, edited(unlabelled, usual, edit=Edit(21, "max"))) is None
