"""Does an image survive inversion, and what does an edit then do? DDIM inversion beside BDIA.

    python -m benchmarks.inversion [--bundle DIRECTORY] [--steps 10 20 50] [--gammas 0.5 0.9 0.96 1.0]
        [--prototypes 0 3 6 ...] [--windows 3]

The bundle's reference images are inverted under their own s and regenerated: under the same s (the zero
edit, in other company than they were inverted in), and with one prototype raised a quarter of the way, or
all the way, to its 0.99 quantile. An edit is done once, without the corrections of POST /edit, and the
pictures are encoded again. "Elsewhere" is outside the patches that match the prototype best in the given
and in the edited picture. Writes benchmarks/results/inversion.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.machine import describe
from benchmarks.result_file import bundle_argument, result_file
from model.bundle import Bundle
from model.prototype_boxes import PrototypeBoxes
from model.samplers import SamplerTable, bdia_inversion, bdia_regeneration, ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import Pixels, from_x_0, to_x_0
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.settings import SHIPPED_BUNDLE
from training.evaluation.reconstruction import mean_psnr_db, mean_squared_error

SIZES = (0.25, 1.0)
MAX_BATCH = 32
WINDOWS = 3
OTHER_COMPANY = 7

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Method:
    """A way to an image's end states and back; BDIA's way back starts with the two exchanged."""

    name: str
    steps: int
    there: SamplerTable
    back: SamplerTable
    exchanges_states: bool

    @property
    def num_calls(self) -> int:
        """Network calls of an inversion and a regeneration."""
        return len(self.there) + len(self.back)


@dataclass(frozen=True)
class ZeroEdit:
    """What the regenerated images are against the given ones; `largest_difference` is of x_0 in [-1, 1]."""

    psnr_db: float
    identical_pixels: float
    largest_difference: float
    x_T_deviation: float


@dataclass(frozen=True)
class EditEffect:
    """Means over all edits of one size.

    raised: share of them that left s_j above the given picture's. reached: share of the asked change.
    mse_elsewhere: black 0, white 1. sharpness: mean difference of neighbouring pixels, over the given's.
    """

    size: float
    raised: float
    reached: float
    mse_elsewhere: float
    sharpness: float


@dataclass(frozen=True)
class Outcome:
    """A method's figures; `seconds` an image for an inversion and a regeneration, one of each window."""

    method: Method
    zero_edit: ZeroEdit
    seconds: tuple[float, ...]
    edits: tuple[EditEffect, ...]


@dataclass(frozen=True)
class Refused:
    """Why there is no such method."""

    name: str
    steps: int
    reason: str


def methods(schedule: NoiseSchedule, steps: Sequence[int], gammas: Sequence[float]) -> list[Method | Refused]:
    """DDIM inversion, then BDIA with each gamma, for each number of steps."""
    found: list[Method | Refused] = []
    for count in steps:
        found.append(Method("DDIM", count, ddim_inversion(schedule, count), ddim(schedule, count), False))
        for gamma in gammas:
            name = f"BDIA, γ {gamma:g}"
            try:
                there = bdia_inversion(schedule, count, gamma=gamma)
                back = bdia_regeneration(schedule, count, gamma=gamma)
            except ValueError as error:
                found.append(Refused(name, count, str(error)))
            else:
                found.append(Method(name, count, there, back, True))
    return found


