"""The torch runner computes what the ONNX runner computes, and nothing else in the service needs torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from model.bundle import MANIFEST, WEIGHTS, Bundle, BundleError
from model.config import ModelConfig
from model.samplers import SIGMA, ddim, dpmpp_2m
from model.schedule import NoiseSchedule
from model.unet import UNet
from service.app import open_runner
from service.engine.buckets import bucket_sizes
from service.engine.engine_core import EngineCore
from service.engine.errors import DeviceError, OutOfMemoryError
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.engine.runner import Runner, StepInputs
from service.engine.torch_runner import CudaGraphs, Precision, Recording, StaticStep, TorchRunner
from service.settings import Settings
from tests.service.conftest import picture, serving
from training.export import random_prior_inputs, random_step_inputs

Float32 = npt.NDArray[np.float32]

ROOT = Path(__file__).parents[2]
BATCHES = (1, 3, 8)
OUTPUTS = ("x_next", "memory_next", "x_0_hat")
BF16_TOLERANCE = 0.05
"""Of the largest value. bf16 keeps 8 bits (1 in 256), and a value passes about a dozen layers."""

CPU_HAS_BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
needs_bf16 = pytest.mark.skipif(not CPU_HAS_BF16, reason="this CPU has neither AVX512-BF16 nor AMX")


def torch_runner(bundle: Bundle, *, precision: Precision = "fp32", max_batch: int = 8) -> TorchRunner:
    return TorchRunner(bundle, device="cpu", precision=precision, max_batch=max_batch)


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


@pytest.fixture(scope="module")
def onnx(bundle: Bundle) -> OnnxRunner:
    """The shipped bundle in ONNX Runtime."""
    return OnnxRunner(bundle, device="cpu", max_batch=8, num_threads=1)


@pytest.fixture(scope="module")
def fp32(bundle: Bundle) -> TorchRunner:
    """The shipped bundle in torch."""
    return torch_runner(bundle)


def some_steps(config: ModelConfig, count: int) -> StepInputs:
    """One step for each of `count` samples, at random places of several samplers."""
    drawn = random_step_inputs(config, count, seed=count)
    return StepInputs(**{name: tensor.numpy() for name, tensor in drawn.items()})


def some_images(config: ModelConfig, count: int) -> Float32:
    return np.random.default_rng(count).uniform(-1, 1, (count, *config.image.shape)).astype(np.float32)


def largest_difference(found: Float32, expected: Float32) -> float:
    """Relative to the largest expected value, where that exceeds 1."""
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def sample(runner: Runner, bundle: Bundle, count: int) -> Float32:
    """`count` images of 20 steps each, half of them by DDIM with noise and half by DPM-Solver++."""
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    rng = np.random.default_rng(5)
    assert bundle.statistics is not None
    core = EngineCore(runner, max_queue=2 * count, observer=SilentObserver())
    tickets: list[Ticket[DenoiseResult]] = []
    for table in (ddim(schedule, 20, eta=0.5, clip=1.0), dpmpp_2m(schedule, 20, clip=1.0)):
        x = rng.standard_normal((count // 2, *bundle.config.image.shape), dtype=np.float32)
        s = bundle.statistics.resample(rng, count // 2)
        tickets.append(Ticket(lambda _: None))
        core.submit_denoise(DenoiseJob(x, s, table, tuple(range(count // 2))), tickets[-1], 0.0)
    while core.has_work:
        core.tick(lambda: 0.0)
    assert [ticket.error for ticket in tickets] == [None, None]
    return np.concatenate([ticket.result.x for ticket in tickets if ticket.result is not None])


def gray_levels(x: Float32) -> npt.NDArray[np.int64]:
    """[-1, 1] -> 0 … 255, rounded as pictures are."""
    return np.asarray(np.round((x.clip(-1.0, 1.0) + 1.0) * 127.5), dtype=np.int64)


# --- the same numbers as the exported graphs ---------------------------------------------------------


@pytest.mark.parametrize("count", BATCHES)
@pytest.mark.parametrize("which", ["tiny", "bundle"])
def test_step_and_encoding_are_those_of_the_graphs(
    which: str, count: int, request: pytest.FixtureRequest
) -> None:
    chosen: Bundle = request.getfixturevalue(which)
    graphs = OnnxRunner(chosen, device="cpu", max_batch=8, num_threads=1)
    weights = torch_runner(chosen)
    inputs = some_steps(chosen.config, count)
    found, expected = weights.denoise_step(inputs), graphs.denoise_step(inputs)
    for name in OUTPUTS:
        assert largest_difference(getattr(found, name), getattr(expected, name)) < 1e-4
    x_0 = some_images(chosen.config, count)
    for mine, theirs in zip(weights.encode(x_0), graphs.encode(x_0), strict=True):
        assert largest_difference(mine, theirs) < 1e-4


def test_twenty_steps_end_in_the_same_picture(bundle: Bundle, onnx: OnnxRunner, fp32: TorchRunner) -> None:
    expected = gray_levels(sample(onnx, bundle, 4))
    found = gray_levels(sample(fp32, bundle, 4))
    assert expected.std() > 20
    assert np.abs(found - expected).max() <= 1  # one of 255 gray levels: float tolerance before rounding


def test_rows_alone_match_rows_in_a_batch_of_sixteen(bundle: Bundle) -> None:
    runner = torch_runner(bundle, max_batch=16)
    inputs = some_steps(bundle.config, 16)
    together = runner.denoise_step(inputs)
    for i in range(16):
        alone = runner.denoise_step(inputs.rows(slice(i, i + 1)))
        for name in OUTPUTS:
            assert largest_difference(getattr(together, name)[i], getattr(alone, name)[0]) < 1e-5


@pytest.mark.parametrize("count", [3, 5, 7])
def test_padding_is_cut_off(tiny: Bundle, count: int) -> None:
    runner = torch_runner(tiny)
    runner.denoise_step(some_steps(tiny.config, 8))  # leaves other rows in the buffers
    inputs = some_steps(tiny.config, count)
    together = runner.denoise_step(inputs)
    activations, maps = runner.encode(inputs.x_t)
    for i in range(count):
        part = slice(i, i + 1)
        assert largest_difference(runner.denoise_step(inputs.rows(part)).x_next, together.x_next[part]) < 1e-5
        alone, alone_maps = runner.encode(inputs.x_t[part])
        assert largest_difference(alone, activations[part]) < 1e-5
        assert largest_difference(alone_maps, maps[part]) < 1e-5


def test_outputs_survive_the_next_step(tiny: Bundle) -> None:
    runner = torch_runner(tiny)
    first = runner.denoise_step(some_steps(tiny.config, 2))
    kept = first.x_next.copy()
    runner.denoise_step(replace(some_steps(tiny.config, 2), x_t=some_images(tiny.config, 2)))
    np.testing.assert_array_equal(first.x_next, kept)


def test_read_only_arrays_are_taken(tiny: Bundle) -> None:
    runner = torch_runner(tiny)
    inputs = some_steps(tiny.config, 2)
    for array in vars(inputs).values():
        array.setflags(write=False)
    assert np.isfinite(runner.denoise_step(inputs).x_next).all()
    assert np.isfinite(runner.encode(inputs.x_t)[0]).all()


def test_prior_steps_are_those_of_its_graph(tiny_prior_bundle: Path) -> None:
    chosen = Bundle.load(tiny_prior_bundle)
    runner = torch_runner(chosen)
    graphs = OnnxRunner(chosen, device="cpu", max_batch=8, num_threads=1)
    assert chosen.prior is not None
    drawn = random_prior_inputs(chosen.prior, 3, seed=0)
    arrays = {name: tensor.numpy() for name, tensor in drawn.items()}
    inputs = StepInputs(activations=np.zeros((3, 0), np.float32), **arrays)
    runner.warm_up()
    assert runner.has_prior
    for name in OUTPUTS:
        found, expected = getattr(runner.prior_step(inputs), name), getattr(graphs.prior_step(inputs), name)
        assert largest_difference(found, expected) < 1e-6


def test_model_without_a_prior_has_none(tiny: Bundle) -> None:
    assert not torch_runner(tiny).has_prior


# --- bfloat16 ----------------------------------------------------------------------------------------


@needs_bf16
def test_bf16_network_stays_near_float32(tiny: Bundle) -> None:
    inputs = some_steps(tiny.config, 8)
    found = torch_runner(tiny, precision="bf16").denoise_step(inputs)
    expected = torch_runner(tiny).denoise_step(inputs)
    for name in OUTPUTS:
        difference = largest_difference(getattr(found, name), getattr(expected, name))
        assert difference < BF16_TOLERANCE
    assert largest_difference(found.x_0_hat, expected.x_0_hat) > 1e-5  # it is bf16 indeed


@needs_bf16
def test_bf16_leaves_encodings_as_they_are(bundle: Bundle, fp32: TorchRunner) -> None:
    x_0 = some_images(bundle.config, 3)
    for found, expected in zip(
        torch_runner(bundle, precision="bf16").encode(x_0), fp32.encode(x_0), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@needs_bf16
def test_bf16_leaves_the_arithmetic_of_samplers_in_float32(tiny: Bundle) -> None:
    inputs = some_steps(tiny.config, 8)
    silenced = inputs.coefficients.copy()
    silenced[:, SIGMA] = 0.0  # the network's prediction has no weight
    inputs = replace(inputs, coefficients=silenced)
    found = torch_runner(tiny, precision="bf16").denoise_step(inputs)
    expected = torch_runner(tiny).denoise_step(inputs)
    for name in OUTPUTS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@needs_bf16
def test_bf16_rows_alone_match_rows_in_a_batch(tiny: Bundle) -> None:
    runner = torch_runner(tiny, precision="bf16")
    inputs = some_steps(tiny.config, 8)
    together = runner.denoise_step(inputs)
    for i in range(8):
        alone = runner.denoise_step(inputs.rows(slice(i, i + 1)))
        assert largest_difference(alone.x_0_hat[0], together.x_0_hat[i]) < BF16_TOLERANCE


@pytest.mark.skipif(CPU_HAS_BF16, reason="this CPU has bf16")
def test_bf16_on_a_cpu_without_it_is_refused(tiny: Bundle) -> None:
    with pytest.raises(DeviceError, match="precision bf16 was asked for, but this CPU has neither"):
        torch_runner(tiny, precision="bf16")


def test_backend_names_version_device_and_precision(tiny: Bundle) -> None:
    assert torch_runner(tiny, precision="auto").backend == f"torch {torch.__version__} cpu fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none_is_refused(tiny: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"^device cuda was asked for, but torch .* finds no usable GPU$"):
        TorchRunner(tiny, device="cuda", precision="auto", max_batch=1)
    assert "cpu" in TorchRunner(tiny, device="auto", precision="auto", max_batch=1).backend


# --- recorded steps ----------------------------------------------------------------------------------


def record_on_cpu(run: Callable[[], Tensor]) -> Recording:
    """What a CUDA graph does, without one: reads and writes the same memory at every replay."""
    output = run()

    def replay() -> None:
        output.copy_(run())

    return Recording(output, replay)


def static_step(network: nn.Module, config: ModelConfig, size: int) -> StaticStep:
    return StaticStep(network, config, size, torch.device("cpu"), use_bf16=False)


class Shift(nn.Module):
    """A step without weights; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x_t: Tensor, **others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        time = others["timesteps"][:, None, None, None].float()
        return x_t + time, x_t * others["coefficients"][:, :1, None, None], others["noise"]


