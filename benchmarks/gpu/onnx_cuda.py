"""How fast is ONNX Runtime's CUDA provider beside torch, with IO binding and with CUDA graphs?

    python -m benchmarks.gpu.onnx_cuda [--out DIRECTORY] [--batches 1,8,32,128,256]

The shipped bundles' denoiser graphs, in float32 without TF32 as the service runs them. "bound": inputs and
outputs stay on the GPU; "graph": the same, captured once and replayed; "run": NumPy arrays in and out, as
the service calls it. Beside them torch in float32 and in bf16 as CUDA graphs. Needs onnxruntime-gpu: without
its CUDA provider the script says so and measures torch alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.differences import STEP_TOLERANCE, row_difference
from benchmarks.gpu.networks import SHIPPED, Network, open_network, random_steps
from benchmarks.gpu.timing import Timing, time_by_clock, time_on_device
from model.bundle import DENOISER
from model.patronus import DenoiseStep
from service.engine.onnx_runner import CUDA, STEP_OUTPUTS
from service.engine.runner import Float32, StepInputs
from service.engine.torch_runner import CudaGraphs, StaticStep, load_patronus, placed

BATCHES = (1, 8, 32, 128, 256)
TOLERANCE = {"torch bf16 graph": STEP_TOLERANCE["bf16"]}
FLOAT32_TOLERANCE = 1e-3
"""Of the largest value, against ONNX Runtime on the CPU."""
EXPECTED_S = 30.0
CHECKED_ROWS = 8
"""Of a batch: the CPU is slow."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--batches", help=f"comma-separated (default: {','.join(map(str, BATCHES))})")
    return carry_out(
        measure, parser, stem="onnx_cuda", title="ONNX Runtime beside torch on a GPU", arguments=arguments
    )


def measure(call: Call, options: argparse.Namespace) -> None:
    batches = call.chosen(options.batches, rehearsed=[2], of=BATCHES)
    has_provider = call.rehearsal or _has_cuda(call)
    with tempfile.TemporaryDirectory() as scratch:
        for name in SHIPPED[:1] if call.rehearsal else SHIPPED:
            network = open_network(name, Path(scratch))
            rows: list[list[str]] = []
            for batch in batches:
                if call.allows(0.0 if call.rehearsal else EXPECTED_S, f"{name} at batch {batch}"):
                    rows += _measure(call, network, batch, with_onnx=has_provider)
                    call.save()
            call.report.table(name, ("batch", "what", "ms", "spread", "images/s at 20 steps"), rows)


def _has_cuda(call: Call) -> bool:
    if CUDA in ort.get_available_providers():
        ort.preload_dlls()
        return True
    offered = ", ".join(ort.get_available_providers())
    call.report.skip("ONNX Runtime on the GPU", f"onnxruntime {ort.__version__} offers {offered} only")
    return False