class RoundTrips:
    """Images (n, C, H, W) of one bundle, their s, and an engine to invert and regenerate them."""

    def __init__(self, bundle: Bundle, images: Pixels) -> None:
        assert bundle.statistics is not None, "a bundle without statistics has no 0.99 quantiles to raise to"
        self.images = images
        self.high = bundle.statistics.high
        self._boxes = PrototypeBoxes(bundle.config)
        self._runner = OnnxRunner(bundle, device="auto", max_batch=MAX_BATCH)
        self._runner.warm_up()
        self._x_0 = to_x_0(images)
        self._s, self._maps = self._encode(images)

    def invert(self, method: Method) -> DenoiseResult:
        return self._denoise(self._x_0, self._s, method.there)

    def regenerate(
        self, method: Method, inverted: DenoiseResult, s: Float32 | None = None, part: slice = slice(None)
    ) -> Float32:
        """x_0 of some images under activations s (n, m), by default their own."""
        states = (inverted.x[part], inverted.memory[part])
        x, memory = states[::-1] if method.exchanges_states else states
        return self._denoise(x, (self._s if s is None else s)[part], method.back, memory).x

    def zero_edit(self, method: Method, inverted: DenoiseResult) -> ZeroEdit:
        """Regenerated a few at a time: the network's rounding differs with the company."""
        parts = [slice(i, i + OTHER_COMPANY) for i in range(0, len(self.images), OTHER_COMPANY)]
        x_0 = np.concatenate([self.regenerate(method, inverted, part=part) for part in parts])
        pixels = from_x_0(x_0)
        return ZeroEdit(
            psnr_db=mean_psnr_db(self.images, pixels),
            identical_pixels=float((pixels == self.images).mean()),
            largest_difference=float(np.abs(x_0 - self._x_0).max()),
            x_T_deviation=float(inverted.x.std()),
        )

    def edit(
        self, method: Method, inverted: DenoiseResult, prototypes: Sequence[int], size: float
    ) -> EditEffect:
        """Raise each prototype in each image by `size` of what is missing to its 0.99 quantile."""
        raised, reached, elsewhere, sharpness = [], [], [], []
        for j in prototypes:
            asked = self._s.copy()
            asked[:, j] += size * (self.high[j] - asked[:, j])
            pixels = from_x_0(self.regenerate(method, inverted, asked))
            s, maps = self._encode(pixels)
            raised.append((s[:, j] > self._s[:, j]).mean())
            reached.append((s[:, j] - self._s[:, j]).mean() / (asked[:, j] - self._s[:, j]).mean())
            for i in range(len(pixels)):
                outside = ~(self._patch(j, self._maps[i, j]) | self._patch(j, maps[i, j]))
                given, edited = (picture[None, :, outside] for picture in (self.images[i], pixels[i]))
                # Nothing is outside of what a global prototype sees.
                elsewhere.append(mean_squared_error(given, edited) if outside.any() else np.nan)
            sharpness.append(_neighbour_difference(pixels) / _neighbour_difference(self.images))
        figures = [float(np.mean(figure)) for figure in (raised, reached, elsewhere, sharpness)]
        return EditEffect(size, *figures)

    def _patch(self, prototype: int, similarity_map: Float32) -> npt.NDArray[np.bool_]:
        """(H, W): the pixels that a prototype sees at the most similar cell of its map (h, w)."""
        x0, y0, x1, y1 = self._boxes.box(prototype, int(np.argmax(similarity_map)))
        mask = np.zeros(self.images.shape[2:], bool)
        mask[y0:y1, x0:x1] = True
        return mask

    def _denoise(
        self, x: Float32, s: Float32, table: SamplerTable, memory: Float32 | None = None
    ) -> DenoiseResult:
        core = EngineCore(self._runner, max_queue=len(x), observer=SilentObserver())
        outcome: list[Ticket[DenoiseResult]] = []
        core.submit_denoise(
            DenoiseJob(x, s, table, (0,) * len(x), memory=memory), Ticket(outcome.append), 0.0
        )
        while core.has_work:
            core.tick(lambda: 0.0)
        result = outcome[0].result
        if result is None:
            raise RuntimeError(f"the engine failed: {outcome[0].error}")
        return result

    def _encode(self, pixels: Pixels) -> tuple[Float32, Float32]:
        parts = [
            self._runner.encode(to_x_0(pixels[i : i + MAX_BATCH])) for i in range(0, len(pixels), MAX_BATCH)
        ]
        s, maps = zip(*parts, strict=True)
        return np.concatenate(s), np.concatenate(maps)


def measure(
    bundle: Bundle,
    images: Pixels,
    *,
    steps: Sequence[int],
    gammas: Sequence[float],
    prototypes: Sequence[int],
    windows: int,
) -> list[Outcome | Refused]:
    """Every method's figures over images (n, C, H, W); the methods are timed turn about."""
    trips = RoundTrips(bundle, images)
    found = methods(NoiseSchedule.from_config(bundle.config.schedule), steps, gammas)
    possible = [method for method in found if isinstance(method, Method)]
    seconds: list[list[float]] = [[] for _ in possible]
    for _ in range(windows):
        for times, method in zip(seconds, possible, strict=True):
            started_at = time.perf_counter()
            trips.regenerate(method, trips.invert(method))
            times.append((time.perf_counter() - started_at) / len(images))
    windows_of = {id(method): tuple(times) for method, times in zip(possible, seconds, strict=True)}
    outcomes: list[Outcome | Refused] = []
    for method in tqdm(found, unit="method", disable=not sys.stderr.isatty()):
        if isinstance(method, Refused):
            outcomes.append(method)
            continue
        inverted = trips.invert(method)
        edits = tuple(trips.edit(method, inverted, prototypes, size) for size in SIZES)
        outcomes.append(Outcome(method, trips.zero_edit(method, inverted), windows_of[id(method)], edits))
    return outcomes


