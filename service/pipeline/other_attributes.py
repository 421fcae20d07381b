"""What an edit did to the labelled attributes that it does not name, as the model's linear probes tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.bundle import Bundle
from service.pipeline.editing import EditedImage

NOTABLE_CHANGE = 0.5
"""Standard deviations of log-odds over the training data from which on a change is worth telling."""


@dataclass(frozen=True)
class OtherAttribute:
    """One attribute, by its log-odds in the image, in s as the edits put it, in the edited picture, and in
    the image that went there and back unedited.

    change: from before to achieved, asked_change: what of it s as it was asked for has already, both in
    standard deviations over the training data; is_notable: achieved is NOTABLE_CHANGE or more from before,
    and as far from what is there without an edit.
    """

    name: str
    before: float
    asked: float
    achieved: float
    reconstruction: float
    change: float
    asked_change: float
    is_notable: bool


def other_attributes(bundle: Bundle, edited: EditedImage) -> list[OtherAttribute] | None:
    """All that no edit names, the most changed first; None for a bundle without labels."""
    attributes, statistics = bundle.attributes, bundle.statistics
    if attributes is None or statistics is None:
        return None
    moments = edited.moments
    log_odds = attributes.probe_logits(np.stack([*moments.values()]), statistics)  # (4, K)
    before, asked, achieved, unedited = log_odds / attributes.logit_spread(statistics)
    change = achieved - before  # (K,)
    is_notable = np.minimum(np.abs(change), np.abs(achieved - unedited)) >= NOTABLE_CHANGE
    named = {target.attribute for target in edited.plan.targets}
    order = np.argsort(-np.abs(change), kind="stable").tolist()
    return [
        OtherAttribute(
            name=attributes.names[k],
            **{moment: float(log_odds[i, k]) for i, moment in enumerate(moments)},
            change=float(change[k]),
            asked_change=float(asked[k] - before[k]),
            is_notable=bool(is_notable[k]),
        )
        for k in order
        if attributes.names[k] not in named
    ]
