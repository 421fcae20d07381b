"""Does an edit do what it says? Raise each prototype to its 0.99 quantile and encode the result again.

    python -m benchmarks.edit_success --data DIRECTORY [--images 100] [--steps 20] [--rounds 4]

DIRECTORY holds Fashion-MNIST's official files. Each of the first test images is inverted under its own
s and regenerated with one entry of s at the prototype's 0.99 quantile, corrected as POST /edit does it;
the edit succeeds where the re-encoded activation is above that of the same image regenerated without the
edit. "once" is the first round alone. Writes
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
from service.pipeline.edits import EditLoop
from service.settings import SHIPPED_BUNDLE
from training.data import load_fashion_mnist

RESULT = Path(__file__).parent / "results" / "edit_success.md"


@dataclass(frozen=True)
class EditSuccess:
    """One prototype: how many of the images its edit raised, and means of s_j before, asked, achieved."""

    prototype: int
    raised_once: int
    raised: int
    images: int
    before: float
    asked: float
    achieved: float


def measure(
    bundle: Bundle, images: Pixels, prototypes: Sequence[int], *, steps: int, rounds: int, max_batch: int = 32
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

    assert bundle.statistics is not None, "a bundle without statistics has no 0.99 quantiles to raise to"
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
        before = baseline[:, j]
        loops = [EditLoop(s[i], asked[i]) for i in range(n)]
        once = achieved = np.empty(0)
        open_ = list(range(n))  # images whose edit is still to be corrected
        for round_ in range(rounds):
            driven = np.stack([loops[i].driven for i in open_])
            job = DenoiseJob(x_T[open_], driven, table, (0,) * len(open_))
            results_s = encode(from_x_0(denoise(job)))
            if round_ == 0:
                once = results_s[:, j]
                achieved = once.copy()
            worthwhile = [loops[i].observe(results_s[k]) for k, i in enumerate(open_)]
            for k, i in enumerate(open_):
                if loops[i].best_round == round_:
                    achieved[i] = results_s[k, j]
            open_ = [i for i, again in zip(open_, worthwhile, strict=True) if again]
            if not open_:
                break
        results.append(
            EditSuccess(
                prototype=int(j),
                raised_once=int((once > before).sum()),
                raised=int((achieved > before).sum()),
                images=n,
                before=float(before.mean()),
                asked=float(bundle.statistics.high[j]),
                achieved=float(achieved.mean()),
            )
        )
    return results


def table_of(results: Sequence[EditSuccess], *, bundle: Bundle, steps: int, rounds: int) -> str:
    """The results as Markdown."""
    worst = min(results, key=lambda result: result.raised / result.images)
    total = sum(result.raised for result in results)
    once = sum(result.raised_once for result in results)
    short = sum(result.raised < 0.9 * result.images for result in results)
    count = sum(result.images for result in results)
    reached = np.mean([(r.achieved - r.before) / (r.asked - r.before) for r in results])
    lines = [
        "# Edit success",
        "",
        f"Bundle {bundle.name} {bundle.digest[:12]}, {results[0].images} test images, {steps} steps, "
        f"at most {rounds} rounds, {platform.machine()} CPU.",
        "Command: `python -m benchmarks.edit_success --data DIRECTORY "
        f"--images {results[0].images} --steps {steps} --rounds {rounds}`",
        "",
        f"Raised {total} of {count} ({100 * total / count:.1f}%); worst prototype {worst.prototype} with "
        f"{worst.raised} of {worst.images}; {short} of {len(results)} prototypes below 90%; with one round "
        f"{100 * once / count:.1f}%; mean share of the asked change that was achieved: {reached:.2f}.",
        "",
        "| prototype | raised | raised, once | s_j before | asked | achieved |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.prototype} | {r.raised} / {r.images} | {r.raised_once} "
            f"| {r.before:.2f} | {r.asked:.2f} | {r.achieved:.2f} |"
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
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--prototypes", type=int, nargs="*", help="default: all")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    test = load_fashion_mnist(options.data, "test", bundle.config.image)
    prototypes = options.prototypes or range(bundle.config.num_prototypes)
    results = measure(
        bundle, test.pixels[: options.images], prototypes, steps=options.steps, rounds=options.rounds
    )
    table = table_of(results, bundle=bundle, steps=options.steps, rounds=options.rounds)
    print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