def test_recorded_step_reads_each_call_anew(tiny_config: ModelConfig) -> None:
    recorded, plain = static_step(Shift(), tiny_config, 4), static_step(Shift(), tiny_config, 4)
    assert recorded.record(record_on_cpu)
    for count in (4, 2, 3):
        inputs = some_steps(tiny_config, count)
        found, expected = recorded(inputs), plain(inputs)
        for name in OUTPUTS:
            assert getattr(found, name).shape == inputs.x_t.shape
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_recorded_step_is_replayed_and_not_run_beside(tiny_config: ModelConfig) -> None:
    network, replays = Shift(), []

    def record(run: Callable[[], Tensor]) -> Recording:
        return Recording(run(), lambda: replays.append(1))

    step = static_step(network, tiny_config, 2)
    assert step.record(record)
    for _ in range(3):
        step(some_steps(tiny_config, 2))
    assert (network.calls, len(replays)) == (1, 3)


def test_step_launched_by_itself_computes_what_its_inputs_hold(tiny_config: ModelConfig) -> None:
    step = static_step(Shift(), tiny_config, 2)
    expected = step(some_steps(tiny_config, 2))
    with torch.inference_mode():
        output = step.launch().numpy()
    np.testing.assert_array_equal(output, [getattr(expected, name) for name in OUTPUTS])


