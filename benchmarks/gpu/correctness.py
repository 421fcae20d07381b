"""Does the torch runner on a GPU compute what float32 on the CPU computes?

    python -m benchmarks.gpu.correctness [--out DIRECTORY] [--networks paper-64,paper-32,fashion-mnist,...]

For each network, in bf16 and in float32: a denoise step of rows of several samplers, run eagerly and replayed
as a CUDA graph, padded and full batches, rows alone and in company, encodings, and for trained networks
pictures of 20 steps through the engine, sampled alone and among others. Every line is a self-check.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.gpu.call import Call, carry_out, option_parser
from benchmarks.gpu.differences import STEP_TOLERANCE, row_difference, step_difference
from benchmarks.gpu.networks import MEASURED, Network, open_network, random_steps
from model.samplers import ddim, dpmpp_2m
from model.schedule import NoiseSchedule
from model.transforms import to_x_0
from service.engine.engine_core import EngineCore
from service.engine.errors import DeviceError
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import Float32, Runner, StepOutputs
from service.engine.torch_runner import Precision, TorchRunner
from service.settings import Device

ENCODING_TOLERANCE = 1e-4
PICTURE_TOLERANCE: dict[Precision, float] = {"fp32": 0.1, "bf16": 1.0}
"""Mean difference of pictures after 20 steps, in gray levels of 256; bf16 on a CPU differs by 0.16."""
STEPS = 20
EXPECTED_S = 60.0
"""Of one network in one precision, for the budget: most of it is the CPU's share."""

