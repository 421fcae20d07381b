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

    Cell i sees the pixels [offset + i * jump, offset + i * jump + size), less what lies in padding
    (`span`). `offset` is the first pixel of cell 0, negative where the padding reaches over the border.
    """

    size: int
    jump: int
    offset: int
    layers: tuple[tuple[int, int, int], ...]

    def grid_size(self, image_size: int) -> int:
        """Number of grid cells along an image side of `image_size` pixels (0 if none fits)."""
        return self._layer_sizes(image_size)[-1]

    def span(self, cell: int, image_size: int) -> tuple[int, int]:
        """Pixels [start, stop) that grid index `cell` sees, never empty.

        Walked back through the layers, because what a cell sees ends at every layer's border, not
        only at the image's, where an inner layer is padded.
        """
        start, stop = cell, cell + 1
        for (kernel, stride, padding), cells in zip(
            self.layers[::-1], self._layer_sizes(image_size)[-2::-1], strict=True
        ):
            start, stop = (
                max(0, start * stride - padding),
                min(cells, (stop - 1) * stride - padding + kernel),
            )
        return start, stop

    def box(self, cell: int, height: int, width: int) -> Box:
        """Pixel box (x0, y0, x1, y1), ends exclusive, of the flat grid index `cell` (row-major)."""
        columns = self.grid_size(width)
        if not 0 <= cell < columns * self.grid_size(height):
            raise ValueError(f"grid cell {cell} is outside the {self.grid_size(height)}x{columns} grid")
        row, column = divmod(cell, columns)
        x0, x1 = self.span(column, width)
        y0, y1 = self.span(row, height)
        return (x0, y0, x1, y1)

    def _layer_sizes(self, image_size: int) -> list[int]:
        """Cells along a side before the first layer and after each; 0 from the layer where none fits."""
        sizes = [image_size]
        for kernel, stride, padding in self.layers:
            padded = sizes[-1] + 2 * padding
            fits = sizes[-1] > 0 and padded >= kernel
            sizes.append((padded - kernel) // stride + 1 if fits else 0)
        return sizes


def receptive_field(
    kernel_sizes: Sequence[int], strides: Sequence[int], paddings: Sequence[int]
) -> ReceptiveField:
    """Receptive field of convolutions applied in order, all in pixels.

    Raises ValueError unless kernels and strides are at least 1, paddings at least 0 and below the kernel
    (a wider one makes cells that see no pixel).
    """
    layers = tuple(zip(kernel_sizes, strides, paddings, strict=True))
    size, jump, offset = 1, 1, 0
    for kernel, stride, padding in layers:
        if kernel < 1 or stride < 1 or not 0 <= padding < kernel:
            raise ValueError(f"no such convolution: kernel {kernel}, stride {stride}, padding {padding}")
        size += (kernel - 1) * jump
        offset -= padding * jump
        jump *= stride
    return ReceptiveField(size=size, jump=jump, offset=offset, layers=layers)
