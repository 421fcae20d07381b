"""What /generate and /trace have in common: read what to sample from, and sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from starlette.requests import Request

from service.pipeline.edits import Clamping, Edit
from service.pipeline.pipeline import GenerateRequest, Generation, Pipeline
from service.problems import ProblemError
from service.routes.answering import Context
from service.routes.bodies import check_limits, read_source
from service.routes.event_stream import Follower, feed_of
from service.routes.schemas import ClampingModel, EditModel, SampleRequest


async def sample(
    context: Context,
    request: Request,
    body: SampleRequest,
    files: Sequence[bytes],
    deadline: float,
    follower: Follower | None,
    *,
    is_traced: bool,
    num_previews: int = 0,
) -> tuple[Pipeline, Generation]:
    """Sample as `body` asks, by the model that it names. Raises ProblemError and what the pipeline raises."""
    settings = context.settings
    pipeline = context.pipeline(request, body.model)
    feed = feed_of(follower, body.preview_every)
    check_limits(settings, steps=body.steps, num_images=body.num_images)
    request.state.row_steps.take(body.steps * (body.num_images + (body.x_T == "inverted")))
    pixels = await read_source(body.image, body.image_id, files, pipeline, settings)
    if pixels is not None and body.activations is not None and body.x_T == "random":
        raise ProblemError(422, "give an image or activations, not both, unless x_T is inverted")
    wanted = GenerateRequest(
        pixels=pixels,
        activations=None if body.activations is None else np.array(body.activations, np.float32),
        edits=edits_from(body.edits),
        extrapolate=body.extrapolate,
        num_images=body.num_images,
        steps=body.steps,
        sampler=body.sampler,
        eta=body.eta,
        seed=body.seed,
        inverted=body.x_T == "inverted",
        is_traced=is_traced,
        num_previews=num_previews,
        decouple=body.decouple,
        start=None if body.start == "full" else body.start,
        inversion=body.inversion,
    )
    return pipeline, await pipeline.generate(wanted, deadline, feed)


def edits_from(models: Sequence[EditModel]) -> list[Edit]:
    return [Edit(model.prototype, model.op, model.value, model.attribute) for model in models]


def clamped(clampings: Sequence[Clamping]) -> list[ClampingModel]:
    return [ClampingModel(**vars(clamping)) for clamping in clampings]
