"""Train the same recipe with some fields varied, and put what comes out side by side."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from model.config import ConfigError, config_to_dict
from model.patronus import Patronus
from model.samplers import ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import from_x_0, to_x_0
from training.config import TrainConfig, with_overrides
from training.data import Dataset
from training.evaluation.prototypes import prototype_figures
from training.evaluation.reconstruction import mean_psnr_db
from training.exemplars import encode_all
from training.probe import attribute_probe, linear_probe
from training.sampling import run_table
from training.trainer import CHECKPOINT, Trainer, conditioning_losses, write_json

log = logging.getLogger(__name__)

RESULT = "result.json"
NUM_RECONSTRUCTIONS = 128
INVERSION_STEPS = 20

COLUMNS = {
    "probe": "probe accuracy",
    "auroc": "probe AUROC",
    "duplicates": "duplicates",
    "largest_correlation": "largest correlation, mean",
    "raw_spread": "spread of s",
    "nearest_patch": "distance to nearest patch",
    "reconstruction_db": f"reconstruction, {INVERSION_STEPS} steps, dB",
    "gap": "eps-loss gap at t = 300",
}
"""What is measured of every run, and what a table calls it."""


@dataclass(frozen=True)
class Axis:
    """One field that a sweep varies: its dotted name, or the short "m" or "D", and its values."""

    name: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """From "name=value,value": numbers, words, or JSON lists. Raises ConfigError."""
        name, separator, values = text.partition("=")
        if not separator or not values:
            raise ConfigError(f"--vary takes name=value,value,…, not {text!r}")
        try:
            parsed = json.loads(f"[{values}]")
        except ValueError:
            parsed = values.split(",")
        return cls(name, tuple(parsed))


def points(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis varying fastest."""
    names = [axis.name for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(a.values for a in axes))]


def configure(base: TrainConfig, point: dict[str, Any]) -> TrainConfig:
    """`base` at one point: "m" is the number of prototypes, "D" the width of features and prototypes.

    Raises ConfigError for a field that does not exist.
    """
    overrides: dict[str, Any] = {}
    for name, value in point.items():
        if name == "m":
            overrides["model.encoder.num_prototypes"] = value
        elif name == "D":
            overrides["model.encoder.channels"] = [*base.model.encoder.channels[:-1], value]
        else:
            overrides[name] = value
    return with_overrides(base, overrides)


def sweep(
    base: TrainConfig,
    axes: Sequence[Axis],
    load: Callable[[TrainConfig], tuple[Dataset, Dataset]],
    directory: Path,
    accelerator: Accelerator,
) -> list[dict[str, Any]]:
    """Train and measure every point in a run directory of its own; finished ones are taken as they are.

    `load` gives the training and the test split that a configuration names. Returns one record for each
    point: its values, and the figures of COLUMNS.
    """
    records = []
    loaded: dict[Any, tuple[Dataset, Dataset]] = {}
    configs = [(point, configure(base, point)) for point in points(axes)]  # all are checked before any runs
    for number, (point, config) in enumerate(configs, start=1):
        run = directory / run_name(point)
        kept = _kept(run, config)
        if kept is None:
            log.info("run %d of %d: %s", number, len(configs), run.name)
            key = (config.dataset, config.model.image)
            if key not in loaded:
                loaded = {key: load(config)}  # the others are let go
            train, test = loaded[key]
            trainer = Trainer(config, train, run, accelerator)
            if (run / CHECKPOINT).exists():
                trainer.load()
            trainer.run()
            average = trainer.ema.module
            assert isinstance(average, Patronus)
            kept = measure(average, train, test)
            record = {"config": config_to_dict(config), "figures": kept}
            write_json(run / RESULT, record)
            accelerator.free_memory()  # it keeps every model that it prepared
        records.append({**point, **kept})
    return records


def run_name(point: dict[str, Any]) -> str:
    """The directory of a point, such as "m=30,D=128"."""
    return ",".join(f"{name}={_written(value)}" for name, value in point.items()) or "base"


