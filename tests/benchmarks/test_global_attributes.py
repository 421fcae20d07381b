"""The comparison of encoders by what they tell, on few small faces and a few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.global_attributes import ENCODERS, Outcome, table_of, train_and_measure
from model.config import DenoiserConfig
from training.config import TrainConfig
from training.data import Dataset
from training.data.cartoon_faces.attributes import ATTRIBUTES, LABELS
from training.data.cartoon_faces.drawing import render
from training.data.cartoon_faces.faces import sample_faces

NUM_PROTOTYPES = 6


def faces(seed: int) -> Dataset:
    drawn = sample_faces(seed, 96)
    names = tuple(label.name for label in LABELS)
    return Dataset(render(drawn, 32), drawn.index("age"), (), drawn.labels(), names)


def tiny(config: TrainConfig) -> TrainConfig:
    denoiser = DenoiserConfig(
        base_channels=8,
        channel_multipliers=(1,),
        num_residual_blocks=1,
        attention_levels=(False,),
        patch_size=4,
        standardize=config.model.denoiser.standardize,
    )
    return replace(config, model=replace(config.model, denoiser=denoiser), batch_size=32)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    train, test = faces(0), faces(1)
    return [
        train_and_measure(
            name,
            tiny(configure(32, NUM_PROTOTYPES, 64)),
            train,
            test,
            tmp_path_factory.mktemp("runs") / name,
            "cpu",
        )
        for name, configure in ENCODERS.items()
    ]


@pytest.mark.parametrize("size", [32, 64])
def test_encoders_are_of_as_many_prototypes_and_differ_as_they_say(size: int) -> None:
    published, local, whole = (configure(size, 48, 64) for configure in ENCODERS.values())
    assert {c.model.num_prototypes for c in (published, local, whole)} == {48}
    assert published.model.encoder.kernel_sizes == (3, 3, 3, 3)
    assert published.model.encoder.channels == (32, 64, 64, 128)
    assert published.model.encoder.distance == "sum"
    assert not published.model.denoiser.standardize
    assert published.loss.nearest_patch_weight == published.loss.decorrelation_weight == 0.0
    assert published.optimizer == local.optimizer == whole.optimizer
    assert whole.model.encoder.num_prototypes_by_scale == {"local": 30, "wide": 10, "global": 8}
    assert local.model.encoder.num_prototypes_by_scale == {"local": 48}
    assert replace(whole, model=local.model) == local
    assert local.model.receptive_field.size == {32: 9, 64: 19}[size]


def test_every_attribute_has_a_figure_of_every_encoder(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert list(outcome.auroc) == [attribute.name for attribute in ATTRIBUTES]
        assert all(0.0 <= value <= 1.0 for value in outcome.auroc.values())
    assert set(outcomes[0].best_scale.values()) == {"local"}
    assert set(outcomes[2].best_scale.values()) <= {"local", "wide", "global"}


def test_tables_have_a_row_for_each_encoder_and_for_each_attribute(outcomes: list[Outcome]) -> None:
    again = [replace(outcome, seed=1, gap=outcome.gap + 0.5) for outcome in outcomes]
    table = table_of([*outcomes, *again], ["heading"])
    first, second = (part.splitlines() for part in table.split("\n\n")[1:])
    assert len(first) == 2 + len(ENCODERS)
    assert len(second) == 2 + len(ATTRIBUTES)
    for rows in (first, second):
        assert len({row.count("|") for row in rows}) == 1
    gap = outcomes[0].gap
    assert f"{gap + 0.25:.3f} ({gap:.3f} to {gap + 0.5:.3f})" in first[2]


def test_a_finished_run_is_taken_as_it_is(outcomes: list[Outcome], tmp_path: Path) -> None:
    config, train, test = tiny(ENCODERS["local"](32, NUM_PROTOTYPES, 64)), faces(0), faces(1)
    first = train_and_measure("local", config, train, test, tmp_path, "cpu")
    steps = (tmp_path / "metrics.jsonl").read_text()
    again = train_and_measure("local", config, train, test, tmp_path, "cpu")
    assert again.auroc == first.auroc == outcomes[1].auroc
    assert (tmp_path / "metrics.jsonl").read_text() == steps
