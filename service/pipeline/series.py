"""Series of pictures: one prototype more and more, and from one image to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.great_circle import slerp
from model.transforms import Pixels
from service.pipeline.edits import LARGEST_ACTIVATION
from service.pipeline.errors import PipelineError
from service.pipeline.pipeline import Origin, Pipeline
from service.pipeline.progress import ProgressFeed

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """n pictures (n, C, H, W) that differ in one activation, once `before`, and their re-encoded s (n, m).

    is_outside: which of the values the training data's 0.01 … 0.99 quantiles leave out, `reach`; both None
    where nobody measured these.
    """

    values: Sequence[float]
    pixels: Pixels
    achieved: Float32
    before: float
    reach: tuple[float, float] | None
    activations_from: Origin

    @property
    def is_outside(self) -> list[bool] | None:
        if self.reach is None:
            return None
        low, high = self.reach
        return [not low <= value <= high for value in self.values]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """n pictures (n, C, H, W) from one image to another, at weights (n,) of the second; s (n, m) as asked for
    and as re-encoded from them."""

    weights: Float64
    pixels: Pixels
    asked: Float32
    achieved: Float32


async def extrapolate(
    pipeline: Pipeline,
    pixels: Pixels | None,
    prototype: int,
    values: Sequence[float],
    *,
    seed: int,
    steps: int,
    deadline: float,
    feed: ProgressFeed | None = None,
) -> Extrapolation:
    """s_j swept over values (Weng et al. 2026), x_T and all other entries kept: of an image (C, H, W), or of
    the sample of `seed` where it is None. Raises PipelineError and EngineError."""
    beyond = [value for value in values if not 0.0 <= value <= LARGEST_ACTIVATION]
    if beyond:
        raise PipelineError(f"values must be 0 to {LARGEST_ACTIVATION:.2f}, not {beyond[0]:g}")
    sources = [] if pixels is None else [pixels]
    start = await pipeline.starts(sources, (seed,), steps=steps, deadline=deadline, feed=feed)
    asked = np.repeat(start.activations, len(values), axis=0)
    asked[:, prototype] = values
    starts = replace(start, x_T=np.repeat(start.x_T, len(values), axis=0), activations=asked)
    pictures, encoded = await pipeline.regenerate(starts, asked, deadline, feed=feed)
    statistics = pipeline.bundle.statistics
    reach = None
    if statistics is not None:
        reach = float(statistics.low[prototype]), float(statistics.high[prototype])
    before = float(start.activations[0, prototype])
    return Extrapolation(values, pictures, encoded.activations, before, reach, start.activations_from)


async def interpolate(
    pipeline: Pipeline,
    first: Pixels,
    second: Pixels,
    num_images: int,
    *,
    steps: int,
    deadline: float,
    feed: ProgressFeed | None = None,
) -> Interpolation:
    """Between two images (C, H, W), whose reconstructions are the ends: s on a straight line, x_T along the
    great circle (Song et al. 2021, DDIM, section 5.3). Raises PipelineError and EngineError."""
    ends = await pipeline.starts([first, second], (), steps=steps, deadline=deadline, feed=feed)
    weights = np.linspace(0.0, 1.0, num_images)
    s = ends.activations.astype(np.float64)
    asked = (np.outer(1.0 - weights, s[0]) + np.outer(weights, s[1])).astype(np.float32)
    starts = replace(ends, x_T=slerp(ends.x_T[0], ends.x_T[1], weights), activations=asked)
    pictures, encoded = await pipeline.regenerate(starts, asked, deadline, feed=feed)
    return Interpolation(weights, pictures, asked, encoded.activations)