def _measure(call: Call, network: Network, batch: int, *, with_onnx: bool) -> list[list[str]]:
    inputs = random_steps(network.config, batch, seed=batch)
    cpu = ort.InferenceSession(network.bundle.path(DENOISER), providers=["CPUExecutionProvider"])
    few = vars(inputs.rows(slice(CHECKED_ROWS)))
    expected = cpu.run(["x_next"], {node.name: few[node.name] for node in cpu.get_inputs()})[0]
    ways: dict[str, Callable[[], Way]] = {}
    if with_onnx:
        ways |= {
            "onnxruntime run": lambda: _plain(call, network, inputs),
            "onnxruntime bound": lambda: _bound(call, network, inputs, use_graph=False),
        }
        if not call.rehearsal:
            ways["onnxruntime graph"] = lambda: _bound(call, network, inputs, use_graph=True)
    ways |= {
        "torch fp32 graph": lambda: _torch(call, network, inputs, use_bf16=False),
        "torch bf16 graph": lambda: _torch(call, network, inputs, use_bf16=True),
    }
    rows = []
    for what, open_way in ways.items():
        try:
            run, read, on_device = open_way()
            run()
            found = read()[:CHECKED_ROWS]
            windows, window_s = (2, 0.02) if call.rehearsal else (5, 0.15)
            measured = time_on_device if on_device else time_by_clock
            timing: Timing = measured(run, call.device, windows=windows, window_s=window_s)
        except Exception as error:  # ONNX Runtime raises its own kinds, and not all are RuntimeErrors
            reason = " ".join(str(error).split())[:300]
            call.report.skip(f"{network.name}, batch {batch}, {what}", f"{type(error).__name__}: {reason}")
            continue
        difference = row_difference(found, expected)
        allowed = TOLERANCE.get(what, FLOAT32_TOLERANCE)
        name = f"{network.name}, batch {batch}, {what}: as on the CPU"
        call.report.check(name, difference <= allowed, f"{difference:.1e} of {allowed:.0e}")
        images_per_s = batch / (20 * 1e-3 * timing.ms)
        call.report.figure("step", network=network.name, batch=batch, what=what, windows_ms=timing.windows_ms)
        rows.append([str(batch), what, f"{timing.ms:.3g}", f"{timing.spread:.0%}", f"{images_per_s:.4g}"])
    return rows


Way = tuple[Callable[[], object], Callable[[], Float32], bool]
"""One step, its x_next as an array, and whether the step is only queued, to be timed on the device."""


def _session(call: Call, network: Network, *, use_graph: bool = False) -> ort.InferenceSession:
    provider: Any = "CPUExecutionProvider"
    if call.device.type == "cuda":
        options = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        provider = (CUDA, options | {"enable_cuda_graph": "1"} if use_graph else options)
    session = ort.InferenceSession(network.bundle.path(DENOISER), providers=[provider])
    if call.device.type == "cuda" and session.get_providers()[0] != CUDA:
        raise RuntimeError("ONNX Runtime could not load its CUDA libraries")
    return session


def _plain(call: Call, network: Network, inputs: StepInputs) -> Way:
    session = _session(call, network)
    arrays = {node.name: vars(inputs)[node.name] for node in session.get_inputs()}

    def run() -> list[Float32]:
        outputs: list[Float32] = session.run(STEP_OUTPUTS, arrays)
        return outputs

    return run, lambda: run()[0], False


def _bound(call: Call, network: Network, inputs: StepInputs, *, use_graph: bool) -> Way:
    """Everything at fixed places of the device, as a capture needs it; ONNX Runtime waits after each run."""
    session = _session(call, network, use_graph=use_graph)
    kind = call.device.type
    binding = session.io_binding()
    for node in session.get_inputs():
        value = ort.OrtValue.ortvalue_from_numpy(vars(inputs)[node.name], kind, 0)
        binding.bind_ortvalue_input(node.name, value)
    outputs = {
        name: ort.OrtValue.ortvalue_from_shape_and_type(inputs.x_t.shape, np.float32, kind, 0)
        for name in STEP_OUTPUTS
    }
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)

    def run() -> None:
        session.run_with_iobinding(binding)

    def read() -> Float32:
        array: Float32 = outputs["x_next"].numpy()
        return array

    return run, read, False


def _torch(call: Call, network: Network, inputs: StepInputs, *, use_bf16: bool) -> Way:
    patronus = placed(load_patronus(network.bundle), call.device, use_bf16=use_bf16)
    step = StaticStep(
        DenoiseStep(patronus).eval(), network.config, len(inputs), call.device, use_bf16=use_bf16
    )
    step(inputs)
    if call.device.type == "cuda" and not step.record(CudaGraphs()):
        raise RuntimeError("the step could not be captured; the log says why")

    def launch() -> None:
        with torch.inference_mode():
            step.launch()

    return launch, lambda: step(inputs).x_next, True


if __name__ == "__main__":
    sys.exit(main())
