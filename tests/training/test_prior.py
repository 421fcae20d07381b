from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.config import EncoderConfig, PriorConfig
from model.encoder import PrototypeEncoder
from model.prior import Prior, PriorStep
from model.samplers import apply_step, ddpm, dpmpp_2m
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from training.prior import (
    PRIOR,
    PriorError,
    has_prior,
    hold_out,
    load_prior,
    prior_table,
    sample_activations,
    save_prior,
    train_prior,
)
from training.sampling import run_steps

CONFIG = PriorConfig(num_prototypes=2, width=48, num_layers=2, sampling_steps=20)


def on_a_parabola(count: int) -> npt.NDArray[np.float32]:
    """Two prototypes that do not correlate and yet go together: s_1 = 1 + (s_0 - 4)², nearly."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(count)
    return np.column_stack([4.0 + x, 1.0 + x**2 + 0.1 * rng.standard_normal(count)]).astype(np.float32)


def distance_from_parabola(s: npt.NDArray[np.float32]) -> float:
    return float(np.abs(s[:, 1] - 1.0 - (s[:, 0] - 4.0) ** 2).mean())


def encoder(seed: int) -> PrototypeEncoder:
    torch.manual_seed(seed)
    return PrototypeEncoder(EncoderConfig(2, (3,), (4,), (1,), (0,)), 1)


def test_a_trained_prior_draws_what_goes_together_where_the_copula_does_not() -> None:
    s = on_a_parabola(2000)
    prior = train_prior(s, CONFIG, num_steps=500, batch_size=128, ema_decay=0.98)
    statistics = ActivationStatistics.measure(s)
    drawn = sample_activations(prior, statistics, prior_table(CONFIG), 1000, seed=1)
    assert drawn.shape == (1000, 2)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(axis=0), s.mean(axis=0), atol=0.2)
    copula = statistics.resample(np.random.default_rng(1), 1000)
    assert distance_from_parabola(drawn) < distance_from_parabola(copula) / 2


def test_the_same_seed_trains_the_same_prior() -> None:
    s = on_a_parabola(100)
    one, same, other = (train_prior(s, CONFIG, num_steps=3, batch_size=16, seed=seed) for seed in (1, 1, 2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    assert not torch.equal(one.first.weight, other.first.weight)


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_prior(on_a_parabola(50), CONFIG, num_steps=2, batch_size=8)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (np.ones((5, 3), np.float32), r"shape \(5, 3\), a prior of 2 prototypes needs \(N, 2\)"),
        (np.ones((1, 2), np.float32), "with N >= 2"),
        (np.ones(2, np.float32), r"shape \(2,\)"),
        (np.full((5, 2), np.nan, np.float32), "not finite"),
    ],
)
def test_activations_of_no_such_prior_are_refused(activations: npt.NDArray[np.float32], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        train_prior(activations, CONFIG, num_steps=1)


@pytest.mark.parametrize("name", ["num_steps", "batch_size"])
def test_no_steps_and_no_batch_are_refused(name: str) -> None:
    numbers = {"num_steps": 1, "batch_size": 1} | {name: 0}
    with pytest.raises(PriorError, match=f"{name} must be >= 1, not 0"):
        train_prior(
            on_a_parabola(10), CONFIG, num_steps=numbers["num_steps"], batch_size=numbers["batch_size"]
        )


def test_a_tenth_is_held_out_and_nothing_is_lost() -> None:
    s = np.arange(40, dtype=np.float32).reshape(20, 2)
    train, held_out = hold_out(s, seed=3)
    assert (len(train), len(held_out)) == (18, 2)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out]), axis=0), s)


def test_the_loop_is_the_table_row_by_row() -> None:
    torch.manual_seed(0)
    prior = Prior(CONFIG).eval()
    torch.nn.init.normal_(prior.last.weight)
    table = dpmpp_2m(NoiseSchedule.from_config(CONFIG.schedule), 6)
    start = torch.randn(3, 2)
    x, memory = start.numpy(), np.zeros((3, 2), np.float32)
    for timestep, row in zip(table.timesteps, table.coefficients, strict=True):
        with torch.no_grad():
            raw = prior(torch.from_numpy(x), torch.full((3,), int(timestep))).numpy()
        coefficients = np.tile(row.astype(np.float32), (3, 1))
        x_0_hat = coefficients[:, :1] * x - coefficients[:, 1:2] * raw  # from v
        x, memory, _ = apply_step(x_0_hat, x, memory, np.zeros_like(x), coefficients)
    found = run_steps(PriorStep(prior), table, start, generator=torch.Generator())
    np.testing.assert_allclose(found.numpy(), x, rtol=1e-4, atol=1e-4)


def test_the_same_seed_draws_the_same_vectors_also_where_noise_is_added() -> None:
    torch.manual_seed(0)
    prior = Prior(CONFIG).eval()
    statistics = ActivationStatistics.measure(on_a_parabola(100))
    table = ddpm(NoiseSchedule.from_config(CONFIG.schedule), 5)
    one, same, other = (sample_activations(prior, statistics, table, 7, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_prior_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    prior = train_prior(on_a_parabola(50), CONFIG, num_steps=2, batch_size=8)
    run = tmp_path / "run"
    assert not has_prior(run)
    save_prior(prior, run, encoder(0))
    assert has_prior(run)
    assert [path.name for path in run.iterdir()] == [PRIOR]
    again = load_prior(run, encoder(0))
    assert again.config == prior.config
    assert not again.training
    for name, value in prior.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_prior_of_another_encoder_is_refused(tmp_path: Path) -> None:
    save_prior(Prior(CONFIG), tmp_path, encoder(0))
    with pytest.raises(PriorError, match=r"prior\.pt was trained for encoder .* train the prior again"):
        load_prior(tmp_path, encoder(1))


def test_a_run_without_prior_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=r"prior\.pt is missing: train the prior first"):
        load_prior(tmp_path, encoder(0))


def test_a_damaged_prior_is_named(tmp_path: Path) -> None:
    (tmp_path / PRIOR).write_bytes(b"rubbish")
    with pytest.raises(PriorError, match=r"prior\.pt cannot be read"):
        load_prior(tmp_path, encoder(0))


def test_a_file_that_is_no_prior_says_what_it_lacks(tmp_path: Path) -> None:
    torch.save({"config": {}}, tmp_path / PRIOR)
    with pytest.raises(PriorError, match=r"no prior of this program: it lacks encoder, model"):
        load_prior(tmp_path, encoder(0))


def test_weights_that_contradict_the_configuration_are_named(tmp_path: Path) -> None:
    save_prior(Prior(CONFIG), tmp_path, encoder(0))
    state = torch.load(tmp_path / PRIOR, weights_only=True)
    state["config"]["width"] = 16
    torch.save(state, tmp_path / PRIOR)
    with pytest.raises(PriorError, match="does not hold what its configuration says"):
        load_prior(tmp_path, encoder(0))