def measure(patronus: Patronus, train: Dataset, test: Dataset, *, seed: int = 0) -> dict[str, float]:
    """The figures of COLUMNS, on the test split where images are needed."""
    train_activations, train_cells = encode_all(patronus, train.pixels)
    test_activations, _ = encode_all(patronus, test.pixels)
    prototypes = prototype_figures(patronus.config, train_activations, train_cells, test_activations)
    figures = {
        "duplicates": float(prototypes["num_duplicates"]),
        "largest_correlation": prototypes["largest_correlation_mean"],
        "raw_spread": prototypes["raw_spread_mean"],
        "nearest_patch": prototypes["nearest_train_patch_distance_mean"],
    }
    if test.class_names:
        probe = linear_probe(train_activations, train.labels, test_activations, test.labels, folds=0)
        figures["probe"] = probe.test
    if test.attribute_names:
        auroc = attribute_probe(
            train_activations, train.attributes, test_activations, test.attributes, folds=0
        )
        if auroc.num_attributes:
            figures["auroc"] = auroc.test
    chosen = np.random.default_rng(seed).permutation(len(test))[:NUM_RECONSTRUCTIONS]
    device = patronus.activation_mean.device
    pixels = test.pixels[np.sort(chosen)]
    x_0 = torch.from_numpy(to_x_0(pixels)).to(device)
    s = torch.from_numpy(test_activations[np.sort(chosen)]).to(device)
    schedule = NoiseSchedule.from_config(patronus.config.schedule)
    steps = min(INVERSION_STEPS, schedule.num_timesteps)
    x_T = run_table(patronus, ddim_inversion(schedule, steps), x_0, s)
    found = from_x_0(run_table(patronus, ddim(schedule, steps), x_T, s).cpu().numpy())
    figures["reconstruction_db"] = mean_psnr_db(pixels, found)
    timestep = round(0.3 * schedule.num_timesteps)
    true, shuffled = conditioning_losses(patronus, x_0, s, timestep)
    figures["gap"] = 1.0 - true / shuffled
    return figures


def table_of(records: Sequence[dict[str, Any]], axes: Sequence[Axis]) -> str:
    """The records as a Markdown table."""
    names = [axis.name for axis in axes]
    columns = [column for column in COLUMNS if any(column in record for record in records)]
    lines = [
        "| " + " | ".join([*names, *(COLUMNS[column] for column in columns)]) + " |",
        "|" + "---|" * (len(names) + len(columns)),
    ]
    for record in records:
        cells = [_written(record[name]) for name in names]
        cells += ["" if column not in record else f"{record[column]:.4g}" for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(records: Sequence[dict[str, Any]], axes: Sequence[Axis], path: Path) -> None:
    """One small chart for each figure: the first axis along x, a line for each combination of the others."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = [column for column in COLUMNS if any(column in record for record in records)]
    rows = -(-len(columns) // 3)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    charts = figure.subplots(rows, 3, squeeze=False).ravel()
    first, others = axes[0], axes[1:]
    for chart, column in itertools.zip_longest(charts, columns):
        if column is None:
            chart.set_visible(False)
            continue
        for point in points(others):
            line = [r for r in records if all(r[name] == value for name, value in point.items())]
            values = [r.get(column, np.nan) for r in line]
            labels = [_written(r[first.name]) for r in line]
            chart.plot(labels, values, marker="o", label=run_name(point) if point else None)
        chart.set_title(COLUMNS[column], fontsize=10)
        chart.set_xlabel(first.name)
        chart.grid(alpha=0.3)
    if others:
        charts[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def _kept(run: Path, config: TrainConfig) -> dict[str, float] | None:
    """The figures of an earlier, finished run with this very configuration."""
    try:
        record = json.loads((run / RESULT).read_text())
        figures: dict[str, float] = record["figures"]
        return figures if record["config"] == config_to_dict(config) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
