from __future__ import annotations

import math

import numpy as np
import pytest

from training.evaluation.reconstruction import mean_psnr_db, mean_squared_error, mean_ssim

RNG = np.random.default_rng(0)


def test_psnr_is_the_mean_over_images_with_perfect_ones_capped() -> None:
    expected = np.full((2, 1, 4, 4), 100, np.uint8)
    found = expected.copy()
    found[1] += 51  # a fifth of the range: 20 log10(5) dB
    assert mean_psnr_db(expected, found) == pytest.approx((100.0 + 20 * math.log10(5)) / 2)
    assert mean_psnr_db(found, expected) == mean_psnr_db(expected, found)


def test_mse_counts_black_to_white_as_one() -> None:
    black, white = np.zeros((2, 1, 4, 4), np.uint8), np.full((2, 1, 4, 4), 255, np.uint8)
    assert mean_squared_error(black, white) == 1.0
    assert mean_squared_error(np.concatenate([black, white]), np.concatenate([white, white])) == 0.5


def test_ssim_is_one_for_equal_images_and_falls_with_noise() -> None:
    images = RNG.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    other = RNG.integers(0, 256, images.shape, dtype=np.uint8)
    little = np.clip(images + RNG.normal(0, 10, images.shape), 0, 255).astype(np.uint8)
    assert mean_ssim(images, images) == pytest.approx(1.0)
    assert 1.0 > mean_ssim(images, little) > 0.9 > 0.1 > mean_ssim(images, other)


def test_ssim_of_flat_images_is_the_formula_and_the_mean_is_over_all_batches() -> None:
    black, gray = np.zeros((300, 1, 8, 8), np.uint8), np.full((300, 1, 8, 8), 51, np.uint8)
    unlike = 0.01**2 / (0.2**2 + 0.01**2)  # the luminance term; contrast and structure are equal
    found = np.concatenate([gray[:150], black[:150]])
    assert mean_ssim(black, found) == pytest.approx((unlike + 1.0) / 2, rel=1e-3)
