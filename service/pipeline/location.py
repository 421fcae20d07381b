"""Where in one image prototypes are, and which of them are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.pixel_map import pixel_maps
from model.prototype_boxes import PrototypeBoxes
from model.receptive_field import Box
from service.pipeline.edits import prototype_indices
from service.pipeline.known_images import Encoding

Float32 = npt.NDArray[np.float32]

NUM_NOTABLE = 8


@dataclass(frozen=True, eq=False)
class Location:
    """One prototype in one image: box and centre, in pixels, are those of the cell where it is most present.

    z: its activation in standard deviations from the mean over the training data, None where nobody measured
    these; pixel_map: (H, W) similarities.
    """

    prototype: int
    activation: float
    z: float | None
    box: Box
    centre: tuple[int, int]
    pixel_map: Float32


def locate(bundle: Bundle, encoding: Encoding, prototypes: Sequence[int | str] | None) -> list[Location]:
    """Of `prototypes`, each once; of the most notable by default (`notable_prototypes`).

    Raises PipelineError.
    """
    s, z = encoding.activations, z_scores(bundle, encoding.activations)
    chosen = notable_prototypes(s, z) if prototypes is None else prototype_indices(bundle, prototypes)
    boxes = PrototypeBoxes(bundle.config)
    maps = encoding.similarity_maps[chosen]  # (n, h, w)
    cells = maps.reshape(len(chosen), -1).argmax(axis=1)
    return [
        Location(
            prototype=j,
            activation=float(s[j]),
            z=None if z is None else float(z[j]),
            box=boxes.box(j, int(cell)),
            centre=boxes.centre(j, int(cell)),
            pixel_map=pixel_map,
        )
        for j, cell, pixel_map in zip(chosen, cells, pixel_maps(maps, bundle.config), strict=True)
    ]


def z_scores(bundle: Bundle, activations: Float32) -> npt.NDArray[np.float64] | None:
    """(m,) of activations (m,), or None in a bundle without statistics."""
    return None if bundle.statistics is None else bundle.statistics.standardised(activations)


def notable_prototypes(s: Float32, z: npt.NDArray[np.float64] | None) -> list[int]:
    """The 8 whose activations are most unusual (largest |z|), first those; without z the most active."""
    rank = s if z is None else np.abs(z)
    found: list[int] = np.argsort(-rank, kind="stable")[:NUM_NOTABLE].tolist()
    return found
