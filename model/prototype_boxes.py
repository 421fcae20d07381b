"""Where in the image a prototype looks, at every cell of the grid that its similarity map has.

All similarity maps have the grid of local patches. A local prototype sees there the patch of that cell; a
wide one the wide patch whose centre is nearest; a global one the whole image.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.config import ModelConfig, Scale
from model.pixel_map import cell_centre
from model.receptive_field import Box

Int64 = npt.NDArray[np.int64]


class PrototypeBoxes:
    """Pixel boxes (x0, y0, x1, y1) of prototypes at flat grid cells, ends exclusive, clipped to the image.

    `scales` says of each prototype which of the three it has.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        counts = config.encoder.num_prototypes_by_scale
        self.scales: tuple[Scale, ...] = tuple(scale for scale, count in counts.items() for _ in range(count))
        self._group: Int64 = np.repeat(np.arange(len(counts)), list(counts.values()))  # (m,)
        self._table: Int64 = np.array([_boxes(config, scale) for scale in counts])  # (groups, h w, 4)

    def box(self, prototype: int, cell: int) -> Box:
        """Of one prototype at one flat (row-major) cell of the similarity maps' grid."""
        x0, y0, x1, y1 = self.at(prototype, cell).tolist()
        return (x0, y0, x1, y1)

    def centre(self, prototype: int, cell: int) -> tuple[int, int]:
        """The pixel (x, y) that is the middle of what a prototype sees at a flat cell, within the image.

        Of a patch that reaches over the border, it is not the middle of its box, which ends there.
        """
        config = self._config
        height, width = config.image.height, config.image.width
        if self.scales[prototype] == "global":
            return width // 2, height // 2
        if self.scales[prototype] == "wide":
            columns = config.grid_shape[1]
            row, column = (2 * wide_index(index) for index in divmod(cell, columns))
            cell = row * columns + column
        x, y = cell_centre(cell, config)
        return min(max(int(x + 0.5), 0), width - 1), min(max(int(y + 0.5), 0), height - 1)

    def at(self, prototypes: npt.ArrayLike, cells: npt.ArrayLike) -> Int64:
        """(..., 4) of prototypes (...) at flat cells (...), which are broadcast against each other.

        Raises IndexError for a prototype or a cell that there is not.
        """
        prototypes, cells = np.asarray(prototypes), np.asarray(cells)
        for what, values, count in (
            ("prototype", prototypes, len(self._group)),
            ("grid cell", cells, self._table.shape[1]),
        ):
            if values.size and not 0 <= values.min() <= values.max() < count:
                raise IndexError(f"{what} must be 0 to {count - 1}, not {values.min()} to {values.max()}")
        return np.asarray(self._table[self._group[prototypes], cells])


def wide_index(local_index: int) -> int:
    """The row or column of wide patches whose centre is nearest to one of local patches (of two, the first).

    Wide cell i is centred on local cell 2 i (`EncoderConfig.wide_layers`).
    """
    return local_index // 2


def _boxes(config: ModelConfig, scale: Scale) -> list[Box]:
    """The box of every cell of the local grid, row by row."""
    height, width = config.image.height, config.image.width
    rows, columns = config.grid_shape
    if scale == "global":
        return [(0, 0, width, height)] * (rows * columns)
    field = config.encoder.receptive_field(scale)
    index = wide_index if scale == "wide" else int
    across = [field.span(index(column), width) for column in range(columns)]
    down = [field.span(index(row), height) for row in range(rows)]
    return [(x0, y0, x1, y1) for y0, y1 in down for x0, x1 in across]
