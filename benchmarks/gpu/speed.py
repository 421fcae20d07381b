"""How fast is a denoise step on a GPU, and what share of the device's matrix rate does it use?

    python -m benchmarks.gpu.speed [--out DIRECTORY] [--networks paper-64,paper-32,...] [--batches 1,2,...]
        [--variants eager,graph,graph-nchw,graph-bf16,compile,compile-graph] [--few-batches 1,256]

Each network in bf16 at each batch size, eagerly and as one CUDA graph, which is what the runner does. At a
few sizes what it might do instead: a graph of the network in the default memory format ("nchw": torch's group
normalisation on a GPU knows no other, so channels last are copied to and fro at every norm), the same with
its norms in bf16 too ("bf16": autocast has them in float32), torch.compile, and its result as a graph.
"device" is what the GPU needs, "call" what the engine waits: NumPy arrays in and out, copies over the bus
included. Of eager steps that are limited by launching, "device" is the time to launch; the graph's figure is
the GPU's. Images/s are of 20 steps by the call. Compiling takes about a minute for each size. The cases that
the targets are about come first.
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
from torch import Tensor, nn

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.differences import STEP_TOLERANCE, step_difference
from benchmarks.gpu.networks import MEASURED, Network, open_network, random_steps
from benchmarks.gpu.roofline import Roofline, count_flops, measure_roofline
from benchmarks.gpu.timing import Timing, time_by_clock, time_on_device
from model.patronus import DenoiseStep
from model.unet import UNet
from service.engine.errors import OutOfMemoryError
from service.engine.torch_runner import CudaGraphs, StaticStep, load_patronus, placed

Variant = Literal["eager", "graph", "graph-nchw", "graph-bf16", "compile", "compile-graph"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FEW_BATCHES = (1, 256)
EVERYWHERE = ("eager", "graph")
"""Variants at every batch size; the others at a few."""
TARGET_SHARE, TARGET_IMAGE_MS, STEPS = 0.5, 30.0, 20
FULL_BATCH = 256
EXPECTED_S, COMPILING_S = 8.0, 90.0
"""Of one case, and of one that is compiled, for the budget."""


@dataclass(frozen=True)
class Case:
    network: str
    variant: Variant
    batch: int

    @property
    def is_compiled(self) -> bool:
        return self.variant.startswith("compile")

    @property
    def expected_s(self) -> float:
        return COMPILING_S if self.is_compiled else EXPECTED_S

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
    parser.add_argument("--few-batches", default=",".join(map(str, FEW_BATCHES)))
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
            if call.allows(0.0 if call.rehearsal else case.expected_s, str(case)):
                with _told(call, case):
                    outcome = bench.measure(case)
                    _keep(call, outcome, roofline)
                    outcomes.append(outcome)
                call.save()
    _tables(call, outcomes, roofline)
    _targets(call, outcomes, roofline)


def cases(call: Call, options: argparse.Namespace) -> list[Case]:
    """All that is asked for, those of the targets first, and what is compiled after the rest."""
    networks = call.chosen(options.networks, rehearsed=["tiny"], of=MEASURED)
    batches = call.chosen(options.batches, rehearsed=[1, 4], of=BATCHES)
    all_variants: tuple[str, ...] = get_args(Variant)
    variants = call.chosen(options.variants, rehearsed=["eager", "graph-bf16"], of=all_variants)
    unknown = [variant for variant in variants if variant not in all_variants]
    if unknown:
        raise SystemExit(f"--variants: {unknown[0]!r} is none of {', '.join(all_variants)}")
    few = [int(part) for part in options.few_batches.split(",")]
    found = [
        Case(network, variant, batch)
        for network in networks
        for variant in cast("list[Variant]", variants)
        for batch in batches
        if variant in EVERYWHERE or batch in few
    ]

    def order(case: Case) -> tuple[bool, bool]:
        is_target = (case.network, case.batch) in (("paper-64", FULL_BATCH), ("paper-32", 1))
        return not is_target, case.is_compiled

    return sorted(found, key=order)


class StepBench:
    """Steps of networks that are opened when they are first asked for, and one at a time."""

    def __init__(self, call: Call, scratch: Path) -> None:
        self._call = call
        self._scratch = scratch
        self._name = ""
        self._network: Network
        self._flops: dict[int, float] = {}

    def measure(self, case: Case) -> Outcome:
        """One case, checked against the eager step. Raises OutOfMemoryError, and RuntimeError where torch
        cannot compile or capture."""
        self._open(case.network)
        config, device = self._network.config, self._call.device
        inputs = random_steps(config, case.batch, seed=case.batch)
        eager = self._step(self._module(), case.batch)
        expected = eager(inputs)
        flops = self._count(eager, case.batch)
        if case.variant == "eager":
            step = eager
        else:
            del eager
            step = self._step(self._module(case.variant), case.batch)
            step(inputs)  # compiles
            is_graph = "graph" in case.variant and device.type == "cuda"
            if is_graph and not step.record(CudaGraphs()):
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
        self._name, self._flops = name, {}

    def _module(self, variant: Variant = "eager") -> nn.Module:
        """The step as the runner has it, or as a variant would."""
        patronus = placed(load_patronus(self._network.bundle), self._call.device, use_bf16=True)
        if variant in ("graph-nchw", "graph-bf16"):
            patronus.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if variant == "graph-bf16":
            patronus.denoiser = AllInBfloat16(patronus.denoiser)  # type: ignore[assignment]
        step = DenoiseStep(patronus).eval()
        if not variant.startswith("compile"):
            return step
        torch._dynamo.reset()
        return cast(nn.Module, torch.compile(step, dynamic=False))

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


class AllInBfloat16(nn.Module):
    """The denoiser without autocast: its norms, and what lies between them, in bf16 as well."""

    def __init__(self, denoiser: UNet) -> None:
        super().__init__()
        for module in denoiser.modules():
            if isinstance(module, nn.GroupNorm):
                module.to(torch.bfloat16)
        self.denoiser = denoiser
        denoiser.time_embedding.layers.register_forward_pre_hook(  # the sinusoid stays float32
            lambda module, args: (args[0].to(torch.bfloat16),)
        )

    def forward(self, x_t: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        with torch.autocast(x_t.device.type, enabled=False):
            prediction: Tensor = self.denoiser(
                x_t.to(torch.bfloat16), timesteps, condition.to(torch.bfloat16)
            )
        return prediction.float()


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


if __name__ == "__main__":
    sys.exit(main())
