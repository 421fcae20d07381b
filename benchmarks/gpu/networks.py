"""The networks that are measured: the paper's, with random weights, and the shipped ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model.bundle import WEIGHTS, Bundle, Prototype
from model.config import (
    DenoiserConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    ScheduleConfig,
    paper_config,
)
from model.patronus import Patronus
from model.samplers import ddim, ddim_inversion, dpmpp_2m
from model.schedule import NoiseSchedule
from service.engine.runner import StepInputs
from service.settings import BUNDLES, SHIPPED_BUNDLES

TINY = ModelConfig(
    image=ImageConfig(1, 8, 8),
    encoder=EncoderConfig(
        num_prototypes=4, kernel_sizes=(3, 3), channels=(6, 8), strides=(2, 1), paddings=(1, 0)
    ),
    denoiser=DenoiserConfig(
        base_channels=8,
        channel_multipliers=(1, 2),
        num_residual_blocks=1,
        attention_levels=(False, False),
        norm_groups=4,
    ),
    schedule=ScheduleConfig(num_timesteps=40),
)
"""The paper's kind of network for rehearsals: milliseconds a step on a CPU."""

RANDOM: Mapping[str, ModelConfig] = {
    "paper-32": paper_config(channels=1, size=32, num_prototypes=30),
    "paper-64": paper_config(size=64),
    "tiny": TINY,
}
"""Networks whose weights do not matter for what is measured."""

SHIPPED = tuple(path.name for path in SHIPPED_BUNDLES)
MEASURED = ("paper-64", "paper-32", *SHIPPED)


@dataclass(frozen=True)
class Network:
    """A network by name, as the bundle that the runner opens.

    Of a random one only the configuration and the weights are there, which is all that the torch runner
    reads.
    """

    name: str
    bundle: Bundle

    @property
    def config(self) -> ModelConfig:
        return self.bundle.config

    @property
    def is_trained(self) -> bool:
        return self.name in SHIPPED


def open_network(name: str, scratch: Path) -> Network:
    """A shipped bundle, or a random network whose weights are written below `scratch`."""
    if name in SHIPPED:
        return Network(name, Bundle.load(BUNDLES / name))
    config = RANDOM[name]
    directory = scratch / name
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = {key: value.contiguous() for key, value in Patronus(config).state_dict().items()}
    save_file(weights, directory / WEIGHTS)
    bundle = Bundle(
        directory=directory,
        name=name,
        digest="random weights",
        config=config,
        statistics=None,
        prototypes=(Prototype(),) * config.num_prototypes,
        pictures=None,
        prior=None,
        metrics={},
        provenance={},
    )
    return Network(name, bundle)


def random_steps(config: ModelConfig, rows: int, seed: int) -> StepInputs:
    """One denoise step for `rows` rows, each at a random place in a random sampler.

    None clips: at large t, x̂₀ = (x_t - sigma eps) / alpha is a large number, beside which an error of eps is
    as small as it was; clipped to 1 it would not be.
    """
    rng = np.random.default_rng(seed)
    schedule = NoiseSchedule.from_config(config.schedule)
    steps = min(20, schedule.num_timesteps)
    tables = (
        ddim(schedule, steps, eta=0.5),
        dpmpp_2m(schedule, steps),
        ddim_inversion(schedule, steps),
    )
    places = [(tables[rng.integers(len(tables))], int(rng.integers(steps))) for _ in range(rows)]
    shape = (rows, *config.image.shape)
    x_t, memory, noise = (rng.standard_normal(shape, np.float32) for _ in range(3))
    return StepInputs(
        x_t,
        np.array([table.timesteps[step] for table, step in places], np.int64),
        np.abs(rng.standard_normal((rows, config.num_prototypes), np.float32)),
        memory,
        noise,
        np.array([table.coefficients[step] for table, step in places], np.float32),
    )
