from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from model.patronus import Patronus
from training.evaluation.reconstruction import mean_psnr_db
from training.evaluation.samples import LEARNED_S, PRIOR_S, RESAMPLED_S, Drawing, ImageSampling, drawings

RNG = np.random.default_rng(0)


def test_learned_s_gets_every_sampler_and_count_and_the_others_one_short_run() -> None:
    names = [str(drawing) for drawing in drawings([5, 1000], 100, [LEARNED_S, RESAMPLED_S, PRIOR_S])]
    assert names == [
        "ddim_5_steps_learned_s",
        "dpmpp_2m_5_steps_learned_s",
        "dpmpp_2m_20_steps_resampled_s",
        "dpmpp_2m_20_steps_prior_s",
    ]


def test_samples_are_uint8_repeatable_and_told_apart_by_seed(tiny_patronus: Patronus) -> None:
    s = RNG.uniform(0.0, 2.0, (130, 4)).astype(np.float32)  # more than one batch
    with tqdm(disable=True) as progress:
        drawing = Drawing("ddim", 3, LEARNED_S)
        one = ImageSampling(tiny_patronus, progress, 0).draw(drawing, s)
        again = ImageSampling(tiny_patronus, progress, 0).draw(drawing, s)
        other = ImageSampling(tiny_patronus, progress, 1).draw(drawing, s)
    assert one.dtype == np.uint8
    assert one.shape == (130, 1, 8, 8)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_an_image_comes_back_from_its_inversion(tiny_patronus: Patronus) -> None:
    pixels = RNG.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    s = RNG.uniform(0.0, 2.0, (3, 4)).astype(np.float32)
    with tqdm(disable=True) as progress, torch.no_grad():
        found = ImageSampling(tiny_patronus, progress, 0).reconstruct(40, pixels, s)
    assert mean_psnr_db(pixels, found) > 20.0
