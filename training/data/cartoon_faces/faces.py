"""Faces as numbers: sampled, labelled and changed here, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.cartoon_faces.attributes import (
    ATTRIBUTES,
    LABELS,
    Attribute,
    attribute_named,
    value_named,
)
from training.data.cartoon_faces.couplings import Coupling, conditional_tables
from training.data.dataset import DataError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]

VARIATIONS = (
    "head_x", "head_y", "head_aspect", "body_x", "background_red", "background_green", "background_blue",
    "shirt_level", "shirt_warmth", "skin_level", "hair_level", "hair_volume", "hairline", "hair_side",
    "eye_spacing", "eye_opening", "eye_colour", "gaze_x", "gaze_y", "brow_height", "brow_angle", "nose_size",
    "mouth_width", "mouth_bend", "mouth_height", "glasses_size", "hat_hue", "hat_height", "moustache_width",
    "moustache_level", "earring_size", "earring_hue",
)  # fmt: skip
"""What differs from face to face beside the attributes; no label tells it."""

_ATTRIBUTE_DRAWS = 16
_NUM_DRAWS = 64
"""Random numbers of one face, more than are in use: a new attribute or variation moves no other one."""
_DRAWS_PER_COUNT = 4
"""A count of Philox makes four 64-bit words."""


@dataclass(frozen=True)
class Faces:
    """N faces: `values` by attribute, (N,) each, and `variations` (N, len(VARIATIONS)) in [-1, 1).

    A value is an index (int64) into the attribute's values; of a continuous attribute a number (float32).
    """

    values: Mapping[str, Numbers]
    variations: Float32

    def __len__(self) -> int:
        return len(self.variations)

    def __getitem__(self, which: slice | Int64 | npt.NDArray[np.bool_]) -> Faces:
        """The faces that a slice, indices or a mask choose."""
        values = {name: values[which] for name, values in self.values.items()}
        return Faces(values, self.variations[which])

    def variation(self, name: str) -> Float32:
        """(N,) in [-1, 1)."""
        return self.variations[:, VARIATIONS.index(name)]

    def index(self, attribute: str) -> Int64:
        """(N,) index into the attribute's values; of a continuous attribute, which half of its range."""
        return _index(attribute_named(attribute), self.values[attribute])

    def has(self, value: str) -> npt.NDArray[np.bool_]:
        """(N,) whether each face has the value of this name, such as "fair_hair"."""
        wanted = value_named(value)
        return np.asarray(self.index(wanted.attribute.name) == wanted.index)

    def labels(self) -> Int8:
        """(N, len(LABELS)) of 1 and 0."""
        return np.stack([self.has(label.name) for label in LABELS], axis=1).astype(np.int8)

    def with_value(self, attribute: str, value: str | float | Numbers) -> Faces:
        """The same faces but for one attribute: the true counterfactuals.

        `value` is the name of a value, or one or (N,) values of the kind that `values` holds. The name of a
        half of a continuous attribute mirrors the numbers that lie in the other half. Raises DataError.
        """
        known, current = attribute_named(attribute), self.values[attribute]
        continuous = known.kind == "continuous"
        wanted = np.asarray(value)
        if isinstance(value, str):
            if value not in known.values:
                raise DataError(f"{attribute} must be one of {', '.join(known.values)}, not {value!r}")
            index = known.values.index(value)
            wanted = _in_half(known, current, index) if continuous else np.asarray(index)
        changed = np.broadcast_to(wanted, len(self)).astype(current.dtype)
        lowest, highest = known.limits if continuous else (0, len(known.values) - 1)
        possible = (changed >= lowest) & (changed <= highest) & (continuous | (changed == wanted))
        if not possible.all():
            numbers = "a number" if continuous else "an index"
            raise DataError(f"{attribute} must be {numbers} from {lowest} to {highest}, not {value}")
        return Faces({**self.values, attribute: changed}, self.variations)


def sample_faces(seed: int, count: int, *, start: int = 0, couplings: Sequence[Coupling] = ()) -> Faces:
    """Faces `start` to `start + count` of the endless sequence that a seed stands for.

    Each face has random numbers of its own, so face i of a seed is the same whatever else is sampled, and
    couplings change of it only what they must. Raises DataError where couplings cannot all hold.
    """
    tables = conditional_tables(couplings)
    draws = _draws(seed, start, count)
    values: dict[str, Numbers] = {}
    columns = {attribute.name: column for column, attribute in enumerate(ATTRIBUTES)}
    for table in tables:
        attribute, u = table.attribute, draws[:, columns[table.attribute.name]]
        if table.given is None:
            probabilities = np.broadcast_to(table.probabilities[0], (count, len(attribute.values)))
        else:
            probabilities = table.probabilities[_index(table.given, values[table.given.name])]
        values[attribute.name] = _drawn(attribute, probabilities, u)
    first = _ATTRIBUTE_DRAWS
    variations = 2.0 * draws[:, first : first + len(VARIATIONS)] - 1.0
    return Faces(
        {attribute.name: values[attribute.name] for attribute in ATTRIBUTES}, variations.astype(np.float32)
    )


def _draws(seed: int, start: int, count: int) -> Float64:
    """(count, _NUM_DRAWS) uniform in [0, 1): raw words, whose stream NumPy promises never to change."""
    generator = np.random.Philox(key=seed)
    generator.advance(start * _NUM_DRAWS // _DRAWS_PER_COUNT)
    words = generator.random_raw(count * _NUM_DRAWS).reshape(count, _NUM_DRAWS)
    return np.asarray((words >> np.uint64(11)) * 2.0**-53)


def _drawn(attribute: Attribute, probabilities: Float64, u: Float64) -> Numbers:
    """Values (N,) at the quantiles u (N,) of probabilities (N, V)."""
    upper = probabilities.cumsum(axis=1)
    index = (u[:, None] >= upper[:, :-1]).sum(axis=1)
    if attribute.kind != "continuous":
        return np.asarray(index)
    chosen = index[:, None]
    width = np.take_along_axis(probabilities, chosen, axis=1)[:, 0]
    inside = 1.0 - (np.take_along_axis(upper, chosen, axis=1)[:, 0] - u) / width  # 0 … 1 within the half
    low, high = attribute.limits
    return _clipped(attribute, low + (high - low) * (index + inside) / 2.0, index)


def _in_half(attribute: Attribute, values: Float32, index: int) -> Float32:
    """Numbers in the half `index` stay, those in the other one are mirrored."""
    mirrored = _clipped(attribute, sum(attribute.limits) - values, np.full(len(values), index))
    return np.where(_index(attribute, values) == index, values, mirrored)


def _clipped(attribute: Attribute, values: Numbers, index: Int64) -> Float32:
    """Values (N,) as float32, which rounding moves out of none of the halves `index` (N,)."""
    low, middle, high = np.array([attribute.limits[0], attribute.middle, attribute.limits[1]], np.float32)
    lowest, highest = np.array([low, middle]), np.array([np.nextafter(middle, low), high])
    return np.asarray(np.clip(values.astype(np.float32), lowest[index], highest[index]))


def _index(attribute: Attribute, values: Numbers) -> Int64:
    if attribute.kind == "continuous":
        return (values >= np.float32(attribute.middle)).astype(np.int64)
    return values.astype(np.int64)
