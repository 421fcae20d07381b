"""The term that decouples prototypes: what it asks for, what it leaves alone, and that it can be learned."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.config import ConfigError, ModelConfig
from model.patronus import Patronus
from training.config import LossConfig, OptimizerConfig, TrainConfig, with_overrides
from training.data import Dataset
from training.decoupling import (
    FOLLOWED,
    Decoupling,
    DecouplingLosses,
    Intervention,
    draw_intervention,
)
from training.devices import make_accelerator
from training.objective import Objective
from training.reencoding import LARGEST_SLOPE
from training.trainer import Trainer

PAIRS = ((0, 1), (0, 2), (3, 1))
M = 4


def drawn(
    step: int, *, batch_size: int = 16, share: slice | None = None, pairs: tuple[tuple[int, int], ...] = PAIRS
) -> Intervention:
    return draw_intervention(
        pairs,
        batch_size=batch_size,
        share=share or slice(0, batch_size),
        num_timesteps=40,
        generator=torch.Generator().manual_seed(step),
    )


def test_every_fourth_image_takes_the_activation_of_another_of_them() -> None:
    seen = set()
    for step in range(50):
        rows, donors, prototypes, timestep, num_rows = drawn(step)
        assert rows.tolist() == [0, 4, 8, 12]
        assert num_rows == 4
        assert sorted(donors.tolist()) == [0, 4, 8, 12]
        assert not bool((rows == donors).any())
        assert sorted(prototypes.tolist()) == [0, 0, 3, 3]
        assert 20 <= int(timestep) < 40
        seen.add((int(timestep), *donors.tolist(), *prototypes.tolist()))
    assert len(seen) > 25


def test_the_smallest_batch_has_a_donor() -> None:
    rows, donors, *_ = drawn(0, batch_size=2)
    assert (rows.tolist(), donors.tolist()) == ([0, 1], [1, 0])


def test_shares_of_a_batch_make_up_the_whole() -> None:
    whole = drawn(7)
    parts = [drawn(7, share=slice(start, start + 8)) for start in (0, 8)]
    torch.testing.assert_close(
        torch.cat([part.rows + start for part, start in zip(parts, (0, 8), strict=True)]), whole.rows
    )
    torch.testing.assert_close(torch.cat([part.donors for part in parts]), whole.donors)
    torch.testing.assert_close(torch.cat([part.prototypes for part in parts]), whole.prototypes)
    assert {int(part.timestep) for part in parts} == {int(whole.timestep)}


class Painter(nn.Module):
    """A denoiser that paints s, mixed, into a row of pixels, as a network with v-prediction would."""

    def __init__(self, mixing: Tensor) -> None:
        super().__init__()
        self.mixing = nn.Parameter(mixing)

    def forward(self, x_t: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """x̂₀ = alpha x_t - sigma v, with alpha 0 and sigma 1 in these tests."""
        painted = condition @ self.mixing
        return -painted[:, None, :, None].expand(x_t.shape)


class Reader(nn.Module):
    """Prototype k is what pixel row k shows, times a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(M))

    def forward(self, x_0: Tensor) -> tuple[Tensor, Tensor]:
        s = x_0[:, :, :M].mean(dim=(1, 3)) * self.weight
        return s, s[:, :, None, None]


def toy(mixing: Tensor, config: ModelConfig) -> Patronus:
    """x̂₀ shows s @ mixing in rows; the encoder reads them; x_t is all noise, of which there is none."""
    patronus = Patronus(config)
    patronus.denoiser = Painter(torch.cat([mixing, torch.zeros(M, 4)], dim=1))  # type: ignore[assignment]
    patronus.encoder = Reader()  # type: ignore[assignment]
    patronus.alphas_cumprod.zero_()
    return patronus


def losses_of(patronus: Patronus, s: Tensor, intervention: Intervention) -> DecouplingLosses:
    zeros = torch.zeros(len(s), 1, 8, 8)
    found: DecouplingLosses = Decoupling(PAIRS, M)(patronus, zeros, zeros, s, s, torch.ones(M), intervention)
    return found


def values_of(patronus: Patronus, s: Tensor, intervention: Intervention) -> tuple[float, float]:
    """The same two as numbers."""
    with torch.no_grad():
        found = losses_of(patronus, s, intervention)
    return float(found.leakage), float(found.shortfall)


@pytest.fixture
def s() -> Tensor:
    return 0.1 * torch.randn(16, M, generator=torch.Generator().manual_seed(0))


def test_a_denoiser_without_couplings_that_follows_costs_nothing(tiny_config: ModelConfig, s: Tensor) -> None:
    found = values_of(toy(torch.eye(M), tiny_config), s, drawn(1))
    assert found == pytest.approx((0.0, 0.0), abs=1e-10)


