"""Write a trained model as a bundle, and prove that the bundle computes what the model computes."""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from model.bundle import (
    DENOISER,
    ENCODER,
    MANIFEST,
    PRIOR,
    WEIGHTS,
    Bundle,
    Prototype,
    write_manifest,
    write_pictures,
)
from model.config import ModelConfig, PriorConfig, ScheduleConfig, config_to_dict
from model.patronus import DenoiseStep, Patronus
from model.prior import Prior, PriorStep
from model.samplers import ddim, ddim_inversion, dpmpp_2m
from model.schedule import NoiseSchedule
from training.config import TrainConfig
from training.data import Dataset
from training.evaluate import read_evaluation, require_weights
from training.measurements import EFFECT_SAMPLES, EMERGENCE_SAMPLES, graph_scores, measure
from training.prior import has_prior, load_prior
from training.trainer import PARENT

log = logging.getLogger(__name__)

PARITY_BATCHES = (1, 3, 16)
PARITY_TOLERANCE = 1e-4

Draw = Callable[[int, int], dict[str, Tensor]]
"""Random inputs of a graph for a number of rows and a seed."""


class ExportError(Exception):
    """A graph does not compute what the model computes, or `out` is something else than a bundle."""


def export_bundle(
    patronus: Patronus,
    config: TrainConfig,
    train: Dataset,
    test: Dataset,
    *,
    run: Path,
    out: Path,
    name: str,
    emergence_samples: int = EMERGENCE_SAMPLES,
    effect_samples: int = EFFECT_SAMPLES,
    device: str = "cpu",
) -> Bundle:
    """Write `out` from averaged weights, the run's evaluation and its prior, where it has one.

    A bundle already there is replaced; nothing is left behind on failure. Raises EvaluationError where the
    run has not been evaluated with these weights, PriorError where its prior belongs to another encoder,
    ExportError where a graph differs from the model or `out` is no bundle, BundleError where the result
    does not load.
    """
    metrics = read_evaluation(run)
    prior = load_prior(run, patronus.encoder) if has_prior(run) else None
    require_weights(metrics, patronus, prior)
    provenance = {
        "git_revision": git_revision(),
        "dataset": config.dataset,
        "num_training_images": len(train),
        "training": _without_model(config_to_dict(config)),
        "parent": _parent_run(run),
        "torch": torch.__version__,
    }
    return write_bundle(
        patronus,
        out=out,
        name=name,
        measure_on=(train, test),
        metrics=metrics,
        provenance=provenance,
        prior=prior,
        emergence_samples=emergence_samples,
        effect_samples=effect_samples,
        device=device,
    )


