"""What the device can do at best: products of matrices, and copies, measured beside the networks.

`count_flops` counts what a step asks for; shares are of the matrix rate that the same run measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.timing import WINDOW_S, Timing, time_by_clock, time_on_device


@dataclass(frozen=True)
class Roofline:
    """matrix: FLOP/s by size of square bf16 matrices; copies in bytes/s, on the device (read and written),
    and over the bus from and to pinned memory; 0 where there is no bus."""

    matrix: dict[int, float]
    device_copy: float
    to_device: float
    from_device: float

    @property
    def matrix_rate(self) -> float:
        """FLOP/s, the best size's."""
        return max(self.matrix.values())


def measure_roofline(
    device: torch.device, *, sizes: tuple[int, ...], copy_bytes: int, window_s: float = WINDOW_S
) -> Roofline:
    """Matrices of these sizes; `copy_bytes` are copied on the device, and a quarter of them over the bus."""
    matrix = {}
    for size in sizes:
        a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        b = torch.randn(size, size, device=device, dtype=torch.bfloat16)
        product = torch.empty_like(a)

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b, product: torch.Tensor = product) -> None:
            torch.mm(a, b, out=product)

        matrix[size] = _per_second(2.0 * size**3, time_on_device(multiply, device, window_s=window_s))
    source = torch.zeros(copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    device_copy = _per_second(
        2.0 * copy_bytes, time_on_device(lambda: target.copy_(source), device, window_s=window_s)
    )
    if device.type != "cuda":
        return Roofline(matrix, device_copy, 0.0, 0.0)
    pinned = torch.zeros(copy_bytes // 4, dtype=torch.uint8, pin_memory=True)
    part = source[: len(pinned)]
    to_device = time_by_clock(lambda: part.copy_(pinned, non_blocking=True), device)
    from_device = time_by_clock(lambda: pinned.copy_(part, non_blocking=True), device)
    return Roofline(
        matrix, device_copy, _per_second(len(pinned), to_device), _per_second(len(pinned), from_device)
    )


def count_flops(run: Callable[[], object]) -> float:
    """Of convolutions, products of matrices and attention in one call, a multiply-add being two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _per_second(amount: float, timing: Timing) -> float:
    return amount / (1e-3 * statistics.median(timing.windows_ms))