def test_a_coupling_costs_its_square_and_one_that_is_not_named_nothing(
    tiny_config: ModelConfig, s: Tensor
) -> None:
    intervention = drawn(1)
    rows, donors, prototypes, *_ = intervention
    moved = torch.stack([s[d, j] - s[r, j] for r, d, j in zip(rows, donors, prototypes, strict=True)])
    named, unnamed = torch.eye(M), torch.eye(M)
    named[3, 1] = 0.5
    unnamed[3, 2] = 0.5
    expected = ((0.5 * moved).square() * (prototypes == 3)).mean()
    leakage, _ = values_of(toy(named, tiny_config), s, intervention)
    assert leakage == pytest.approx(float(expected), rel=1e-4)
    leakage, _ = values_of(toy(unnamed, tiny_config), s, intervention)
    assert leakage == pytest.approx(0.0, abs=1e-10)


def test_ignoring_the_intervention_is_no_way_out(tiny_config: ModelConfig, s: Tensor) -> None:
    """s_0 and s_3 are shown by the entries beside them alone, so that who drives them changes nothing."""
    deaf = torch.eye(M)
    deaf[0, 0], deaf[3, 3] = 0.0, 0.0
    deaf[1, 0], deaf[2, 3] = 1.0, 1.0
    leakage, shortfall = values_of(toy(deaf, tiny_config), s, drawn(1))
    rows, donors, prototypes, *_ = drawn(1)
    shown = torch.where(prototypes == 0, 1, 2)
    expected = (FOLLOWED * (s[rows, shown] - s[donors, shown])).square().mean()
    assert leakage == pytest.approx(0.0, abs=1e-10)
    assert shortfall == pytest.approx(float(expected), rel=1e-4)


def test_gradients_reach_the_denoiser_and_not_the_encoder(tiny_config: ModelConfig, s: Tensor) -> None:
    mixing = torch.eye(M)
    mixing[0, 1] = mixing[1, 0] = 0.5
    patronus = toy(mixing, tiny_config)
    found = losses_of(patronus, s, drawn(1))
    found.total.backward()  # type: ignore[no-untyped-call]
    painter, reader = patronus.denoiser, patronus.encoder
    assert isinstance(painter, Painter)
    assert isinstance(reader, Reader)
    assert painter.mixing.grad is not None
    assert float(painter.mixing.grad[0, 1]) > 0.0  # less of the coupling
    assert reader.weight.grad is None


def test_plain_predictions_are_not_moved(tiny_config: ModelConfig, s: Tensor) -> None:
    """The gradient is that of the intervened predictions alone: entries that nobody drives get it by them."""
    mixing = torch.eye(M)
    mixing[0, 1] = 0.5
    patronus = toy(mixing, tiny_config)
    intervention = drawn(1)
    losses_of(patronus, s, intervention).total.backward()  # type: ignore[no-untyped-call]
    painter = patronus.denoiser
    assert isinstance(painter, Painter)
    rows, donors, prototypes, *_ = intervention
    driven = s[rows].clone()
    expected = torch.zeros(M)
    for i, (d, j) in enumerate(zip(donors.tolist(), prototypes.tolist(), strict=True)):
        moved = float(s[d, j] - s[rows[i], j])
        driven[i, j] = s[d, j]
        if j == 0:  # d/dmixing[:, 1] of the mean over 4 rows, and over k = 1, 2, of (0.5 moved)²
            expected += driven[i] * 2 * 0.5 * moved / 2 / 4
    assert painter.mixing.grad is not None
    torch.testing.assert_close(painter.mixing.grad[:, 1], expected, rtol=1e-4, atol=1e-7)


def test_no_image_pulls_harder_than_the_largest_slope(tiny_config: ModelConfig, s: Tensor) -> None:
    """An encoder a thousand times as steep does not make the gradient larger than the bound."""
    mixing = torch.eye(M)
    mixing[0, 1] = mixing[3, 1] = 0.5
    patronus = toy(mixing, tiny_config)
    reader, painter = patronus.encoder, patronus.denoiser
    assert isinstance(reader, Reader)
    assert isinstance(painter, Painter)
    with torch.no_grad():
        reader.weight.mul_(1000.0)
    intervention = drawn(1)
    losses_of(patronus, s, intervention).total.backward()  # type: ignore[no-untyped-call]
    assert painter.mixing.grad is not None
    # of one image, x̂₀ changes by 8 pixels' worth of s in each row; its slope has a norm of 1
    largest = LARGEST_SLOPE * 8**0.5 * s.norm(dim=1).max() * 2
    assert 0.0 < float(painter.mixing.grad.norm()) < float(largest)


@pytest.fixture
def config(tiny_config: ModelConfig) -> TrainConfig:
    return TrainConfig(
        model=tiny_config,
        num_images=6 * 16,
        batch_size=16,
        loss=LossConfig(decoupled_pairs=PAIRS, decoupling_weight=0.5),
        optimizer=OptimizerConfig(warmup_steps=2),
        log_every=2,
        checkpoint_every=3,
        sample_every=1000,
    )


