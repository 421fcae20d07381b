"""Where in the image a cell of the encoder's grid looks.

Source: receptive-field arithmetic as in Araujo, Norris, Sim, "Computing Receptive Fields of
Convolutional Neural Networks", Distill 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """One-dimensional receptive field of a stack of convolutions; the same holds for x and y.

    Cell i sees the pixels [offset + i * jump, offset + i * jump + size). `offset` is the first
    pixel of cell 0, zero or negative where the padding reaches over the border.
    """

    size: int
    jump: int
    offset: int
    layers: tuple[tuple[int, int, int], ...]

    def grid_size(self, image_size: int) -> int:
        """Number of grid cells along an image side of `image_size` pixels (0 if none fits)."""
        cells = image_size
        for kernel, stride, padding in self.layers:
            cells = (cells + 2 * padding - kernel) // stride + 1
            if cells < 1:
                return 0
        return cells

    def span(self, cell: int, image_size: int) -> tuple[int, int]:
        """Pixels [start, stop) that grid index `cell` sees, clipped to the image."""
        start = self.offset + cell * self.jump
        return max(0, start), min(image_size, start + self.size)

    def box(self, cell: int, height: int, width: int) -> Box:
        """Pixel box (x0, y0, x1, y1), ends exclusive, of the flat grid index `cell` (row-major)."""
        columns = self.grid_size(width)
        if not 0 <= cell < columns * self.grid_size(height):
            raise ValueError(f"grid cell {cell} is outside the {self.grid_size(height)}x{columns} grid")
        row, column = divmod(cell, columns)
        x0, x1 = self.span(column, width)
        y0, y1 = self.span(row, height)
        return (x0, y0, x1, y1)


def receptive_field(
    kernel_sizes: Sequence[int], strides: Sequence[int], paddings: Sequence[int]
) -> ReceptiveField:
    """Receptive field of convolutions applied in order, all in pixels.

    Raises ValueError unless kernels and strides are at least 1, paddings at least 0.
    """
    layers = tuple(zip(kernel_sizes, strides, paddings, strict=True))
    size, jump, offset = 1, 1, 0
    for kernel, stride, padding in layers:
        if kernel < 1 or stride < 1 or padding < 0:
            raise ValueError(f"no such convolution: kernel {kernel}, stride {stride}, padding {padding}")
        size += (kernel - 1) * jump
        offset -= padding * jump
        jump *= stride
    return ReceptiveField(size=size, jump=jump, offset=offset, layers=layers)
