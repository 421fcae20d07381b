"""How fast is a denoise step on a GPU, and what share of the device's matrix rate does it use?

    python -m benchmarks.gpu.speed [--out DIRECTORY] [--networks paper-64,paper-32,...] [--batches 1,2,...]
        [--variants eager,graph,compile,compile-graph] [--compile-batches 1,256]

Each network in bf16 at each batch size: eagerly, as one CUDA graph, by torch.compile, and the compiled step
as a graph. "device" is what the GPU needs, "call" what the engine waits: NumPy arrays in and out, copies
over the bus included. Images/s are of 20 steps by the call. Compiling takes a minute for each size, so
only some sizes are compiled. The cases that the targets are about come first.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import nn

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.differences import STEP_TOLERANCE, step_difference
from benchmarks.gpu.networks import MEASURED, Network, open_network, random_steps
from benchmarks.gpu.roofline import Roofline, count_flops, measure_roofline
from benchmarks.gpu.timing import Timing, time_by_clock, time_on_device
from model.patronus import DenoiseStep
from service.engine.errors import OutOfMemoryError
from service.engine.torch_runner import CudaGraphs, StaticStep, load_patronus, placed

Variant = Literal["eager", "graph", "compile", "compile-graph"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
COMPILE_BATCHES = (1, 256)
TARGET_SHARE, TARGET_IMAGE_MS, STEPS = 0.5, 30.0, 20
FULL_BATCH = 256
EXPECTED_S: dict[Variant, float] = {"eager": 8.0, "graph": 8.0, "compile": 90.0, "compile-graph": 90.0}
"""Of one case, for the budget."""


@dataclass(frozen=True)
class Case:
    network: str
    variant: Variant
    batch: int

    def __str__(self) -> str:
        return f"{self.network}, {self.variant}, batch {self.batch}"


@dataclass(frozen=True)
class Outcome:
    case: Case
    device: Timing
    call: Timing
    flops: float

    @property
    def images_per_s(self) -> float:
        return self.case.batch / (STEPS * 1e-3 * self.call.ms)

    def share(self, roofline: Roofline) -> float:
        """Of the measured matrix rate, while the GPU computes."""
        return self.flops / (1e-3 * self.device.ms) / roofline.matrix_rate

    def share_of_call(self, roofline: Roofline) -> float:
        """The same over all that the engine waits."""
        return self.flops / (1e-3 * self.call.ms) / roofline.matrix_rate


def main(arguments: Sequence[str] | None = None) -> int:
    title = "Denoise steps on a GPU"
    return carry_out(measure, parser(), stem="speed", title=title, arguments=arguments)


def parser() -> argparse.ArgumentParser:
    parser = option_parser(__doc__)
    parser.add_argument("--networks", help=f"comma-separated (default: {','.join(MEASURED)})")
    parser.add_argument("--batches", help=f"comma-separated (default: {','.join(map(str, BATCHES))})")
    parser.add_argument("--variants", help=f"comma-separated (default: {','.join(get_args(Variant))})")
    parser.add_argument("--compile-batches", default=",".join(map(str, COMPILE_BATCHES)))
    return parser


def measure(call: Call, options: argparse.Namespace) -> None:
    roofline = (
        measure_roofline(call.device, sizes=(64, 128), copy_bytes=2**20, window_s=0.01)
        if call.rehearsal
        else measure_roofline(call.device, sizes=(4096, 8192, 16384), copy_bytes=2**30)
    )
    _show(call, roofline)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = StepBench(call, Path(scratch))
        for case in cases(call, options):
            if call.allows(0.0 if call.rehearsal else EXPECTED_S[case.variant], str(case)):
                with _told(call, case):
                    outcomes.append(bench.measure(case))
    for outcome in outcomes:
        _keep(call, outcome, roofline)
    _tables(call, outcomes, roofline)
    _targets(call, outcomes, roofline)


def cases(call: Call, options: argparse.Namespace) -> list[Case]:
    """All that is asked for, those of the targets first, then networks in order; compiled ones last."""
    networks = options.networks.split(",") if options.networks else ["tiny"] if call.rehearsal else MEASURED
    batches = _numbers(options.batches) or ([1, 4] if call.rehearsal else list(BATCHES))
    variants = cast(
        "list[Variant]",
        options.variants.split(",")
        if options.variants
        else ["eager"]
        if call.rehearsal
        else list(get_args(Variant)),
    )
    unknown = [variant for variant in variants if variant not in get_args(Variant)]
    if unknown:
        raise SystemExit(f"--variants: {unknown[0]!r} is none of {', '.join(get_args(Variant))}")
    compiled = _numbers(options.compile_batches)
    found = [
        Case(network, variant, batch)
        for network in networks
        for variant in variants
        for batch in batches
        if not variant.startswith("compile") or batch in compiled
    ]

    def order(case: Case) -> tuple[bool, bool]:
        is_target = (case.network, case.batch) in (("paper-64", FULL_BATCH), ("paper-32", 1))
        return not is_target, case.variant.startswith("compile")

    return sorted(found, key=order)


class StepBench:
    """Steps of networks that are opened when they are first asked for, and one at a time."""

    def __init__(self, call: Call, scratch: Path) -> None:
        self._call = call
        self._scratch = scratch
        self._name = ""
        self._network: Network
        self._module: nn.Module
        self._flops: dict[int, float] = {}

    def measure(self, case: Case) -> Outcome:
        """One case, checked against the eager step. Raises OutOfMemoryError, and RuntimeError where torch
        cannot compile or capture."""
        self._open(case.network)
        config, device = self._network.config, self._call.device
        inputs = random_steps(config, case.batch, seed=case.batch)
        eager = self._step(self._module, case.batch)
        expected = eager(inputs)
        flops = self._count(eager, case.batch)
        if case.variant == "eager":
            step = eager
        else:
            del eager
            module = self._module
            if case.variant.startswith("compile"):
                torch._dynamo.reset()
                module = cast(nn.Module, torch.compile(self._module, dynamic=False))
            step = self._step(module, case.batch)
            step(inputs)  # compiles
            if case.variant.endswith("graph") and not step.record(CudaGraphs()):
                raise RuntimeError("the step could not be captured; the log says why")
        found = step(inputs)
        difference = step_difference(found, expected)
        self._call.report.check(
            f"{case}: as the eager step",
            difference <= STEP_TOLERANCE["bf16"],
            f"{difference:.1e} of the largest value",
        )
        windows, window_s = (2, 0.01) if self._call.rehearsal else (5, 0.15)

        def launch() -> None:
            with torch.inference_mode():
                step.launch()

        on_device = time_on_device(launch, device, windows=windows, window_s=window_s)
        by_clock = time_by_clock(lambda: step(inputs), device, windows=windows, window_s=window_s)
        return Outcome(case, on_device, by_clock, flops)

    def _open(self, name: str) -> None:
        if self._name == name:
            return
        self._network = open_network(name, self._scratch)
        patronus = placed(load_patronus(self._network.bundle), self._call.device, use_bf16=True)
        self._module = DenoiseStep(patronus).eval()
        self._name, self._flops = name, {}

    def _step(self, module: nn.Module, batch: int) -> StaticStep:
        return StaticStep(module, self._network.config, batch, self._call.device, use_bf16=True)

    def _count(self, eager: StaticStep, batch: int) -> float:
        """FLOPs of a step; that they grow with the batch as they must is checked."""
        with torch.inference_mode():
            flops = count_flops(eager.launch)
        for other, known in self._flops.items():
            is_linear = abs(flops / batch - known / other) <= 1e-6 * flops / batch
            self._call.report.check(
                f"{self._name}: FLOPs of {batch} rows and of {other}",
                is_linear,
                f"{flops:.4g} and {known:.4g}",
            )
        self._flops = {batch: flops}
        return flops


@contextlib.contextmanager
def _told(call: Call, case: Case) -> Iterator[None]:
    """Say what a case took; what the device cannot do is left out with the reason, the rest goes on."""
    started_at = time.monotonic()
    try:
        yield
    except (OutOfMemoryError, RuntimeError) as error:  # torch's own, of the compiler among them
        call.report.skip(str(case), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    finally:
        if call.device.type == "cuda":
            torch.cuda.empty_cache()
    print(f"{case}: {time.monotonic() - started_at:.1f} s", flush=True)


def _show(call: Call, roofline: Roofline) -> None:
    rows = [
        [f"bf16 matrices of {n} x {n}", f"{rate / 1e12:.4g} TFLOP/s"] for n, rate in roofline.matrix.items()
    ]
    rows.append(["copies on the device, read and written", f"{roofline.device_copy / 1e9:.4g} GB/s"])
    if roofline.to_device:
        rows.append(["copies from pinned memory", f"{roofline.to_device / 1e9:.4g} GB/s"])
        rows.append(["copies to pinned memory", f"{roofline.from_device / 1e9:.4g} GB/s"])
    call.report.table("What the device can do", ("what", "measured"), rows)
    call.report.figure("roofline", **vars(roofline))
    call.report.check("the matrix rate is a number", roofline.matrix_rate > 0.0)


def _keep(call: Call, outcome: Outcome, roofline: Roofline) -> None:
    share = outcome.share(roofline)
    call.report.figure(
        "step",
        **vars(outcome.case),
        device_ms=outcome.device.windows_ms,
        call_ms=outcome.call.windows_ms,
        flops=outcome.flops,
        share=share,
        share_of_call=outcome.share_of_call(roofline),
        images_per_s=outcome.images_per_s,
    )
    # A tiny network against tiny matrices proves nothing.
    if not call.rehearsal:
        call.report.check(f"{outcome.case}: no faster than the device", 0.0 < share <= 1.0, f"{share:.1%}")


def _tables(call: Call, outcomes: Sequence[Outcome], roofline: Roofline) -> None:
    columns = (
        "batch",
        "variant",
        "device ms",
        "spread",
        "call ms",
        "spread",
        "images/s at 20 steps",
        "share of the matrix rate, device",
        "call",
    )
    for network in dict.fromkeys(outcome.case.network for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.case.network == network]
        flops = mine[0].flops / mine[0].case.batch
        call.report.table(
            f"{network}, {flops / 1e9:.3g} GFLOP a row",
            columns,
            [
                [
                    str(o.case.batch),
                    o.case.variant,
                    f"{o.device.ms:.3g}",
                    f"{o.device.spread:.0%}",
                    f"{o.call.ms:.3g}",
                    f"{o.call.spread:.0%}",
                    f"{o.images_per_s:.4g}",
                    f"{o.share(roofline):.1%}",
                    f"{o.share_of_call(roofline):.1%}",
                ]
                for o in sorted(mine, key=lambda o: (o.case.batch, get_args(Variant).index(o.case.variant)))
            ],
        )


def _targets(call: Call, outcomes: Sequence[Outcome], roofline: Roofline) -> None:
    """The best variant counts, and is named."""
    full = [o for o in outcomes if (o.case.network, o.case.batch) == ("paper-64", FULL_BATCH)]
    if full:
        best = max(full, key=lambda o: o.share(roofline))
        name = f"share of the matrix rate, {best.case}"
        call.report.target(name, best.share(roofline), TARGET_SHARE, "", at_least=True)
    single = [o for o in outcomes if (o.case.network, o.case.batch) == ("paper-32", 1)]
    if single:
        best = min(single, key=lambda o: o.call.ms)
        name = f"one image of {STEPS} steps, {best.case}"
        call.report.target(name, STEPS * best.call.ms, TARGET_IMAGE_MS, "ms", at_least=False)
    if not call.rehearsal:
        for name, found in (("paper-64 at batch 256", full), ("paper-32 at batch 1", single)):
            if not found:
                call.report.skip(f"the target of {name}", "no case of it was measured in this call")


def _numbers(text: str | None) -> list[int]:
    return [int(part) for part in text.split(",")] if text else []


if __name__ == "__main__":
    sys.exit(main())
