"""LPIPS: how far apart two pictures look, by a network that is given by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from model.transforms import Pixels, to_x_0
from training.evaluation.error import EvaluationError
from training.evaluation.inception import as_rgb
from training.evaluation.torchscript import is_torchscript, load_torchscript


class Lpips:
    """Mean distance of pairs of pictures (Zhang et al. 2018)."""

    def __init__(self, network: Callable[[Tensor, Tensor], Tensor], device: str) -> None:
        self._network = network
        self._device = device

    @torch.no_grad()
    def mean(self, expected: Pixels, found: Pixels, *, batch_size: int = 64) -> float:
        """Mean over images (N, C, H, W) uint8, C = 1 or 3. Raises EvaluationError."""
        total = 0.0
        for start in range(0, len(expected), batch_size):
            pair = [
                torch.from_numpy(to_x_0(as_rgb(pixels[start : start + batch_size]))).to(self._device)
                for pixels in (expected, found)
            ]
            count, shape = len(pair[0]), tuple(pair[0].shape[1:])
            try:
                distances = self._network(*pair)
            except RuntimeError as error:
                raise EvaluationError(
                    f"the LPIPS network does not take two images of shape {shape}: {error}"
                ) from error
            if distances.numel() not in (1, count):
                raise EvaluationError(
                    f"the LPIPS network must give one distance per pair, or their mean: {count} pairs gave "
                    f"{tuple(distances.shape)}"
                )
            total += count * float(distances.mean())
        return total / len(expected)


def load_lpips(path: Path, *, device: str = "cpu") -> Lpips:
    """LPIPS from a TorchScript file that takes two batches (B, 3, H, W) in [-1, 1]. Raises EvaluationError.

    Nothing else is read: other forms hold the linear heads only and fetch the backbone from the network.
    """
    if not is_torchscript(path):
        raise EvaluationError(
            f"{path} is no TorchScript file; LPIPS is read from one that takes two images (B, 3, H, W) in "
            "[-1, 1]: trace `lpips.LPIPS` of the lpips package and save it"
        )
    return Lpips(load_torchscript(path, device), device)
