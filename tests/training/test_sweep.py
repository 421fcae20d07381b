from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.config import ConfigError, ModelConfig
from training.config import TrainConfig
from training.data import Dataset
from training.devices import make_accelerator
from training.sweep import COLUMNS, Axis, configure, plot, points, run_name, sweep, table_of


@pytest.fixture
def base(tiny_config: ModelConfig) -> TrainConfig:
    return TrainConfig(model=tiny_config, num_images=32, batch_size=16)


def both(dataset: Dataset) -> Callable[[TrainConfig], tuple[Dataset, Dataset]]:
    """Training and test split in one, whatever the configuration names."""
    return lambda config: (dataset, dataset)


def test_an_axis_reads_numbers_words_and_lists() -> None:
    assert Axis.parse("m=10,30") == Axis("m", (10, 30))
    assert Axis.parse("loss.distinctness_weight=0,0.5").values == (0, 0.5)
    assert Axis.parse("loss.distinctness=cosine,euclidean").values == ("cosine", "euclidean")
    assert Axis.parse("model.encoder.channels=[8,8],[8,16]").values == ([8, 8], [8, 16])
    with pytest.raises(ConfigError, match=re.escape("--vary takes name=value,value")):
        Axis.parse("m")


def test_points_are_all_combinations() -> None:
    found = points([Axis("m", (3, 5)), Axis("D", (6, 8))])
    assert found == [{"m": 3, "D": 6}, {"m": 3, "D": 8}, {"m": 5, "D": 6}, {"m": 5, "D": 8}]
    assert run_name(found[1]) == "m=3,D=8"


def test_m_and_d_are_the_encoders(base: TrainConfig) -> None:
    config = configure(base, {"m": 7, "D": 12, "seed": 4})
    assert config.model.encoder.num_prototypes == 7
    assert config.model.encoder.feature_width == 12
    assert config.model.encoder.channels[:-1] == base.model.encoder.channels[:-1]
    assert config.seed == 4


def test_a_wrong_point_stops_the_sweep_before_it_trains(
    base: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="num_prototypes must be >= 1"):
        sweep(base, [Axis("m", (3, 0))], both(tiny_dataset), tmp_path, make_accelerator("cpu"))
    assert not list(tmp_path.iterdir())


def test_a_sweep_measures_every_point_and_keeps_what_is_done(
    base: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    axes = [Axis("m", (3, 5)), Axis("D", (6, 8))]
    accelerator = make_accelerator("cpu")
    records = sweep(base, axes, both(tiny_dataset), tmp_path, accelerator)
    assert [(record["m"], record["D"]) for record in records] == [(3, 6), (3, 8), (5, 6), (5, 8)]
    for record in records:
        assert set(COLUMNS) - {"auroc"} <= set(record)

    kept = tmp_path / "m=3,D=6" / "result.json"
    changed = json.loads(kept.read_text())
    changed["figures"]["probe"] = 0.123
    kept.write_text(json.dumps(changed))
    again = sweep(base, axes, both(tiny_dataset), tmp_path, accelerator)
    assert again[0]["probe"] == 0.123
    assert again[1:] == records[1:]

    table = table_of(records, axes).splitlines()
    assert len(table) == 2 + 4
    assert table[2].startswith("| 3 | 6 | ")
    plot(records, axes, tmp_path / "sweep.png")
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.width > 500


def test_a_result_of_another_recipe_is_measured_anew(
    base: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    axes = [Axis("m", (3,))]
    sweep(base, axes, both(tiny_dataset), tmp_path, make_accelerator("cpu"))
    other = dataclasses.replace(base, seed=1)
    (tmp_path / "m=3" / "checkpoint.pt").unlink()
    sweep(other, axes, both(tiny_dataset), tmp_path, make_accelerator("cpu"))
    assert json.loads((tmp_path / "m=3" / "result.json").read_text())["config"]["seed"] == 1


def test_each_point_trains_on_the_data_set_that_it_names(
    base: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    asked: list[str] = []

    def load(config: TrainConfig) -> tuple[Dataset, Dataset]:
        asked.append(config.dataset)
        return tiny_dataset, tiny_dataset

    axes = [Axis("dataset", ("mnist", "fashion-mnist")), Axis("seed", (0, 1))]
    sweep(base, axes, load, tmp_path, make_accelerator("cpu"))
    assert asked == ["mnist", "fashion-mnist"]


def test_attributes_are_probed_where_there_are_no_classes(
    base: TrainConfig, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    light = tiny_dataset.pixels.reshape(64, -1).mean(axis=1)
    bright = (light > np.median(light)).astype(np.int8)[:, None]
    faces = Dataset(tiny_dataset.pixels, np.zeros(64, np.int64), (), bright, ("bright",))
    (record,) = sweep(base, [Axis("m", (3,))], both(faces), tmp_path, make_accelerator("cpu"))
    assert 0.0 <= record["auroc"] <= 1.0
    assert "probe" not in record
