from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.config import PriorConfig, ScheduleConfig
from model.prior import Prior, PriorStep
from model.samplers import A, B, D, ddim
from model.schedule import NoiseSchedule
from training.prior_evaluation import (
    PriorEvaluationError,
    correlation,
    eps_loss,
    fidelity,
    fresh_noise,
    novelty,
)
from training.sampling import run_steps

Float32 = npt.NDArray[np.float32]


def correlated(count: int, seed: int) -> Float32:
    rng = np.random.default_rng(seed)
    first = rng.standard_normal(count)
    second = 0.9 * first + math.sqrt(1 - 0.81) * rng.standard_normal(count)
    return np.column_stack([first, second, rng.standard_normal(count)]).astype(np.float32)


def test_two_sets_of_one_distribution_are_hardly_told_apart() -> None:
    figures = asdict(fidelity(correlated(1500, 0), correlated(1500, 1), 0))
    assert abs(figures["two_sample_accuracy"] - 0.5) < 0.05
    assert figures["ks_max"] < 0.07
    assert figures["correlation_mean"] < 0.06
    assert json.loads(json.dumps(figures)) == figures


def test_right_marginals_with_wrong_correlations_are_found_by_all_but_the_marginals() -> None:
    shuffled = correlated(1500, 0)
    shuffled[:, 1] = np.random.default_rng(5).permutation(shuffled[:, 1])
    figures = asdict(fidelity(shuffled, correlated(1500, 1), 0))
    assert figures["ks_max"] < 0.07
    assert figures["correlation_mean"] == pytest.approx(0.3, abs=0.05)  # .9 in one of three pairs
    assert figures["correlation_frobenius"] == pytest.approx(0.9 * math.sqrt(2), abs=0.1)
    assert figures["two_sample_accuracy"] > 0.7


def test_a_shifted_entry_is_found_by_its_marginal() -> None:
    shifted = correlated(600, 0)
    shifted[:, 2] += 1.0
    figures = asdict(fidelity(shifted, correlated(600, 1), 0))
    assert figures["ks_max"] == pytest.approx(0.38, abs=0.06)  # Φ(1/2) - Φ(-1/2)
    assert figures["correlation_mean"] < 0.1


def test_a_constant_entry_correlates_with_nothing() -> None:
    vectors = correlated(50, 0)
    vectors[:, 1] = 2.0
    matrix = correlation(vectors)
    np.testing.assert_allclose(matrix[1], [0.0, 1.0, 0.0])
    assert matrix[0, 2] == pytest.approx(np.corrcoef(vectors[:, 0], vectors[:, 2])[0, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((50, 2), np.float32), r"\(50, 2\) and reference \(50, 3\) differ in width"),
        (np.zeros((3, 3), np.float32), "need at least 6 vectors of each kind, not 3"),
        (np.full((50, 3), np.inf, np.float32), "samples have values that are not finite"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(samples: Float32, message: str) -> None:
    with pytest.raises(PriorEvaluationError, match=message):
        fidelity(samples, correlated(50, 0), 0)


def test_the_fresh_noise_table_forgets_x_t_and_the_ddim_table_does_not() -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(100))
    table, right = fresh_noise(schedule, 10), ddim(schedule, 10)
    np.testing.assert_array_equal(table.timesteps, right.timesteps)
    assert (table.coefficients[:, A] == 0.0).all()
    assert (right.coefficients[:-1, A] > 0.0).all()
    levels = schedule.alphas_cumprod[table.timesteps[1:]]
    np.testing.assert_allclose(table.coefficients[:-1, B], np.sqrt(levels))
    np.testing.assert_allclose(table.coefficients[:-1, D], np.sqrt(1.0 - levels))
    np.testing.assert_array_equal(table.coefficients[-1, [B, D]], [1.0, 0.0])


class PerfectPrior(Prior):
    """Knows that the data are standard normal: E[eps | z_t] = sigma z_t, so v is 0."""

    def forward(self, z_t: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(z_t)


def test_fresh_noise_loses_a_third_of_the_spread_even_with_a_perfect_network() -> None:
    prior = PerfectPrior(PriorConfig(num_prototypes=3, width=4))
    schedule = NoiseSchedule.from_config(prior.config.schedule)
    z_T = torch.randn((4000, 3), generator=torch.Generator().manual_seed(0))

    def spread(table_name: str) -> float:
        table = ddim(schedule, 20) if table_name == "ddim" else fresh_noise(schedule, 20)
        drawn = run_steps(PriorStep(prior), table, z_T, generator=torch.Generator().manual_seed(1))
        return float(drawn.std())

    assert spread("ddim") == pytest.approx(1.0, abs=0.1)
    assert spread("fresh noise") < 0.7


def test_the_eps_loss_of_a_perfect_network_is_the_noise_that_cannot_be_known() -> None:
    prior = PerfectPrior(PriorConfig(num_prototypes=3, width=4))
    unknowable = float(NoiseSchedule.from_config(prior.config.schedule).alphas_cumprod.mean())
    z = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    assert eps_loss(prior, z) == pytest.approx(unknowable, rel=0.03)  # Var[eps | z_t] = ᾱ_t


def test_copies_of_training_vectors_are_told_from_new_vectors() -> None:
    train, held_out = correlated(3000, 0), correlated(500, 1)
    rng = np.random.default_rng(2)
    copies = train[:500] + 1e-3 * rng.standard_normal((500, 3)).astype(np.float32)
    copied, new = novelty(copies, train, held_out), novelty(correlated(500, 3), train, held_out)
    assert copied.near_copies == 1.0
    assert copied.distance_ratio < 0.1
    assert new.distance_ratio == pytest.approx(1.0, abs=0.15)
    assert new.near_copies == pytest.approx(new.near_copies_held_out, abs=0.05)
