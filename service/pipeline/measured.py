"""What a bundle knows of a data set, or the reason why it knows nothing."""

from __future__ import annotations

from model.attributes import Attributes
from model.bundle import Bundle
from model.effects import MeasuredEffects
from model.statistics import ActivationStatistics
from model.transforms import Pixels
from service.pipeline.errors import PipelineError

REMEDY = "import the checkpoint again with --dataset and --data"


def statistics_of(bundle: Bundle, purpose: str) -> ActivationStatistics:
    """Activation statistics for `purpose`, which begins the message of the PipelineError raised without."""
    if bundle.statistics is None:
        raise PipelineError(
            f"{purpose} needs activation statistics, and the bundle {bundle.name!r} has none: {REMEDY}"
        )
    return bundle.statistics


def attributes_of(bundle: Bundle, purpose: str) -> Attributes:
    """Attributes for `purpose`, which begins the message of the PipelineError raised without."""
    if bundle.attributes is None:
        raise PipelineError(
            f"{purpose} needs labels, and the bundle {bundle.name!r} was measured without: prototypes can be "
            "edited"
        )
    return bundle.attributes


def effects_of(bundle: Bundle, purpose: str) -> MeasuredEffects:
    """Measured effects for `purpose`, which begins the message of the PipelineError raised without."""
    if bundle.effects is None:
        remedy = REMEDY if bundle.statistics is None else "`python -m training remeasure` finds them"
        raise PipelineError(
            f"{purpose} needs the effects of prototypes on one another, and the bundle {bundle.name!r} has "
            f"none: {remedy}"
        )
    return bundle.effects


def reference_images(bundle: Bundle) -> list[Pixels]:
    """The test images (C, H, W) that the bundle keeps; none where it was never shown a data set."""
    return [] if bundle.pictures is None else list(bundle.pictures.reference_images)
