"""The term that asks of x̂₀ what the denoiser was given, and training the denoiser on a finished encoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model.config import ModelConfig
from model.patronus import Patronus
from training.config import LossConfig, TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.reencoding import LARGEST_SLOPE, bounded_slope, reencoding_loss
from training.trainer import Trainer


@pytest.fixture
def config(tiny_config: ModelConfig) -> TrainConfig:
    return TrainConfig(model=tiny_config, num_images=128, batch_size=16, ema_decay=0.0, precision="fp32")


def pictures(patronus: Patronus, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, *patronus.config.image.shape), generator=generator) * 2.0 - 1.0


def test_a_picture_that_encodes_to_what_was_asked_costs_nothing(tiny_patronus: Patronus) -> None:
    x_0 = pictures(tiny_patronus, 3)
    s = tiny_patronus.encoder(x_0)[0].detach()
    alpha = torch.full((3, 1, 1, 1), 0.8)
    assert float(reencoding_loss(tiny_patronus.encoder, x_0, s, torch.ones_like(s[0]), alpha)) == 0.0


def test_the_loss_is_the_mean_square_in_deviations_weighed_by_alpha_bar(tiny_patronus: Patronus) -> None:
    x_0 = pictures(tiny_patronus, 2)
    encoded = tiny_patronus.encoder(x_0)[0].detach()
    s = encoded.clone()
    s[0, 1] += 0.6
    unit = torch.full_like(s[0], 0.3)
    alpha = torch.tensor([0.5, 0.9]).reshape(2, 1, 1, 1)
    loss = reencoding_loss(tiny_patronus.encoder, x_0, s, unit, alpha)
    assert float(loss) == pytest.approx(0.25 * 4.0 / s.numel(), rel=1e-4)


def test_the_gradient_reaches_the_picture_and_not_the_encoder(tiny_patronus: Patronus) -> None:
    x_0 = pictures(tiny_patronus, 2).requires_grad_()
    s = tiny_patronus.encoder(x_0)[0].detach() + 0.5
    loss = reencoding_loss(tiny_patronus.encoder, x_0, s, torch.ones_like(s[0]), torch.ones(2, 1, 1, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert x_0.grad is not None
    assert bool(x_0.grad.abs().sum() > 0)
    assert all(parameter.grad is None for parameter in tiny_patronus.encoder.parameters())


def test_slopes_are_cut_to_the_largest_and_gentle_ones_kept() -> None:
    x_0_hat = torch.zeros(2, 1, 2, 2, requires_grad=True)
    slope = torch.zeros(2, 1, 2, 2)
    slope[0, 0, 0, 0], slope[1, 0, 1, 1] = 50.0 * LARGEST_SLOPE, -0.25 * LARGEST_SLOPE
    terms = bounded_slope(x_0_hat, slope)
    assert terms.tolist() == [0.0, 0.0]
    terms.sum().backward()  # type: ignore[no-untyped-call]
    assert x_0_hat.grad is not None
    assert float(x_0_hat.grad[0, 0, 0, 0]) == pytest.approx(LARGEST_SLOPE)
    assert float(x_0_hat.grad[1, 0, 1, 1]) == pytest.approx(-0.25 * LARGEST_SLOPE)


def test_a_frozen_encoder_stays_as_it_is_while_the_denoiser_learns(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    frozen = dataclasses.replace(
        config, freeze_encoder=True, loss=LossConfig(decorrelation_weight=1.0, reencoding_weight=0.5)
    )
    trainer = Trainer(frozen, tiny_dataset, tmp_path, make_accelerator("cpu"))
    before = {name: value.clone() for name, value in trainer.patronus.state_dict().items()}
    trainer.run()
    after = trainer.patronus.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("denoiser.") for name in changed)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["reencoding"] > 0.0


def test_the_term_makes_pictures_encode_to_what_was_asked(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    plain = dataclasses.replace(config, num_images=120 * 16, freeze_encoder=True)
    strong = dataclasses.replace(plain, loss=LossConfig(reencoding_weight=30.0))
    measured = dataclasses.replace(plain, loss=LossConfig(reencoding_weight=1e-12))  # sees it and ignores it
    errors = []
    for name, one in (("without", measured), ("with", strong)):
        Trainer(one, tiny_dataset, tmp_path / name, make_accelerator("cpu")).run()
        record = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1])
        errors.append(record["reencoding"])
    assert errors[1] < 0.95 * errors[0]


def test_a_run_may_start_from_one_with_another_dropout(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    parent = Trainer(config, tiny_dataset, tmp_path / "parent", make_accelerator("cpu"))
    (tmp_path / "parent").mkdir()
    parent.save()
    denoiser = dataclasses.replace(config.model.denoiser, dropout=0.3)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, denoiser=denoiser))
    child = Trainer(other, tiny_dataset, tmp_path / "child", make_accelerator("cpu"))
    child.start_from(tmp_path / "parent")
    for name, value in parent.ema.module.state_dict().items():
        torch.testing.assert_close(child.patronus.state_dict()[name], value, rtol=0, atol=0)