def trained(config: TrainConfig, dataset: Dataset, run: Path, *, parent: Path | None = None) -> Trainer:
    trainer = Trainer(config, dataset, run, make_accelerator("cpu"))
    if parent is not None:
        trainer.start_from(parent)
    trainer.run()
    return trainer


def test_a_resumed_run_that_decouples_continues_bit_for_bit(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    straight = trained(config, tiny_dataset, tmp_path / "straight")
    Trainer(config, tiny_dataset, tmp_path / "stopped", make_accelerator("cpu")).run(until_step=3)
    resumed = Trainer(config, tiny_dataset, tmp_path / "stopped", make_accelerator("cpu"))
    resumed.load()
    resumed.run()
    for name, value in straight.patronus.state_dict().items():
        assert torch.equal(value, resumed.patronus.state_dict()[name]), name


def test_a_weight_of_0_trains_what_no_pairs_train(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """The term draws after everything else, and its gradient is all that it adds."""
    weightless = dataclasses.replace(config, loss=LossConfig(decoupled_pairs=PAIRS, decoupling_weight=0.0))
    off = dataclasses.replace(config, loss=LossConfig())
    runs = [trained(one, tiny_dataset, tmp_path / str(i)) for i, one in enumerate((weightless, off))]
    for name, value in runs[0].patronus.state_dict().items():
        torch.testing.assert_close(value, runs[1].patronus.state_dict()[name], rtol=0, atol=1e-7)


def test_the_log_has_both_parts_of_the_term_where_it_is_on(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trained(config, tiny_dataset, tmp_path / "on")
    trained(dataclasses.replace(config, loss=LossConfig()), tiny_dataset, tmp_path / "off")
    on, off = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("on", "off")
    )
    assert set(on) - set(off) == {"leakage", "shortfall"}
    assert on["leakage"] >= 0.0
    assert on["shortfall"] > 0.0


def leakage_of(trainer: Trainer, dataset: Dataset) -> float:
    """Of PAIRS on other noise than the run has seen."""
    patronus = trainer.patronus.eval()
    x_0 = trainer._x_0(torch.from_numpy(dataset.pixels))
    with torch.no_grad():
        s, _ = patronus.encoder(x_0)
        spread = s.std(dim=0)
        term = Decoupling(PAIRS, M)
        total = 0.0
        for step in range(20):
            eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(step))
            found = term(patronus, x_0, eps, s, s, spread, drawn(1000 + step, batch_size=len(x_0)))
            total += found.leakage.item() / 20
    return total


def test_fine_tuning_with_the_term_leaks_less_than_without(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Both begin at one run, and see the same images and the same noise."""
    off = dataclasses.replace(config, loss=LossConfig(), num_images=60 * 16)
    trained(off, tiny_dataset, tmp_path / "parent")
    strong = LossConfig(decoupled_pairs=PAIRS, decoupling_weight=2.0)
    longer = dataclasses.replace(off, loss=strong)
    with_term, control = (
        trained(one, tiny_dataset, tmp_path / name, parent=tmp_path / "parent")
        for name, one in (("with", longer), ("without", off))
    )
    leakages = [leakage_of(trainer, tiny_dataset) for trainer in (with_term, control)]
    assert leakages[0] < 0.6 * leakages[1], leakages


def test_a_model_without_standardisation_counts_in_the_deviations_of_the_batch(
    tiny_config: ModelConfig,
) -> None:
    plain = dataclasses.replace(
        tiny_config, denoiser=dataclasses.replace(tiny_config.denoiser, standardize=False)
    )
    config = TrainConfig(model=plain, batch_size=8, loss=LossConfig(decoupled_pairs=PAIRS))
    torch.manual_seed(0)
    objective = Objective(Patronus(plain), config)
    x_0, eps = torch.rand(2, 8, 1, 8, 8).unbind()
    losses = objective(x_0, eps, torch.arange(8), drawn(0, batch_size=8))
    assert bool(torch.isfinite(losses.total))
    assert float(losses.shortfall.detach()) > 0.0


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("[[1, 1]]", r"two different prototypes each, not \[1, 1\]"),
        ("[[1]]", r"two different prototypes each, not \[1\]"),
        ("[[0, 1], [0, 1]]", "has a pair twice"),
        ("[[0, 30]]", r"prototypes 0 to 29, not \[0, 30\]"),
        ("[[-1, 0]]", r"prototypes 0 to 29, not \[-1, 0\]"),
        ("[0, 1]", r"decoupled_pairs\[0\] must be a list"),
        ("[[0, 1.5]]", r"decoupled_pairs\[0\]\[1\] must be int"),
    ],
)
def test_pairs_that_cannot_be_are_refused(pairs: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_overrides(TrainConfig(), {"loss.decoupled_pairs": pairs})