def test_no_size_is_replayed_on_a_cpu(tiny: Bundle) -> None:
    runner = torch_runner(tiny, max_batch=2)
    runner.warm_up()
    assert runner.replayed_sizes == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can capture")
def test_step_that_cannot_be_captured_runs_all_the_same(
    tiny_config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    step = static_step(Shift(), tiny_config, 2)
    with caplog.at_level(logging.WARNING):
        assert not step.record(lambda run: CudaGraphs()(run))
    assert "a step of 2 rows runs without a CUDA graph" in caplog.text
    inputs = some_steps(tiny_config, 2)
    np.testing.assert_array_equal(step(inputs).x_0_hat, inputs.noise)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", BF16_TOLERANCE)])
def test_graphs_on_a_gpu_match_the_cpu(tiny: Bundle, precision: Precision, tolerance: float) -> None:
    runner = TorchRunner(tiny, device="cuda", precision=precision, max_batch=8)
    inputs, x_0 = some_steps(tiny.config, 5), some_images(tiny.config, 5)
    eager = runner.denoise_step(inputs)
    assert runner.replayed_sizes == ()
    runner.warm_up()
    assert runner.replayed_sizes == bucket_sizes(8)
    replayed, expected = runner.denoise_step(inputs), torch_runner(tiny).denoise_step(inputs)
    for name in OUTPUTS:
        assert largest_difference(getattr(eager, name), getattr(expected, name)) < tolerance
        assert largest_difference(getattr(replayed, name), getattr(expected, name)) < tolerance
    for found, wanted in zip(runner.encode(x_0), torch_runner(tiny).encode(x_0), strict=True):
        assert largest_difference(found, wanted) < 1e-4


# --- memory ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_for(rows: int, kind: type[nn.Module], error: Callable[[], Exception]) -> Iterator[None]:
    """torch's own hook: a module of `kind` that is called with more than `rows` rows raises `error`."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, kind) and len(args[0]) > rows:
            raise error()

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def cpu_allocation_error() -> Exception:
    """What torch really says when an allocation fails."""
    try:
        torch.empty(2**50)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has petabytes")


@pytest.mark.parametrize(
    "error", [lambda: torch.OutOfMemoryError("CUDA out of memory"), cpu_allocation_error], ids=["gpu", "cpu"]
)
def test_lack_of_memory_is_told_apart(tiny: Bundle, error: Callable[[], Exception]) -> None:
    runner = torch_runner(tiny)
    inputs = some_steps(tiny.config, 8)
    with memory_for(4, UNet, error), pytest.raises(OutOfMemoryError, match="memory"):
        runner.denoise_step(inputs)
    with memory_for(4, nn.Conv2d, error), pytest.raises(OutOfMemoryError, match="memory"):
        runner.encode(inputs.x_t)


def test_other_failures_are_not_taken_for_lack_of_memory(tiny: Bundle) -> None:
    runner = torch_runner(tiny)
    fault = memory_for(0, UNet, lambda: RuntimeError("CUDA error: an illegal access"))
    with fault, pytest.raises(RuntimeError, match="illegal access"):
        runner.denoise_step(some_steps(tiny.config, 1))


def test_engine_goes_on_with_smaller_batches(tiny: Bundle) -> None:
    runner = torch_runner(tiny)
    expected = sample(runner, tiny, 8)
    with memory_for(3, UNet, lambda: torch.OutOfMemoryError("CUDA out of memory")):
        found = sample(runner, tiny, 8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


# --- weights -----------------------------------------------------------------------------------------


def with_weights(bundle: Bundle, directory: Path, content: bytes) -> Bundle:
    """The bundle with other weights, of which its manifest knows."""
    shutil.copytree(bundle.directory, directory, dirs_exist_ok=True)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    (directory / WEIGHTS).write_bytes(content)
    manifest["files"][WEIGHTS] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.load(directory)


def without_mean(weights: dict[str, Tensor]) -> None:
    del weights["activation_mean"]


def with_more_prototypes(weights: dict[str, Tensor]) -> None:
    weights["encoder.prototypes"] = torch.zeros(5, 8)


def with_another_layer(weights: dict[str, Tensor]) -> None:
    weights["encoder.extra"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_mean, "lacks activation_mean"),
        (with_more_prototypes, r": encoder\.prototypes is \(5, 8\), not \(4, 8\)"),
        (with_another_layer, "holds encoder.extra, which a model of this configuration does not have"),
    ],
)
def test_weights_of_another_model_are_refused(
    tiny: Bundle, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    weights = load(tiny.path(WEIGHTS).read_bytes())
    change(weights)
    wrong = with_weights(tiny, tmp_path, save(weights))
    with pytest.raises(BundleError, match=rf"weights\.safetensors ?{message}"):
        torch_runner(wrong)


def test_file_that_holds_no_weights_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    wrong = with_weights(tiny, tmp_path, b"not weights")
    with pytest.raises(BundleError, match=r"weights\.safetensors is not a safetensors file"):
        torch_runner(wrong)


# --- chosen by the settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "expected"), [("auto", "onnxruntime"), ("onnx", "onnxruntime"), ("torch", "torch")]
)
def test_backend_setting_chooses_the_runner(tiny: Bundle, backend: str, expected: str) -> None:
    settings = Settings.from_environment({"PATRONUS_BACKEND": backend, "PATRONUS_DEVICE": "cpu"})
    assert open_runner(tiny, settings).backend.split()[0] == expected


@needs_bf16
def test_precision_setting_reaches_the_runner(tiny: Bundle) -> None:
    settings = Settings(backend="torch", device="cpu", precision="bf16")
    assert open_runner(tiny, settings).backend.endswith("bf16")


def test_service_with_torch_encodes_and_generates(tiny_prior_bundle: Path) -> None:
    answers = {}
    for backend in ("onnx", "torch"):
        settings = Settings.from_environment(
            {
                "PATRONUS_BACKEND": backend,
                "PATRONUS_DEVICE": "cpu",
                "PATRONUS_BUNDLE": str(tiny_prior_bundle),
                "PATRONUS_MAX_BATCH": "4",
            }
        )
        with serving(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
            assert backend in client.get("/version").json()["backend"]
            generated = client.post("/generate", json={"num_images": 3, "steps": 6, "seed": 3}).json()
            encoded = client.post("/encode", json={"image": generated["images"][0]["image"]}).json()
        assert generated["activations_from"] == "prior"
        pixels = [np.asarray(picture(image["image"]), int) for image in generated["images"]]
        answers[backend] = np.array(pixels), np.array(encoded["images"][0]["activations"])
    assert np.abs(answers["torch"][0] - answers["onnx"][0]).max() <= 1
    # The two pictures that were encoded may differ by a gray level, so only nearly the same activations.
    np.testing.assert_allclose(answers["torch"][1], answers["onnx"][1], rtol=0, atol=0.05)


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_service_with_onnx_never_imports_torch(tiny_bundle: Path) -> None:
    done = run_script(
        "import sys\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        f"environment = {{'PATRONUS_BACKEND': 'onnx', 'PATRONUS_BUNDLE': {str(tiny_bundle)!r}}}\n"
        "create_app(Settings.from_environment(environment))\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'service.engine.torch_runner' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr


def test_torch_that_is_not_installed_stops_start_up_and_says_so() -> None:
    done = run_script(
        "import os, sys\n"
        "sys.modules['torch'] = None\n"
        "os.environ['PATRONUS_BACKEND'] = 'torch'\n"
        "from service.__main__ import main\n"
        "sys.exit(main())\n"
    )
    assert done.returncode == 2
    assert "PATRONUS_BACKEND is torch, but the module torch is not installed" in done.stderr
    assert "Traceback" not in done.stderr
