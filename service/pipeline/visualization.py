"""What prototypes stand for: each enhanced in several images (Weng et al. 2026, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.receptive_field import Box
from model.transforms import Pixels, crop
from service.pipeline.errors import PipelineError
from service.pipeline.in_turns import in_turns
from service.pipeline.measured import reference_images
from service.pipeline.pipeline import Pipeline
from service.pipeline.progress import ProgressFeed

Float32 = npt.NDArray[np.float32]

MAX_KEPT_BYTES = 2**28
"""Of all enhanced pictures of one request, where they are all kept."""


@dataclass(frozen=True, eq=False)
class Visualization:
    """One prototype set to `target` in n sources: its activations (n,) before and, re-encoded, after.

    best: the source in which it rose most; enhanced, patch and box are of that one; samples: all enhanced
    pictures (n, C, H, W), where they were to be kept.
    """

    prototype: int
    target: float
    before: Float32
    after: Float32
    best: int
    source: Pixels
    enhanced: Pixels
    patch: Pixels
    box: Box
    samples: Pixels | None

    @property
    def rise(self) -> float:
        """The largest of all; at most 0 where it rose in none, and then `best` is where it fell least."""
        return float(self.after[self.best] - self.before[self.best])

    @property
    def num_raised(self) -> int:
        """In how many sources it rose: all of them, if it means the same everywhere."""
        return int((self.after > self.before).sum())


async def visualize(
    pipeline: Pipeline,
    prototypes: Sequence[int],
    sources: Sequence[Pixels],
    *,
    steps: int,
    keeps_samples: bool,
    deadline: float,
    feed: ProgressFeed | None = None,
) -> list[Visualization]:
    """The meaning of each of `prototypes` (indices), by the paper's four steps.

    Find its largest activation on test images (and the sources, which are all there is in a bundle without
    pictures); set it on every source, x_T kept; regenerate and encode; keep the result in which it rose most,
    and cut out the patch that matches best. Raises PipelineError and EngineError.

    The paper keeps the result in which it is strongest. That is often a source that had nearly all of it
    before, in which it may even fall: such a pair of pictures shows nothing of what the prototype does.
    """
    num_bytes = len(prototypes) * sum(source.nbytes for source in sources)
    if keeps_samples and num_bytes > MAX_KEPT_BYTES:
        raise PipelineError(
            f"the pictures of all samples are {num_bytes} bytes, of at most {MAX_KEPT_BYTES}: "
            "ask for fewer prototypes or sources, or without samples"
        )
    starts = await pipeline.starts(sources, (), steps=steps, deadline=deadline, feed=feed)
    known_images = await pipeline.encode(reference_images(pipeline.bundle))
    largest = np.max([*starts.activations, *(known.activations for known in known_images)], axis=0)

    async def visualized(j: int) -> Visualization:
        asked = starts.activations.copy()
        asked[:, j] = largest[j]
        pixels, encoded = await pipeline.regenerate(starts, asked, deadline, feed=feed, prototype=j)
        before, after = starts.activations[:, j], encoded.activations[:, j]
        best = int((after - before).argmax())
        box = pipeline.best_box(j, encoded.similarity_maps[best, j])
        return Visualization(
            prototype=j,
            target=float(largest[j]),
            before=before,
            after=after,
            best=best,
            source=sources[best],
            enhanced=pixels[best].copy(),  # or it would keep all the others in memory
            patch=crop(pixels[best], box),
            box=box,
            samples=pixels if keeps_samples else None,
        )

    return await in_turns(
        prototypes,
        visualized,
        num_samples=len(sources),
        seconds_left=lambda: pipeline.seconds_left(deadline),
        what="prototypes",
    )
