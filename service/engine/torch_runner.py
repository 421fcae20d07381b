"""Run a bundle's weights with torch, on the CPU or an NVIDIA GPU; nothing else in the service needs torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.bundle import WEIGHTS, Bundle, BundleError
from model.config import ModelConfig
from model.patronus import DenoiseStep, Patronus
from model.samplers import NUM_COEFFICIENTS
from service.engine.buckets import bucket_sizes
from service.engine.errors import DeviceError, OutOfMemoryError
from service.engine.onnx_runner import Device, open_prior
from service.engine.runner import Float32, StepInputs, StepOutputs

log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16"]


class TorchRunner:
    """Encoder and denoiser in torch, channels last, in batches of fixed sizes.

    `precision` is the denoiser network's alone; "auto" is bf16 on a GPU that has it, fp32 elsewhere. The
    encoder always computes in float32, since activations are cached under a key that does not name the
    backend, and so does the sampler's arithmetic. On a GPU `warm_up` captures one CUDA graph for each batch
    size. The prior, of which a bundle keeps only the exported graph, runs in ONNX Runtime on the CPU.

    Opening checks the weights against the bundle's configuration and raises BundleError or DeviceError.
    """

    def __init__(self, bundle: Bundle, *, device: Device, precision: Precision, max_batch: int) -> None:
        self._config = bundle.config
        self._buckets = bucket_sizes(max_batch)
        self._device = _device(device)
        self._precision = _precision(precision, self._device)
        patronus = placed(load_patronus(bundle), self._device, use_bf16=self._precision == "bf16")
        self._encoder = patronus.encoder
        self._network = DenoiseStep(patronus).eval()
        self._steps: dict[int, StaticStep] = {}
        self._prior = open_prior(bundle, device="cpu", max_batch=max_batch, num_threads=1)  # a small network
        log.info("serving %s with %s", bundle.directory, self.backend)

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def backend(self) -> str:
        where = "cpu" if self._device.type == "cpu" else torch.cuda.get_device_name(self._device)
        return f"torch {torch.__version__} {where} {self._precision}"

    @property
    def max_batch(self) -> int:
        return self._buckets[-1]

    @property
    def replayed_sizes(self) -> tuple[int, ...]:
        """Batch sizes whose step is one CUDA graph; none before `warm_up`, and none on a CPU."""
        return tuple(sorted(size for size, step in self._steps.items() if step.is_recorded))

    def bucket(self, rows: int) -> int:
        return next(size for size in self._buckets if size >= rows)

    def warm_up(self) -> None:
        record: Record | None = CudaGraphs() if self._device.type == "cuda" else None
        m = self._config.num_prototypes
        for size in reversed(self._buckets):  # the largest first: smaller ones fit into its memory
            inputs = StepInputs.blank(size, self._config.image.shape, m)
            self.encode(inputs.x_t)
            if record is not None and not self._step(size).record(record):
                record = None  # what failed for one size is not tried for the others
            self.denoise_step(inputs)
            if self._prior is not None:
                self._prior(StepInputs.blank(size, (m,), 0))

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        count = len(x_0)
        padded = np.empty((self.bucket(count), *self._config.image.shape), np.float32)
        padded[:count] = x_0
        padded[count:] = x_0[-1]
        with torch.inference_mode(), _memory_errors():
            activations, maps = self._encoder(torch.from_numpy(padded).to(self._device))
            return activations[:count].cpu().numpy(), maps[:count].cpu().numpy()

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        return self._step(self.bucket(len(inputs)))(inputs)

    @property
    def has_prior(self) -> bool:
        return self._prior is not None

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        assert self._prior is not None  # callers ask `has_prior`
        return self._prior(inputs)

    def _step(self, size: int) -> StaticStep:
        if size not in self._steps:
            with _memory_errors():
                self._steps[size] = StaticStep(
                    self._network, self._config, size, self._device, use_bf16=self._precision == "bf16"
                )
        return self._steps[size]


@dataclass(frozen=True)
class Recording:
    """A computation that always reads and writes the same memory: `replay` renews `output`."""

    output: Tensor
    replay: Callable[[], None]


Record = Callable[[Callable[[], Tensor]], Recording]


class StaticStep:
    """The denoise step of one batch size, its inputs in memory that is allocated once.

    On a GPU the inputs go through pinned host memory, all copies are queued, and the host waits once, for
    the outputs. `record` replaces the step's many kernel launches by one replay.
    """

    def __init__(
        self, network: nn.Module, config: ModelConfig, size: int, device: torch.device, *, use_bf16: bool
    ) -> None:
        self._network = network
        self._size = size
        self._device = device
        self._use_bf16 = use_bf16
        image = (size, *config.image.shape)
        on_gpu = device.type == "cuda"
        self._host = {
            "x_t": torch.zeros(image, pin_memory=on_gpu),
            "timesteps": torch.zeros(size, dtype=torch.int64, pin_memory=on_gpu),
            "activations": torch.zeros(size, config.num_prototypes, pin_memory=on_gpu),
            "memory": torch.zeros(image, pin_memory=on_gpu),
            "noise": torch.zeros(image, pin_memory=on_gpu),
            "coefficients": torch.zeros(size, NUM_COEFFICIENTS, pin_memory=on_gpu),
        }
        self._inputs = {name: tensor.to(device) for name, tensor in self._host.items()}  # on the CPU the same
        self._outputs = torch.zeros(3, *image, pin_memory=on_gpu)  # x_next, memory_next, x_0_hat
        self._recording: Recording | None = None

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        """The step for up to `size` rows; the others repeat the last one. Raises OutOfMemoryError."""
        count = len(inputs)
        with torch.inference_mode(), _memory_errors():
            for name, array in vars(inputs).items():
                rows = self._host[name].numpy()
                rows[:count] = array
                rows[count:] = array[-1]
                self._inputs[name].copy_(self._host[name], non_blocking=True)
            self._outputs.copy_(self.launch(), non_blocking=True)
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
        x_next, memory_next, x_0_hat = self._outputs[:, :count].numpy().copy()
        return StepOutputs(x_next, memory_next, x_0_hat)

    def record(self, record: Record) -> bool:
        """Have `record` keep the step for replaying; False, with a warning, where it cannot."""
        try:
            with torch.inference_mode():
                self._recording = record(self._compute)
        except RuntimeError as error:  # torch's own, running out of memory among them
            log.warning("a step of %d rows runs without a CUDA graph: %s", self._size, error)
        return self.is_recorded

    @property
    def is_recorded(self) -> bool:
        return self._recording is not None

    def launch(self) -> Tensor:
        """Queue the step over what the inputs hold on the device; its output there, as `_compute` gives it.

        By itself for measuring: callers hold `torch.inference_mode`.
        """
        if self._recording is None:
            return self._compute()
        self._recording.replay()
        return self._recording.output

    def _compute(self) -> Tensor:
        """(3, B, C, H, W) float32: x_next, memory_next and x_0_hat of what is in the inputs."""
        # Autocast touches convolutions, linear maps and attention. The sampler's arithmetic has x_t and the
        # coefficients in it, which are float32, and so is float32 itself. No cache of casts: a graph that is
        # replayed would go on reading it after it was freed.
        with torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._use_bf16, cache_enabled=False
        ):
            return torch.stack(self._network(**self._inputs))


class CudaGraphs:
    """Captures computations as CUDA graphs that share their memory; RuntimeError where that fails.

    Sharing asks that each one's output is read before another is replayed, as `StaticStep` does.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Recording:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # first calls choose algorithms and allocate workspaces: not captured
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = run()
        return Recording(output, graph.replay)


