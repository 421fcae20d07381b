"""POST /extrapolate"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.drawing import STRIP_SIDE, Card, strip, tile
from service.images import encode_png, image_id, to_base64
from service.pipeline.edits import prototype_index
from service.pipeline.pipeline import Pipeline
from service.pipeline.series import Extrapolation, extrapolate
from service.routes.answering import (
    Context,
    drawn,
    json_response,
    model_info,
    numbers,
    png_response,
    wants_png,
)
from service.routes.bodies import check_limits, read_body, read_source
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.schemas import ExtrapolatedImage, ExtrapolateRequest, ExtrapolateResponse

DEFAULT_VALUES = (0.0, 3.0, 7)
"""From, to, and how many: the paper's sweep."""


def extrapolate_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])
    settings = context.settings

    @router.post(
        "/extrapolate",
        response_model=ExtrapolateResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(ExtrapolateRequest, files=True),
    )
    async def post(request: Request) -> Response:
        """One prototype swept over values, in an image or a sample, whose noise and other activations stay.

        With `Accept: image/png`, a labelled strip.
        """

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, ExtrapolateRequest, max_files=1)
            pipeline = context.pipeline(request, body.model)
            feed = feed_of(follower, body.preview_every)
            j = prototype_index(pipeline.bundle, body.prototype)
            values = body.values or _default_values(settings.max_images)
            check_limits(settings, steps=body.steps, num_images=len(values))
            pixels = await read_source(body.image, body.image_id, files, pipeline, settings)
            request.state.row_steps.take(body.steps * (len(values) + (pixels is not None)))
            found = await extrapolate(
                pipeline, pixels, j, values, seed=body.seed, steps=body.steps, deadline=deadline, feed=feed
            )
            if pixels is not None:
                await pipeline.remember([pixels])
            if wants_png(request):
                return png_response(await drawn(_strip, pipeline, j, found))

            def respond() -> Response:
                low, high = found.reach or (None, None)
                return json_response(
                    ExtrapolateResponse(
                        model=model_info(pipeline),
                        image_id=None if pixels is None else image_id(pixels),
                        prototype=j,
                        name=pipeline.bundle.prototypes[j].name,
                        activations_from=found.activations_from,
                        before=round(found.before, 6),
                        low=low,
                        high=high,
                        images=_images(j, found),
                        total_s=round(time.perf_counter() - started, 6),
                    )
                )

            return await drawn(respond)

        return await answer_or_stream(context, request, "extrapolate", work)

    return router


def _default_values(max_images: int) -> list[float]:
    low, high, count = DEFAULT_VALUES
    values: list[float] = np.linspace(low, high, min(count, max_images)).tolist()
    return values


def _images(j: int, found: Extrapolation) -> list[ExtrapolatedImage]:
    is_outside: Sequence[bool | None] = found.is_outside or [None] * len(found.values)
    return [
        ExtrapolatedImage(
            asked=value,
            achieved=round(float(s[j]), 6),
            is_outside=outside,
            image=to_base64(encode_png(pixels)),
            activations=numbers(s),
        )
        for value, s, outside, pixels in zip(
            found.values, found.achieved, is_outside, found.pixels, strict=True
        )
    ]


def _strip(pipeline: Pipeline, j: int, found: Extrapolation) -> bytes:
    is_outside = found.is_outside or [False] * len(found.values)
    cards = [
        Card(
            (f"asked {value:.2f}{' *' if outside else ''}", f"achieved {s[j]:.2f}"),
            [tile(pixels, STRIP_SIDE)],
        )
        for value, s, outside, pixels in zip(
            found.values, found.achieved, is_outside, found.pixels, strict=True
        )
    ]
    title = f"prototype {j}  {pipeline.bundle.prototypes[j].name or ''}".rstrip()
    if any(is_outside) and found.reach is not None:
        title += f"   * outside of the data's {found.reach[0]:.2f} to {found.reach[1]:.2f}"
    return strip(cards, title=title)
