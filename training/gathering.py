"""The rows of a batch that several processes share, put together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (B, m) of all processes in their order, gradients included."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather along the first axis; every process' gradient of its rows is the sum over processes."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.num_rows = len(rows)
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(summed)
        start = torch.distributed.get_rank() * context.num_rows
        return summed[start : start + context.num_rows]