def placed(patronus: Patronus, device: torch.device, *, use_bf16: bool) -> Patronus:
    """The model as the runner computes with it: on its device, channels last, bf16 weights where asked."""
    if device.type == "cuda":
        _keep_float32_exact()
    if use_bf16:
        _to_bfloat16(patronus.denoiser)
    on_device: Patronus = patronus.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return on_device


def load_patronus(bundle: Bundle) -> Patronus:
    """The bundle's weights in a model that is ready to be called. Raises BundleError."""
    path = bundle.path(WEIGHTS)
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    patronus = Patronus(bundle.config)
    expected = patronus.state_dict()
    for name, tensor in expected.items():
        if name not in found:
            raise BundleError(f"{path} lacks {name}")
        if found[name].shape != tensor.shape:
            raise BundleError(f"{path}: {name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}")
    unknown = sorted(found.keys() - expected.keys())
    if unknown:
        raise BundleError(f"{path} holds {unknown[0]}, which a model of this configuration does not have")
    patronus.load_state_dict(found)
    return patronus.requires_grad_(False).eval()


def _device(asked: Device) -> torch.device:
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"device cuda was asked for, but torch {torch.__version__} finds no usable GPU")
    return torch.device("cuda", 0)


def _precision(asked: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if asked == "bf16" and not has_bf16:
        reason = "this CPU has neither AVX512-BF16 nor AMX" if device.type == "cpu" else "this GPU lacks it"
        raise DeviceError(f"precision bf16 was asked for, but {reason}: use fp32, which is faster here")
    if asked == "auto":
        return "bf16" if has_bf16 and device.type == "cuda" else "fp32"
    return asked


def _keep_float32_exact() -> None:
    """No TF32, and no algorithm that gives other results from call to call, in this whole process."""
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.deterministic = True


def _to_bfloat16(network: nn.Module) -> None:
    """Store the weights that autocast would cast at every call; normalisation and tables stay float32."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Tell the engine that a smaller batch may do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(str(error)) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # what the CPU's allocator says
            raise OutOfMemoryError(str(error)) from error
        raise