def table_of(outcomes: Sequence[Outcome | Refused], heading: Sequence[str]) -> str:
    """The outcomes as Markdown, below the lines of `heading`."""
    sizes = [f"{size:.0%} of the way" for size in SIZES]
    zero_edits = _rows(
        "| calls | seconds an image (windows) | PSNR, dB | identical pixels | largest difference of x_0 "
        "| deviation of x_T |",
        outcomes,
        lambda o: (
            f"| {o.method.num_calls} | {_seconds(o.seconds)} | {o.zero_edit.psnr_db:.1f} "
            f"| {100 * o.zero_edit.identical_pixels:.1f}% | {o.zero_edit.largest_difference:.1e} "
            f"| {o.zero_edit.x_T_deviation:.2f} |"
        ),
    )
    edits = _rows(
        "| " + " | ".join(f"{size}: raised | reached | MSE elsewhere | sharpness" for size in sizes) + " |",
        outcomes,
        lambda o: (
            "| "
            + " | ".join(
                f"{100 * e.raised:.1f}% | {e.reached:.2f} | {e.mse_elsewhere:.4f} | {e.sharpness:.2f}"
                for e in o.edits
            )
            + " |"
        ),
    )
    lines = [
        "# Inversion",
        "",
        *heading,
        "",
        "## Zero edit",
        "",
        "The image after inversion and regeneration under its own s. PSNR is of 8-bit pictures, at most 100; "
        "the x_T of the model's own samples has deviation 1.",
        "",
        *zero_edits,
        "",
        "## Edits",
        "",
        "One prototype raised towards its 0.99 quantile. Raised: s_j, encoded again, is above the given "
        "picture's. Reached: share of the asked change. Sharpness: mean difference of neighbouring pixels, "
        "the given picture's is 1.",
        "",
        *edits,
    ]
    return "\n".join(lines) + "\n"


def _seconds(windows: Sequence[float]) -> str:
    return f"{statistics.median(windows):.3f} ({min(windows):.3f} to {max(windows):.3f})"


def _rows(
    columns: str, outcomes: Sequence[Outcome | Refused], figures: Callable[[Outcome], str]
) -> list[str]:
    num_columns = columns.count("|") + 1
    lines = [f"| steps | inversion {columns}", "|---" * num_columns + "|"]
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            empty = " |" * (num_columns - 3)
            lines.append(f"| {outcome.steps} | {outcome.name} | refused: {outcome.reason} |{empty}")
        else:
            lines.append(f"| {outcome.method.steps} | {outcome.method.name} {figures(outcome)}")
    return lines


def _neighbour_difference(pixels: Pixels) -> float:
    values = pixels.astype(np.float64)
    across, down = np.abs(np.diff(values, axis=-1)), np.abs(np.diff(values, axis=-2))
    return float(across.mean() + down.mean())


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.5, 0.9, 0.96, 1.0])
    parser.add_argument("--prototypes", type=int, nargs="+", help="default: every third")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    if bundle.pictures is None:
        parser.error(f"{options.bundle} keeps no reference images")
    prototypes = options.prototypes or range(0, bundle.config.num_prototypes, 3)
    images = bundle.pictures.reference_images
    outcomes = measure(
        bundle,
        images,
        steps=options.steps,
        gammas=options.gammas,
        prototypes=prototypes,
        windows=options.windows,
    )
    heading = [
        f"Bundle {bundle.name} {bundle.digest[:12]}, its {len(images)} reference images (test split), "
        f"prototypes {', '.join(map(str, prototypes))}; {describe()}.",
        f"Command: `python -m benchmarks.inversion{bundle_argument(bundle)} "
        f"--steps {' '.join(map(str, options.steps))} "
        f"--gammas {' '.join(f'{gamma:g}' for gamma in options.gammas)}"
        + (f" --prototypes {' '.join(map(str, prototypes))}" if options.prototypes else "")
        + (f" --windows {options.windows}`" if options.windows != WINDOWS else "`"),
    ]
    table = table_of(outcomes, heading)
    print(table)
    result_file("inversion", bundle).write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
