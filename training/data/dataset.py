"""One split of a data set, as the trainer and the evaluation see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.transforms import Pixels

Split = Literal["train", "test"]

UNKNOWN = -1
"""An attribute that the data set does not say of an image."""


class DataError(Exception):
    """A data file is missing or is not what its format says; the message names file and remedy."""


@dataclass(frozen=True)
class Dataset:
    """One split: pixels (N, C, H, W) uint8 as the model takes them, possibly memory-mapped and read-only.

    labels: (N,) int64, one class of `class_names` for each image; all 0 where there are no classes.
    attributes: (N, K) int8, whether an image has each of `attribute_names`: 1, 0, or UNKNOWN; (N, 0)
    where there are none.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] = ()
    attributes: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    attribute_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.attribute_names and len(self.attributes) != len(self.pixels):
            object.__setattr__(self, "attributes", np.zeros((len(self.pixels), 0), np.int8))
        expected = (len(self.pixels), len(self.attribute_names))
        if self.attributes.shape != expected or len(self.labels) != len(self.pixels):
            raise DataError(
                f"{len(self.pixels)} images do not belong to labels {self.labels.shape} "
                f"and attributes {self.attributes.shape}, not {expected}"
            )

    def __len__(self) -> int:
        return len(self.pixels)
