"""POST /interpolate"""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.transforms import Pixels
from service.drawing import STRIP_SIDE, Card, strip, tile
from service.images import encode_png, image_id, to_base64
from service.pipeline.pipeline import Pipeline
from service.pipeline.series import Interpolation, interpolate
from service.problems import ProblemError
from service.routes.answering import (
    Context,
    drawn,
    json_response,
    model_info,
    numbers,
    png_response,
    wants_png,
)
from service.routes.bodies import check_limits, read_body, read_images
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.schemas import InterpolatedImage, InterpolateRequest, InterpolateResponse
from service.settings import Settings


def interpolate_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])
    settings = context.settings

    @router.post(
        "/interpolate",
        response_model=InterpolateResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(InterpolateRequest, files=True),
    )
    async def post(request: Request) -> Response:
        """From one image to another: activations on a straight line, noise along the great circle.

        Both ends are reconstructions. With `Accept: image/png`, a labelled strip.
        """

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, InterpolateRequest, max_files=2)
            pipeline = context.pipeline(request, body.model)
            feed = feed_of(follower, body.preview_every)
            check_limits(settings, steps=body.steps, num_images=body.num_images)
            request.state.row_steps.take(body.steps * (body.num_images + 2))
            first, second = await _two_images(body, files, pipeline, settings)
            found = await interpolate(
                pipeline, first, second, body.num_images, steps=body.steps, deadline=deadline, feed=feed
            )
            await pipeline.remember([first, second])
            if wants_png(request):
                return png_response(await drawn(_strip, found))

            def respond() -> Response:
                return json_response(
                    InterpolateResponse(
                        model=model_info(pipeline),
                        image_ids=(image_id(first), image_id(second)),
                        images=_images(found),
                        total_s=round(time.perf_counter() - started, 6),
                    )
                )

            return await drawn(respond)

        return await answer_or_stream(context, request, "interpolate", work)

    return router


async def _two_images(
    body: InterpolateRequest, files: Sequence[bytes], pipeline: Pipeline, settings: Settings
) -> tuple[Pixels, Pixels]:
    """The two that are given in one of three ways. Raises ImageError, PipelineError or ProblemError."""
    given = [way for way in (body.images, body.image_ids, files) if way]
    if len(given) != 1 or len(given[0]) != 2:
        raise ProblemError(422, "give two images, both as files, in images or in image_ids")
    if body.image_ids is not None:
        first, second = [await pipeline.recall(name) for name in body.image_ids]
    else:
        first, second = await read_images(body.images or [], files, pipeline, settings)
    return first, second


def _images(found: Interpolation) -> list[InterpolatedImage]:
    return [
        InterpolatedImage(
            weight=round(float(weight), 6),
            image=to_base64(encode_png(pixels)),
            asked=numbers(asked),
            achieved=numbers(achieved),
        )
        for weight, pixels, asked, achieved in zip(
            found.weights, found.pixels, found.asked, found.achieved, strict=True
        )
    ]


def _strip(found: Interpolation) -> bytes:
    cards = [
        Card([f"weight {weight:.2f}"], [tile(pixels, STRIP_SIDE)])
        for weight, pixels in zip(found.weights, found.pixels, strict=True)
    ]
    return strip(cards)
