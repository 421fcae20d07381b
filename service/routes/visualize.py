"""POST /visualize"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.images import encode_png, grid_png, to_base64
from service.pipeline.edits import prototype_index
from service.pipeline.pipeline import Pipeline, Visualization
from service.problems import ProblemError
from service.routes.answering import Context, json_response, model_info, png_response, wants_png
from service.routes.bodies import check_limits, read_body, read_images
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.schemas import VisualizedPrototype, VisualizeRequest, VisualizeResponse

DEFAULT_NUM_SAMPLES = 20
"""n of the paper."""


def visualize_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    settings = context.settings

    @router.post(
        "/visualize",
        response_model=VisualizeResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(VisualizeRequest, files=True),
    )
    async def visualize(request: Request) -> Response:
        """What prototypes stand for: each enhanced in several images, and the clearest result."""

        async def work(deadline: float, follower: Follower | None) -> Response:
            body, files = await read_body(request, VisualizeRequest, max_files=settings.max_images)
            pipeline = context.pipeline(request, body.model)
            feed = feed_of(follower, body.preview_every)
            check_limits(settings, steps=body.steps)
            indices = [prototype_index(pipeline.bundle, prototype) for prototype in body.prototypes]
            repeated = sorted({j for j in indices if indices.count(j) > 1})
            if repeated:
                raise ProblemError(422, f"prototypes are asked for more than once: {repeated}")
            sources = await read_images(body.images or [], files, pipeline, settings)
            if sources and body.num_samples is not None:
                raise ProblemError(422, "give images or num_samples, not both")
            if not sources:
                sources = pipeline.choose_sources(body.num_samples or DEFAULT_NUM_SAMPLES, body.seed)
            request.state.row_steps.take(body.steps * len(sources) * (len(body.prototypes) + 1))
            found: list[Visualization] = []
            for prototype in body.prototypes:
                found.append(
                    await pipeline.visualize(
                        prototype,
                        sources,
                        steps=body.steps,
                        deadline=deadline,
                        feed=feed,
                    )
                )
            if wants_png(request):
                return png_response(
                    await asyncio.to_thread(lambda: grid_png([item.enhanced for item in found]))
                )
            described = await asyncio.to_thread(lambda: [_described(pipeline, item) for item in found])
            return json_response(VisualizeResponse(model=model_info(pipeline), prototypes=described))

        return await answer_or_stream(context, request, "visualize", work)

    return router


def _described(pipeline: Pipeline, found: Visualization) -> VisualizedPrototype:
    return VisualizedPrototype(
        prototype=found.prototype,
        name=pipeline.bundle.prototypes[found.prototype].name,
        target=round(found.target, 6),
        source=to_base64(encode_png(found.source)),
        enhanced=to_base64(encode_png(found.enhanced)),
        patch=to_base64(encode_png(found.patch)),
        box=found.box,
        activation_before=round(found.before, 6),
        activation_after=round(found.after, 6),
    )