Compare = Callable[[str, float, float], None]
"""What was compared, the largest difference, and what is allowed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = option_parser(__doc__)
    parser.add_argument("--networks", help=f"comma-separated (default: {','.join(MEASURED)})")
    return carry_out(
        measure, parser, stem="correctness", title="The torch runner against float32", arguments=arguments
    )


def measure(call: Call, options: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in call.chosen(options.networks, rehearsed=["tiny"], of=MEASURED):
            network = open_network(name, Path(scratch))
            for precision in ("bf16", "fp32"):
                what = f"{name} in {precision}"
                if call.allows(0.0 if call.rehearsal else EXPECTED_S, what):
                    try:
                        rows += _compare(call, network, precision)
                    except DeviceError as error:  # a device without bf16
                        call.report.skip(what, str(error))
                    call.save()
    columns = ("network", "precision", "compared", "largest difference", "allowed", "")
    call.report.table("Differences", columns, rows)


def _compare(call: Call, network: Network, precision: Precision) -> list[list[str]]:
    """The rows of one network in one precision; each is a check of the report."""
    started_at = time.monotonic()
    max_batch = 6 if call.rehearsal else 24
    config = network.config
    reference = TorchRunner(network.bundle, device="cpu", precision="fp32", max_batch=max_batch)
    device: Device = "cuda" if call.device.type == "cuda" else "cpu"
    subject = TorchRunner(network.bundle, device=device, precision=precision, max_batch=max_batch)
    tolerance = STEP_TOLERANCE[precision]
    rows = []

    def compare(what: str, found: float, allowed: float) -> None:
        passed = found <= allowed  # a NaN is no pass
        call.report.check(f"{network.name}, {precision}: {what}", passed, f"{found:.2e} of {allowed:.0e}")
        call.report.figure(
            "difference",
            network=network.name,
            precision=precision,
            what=what,
            found=found,
            allowed=allowed,
        )
        rows.append(
            [
                network.name,
                precision,
                what,
                f"{found:.1e}",
                f"{allowed:.0e}",
                "ok" if passed else "FAILED",
            ]
        )

    counts = (max_batch, max_batch - 1, 1)  # full, padded, alone
    inputs = {count: random_steps(config, count, seed=count) for count in counts}
    expected = {count: reference.denoise_step(inputs[count]) for count in counts}
    eager = {count: subject.denoise_step(inputs[count]) for count in counts}
    for count in counts:
        compare(f"eager step of {count} rows", step_difference(eager[count], expected[count]), tolerance)

    subject.warm_up()
    if device == "cuda":
        missing = {subject.bucket(rows) for rows in range(1, max_batch + 1)} - set(subject.replayed_sizes)
        compare("batch sizes without a CUDA graph", float(len(missing)), 0.0)
    for count in counts:
        replayed = subject.denoise_step(inputs[count])
        compare(f"replayed step of {count} rows", step_difference(replayed, expected[count]), tolerance)
        again = subject.denoise_step(inputs[count])
        compare(f"the same once more, {count} rows", step_difference(again, replayed), 0.0)

    together = subject.denoise_step(inputs[max_batch])
    alone = [subject.denoise_step(inputs[max_batch].rows(slice(i, i + 1))) for i in range(max_batch)]
    compare("rows alone and in company", step_difference(_joined(alone), together), tolerance)

    images = np.random.default_rng(0).uniform(-1.0, 1.0, (max_batch - 1, *config.image.shape))
    x_0 = images.astype(np.float32)
    for found, wanted, what in zip(
        subject.encode(x_0), reference.encode(x_0), ("activations", "similarity maps"), strict=True
    ):
        compare(what, row_difference(found, wanted), ENCODING_TOLERANCE)

    if network.is_trained:
        _compare_pictures(network, reference, subject, PICTURE_TOLERANCE[precision], compare)
    call.report.figure(
        "seconds", network=network.name, precision=precision, seconds=time.monotonic() - started_at
    )
    return rows


def _compare_pictures(
    network: Network, reference: Runner, subject: Runner, allowed: float, compare: Compare
) -> None:
    """Pictures of a trained network, in company with others on another sampler, and alone."""
    count = 4
    expected = _sample(network, reference, range(count), in_company=True)
    together = _sample(network, subject, range(count), in_company=True)
    alone = np.concatenate([_sample(network, subject, [i], in_company=False) for i in range(count)])
    for found, what in ((together, "in company"), (alone, "alone")):
        gray_levels = 127.5 * float(np.abs(found - expected).mean())
        compare(f"pictures of {STEPS} steps {what}, mean difference in gray levels", gray_levels, allowed)


def _sample(network: Network, runner: Runner, chosen: Sequence[int], *, in_company: bool) -> Float32:
    """Pictures (n, C, H, W) in [-1, 1] from their own noise, under s of the bundle's reference images."""
    bundle = network.bundle
    assert bundle.pictures is not None
    schedule = NoiseSchedule.from_config(bundle.config.schedule)
    s, _ = runner.encode(to_x_0(bundle.pictures.reference_images[: runner.max_batch]))

    def job(indices: Sequence[int], table: str) -> DenoiseJob:
        starts = [np.random.default_rng(i).standard_normal(bundle.config.image.shape) for i in indices]
        tables = {"ddim": ddim(schedule, STEPS, clip=1.0), "dpmpp_2m": dpmpp_2m(schedule, STEPS // 2)}
        return DenoiseJob(
            np.stack(starts).astype(np.float32),
            np.stack([s[i % len(s)] for i in indices]),
            tables[table],
            tuple(indices),
        )

    jobs = [job(list(chosen), "ddim")]
    if in_company:
        jobs.append(job([100, 101, 102], "dpmpp_2m"))
    core = EngineCore(runner, max_queue=64, observer=SilentObserver())
    tickets: list[Ticket[DenoiseResult]] = [Ticket(lambda ticket: None) for _ in jobs]
    for one, ticket in zip(jobs, tickets, strict=True):
        core.submit_denoise(one, ticket, 0.0)
    while core.has_work:
        core.tick(lambda: 0.0)
    result = tickets[0].result
    if result is None:
        raise RuntimeError(f"the engine gave no pictures: {tickets[0].error}")
    return np.clip(result.x, -1.0, 1.0)


def _joined(parts: Sequence[StepOutputs]) -> StepOutputs:
    names = vars(parts[0])
    return StepOutputs(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in names})


if __name__ == "__main__":
    sys.exit(main())
