"""Does an edit do what it says? Raise each prototype to its 0.99 quantile and encode the result again.

    python benchmarks/edit_success.py --data DIRECTORY [--images 100] [--steps 20] [--prototypes 0 1 2]

DIRECTORY holds Fashion-MNIST's official files. Each of the first test images is inverted under its own
s and regenerated with one entry of s at the prototype's 0.99 quantile; the edit succeeds where the
re-encoded activation is above that of the same image regenerated without the edit. Writes
benchmarks/results/edit_success.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.bundle import Bundle
from model.samplers import ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import Pixels, from_x_0, to_x_0
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.settings import SHIPPED_BUNDLE
from training.data import load_fashion_mnist

RESULT = Path(__file__).parent / "results" / "edit_success.md"


@dataclass(frozen=True)
class EditSuccess:
    """One prototype: how many of the images its edit raised, and means of s_j before, asked, achieved."""

    prototype: int
    raised: int
    images: int
    before: float
    asked: float
    achieved: float


def measure(
    bundle: Bundle, images: Pixels, prototypes: Sequence[int], *, steps: int, max_batch: int = 32
) -> list[EditSuccess]:
    """Edit success of `prototypes` over images (n, C, H, W)."""
    runner = OnnxRunner(bundle, device="auto", max_batch=max_batch)
    schedule = NoiseSchedule.from_config(bundle.config.schedule)

    def denoise(job: DenoiseJob) -> np.ndarray:
        core = EngineCore(runner, max_queue=len(job), observer=SilentObserver())
        outcome: list[Ticket[DenoiseResult]] = []
        core.submit_denoise(job, Ticket(outcome.append), 0.0)
        while core.has_work:
            core.tick(lambda: 0.0)
        result = outcome[0].result
        if result is None:
            raise RuntimeError(f"the engine failed: {outcome[0].error}")
        return result.x

    def encode(pixels: Pixels) -> np.ndarray:
        parts = [pixels[i : i + max_batch] for i in range(0, len(pixels), max_batch)]
        return np.concatenate([runner.encode(to_x_0(part))[0] for part in parts])

    n = len(images)
    seeds = (0,) * n
    s = encode(images)
    x_T = denoise(DenoiseJob(to_x_0(images), s, ddim_inversion(schedule, steps), seeds))
    table = ddim(schedule, steps)
    baseline = encode(from_x_0(denoise(DenoiseJob(x_T, s, table, seeds))))
    results = []
    for j in tqdm(prototypes, unit="prototype", disable=not sys.stderr.isatty()):
        asked = s.copy()
        asked[:, j] = bundle.statistics.high[j]
        achieved = encode(from_x_0(denoise(DenoiseJob(x_T, asked, table, seeds))))[:, j]
        before = baseline[:, j]
        results.append(
            EditSuccess(
                prototype=int(j),
                raised=int((achieved > before).sum()),
                images=n,
                before=float(before.mean()),
                asked=float(bundle.statistics.high[j]),
                achieved=float(achieved.mean()),
            )
        )
    return results


def table_of(results: Sequence[EditSuccess], *, bundle: Bundle, steps: int) -> str:
    """The results as Markdown."""
    worst = min(results, key=lambda result: result.raised / result.images)
    total = sum(result.raised for result in results)
    count = sum(result.images for result in results)
    reached = np.mean([(r.achieved - r.before) / (r.asked - r.before) for r in results])
    lines = [
        "# Edit success",
        "",
        f"Bundle {bundle.name} {bundle.digest[:12]}, {results[0].images} test images, {steps} steps, "
        f"{platform.machine()} CPU.",
        "Command: `python benchmarks/edit_success.py --data DIRECTORY "
        f"--images {results[0].images} --steps {steps}`",
        "",
        f"Raised {total} of {count} ({100 * total / count:.1f}%); worst prototype {worst.prototype} with "
        f"{worst.raised} of {worst.images}; mean share of the asked change that was achieved: {reached:.2f}.",
        "",
        "| prototype | raised | s_j before | asked | achieved |",
        "|---|---|---|---|---|",
        *(
            f"| {r.prototype} | {r.raised} / {r.images} | {r.before:.2f} | {r.asked:.2f} | {r.achieved:.2f} |"
            for r in results
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prototypes", type=int, nargs="*", help="default: all")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    test = load_fashion_mnist(options.data, "test", bundle.config.image)
    prototypes = options.prototypes or range(bundle.config.num_prototypes)
    results = measure(bundle, test.pixels[: options.images], prototypes, steps=options.steps)
    table = table_of(results, bundle=bundle, steps=options.steps)
    print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
