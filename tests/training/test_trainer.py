from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import ModelConfig, config_from_dict
from training.config import OptimizerConfig, TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.trainer import (
    CheckpointError,
    Trainer,
    TrainingDivergedError,
    conditioning_losses,
    load_averaged_model,
    read_checkpoint,
)


@pytest.fixture
def config(tiny_config: ModelConfig) -> TrainConfig:
    return TrainConfig(
        model=tiny_config,
        num_images=6 * 16,
        batch_size=16,
        optimizer=OptimizerConfig(warmup_steps=2),
        horizontal_flip=True,
        log_every=2,
        checkpoint_every=3,
        sample_every=3,
    )


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_resumed_run_continues_bit_for_bit(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    straight = Trainer(config, tiny_dataset, tmp_path / "straight", make_accelerator("cpu"))
    straight.run()
    Trainer(config, tiny_dataset, tmp_path / "stopped", make_accelerator("cpu")).run(until_step=3)
    resumed = Trainer(config, tiny_dataset, tmp_path / "stopped", make_accelerator("cpu"))
    resumed.load()
    assert resumed.step == 3
    resumed.run()
    assert resumed.step == straight.step == 6
    assert_same(resumed.patronus.state_dict(), straight.patronus.state_dict())
    assert_same(resumed.ema.module.state_dict(), straight.ema.module.state_dict())
    moments = [trainer.optimizer.state_dict()["state"] for trainer in (resumed, straight)]
    for key in moments[0]:
        assert_same(moments[0][key], moments[1][key])


def test_another_configuration_is_not_resumed(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu")).save()
    other = dataclasses.replace(config, optimizer=OptimizerConfig(learning_rate=5e-4))
    with pytest.raises(CheckpointError, match="was written by another configuration"):
        Trainer(other, tiny_dataset, tmp_path, make_accelerator("cpu")).load()


def test_a_run_directory_says_what_happened(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu")).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.jsonl",
        "samples",
    ]
    assert config_from_dict(TrainConfig, json.loads((tmp_path / "config.json").read_text())) == config
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4, 6]
    assert [record["images"] for record in records] == [32, 64, 96]
    pictures = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in pictures] == ["step-0000003.png", "step-0000006.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.width > picture.height > 0


def test_training_lowers_the_loss(config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path) -> None:
    longer = dataclasses.replace(config, num_images=60 * 16, log_every=1, sample_every=1000)
    Trainer(longer, tiny_dataset, tmp_path, make_accelerator("cpu")).run()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [record["denoising"] for record in records]
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])


def test_the_averaged_model_is_the_average(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu"))
    trainer.run()
    patronus, loaded = load_averaged_model(tmp_path)
    assert loaded == config
    assert not patronus.training
    assert_same(patronus.state_dict(), trainer.ema.module.state_dict())


def test_a_new_run_starts_from_the_average_of_another(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    parent = Trainer(config, tiny_dataset, tmp_path / "parent", make_accelerator("cpu"))
    parent.run()
    child = Trainer(
        dataclasses.replace(config, seed=1), tiny_dataset, tmp_path / "child", make_accelerator("cpu")
    )
    child.start_from(tmp_path / "parent")
    assert child.step == 0
    assert_same(child.patronus.state_dict(), parent.ema.module.state_dict())
    kept = json.loads((tmp_path / "child" / "parent.json").read_text())
    assert kept["stopped_after_steps"] == 6
    assert config_from_dict(TrainConfig, kept["training"]) == config


def test_a_run_does_not_start_from_a_model_of_another_shape(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu")).save()
    wider = dataclasses.replace(config.model.encoder, num_prototypes=5)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=wider))
    with pytest.raises(CheckpointError, match="holds a model of another shape"):
        Trainer(other, tiny_dataset, tmp_path / "child", make_accelerator("cpu")).start_from(tmp_path)


def test_every_epoch_shows_every_image_once(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu"))
    epochs = [
        np.concatenate([trainer.batches.indices(step) for step in range(4 * e, 4 * e + 4)]) for e in (0, 1)
    ]
    for indices in epochs:
        assert sorted(indices.tolist()) == list(range(64))
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_train(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path, precision: str
) -> None:
    chosen = dataclasses.replace(config, precision=precision)  # type: ignore[arg-type]
    trainer = Trainer(chosen, tiny_dataset, tmp_path, make_accelerator("cpu"))
    trainer.run(until_step=2)
    for parameter in trainer.patronus.parameters():
        assert parameter.dtype == torch.float32
        assert bool(torch.isfinite(parameter).all())


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is missing: train first"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 not a zip"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        load_averaged_model(tmp_path)


def test_a_denoiser_that_ignores_s_shows_no_gap(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu"))
    patronus = trainer.patronus.eval()
    x_0 = trainer._x_0(trainer.batches.sample(32))
    s, _ = patronus.encoder(x_0)
    true, shuffled = conditioning_losses(patronus, x_0, s, 20)
    assert true != shuffled
    with torch.no_grad():
        last = patronus.denoiser.condition_embedding[2]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
    true, shuffled = conditioning_losses(patronus, x_0, s, 20)
    assert true == shuffled


def test_a_resumed_run_logs_every_step_once(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Killed after step 5, with the checkpoint of step 3 at hand."""
    every = dataclasses.replace(config, log_every=1)
    trainer = Trainer(every, tiny_dataset, tmp_path, make_accelerator("cpu"))
    trainer.run(until_step=3)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    trainer.run(until_step=5)
    (tmp_path / "checkpoint.pt").write_bytes(kept)
    resumed = Trainer(every, tiny_dataset, tmp_path, make_accelerator("cpu"))
    resumed.load()
    resumed.run()
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_diverges_stops_and_says_so(
    config: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(config, tiny_dataset, tmp_path, make_accelerator("cpu"))
    with torch.no_grad():
        trainer.patronus.denoiser.first.weight.fill_(torch.inf)
    with pytest.raises(TrainingDivergedError, match="the loss is nan at step 2: lower the learning rate"):
        trainer.run()
    assert not (tmp_path / "checkpoint.pt").exists()
