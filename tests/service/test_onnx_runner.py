"""The shipped bundle in ONNX Runtime: the real network keeps what the engine promises."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from model.bundle import DENOISER, ENCODER, MANIFEST, Bundle, BundleError
from model.samplers import SamplerTable, ddim, ddim_inversion, ddpm, dpmpp_2m
from model.schedule import NoiseSchedule
from service.app import open_runner
from service.engine.buckets import bucket_sizes
from service.engine.engine_core import EngineCore
from service.engine.errors import DeviceError
from service.engine.jobs import DenoiseJob, EncodeJob, EncodeResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.engine.runner import StepInputs
from service.settings import Settings

Float32 = npt.NDArray[np.float32]

SHIPPED = Path(__file__).parents[2] / "bundles" / "fashion-mnist"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(SHIPPED)


@pytest.fixture(scope="module")
def runner(bundle: Bundle) -> OnnxRunner:
    return OnnxRunner(bundle, device="cpu", max_batch=8, num_threads=1)


def tables(bundle: Bundle) -> list[SamplerTable]:
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    return [
        ddim(schedule, 3),
        ddim(schedule, 6, eta=1.0, clip=1.0),
        ddpm(schedule, 5, clip=1.0),
        dpmpp_2m(schedule, 8, clip=1.0),
        ddim_inversion(schedule, 4),
    ]


def make_job(bundle: Bundle, seed: int, table: SamplerTable, count: int) -> DenoiseJob:
    assert bundle.statistics is not None
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *bundle.config.image.shape), dtype=np.float32)
    return DenoiseJob(x, bundle.statistics.resample(rng, count), table, tuple(range(seed, seed + count)))


def some_steps(bundle: Bundle, count: int) -> StepInputs:
    """One step of each of `count` samples, of different samplers at different timesteps."""
    assert bundle.statistics is not None
    rng = np.random.default_rng(count)
    chosen = [tables(bundle)[i % 5] for i in range(count)]
    steps = [int(rng.integers(len(table))) for table in chosen]
    shape = (count, *bundle.config.image.shape)
    return StepInputs(
        x_t=rng.standard_normal(shape, dtype=np.float32),
        timesteps=np.array([table.timesteps[i] for table, i in zip(chosen, steps, strict=True)]),
        activations=bundle.statistics.resample(rng, count),
        memory=rng.standard_normal(shape, dtype=np.float32),
        noise=rng.standard_normal(shape, dtype=np.float32),
        coefficients=np.array(
            [table.coefficients[i] for table, i in zip(chosen, steps, strict=True)], dtype=np.float32
        ),
    )


def submit(core: EngineCore, job: DenoiseJob) -> Ticket[Any]:
    ticket: Ticket[Any] = Ticket(lambda _: None)
    core.submit_denoise(job, ticket, 0.0)
    return ticket


def run(core: EngineCore) -> None:
    while core.has_work:
        core.tick(lambda: 0.0)


def outcome(ticket: Ticket[Any]) -> Float32:
    assert ticket.error is None, ticket.error
    assert ticket.result is not None
    x: Float32 = ticket.result.x
    return x


def alone(runner: OnnxRunner, job: DenoiseJob, i: int) -> Float32:
    """Sample i of a job in an engine of its own, (C, H, W)."""
    part = slice(i, i + 1)
    core = EngineCore(runner, max_queue=1, observer=SilentObserver())
    ticket = submit(core, DenoiseJob(job.x[part], job.activations[part], job.table, job.noise_seeds[part]))
    run(core)
    x: Float32 = outcome(ticket)[0]
    return x


def test_mixed_batch_matches_solo_runs(bundle: Bundle, runner: OnnxRunner) -> None:
    core = EngineCore(runner, max_queue=100, observer=SilentObserver())
    jobs = [make_job(bundle, 10 * i, table, 1 + i % 3) for i, table in enumerate(tables(bundle))]
    tickets = []
    leaving = submit(core, make_job(bundle, 99, tables(bundle)[3], 2))
    for job in jobs:
        tickets.append(submit(core, job))
        core.tick(lambda: 0.0)
    assert core.num_active_samples > 3
    core.cancel(leaving)
    run(core)
    for ticket, job in zip(tickets, jobs, strict=True):
        for i in range(len(job)):
            expected = alone(runner, job, i)
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(outcome(ticket)[i], expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_padding_does_not_change_a_step(bundle: Bundle, runner: OnnxRunner, count: int) -> None:
    inputs = some_steps(bundle, count)
    together = runner.denoise_step(inputs)
    assert together.x_next.shape == inputs.x_t.shape
    for i in range(count):
        single = runner.denoise_step(inputs.rows(slice(i, i + 1)))
        for name in ("x_next", "memory_next", "x_0_hat"):
            found, expected = getattr(together, name)[i], getattr(single, name)[0]
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("count", [1, 5, 7])
def test_padding_does_not_change_an_encoding(bundle: Bundle, runner: OnnxRunner, count: int) -> None:
    x_0 = np.random.default_rng(0).uniform(-1, 1, (count, *bundle.config.image.shape)).astype(np.float32)
    activations, maps = runner.encode(x_0)
    assert activations.shape == (count, bundle.config.num_prototypes)
    assert maps.shape == (*activations.shape, *bundle.config.grid_shape)
    for i in range(count):
        single, single_maps = runner.encode(x_0[i : i + 1])
        np.testing.assert_allclose(activations[i], single[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(maps[i], single_maps[0], rtol=0, atol=1e-4)


def test_activation_is_the_largest_similarity_of_its_map(bundle: Bundle, runner: OnnxRunner) -> None:
    x_0 = np.random.default_rng(0).uniform(-1, 1, (2, *bundle.config.image.shape)).astype(np.float32)
    ticket: Ticket[EncodeResult] = Ticket(lambda _: None)
    core = EngineCore(runner, max_queue=2, observer=SilentObserver())
    core.submit_encode(EncodeJob(x_0), ticket, 0.0)
    run(core)
    assert ticket.result is not None
    maps = ticket.result.similarity_maps
    np.testing.assert_allclose(ticket.result.activations, maps.max(axis=(2, 3)), rtol=0, atol=1e-5)


def test_inversion_and_sampling_return_to_the_image(bundle: Bundle, runner: OnnxRunner) -> None:
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    assert bundle.pictures is not None
    x_0 = bundle.pictures.reference_images[:2].astype(np.float32) / 127.5 - 1.0
    s, _ = runner.encode(x_0)
    core = EngineCore(runner, max_queue=2, observer=SilentObserver())
    inverted = submit(core, DenoiseJob(x_0, s, ddim_inversion(schedule, 50), (0, 0)))
    run(core)
    restored = submit(core, DenoiseJob(outcome(inverted), s, ddim(schedule, 50), (0, 0)))
    run(core)
    assert np.abs(outcome(restored) - x_0).mean() < 0.1
    assert np.abs(outcome(inverted) - x_0).mean() > 0.3


def test_warm_up_runs_every_size(runner: OnnxRunner) -> None:
    runner.warm_up()
    assert [runner.bucket(rows) for rows in range(1, 9)] == [1, 2, 3, 4, 6, 6, 8, 8]


@pytest.mark.parametrize("max_batch", [1, 2, 3, 5, 8, 32, 47, 100])
def test_bucket_sizes_end_at_the_largest_batch_and_waste_at_most_a_third(max_batch: int) -> None:
    sizes = bucket_sizes(max_batch)
    assert (sizes[0], sizes[-1]) == (1, max_batch)
    for rows in range(1, max_batch + 1):
        bucket = next(size for size in sizes if size >= rows)
        assert bucket - rows <= bucket / 3


def test_cuda_where_there_is_none_is_refused(bundle: Bundle) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert "CUDA" in OnnxRunner(bundle, device="cuda", max_batch=1).backend
        return
    with pytest.raises(DeviceError, match="cuda was asked for"):
        OnnxRunner(bundle, device="cuda", max_batch=1)


def test_device_auto_takes_what_there_is(bundle: Bundle) -> None:
    backend = OnnxRunner(bundle, device="auto", max_batch=1, num_threads=1).backend
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert ("CUDA" if has_cuda else "CPU") in backend


def test_calls_have_the_threads_that_settings_allow(bundle: Bundle) -> None:
    def new_threads(num_threads: int) -> int:
        before = len(os.listdir("/proc/self/task"))
        runner = open_runner(bundle, replace(Settings(), num_threads=num_threads, max_batch=1))
        assert runner.max_batch == 1  # and lives until they are counted
        return len(os.listdir("/proc/self/task")) - before

    num_graphs = 2 if bundle.prior is None else 3
    assert new_threads(1) == 0
    assert new_threads(3) == 2 * num_graphs


def with_files(directory: Path, files: dict[str, bytes]) -> Bundle:
    """The shipped bundle with other files in it, of which its manifest knows."""
    shutil.copytree(SHIPPED, directory, dirs_exist_ok=True)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    for file, content in files.items():
        (directory / file).write_bytes(content)
        manifest["files"][file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.load(directory)


def test_bundle_with_another_graph_in_place_of_its_encoder_is_refused(tmp_path: Path) -> None:
    wrong = with_files(tmp_path, {ENCODER: (SHIPPED / DENOISER).read_bytes()})
    with pytest.raises(BundleError, match=r"encoder\.onnx has no input 'x_0'"):
        OnnxRunner(wrong, device="cpu", max_batch=1, num_threads=1)


def test_bundle_with_another_graph_in_place_of_its_denoiser_is_refused(tmp_path: Path) -> None:
    wrong = with_files(tmp_path, {DENOISER: (SHIPPED / ENCODER).read_bytes()})
    with pytest.raises(BundleError, match=r"denoiser\.onnx has no input 'x_t'"):
        OnnxRunner(wrong, device="cpu", max_batch=1, num_threads=1)


def test_graph_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    wrong = with_files(tmp_path, {ENCODER: b"not a graph"})
    with pytest.raises(BundleError, match=r"encoder\.onnx cannot be opened"):
        OnnxRunner(wrong, device="cpu", max_batch=1, num_threads=1)