def write_bundle(
    patronus: Patronus,
    *,
    out: Path,
    name: str,
    measure_on: tuple[Dataset, Dataset] | None,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    prior: Prior | None = None,
    emergence_samples: int = EMERGENCE_SAMPLES,
    effect_samples: int = EFFECT_SAMPLES,
    device: str = "cpu",
) -> Bundle:
    """Write `out` from a model, as `export_bundle` does, whatever the model came from.

    What `training.measurements.measure` gives is measured on `measure_on`, (train, test), with
    `emergence_samples` and `effect_samples` generated images and on `device`; without it the bundle has none
    of it, and can have no `prior`.
    """
    patronus = patronus.cpu().eval()
    with replacing(out) as directory:
        parity = export_graphs(patronus, directory, prior)  # first: it tells of broken weights
        weights = {name: value.contiguous() for name, value in patronus.state_dict().items()}
        (directory / WEIGHTS).write_bytes(save_safetensors(weights))
        measured = None
        if measure_on is not None:
            draw_scores = None if prior is None else graph_scores(directory / PRIOR, prior.config)
            measured = measure(
                patronus,
                *measure_on,
                draw_scores=draw_scores,
                emergence_samples=emergence_samples,
                effect_samples=effect_samples,
                device=device,
            )
            write_pictures(directory, measured.pictures)
        names = [None] * patronus.config.num_prototypes
        write_manifest(
            directory,
            name=name,
            config=patronus.config,
            statistics=None if measured is None else measured.statistics,
            attributes=None if measured is None else measured.attributes,
            effects=None if measured is None else measured.effects,
            prototypes=tuple(map(Prototype, names)) if measured is None else measured.prototypes(names),
            metrics={
                **metrics,
                **({} if measured is None else measured.figures()),
                "export_largest_difference": parity,
            },
            provenance=provenance,
            prior=None if prior is None else prior.config,
        )
    return Bundle.load(out)


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """An empty directory for the files of a bundle, which becomes `out` when they are written.

    A bundle already at `out` is replaced, by one that loads; nothing is left behind on failure. Raises
    ExportError where `out` is no bundle, BundleError where the new one does not load.
    """
    if out.exists() and not _is_bundle(out):
        raise ExportError(f"{out} exists and is no bundle: name another directory, this one is not replaced")
    with tempfile.TemporaryDirectory(dir=_parent(out)) as scratch:
        directory = Path(scratch) / "bundle"
        directory.mkdir()
        yield directory
        bundle = Bundle.load(directory)
        if out.exists():
            out.rename(Path(scratch) / "replaced")  # goes with the scratch directory
        directory.rename(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    log.info("wrote %s: %.2f MiB, digest %s", out, size / 2**20, bundle.digest[:12])


def _is_bundle(path: Path) -> bool:
    """Whether a directory, no link, holds a manifest of ours and nothing that the manifest does not list."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        known = {MANIFEST, *manifest["files"]} if "format_version" in manifest else set()
        return not path.is_symlink() and {entry.name for entry in path.iterdir()} <= known
    except (OSError, ValueError, KeyError, TypeError):
        return False


def export_graphs(patronus: Patronus, directory: Path, prior: Prior | None = None) -> float:
    """Write encoder.onnx, denoiser.onnx and, given one, prior.onnx; the largest |torch - ONNX Runtime| found.

    Batch sizes 1, 3 and 16 on random inputs, over rows of several samplers. Raises ExportError above 1e-4.
    """
    config = patronus.config
    step = ["x_next", "memory_next", "x_0_hat"]
    graphs: list[tuple[str, nn.Module, list[str], Draw]] = [
        (ENCODER, patronus.encoder, ["activations", "similarity_maps"], partial(_random_images, config)),
        (DENOISER, DenoiseStep(patronus).eval(), step, partial(random_step_inputs, config)),
    ]
    if prior is not None:
        graphs.append((PRIOR, PriorStep(prior).eval(), step, partial(random_prior_inputs, prior.config)))
    largest = 0.0
    for file, module, outputs, draw in graphs:
        path = directory / file
        _export(module, draw(2, 0), outputs, path)
        largest = max(largest, largest_difference(module, path, draw))
    return largest


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
    graph = onnx.load(path)
    for node in graph.graph.node:  # stack traces of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def random_step_inputs(config: ModelConfig, count: int, seed: int) -> dict[str, Tensor]:
    """Inputs of one denoise step for `count` rows, each at a random place in a random sampler."""
    rng = np.random.default_rng(seed)
    step = _random_step(rng, config.schedule, config.image.shape, count)
    s = torch.from_numpy(rng.standard_normal((count, config.num_prototypes), dtype=np.float32)).abs()
    return {"x_t": step.pop("x_t"), "timesteps": step.pop("timesteps"), "activations": s, **step}


def random_prior_inputs(config: PriorConfig, count: int, seed: int) -> dict[str, Tensor]:
    """Inputs of one step of the prior, likewise."""
    return _random_step(np.random.default_rng(seed), config.schedule, (config.num_prototypes,), count)


def _random_step(
    rng: np.random.Generator, schedule_config: ScheduleConfig, shape: tuple[int, ...], count: int
) -> dict[str, Tensor]:
    schedule = NoiseSchedule.from_config(schedule_config)
    steps = min(20, schedule.num_timesteps)
    tables = (
        ddim(schedule, steps, eta=0.5, clip=1.0),
        dpmpp_2m(schedule, steps),
        ddim_inversion(schedule, steps),
    )
    rows = [(tables[rng.integers(len(tables))], int(rng.integers(steps))) for _ in range(count)]

    def normal() -> Tensor:
        return torch.from_numpy(rng.standard_normal((count, *shape), dtype=np.float32))

    return {
        "x_t": normal(),
        "timesteps": torch.from_numpy(np.array([table.timesteps[i] for table, i in rows])),
        "memory": normal(),
        "noise": normal(),
        "coefficients": torch.from_numpy(
            np.array([table.coefficients[i] for table, i in rows], dtype=np.float32)
        ),
    }


def _random_images(config: ModelConfig, count: int, seed: int) -> dict[str, Tensor]:
    return {"x_0": random_step_inputs(config, count, seed)["x_t"].clamp(-1.0, 1.0)}


def largest_difference(module: nn.Module, path: Path, draw: Draw) -> float:
    """Largest |torch - ONNX Runtime| between `module` and the graph at `path`, over several batch sizes.

    Relative to the largest value of an output where that exceeds 1; `draw` gives inputs for a count and
    a seed. Raises ExportError above 1e-4 and where a value is not a number.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for count in PARITY_BATCHES:
        inputs = draw(count, count)
        with torch.no_grad():
            expected = module(*inputs.values())
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        for torch_output, onnx_output in zip(expected, found, strict=True):
            reference = torch_output.numpy()
            scale = max(1.0, float(np.abs(reference).max()))
            differences.append(np.abs(reference - onnx_output).max() / scale)
    largest = float(np.max(differences))  # unlike max(), keeps a NaN
    if not largest <= PARITY_TOLERANCE:
        raise ExportError(
            f"{path.name} differs from torch by {largest:.2e}, more than {PARITY_TOLERANCE:.0e}"
        )
    return largest


def require_images(config: ModelConfig, dataset: tuple[Dataset, Dataset]) -> None:
    """Raises ExportError where the images of a split are not those that the network takes."""
    for split in dataset:
        shape = split.pixels.shape[1:]
        if shape != config.image.shape:
            raise ExportError(f"the data set's images are {shape}, the network takes {config.image.shape}")


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent


def _without_model(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "model"}


def _parent_run(run: Path) -> dict[str, Any] | None:
    """The run that this one began from, if any."""
    path = run / PARENT
    if not path.exists():
        return None
    parent: dict[str, Any] = json.loads(path.read_text())
    return parent | {"training": _without_model(parent["training"])}


def git_revision() -> str | None:
    """The commit of the source tree, or None where there is no repository."""
    command: list[Any] = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
