"""Run a bundle's graphs with ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime reports which models it runs
import onnxruntime as ort

from model.bundle import DENOISER, ENCODER, PRIOR, Bundle, BundleError, graph_signature
from model.config import ModelConfig
from service.engine.buckets import bucket_sizes
from service.engine.errors import DeviceError, OutOfMemoryError
from service.engine.runner import Float32, StepInputs, StepOutputs

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

Provider = str | tuple[str, dict[str, str]]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
ENCODER_OUTPUTS = ["activations", "similarity_maps"]
STEP_OUTPUTS = ["x_next", "memory_next", "x_0_hat"]


class OnnxRunner:
    """A session for each graph, and fixed batch sizes: a call is padded up to the next size.

    Fixed sizes keep the memory arenas from growing with every new batch size. Opening checks the
    graphs' inputs against the bundle's configuration and raises BundleError or DeviceError.
    """

    def __init__(self, bundle: Bundle, *, device: Device, max_batch: int, num_threads: int = 0) -> None:
        self._config = bundle.config
        self._buckets = bucket_sizes(max_batch)
        providers = _providers(device)
        self._encoder = _open_session(bundle, ENCODER, providers, num_threads)
        self._denoiser = OnnxStep(_open_session(bundle, DENOISER, providers, num_threads), self._buckets)
        self._prior = open_prior(bundle, device=device, max_batch=max_batch, num_threads=num_threads)
        self._provider = self._encoder.get_providers()[0]
        if device == "cuda" and self._provider != CUDA:
            raise DeviceError("device cuda was asked for, but ONNX Runtime could not load its CUDA libraries")
        log.info("serving %s with %s", bundle.directory, self.backend)

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def backend(self) -> str:
        return f"onnxruntime {ort.__version__} {self._provider}"

    @property
    def max_batch(self) -> int:
        return self._buckets[-1]

    def bucket(self, rows: int) -> int:
        return next(size for size in self._buckets if size >= rows)

    def warm_up(self) -> None:
        image, m = self._config.image.shape, self._config.num_prototypes
        for size in reversed(self._buckets):
            inputs = StepInputs.blank(size, image, m)
            self.encode(inputs.x_t)
            self.denoise_step(inputs)
            if self.has_prior:
                self.prior_step(StepInputs.blank(size, (m,), 0))

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        count = len(x_0)
        missing = self.bucket(count) - count
        if missing:
            x_0 = np.concatenate([x_0, np.repeat(x_0[-1:], missing, axis=0)])
        activations, maps = _run(self._encoder, ENCODER_OUTPUTS, {"x_0": x_0})
        return activations[:count], maps[:count]

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        return self._denoiser(inputs)

    @property
    def has_prior(self) -> bool:
        return self._prior is not None

    def prior_step(self, inputs: StepInputs) -> StepOutputs:
        assert self._prior is not None  # callers ask `has_prior`
        return self._prior(inputs)


class OnnxStep:
    """One exported denoise step, of images or of activation vectors, in batches of the given sizes."""

    def __init__(self, session: ort.InferenceSession, buckets: Sequence[int]) -> None:
        self._session = session
        self._buckets = buckets
        self._inputs = [node.name for node in session.get_inputs()]

    def __call__(self, inputs: StepInputs) -> StepOutputs:
        count = len(inputs)
        size = next(size for size in self._buckets if size >= count)
        padded = inputs if size == count else inputs.padded(size)
        arrays = _run(self._session, STEP_OUTPUTS, {name: getattr(padded, name) for name in self._inputs})
        return StepOutputs(*(array[:count] for array in arrays))


def open_prior(bundle: Bundle, *, device: Device, max_batch: int, num_threads: int = 0) -> OnnxStep | None:
    """The step of the bundle's latent prior, None where it has none. Raises BundleError or DeviceError."""
    if bundle.prior is None:
        return None
    session = _open_session(bundle, PRIOR, _providers(device), num_threads)
    return OnnxStep(session, bucket_sizes(max_batch))


def _providers(device: Device) -> list[Provider]:
    available = ort.get_available_providers()
    if device != "cpu" and CUDA in available:
        ort.preload_dlls()  # the CUDA libraries that came as Python packages
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return [CPU]
    if CUDA not in available:
        raise DeviceError(
            f"device cuda was asked for, but ONNX Runtime here offers {', '.join(available)} only"
        )
    # No TF32, and no search that may choose another algorithm for every batch size: the same seed
    # must give the same image in any company.
    return [(CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), CPU]


def _open_session(
    bundle: Bundle, file: str, providers: Sequence[Provider], num_threads: int
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    # One session at a time runs; threads that spin between calls would take the CPU from the web server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(bundle.path(file), options, providers=list(providers))
    except Exception as error:
        raise BundleError(f"{bundle.path(file)} cannot be opened: {error}") from error
    found = {node.name: tuple(node.shape) for node in session.get_inputs()}
    for name, shape in graph_signature(file, bundle.config).items():
        sizes = found.get(name)
        if sizes is None:
            raise BundleError(f"{bundle.path(file)} has no input {name!r}")
        agrees = len(sizes) == len(shape) and all(
            isinstance(size, str) if expected is None else size == expected
            for size, expected in zip(sizes, shape, strict=True)
        )
        if not agrees:
            raise BundleError(f"{bundle.path(file)}: input {name} is {sizes}, not {shape} (None: free)")
    return session


def _run(session: ort.InferenceSession, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[Float32]:
    try:
        arrays: list[Float32] = session.run(outputs, inputs)
    except Exception as error:
        if "allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise OutOfMemoryError(str(error)) from error
        raise
    return arrays
