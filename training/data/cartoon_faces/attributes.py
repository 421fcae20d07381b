"""What a cartoon face can have: the table of attributes, and their two-valued views, the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.data.dataset import DataError

Reach = Literal["local", "global"]
Kind = Literal["binary", "categorical", "continuous"]


@dataclass(frozen=True)
class Attribute:
    """One independent property of a face.

    `reach` "local" changes nothing outside of its own strokes, "global" changes the whole head or picture.
    `values` are all equally likely; their names are unique over all attributes. A continuous attribute is
    uniform in `limits`, and its two values are the halves of that range.
    """

    name: str
    reach: Reach
    kind: Kind
    values: tuple[str, ...]
    limits: tuple[float, float] = (0.0, 0.0)

    @property
    def probability(self) -> float:
        """How often each value occurs."""
        return 1.0 / len(self.values)

    @property
    def middle(self) -> float:
        """Where a continuous attribute's second half begins."""
        return sum(self.limits) / 2.0


@dataclass(frozen=True)
class Value:
    """The value `index` of an attribute."""

    attribute: Attribute
    index: int

    @property
    def name(self) -> str:
        return self.attribute.values[self.index]


ATTRIBUTES = (
    Attribute("hair_colour", "local", "categorical", ("black_hair", "brown_hair", "red_hair", "fair_hair")),
    Attribute("hair_style", "local", "categorical", ("short_hair", "spiky_hair", "curly_hair", "long_hair")),
    Attribute("smile", "local", "binary", ("no_smile", "smile")),
    Attribute("glasses", "local", "binary", ("no_glasses", "glasses")),
    Attribute("hat", "local", "binary", ("no_hat", "hat")),
    Attribute("moustache", "local", "binary", ("no_moustache", "moustache")),
    Attribute("earrings", "local", "binary", ("no_earrings", "earrings")),
    Attribute(
        "collar_colour",
        "local",
        "categorical",
        ("white_collar", "red_collar", "green_collar", "blue_collar"),
    ),
    Attribute("skin_tone", "global", "categorical", ("light_skin", "tan_skin", "brown_skin", "dark_skin")),
    Attribute("face_size", "global", "continuous", ("small_face", "large_face"), (0.9, 1.12)),
    Attribute("tilt", "global", "continuous", ("tilted_left", "tilted_right"), (-12.0, 12.0)),
    Attribute("lighting", "global", "continuous", ("dim_light", "bright_light"), (0.6, 1.04)),
    Attribute("age", "global", "continuous", ("young", "old"), (0.0, 1.0)),
)
"""Face size is a factor, tilt in degrees, clockwise as seen; lighting a factor; age from childish proportions
(0: large and low eyes, a round head) to grown-up ones (1)."""

_ATTRIBUTE = {attribute.name: attribute for attribute in ATTRIBUTES}
_VALUE = {
    name: Value(attribute, index) for attribute in ATTRIBUTES for index, name in enumerate(attribute.values)
}

LABELS = tuple(
    value
    for value in _VALUE.values()
    if value.attribute.kind == "categorical" or value.index == 1  # the other one is its negation
)
"""The yes-or-no questions that a probe is asked, one for each column of a data set's attributes."""


def attribute_named(name: str) -> Attribute:
    """Raises DataError."""
    if name not in _ATTRIBUTE:
        raise DataError(f"attribute must be one of {', '.join(_ATTRIBUTE)}, not {name!r}")
    return _ATTRIBUTE[name]


def value_named(name: str) -> Value:
    """Raises DataError."""
    if name not in _VALUE:
        raise DataError(f"{name!r} is none of the values {', '.join(_VALUE)}")
    return _VALUE[name]
