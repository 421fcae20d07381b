"""How near one picture is to another: MSE, PSNR and SSIM, from uint8 pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from model.transforms import Pixels

LARGEST_PSNR_DB = 100.0
BATCH_SIZE = 256


def mean_squared_error(expected: Pixels, found: Pixels) -> float:
    """Mean squared difference of pixels in units where black is 0 and white is 1."""
    return float(_mean_squares(expected, found).mean()) / 255.0**2


def mean_psnr_db(expected: Pixels, found: Pixels) -> float:
    """Mean over images (N, ...) uint8 of the peak signal-to-noise ratio in dB, at most 100 per image."""
    mean_squares = np.maximum(_mean_squares(expected, found), 255.0**2 / 10 ** (LARGEST_PSNR_DB / 10))
    return float((10.0 * np.log10(255.0**2 / mean_squares)).mean())


def mean_ssim(expected: Pixels, found: Pixels) -> float:
    """Mean structural similarity (Wang et al. 2004) of images (N, C, H, W) uint8: an 11-pixel Gaussian
    window, σ = 1.5, constants .01 and .03 of the range."""
    total = 0.0
    for start in range(0, len(expected), BATCH_SIZE):
        preds, target = (
            torch.from_numpy(pixels[start : start + BATCH_SIZE] / np.float32(255.0))
            for pixels in (found, expected)
        )
        ssim = structural_similarity_index_measure(preds, target, data_range=1.0, reduction="sum")
        assert isinstance(ssim, torch.Tensor)
        total += float(ssim)
    return total / len(expected)


def _mean_squares(expected: Pixels, found: Pixels) -> npt.NDArray[np.float64]:
    difference = (expected.astype(np.float64) - found.astype(np.float64)).reshape(len(expected), -1)
    return np.asarray(np.square(difference).mean(axis=1))
