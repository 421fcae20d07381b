"""Edits as POST /edit does them, of many images at once, each of one prototype or attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.prototype_boxes import PrototypeBoxes
from model.transforms import Pixels, from_x_0, to_x_0
from service.engine.engine_core import EngineCore
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.pipeline.edits import (
    Edit,
    EditLoop,
    Target,
    apply_edits,
    joint_attribute_targets,
    prototype_target,
)
from service.pipeline.round_trip import RoundTrip

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAX_BATCH = 32


@dataclass(frozen=True, eq=False)
class Pictures:
    """n of them: pixels (n, C, H, W), activations (n, m), and the flat grid cells (n, m) of best match."""

    pixels: Pixels
    activations: Float32
    cells: Int64

    def replaced(self, better: Sequence[int], by: Pictures, chosen: Sequence[int]) -> Pictures:
        """With the pictures `better` exchanged for the pictures `chosen` of another lot."""
        arrays = []
        for mine, other in zip(vars(self).values(), vars(by).values(), strict=True):
            array = mine.copy()
            array[better] = other[chosen]
            arrays.append(array)
        return Pictures(*arrays)


@dataclass(frozen=True, eq=False)
class Trial:
    """One edit of n images: after each round the best pictures so far.

    rounds: (n,), how many were generated.
    """

    after: list[Pictures]
    rounds: Int64


class EditTrials:
    """Images (n, C, H, W) of one bundle, read, and an engine to take them there and back."""

    def __init__(self, bundle: Bundle, images: Pixels) -> None:
        assert bundle.statistics is not None, "a bundle without statistics has no 0.99 quantiles to raise to"
        self.bundle = bundle
        self.spread: Float64 = bundle.statistics.spread
        self._high, self._low = bundle.statistics.high, bundle.statistics.low
        self._runner = OnnxRunner(bundle, device="auto", max_batch=MAX_BATCH)
        self.given = self._read(images)

    def high(self, prototype: int) -> float:
        """Its 0.99 quantile."""
        return float(self._high[prototype])

    def low(self, prototype: int) -> float:
        """Its 0.01 quantile."""
        return float(self._low[prototype])

    def invert(self, trip: RoundTrip) -> DenoiseResult:
        """All images, each under its own s."""
        x_0, s = to_x_0(self.given.pixels), self.given.activations
        return self._denoise(DenoiseJob(x_0, s, trip.there, (0,) * len(s)))

    def reconstruct(self, trip: RoundTrip, inverted: DenoiseResult) -> Pictures:
        """All images regenerated under their own s."""
        return self._regenerate(trip, inverted, self.given.activations, range(len(self.given.pixels)))

    def edit(
        self,
        trip: RoundTrip,
        inverted: DenoiseResult,
        prototype: int,
        *,
        held: Sequence[int],
        rounds: int,
        to: float | None = None,
    ) -> Trial:
        """Set a prototype in all images to `to`, its 0.99 quantile if not given, holding others."""
        asked = self.given.activations.copy()
        asked[:, prototype] = self.high(prototype) if to is None else to
        return self._closed_loop(
            trip, inverted, asked, prototype_target(self.bundle, prototype), held, rounds
        )

    def edit_attribute(
        self,
        trip: RoundTrip,
        inverted: DenoiseResult,
        name: str,
        *,
        rounds: int,
        holds_prototypes: bool = False,
        held_attributes: Sequence[str] = (),
    ) -> Trial:
        """Set an attribute in all images to the 0.99 quantile of its log-odds, holding others."""
        edit = Edit(None, "max", attribute=name)
        asked, _ = apply_edits(
            self.bundle,
            self.given.activations,
            [edit],
            extrapolate=False,
            held_attributes=held_attributes,
        )
        target, *others = joint_attribute_targets(self.bundle, [name], held_attributes)
        held = range(self.bundle.config.num_prototypes) if holds_prototypes else ()
        return self._closed_loop(trip, inverted, asked, target, held, rounds, others)

    def _closed_loop(
        self,
        trip: RoundTrip,
        inverted: DenoiseResult,
        asked: Float32,
        target: Target,
        held: Sequence[int],
        rounds: int,
        held_attributes: Sequence[Target] = (),
    ) -> Trial:
        spread = self.spread.astype(np.float32)
        loops = [
            EditLoop(s, [target], held, spread, before=before, held_attributes=held_attributes)
            for s, before in zip(asked, self.given.activations, strict=True)
        ]
        open_ = list(range(len(asked)))  # images whose edit is still to be corrected
        after: list[Pictures] = []
        taken = np.zeros(len(asked), np.int64)
        for round_ in range(rounds):
            if open_:
                driven = np.stack([loops[i].driven for i in open_])
                found = self._regenerate(trip, inverted, driven, open_)
                taken[open_] += 1
                is_worthwhile = [loops[i].observe(found.activations[k]) for k, i in enumerate(open_)]
                chosen = [k for k, i in enumerate(open_) if loops[i].best_round == round_]
                better = [open_[k] for k in chosen]
                after.append(after[-1].replaced(better, found, chosen) if after else found)
                open_ = [i for i, again in zip(open_, is_worthwhile, strict=True) if again]
            else:
                after.append(after[-1])
        return Trial(after, taken)

    def others_change(self, pictures: Pictures, prototype: int) -> Float64:
        """(n,): mean |change| of all other activations, in standard deviations over the training data."""
        change = np.abs(pictures.activations - self.given.activations) / self.spread
        return np.asarray(np.delete(change, prototype, axis=1).mean(axis=1), np.float64)

    def own_change(self, pictures: Pictures, prototype: int) -> Float64:
        """(n,): change of the prototype's own activation, in standard deviations."""
        change = (pictures.activations - self.given.activations)[:, prototype] / self.spread[prototype]
        return np.asarray(change, np.float64)

    def change_elsewhere(self, pictures: Pictures, prototype: int) -> Float64:
        """(n,): mean squared change of pixels (0 black, 1 white) outside the patches that match the prototype
        best in the given and in the edited picture; NaN for a prototype that sees the whole image."""
        square = np.square((pictures.pixels.astype(np.float64) - self.given.pixels) / 255.0).mean(axis=1)
        outside = np.ones(square.shape, bool)
        boxes = PrototypeBoxes(self.bundle.config)
        for i in range(len(square)):
            for cells in (self.given.cells, pictures.cells):
                x0, y0, x1, y1 = boxes.box(prototype, int(cells[i, prototype]))
                outside[i, y0:y1, x0:x1] = False
        area = outside.sum(axis=(1, 2))
        return np.where(area > 0, (square * outside).sum(axis=(1, 2)) / np.maximum(area, 1), np.nan)

    def _regenerate(
        self, trip: RoundTrip, inverted: DenoiseResult, s: Float32, part: Sequence[int]
    ) -> Pictures:
        starts = [trip.turned(inverted.x[i], inverted.memory[i]) for i in part]
        memories = [start.memory for start in starts if start.memory is not None]
        memory = np.stack(memories) if memories else None
        x = np.stack([start.x for start in starts])
        job = DenoiseJob(x, s, trip.back, (0,) * len(s), memory=memory)
        return self._read(from_x_0(self._denoise(job).x))

    def _denoise(self, job: DenoiseJob) -> DenoiseResult:
        core = EngineCore(self._runner, max_queue=len(job), observer=SilentObserver())
        outcome: list[Ticket[DenoiseResult]] = []
        core.submit_denoise(job, Ticket(outcome.append), 0.0)
        while core.has_work:
            core.tick(lambda: 0.0)
        result = outcome[0].result
        if result is None:
            raise RuntimeError(f"the engine failed: {outcome[0].error}")
        return result

    def _read(self, pixels: Pixels) -> Pictures:
        s, maps = encode_in_batches(self._runner, pixels)
        return Pictures(pixels, s, maps.reshape(*maps.shape[:2], -1).argmax(axis=2))


def encode_in_batches(runner: OnnxRunner, pixels: Pixels) -> tuple[Float32, Float32]:
    """pixels (N, C, H, W) -> activations (N, m), similarity_maps (N, m, h, w)."""
    parts = [runner.encode(to_x_0(pixels[i : i + MAX_BATCH])) for i in range(0, len(pixels), MAX_BATCH)]
    s, maps = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return s, maps
