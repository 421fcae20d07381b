"""Experiments on s: the same samples generated with one entry changed, and with it changed otherwise.

A sample keeps its x_T and all other entries of s (common random numbers), so that whatever else differs in
its two pictures is an effect of that entry. In place of one entry it can be an attribute: then all entries
change along its direction (`model.attributes.Attributes.direction`), as they vary together in the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.bundle import Bundle
from model.transforms import Pixels, to_x_0
from service.pipeline.edits import (
    Clamping,
    Edit,
    attribute_targets,
    prototype_indices,
    target_of,
)
from service.pipeline.errors import PipelineError
from service.pipeline.in_turns import in_turns
from service.pipeline.pipeline import Origin, Pipeline, Starts
from service.pipeline.progress import ProgressFeed, Stage
from service.pipeline.randomness import sample_seeds

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

MAX_PICTURE_BYTES = 2**28
"""Of all pictures of one experiment, which are in memory together."""


@dataclass(frozen=True)
class Intervention:
    """do(s_j), or do(log-odds of an attribute): either `prototype` or `attribute` says of what.

    `before` (None: nothing) and `after` are both applied to each sample as it was drawn.
    """

    prototype: int | None
    before: Edit | None
    after: Edit
    attribute: str | None = None

    @classmethod
    def on(cls, bundle: Bundle, prototypes: Sequence[int | str] | None) -> list[Intervention]:
        """Each prototype from its 0.01 to its 0.99 quantile; None is all of them, in order."""
        indices = prototype_indices(bundle, prototypes)
        return [cls(j, Edit(j, "min"), Edit(j, "max")) for j in indices]

    @classmethod
    def on_attributes(cls, bundle: Bundle, attributes: Sequence[str]) -> list[Intervention]:
        """Each attribute from the 0.01 to the 0.99 quantile of its probe's log-odds, in order.

        Raises what `attribute_targets` raises.
        """
        names = [target.attribute for target in attribute_targets(bundle, attributes)]
        return [
            cls(None, Edit(None, "min", attribute=name), Edit(None, "max", attribute=name), name)
            for name in names
        ]

    @classmethod
    def by(cls, bundle: Bundle, edits: Sequence[Edit]) -> list[Intervention]:
        """Each edit by itself, against the samples as they are. Raises what `target_of` raises."""
        targets = [target_of(bundle, edit) for edit in edits]
        return [
            cls(target.prototype, None, edit, target.attribute)
            for target, edit in zip(targets, edits, strict=True)
        ]


@dataclass(frozen=True)
class Experiment:
    """What is done to which samples: `images` (C, H, W) with their own x_T, or where there are none, those
    that are generated from seed, seed + 1, … (`num_new` of them)."""

    interventions: Sequence[Intervention]
    images: Sequence[Pixels]
    num_new: int
    steps: int
    seed: int
    extrapolate: bool

    @property
    def num_samples(self) -> int:
        return len(self.images) or self.num_new

    @property
    def is_compared_with_plain(self) -> bool:
        """Whether an intervention is compared with the samples as they are."""
        return any(intervention.before is None for intervention in self.interventions)

    @property
    def num_pictures(self) -> int:
        """How many are generated."""
        arms = sum(1 + (intervention.before is not None) for intervention in self.interventions)
        return self.num_samples * (arms + self.is_compared_with_plain)

    @property
    def num_row_steps(self) -> int:
        """Denoise steps of one sample each, inversions included."""
        return self.steps * (self.num_pictures + len(self.images))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Of n samples: pixels (n, C, H, W), s as it was asked for (n, m), the re-encoded activations (n, m), and
    the flat grid cells (n, m) of best match."""

    pixels: Pixels
    asked: Float32
    activations: Float32
    cells: Int64


@dataclass(frozen=True, eq=False)
class Pair:
    """The same samples before and after an intervention."""

    before: Pictures
    after: Pictures


@dataclass(frozen=True, eq=False)
class Findings:
    """One pair for each intervention, in order, and the edits that reached too far."""

    pairs: list[Pair]
    clamped: list[Clamping]
    activations_from: Origin


async def carry_out(
    pipeline: Pipeline, experiment: Experiment, deadline: float, feed: ProgressFeed | None = None
) -> Findings:
    """Generate everything. Raises PipelineError and EngineError.

    What cannot be done by the deadline is given up as soon as the first interventions show it. `feed` is told
    of each intervention that is done.
    """
    num_bytes = experiment.num_pictures * int(np.prod(pipeline.bundle.config.image.shape))
    if num_bytes > MAX_PICTURE_BYTES:
        raise PipelineError(
            f"{experiment.num_pictures} pictures would have to be generated, {num_bytes} bytes, "
            f"of at most {MAX_PICTURE_BYTES}: ask for fewer prototypes or samples"
        )
    seeds = sample_seeds(experiment.seed, experiment.num_new)
    starts = await pipeline.starts(
        experiment.images, seeds, steps=experiment.steps, deadline=deadline, feed=feed
    )
    laboratory = _Laboratory(pipeline, experiment, starts, deadline, feed)
    pairs = await laboratory.pairs()
    return Findings(pairs, laboratory.clamped, starts.activations_from)


class _Laboratory:
    """Generates what an experiment asks for, a few interventions at a time."""

    def __init__(
        self,
        pipeline: Pipeline,
        experiment: Experiment,
        starts: Starts,
        deadline: float,
        feed: ProgressFeed | None,
    ) -> None:
        self.clamped: list[Clamping] = []
        self._pipeline = pipeline
        self._experiment = experiment
        self._starts = starts
        self._deadline = deadline
        self._feed = feed
        self._num_done = 0

    async def pairs(self) -> list[Pair]:
        """Of each intervention, in order."""
        plain = await self._pictures(None) if self._experiment.is_compared_with_plain else None
        return await in_turns(
            self._experiment.interventions,
            lambda intervention: self._pair(intervention, plain),
            num_samples=self._experiment.num_samples,
            seconds_left=lambda: self._pipeline.seconds_left(self._deadline),
            what="interventions",
        )

    async def _pair(self, intervention: Intervention, plain: Pictures | None) -> Pair:
        if intervention.before is None:
            assert plain is not None  # as `is_compared_with_plain` says
            pair = Pair(plain, await self._pictures(intervention.after))
        else:
            before = await self._pictures(intervention.before)
            pair = Pair(before, await self._pictures(intervention.after))
        self._num_done += 1
        self._tell(intervention, pair)
        return pair

    async def _pictures(self, edit: Edit | None) -> Pictures:
        s = self._starts.activations
        if edit is not None:
            s, clamped = await self._pipeline.applied([edit], s, extrapolate=self._experiment.extrapolate)
            self.clamped += clamped
        pixels, encoded = await self._pipeline.regenerate(self._starts, s, self._deadline)
        maps = encoded.similarity_maps  # (n, m, h, w)
        return Pictures(pixels, s, encoded.activations, maps.reshape(*maps.shape[:2], -1).argmax(axis=2))

    def _tell(self, intervention: Intervention, pair: Pair) -> None:
        if self._feed is not None:
            num_interventions = len(self._experiment.interventions)
            tell = self._feed.listener(Stage.INTERVENE, num_interventions, prototype=intervention.prototype)
            tell(0, self._num_done, to_x_0(pair.after.pixels[0]))
