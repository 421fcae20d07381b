"""What is random about a sample follows from its seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.randomness import (
    NUM_SEEDS,
    Stream,
    generator,
    initial_noise,
    sample_seeds,
    step_noise_seed,
)

SHAPE = (1, 16, 16)
seeds = st.integers(0, NUM_SEEDS - 1)

PINNED_X_T = [1.117622, -1.3871249, -0.4265716, -0.8035873]
PINNED_NOISE_SEEDS = [17029223190271853676, 5106859519625161097, 4248713042418165872]


@given(seeds)
def test_seed_gives_the_same_x_t_each_time(seed: int) -> None:
    np.testing.assert_array_equal(initial_noise(seed, SHAPE), initial_noise(seed, SHAPE))


def test_x_t_of_a_seed_is_the_same_in_every_version() -> None:
    first = initial_noise(0, SHAPE)[0, 0, :4]
    np.testing.assert_allclose(first, PINNED_X_T, rtol=0, atol=1e-6)


def test_noise_seed_of_a_seed_is_the_same_in_every_version() -> None:
    assert [step_noise_seed(seed) for seed in (0, 1, NUM_SEEDS - 1)] == PINNED_NOISE_SEEDS


def test_x_t_is_standard_normal() -> None:
    x_T = initial_noise(5, (3, 64, 64))
    assert x_T.dtype == np.float32
    assert abs(float(x_T.mean())) < 0.05
    assert abs(float(x_T.std()) - 1.0) < 0.05


@given(seeds, seeds)
def test_different_seeds_give_different_noise(one: int, other: int) -> None:
    same = one == other
    assert np.array_equal(initial_noise(one, SHAPE), initial_noise(other, SHAPE)) == same
    assert (step_noise_seed(one) == step_noise_seed(other)) == same


@given(seeds)
def test_streams_of_one_seed_differ(seed: int) -> None:
    drawn = {tuple(generator(seed, stream).standard_normal(2)) for stream in Stream}
    noise = np.random.default_rng(step_noise_seed(seed)).standard_normal(2)
    assert len(drawn | {tuple(noise)}) == len(Stream) + 1


@given(seeds, st.integers(1, 64))
def test_sample_i_of_a_request_is_the_first_sample_of_seed_plus_i(seed: int, count: int) -> None:
    of_request = sample_seeds(seed, count)
    assert len(set(of_request)) == count
    assert all(sample_seeds((seed + i) % NUM_SEEDS, 1) == (of_request[i],) for i in range(count))


def test_seeds_go_on_at_zero_after_the_last() -> None:
    assert sample_seeds(NUM_SEEDS - 1, 3) == (NUM_SEEDS - 1, 0, 1)
