"""POST /trace"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.emergence import NEVER, Emergence
from service.images import encode_png, filmstrip_png, to_base64
from service.pipeline.pipeline import Generation
from service.routes.answering import (
    Context,
    drawn,
    json_response,
    model_info,
    numbers,
    png_response,
    timings,
    wants_png,
)
from service.routes.bodies import read_body
from service.routes.event_stream import Follower, answer_or_stream
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.sampling import clamped, sample
from service.routes.schemas import PreviewModel, TracedImage, TraceRequest, TraceResponse


def trace_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])

    @router.post(
        "/trace",
        response_model=TraceResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(TraceRequest, files=True),
    )
    async def trace(request: Request) -> Response:
        """When each prototype appears while images are sampled: x_0_hat is encoded after every step.

        With `Accept: image/png`, the previews: a row for each image.
        """

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, TraceRequest, max_files=1)
            pipeline, generation = await sample(
                context,
                request,
                body,
                files,
                deadline,
                follower,
                is_traced=True,
                num_previews=body.num_previews,
            )
            assert generation.trace is not None
            rows = generation.trace.previews
            if wants_png(request):
                pictures = rows if body.num_previews else [[image.pixels] for image in generation.images]
                return png_response(await drawn(lambda: filmstrip_png(pictures)))
            previews = await drawn(
                lambda: [[to_base64(encode_png(picture)) for picture in row] for row in rows]
            )
            seconds = time.perf_counter() - started
            return json_response(
                TraceResponse(
                    model=model_info(pipeline),
                    asked=[numbers(image.asked) for image in generation.images],
                    activations_from=generation.activations_from,
                    clamped=clamped(generation.clamped),
                    timings=timings(generation.timing.queue_s, generation.timing.inference_s, seconds),
                    **trace_fields(generation, previews),
                )
            )

        return await answer_or_stream(context, request, "trace", work)

    return router


def trace_fields(generation: Generation, previews: list[list[str]]) -> dict[str, Any]:
    """The fields of a TraceModel; `previews`: for each image its pictures in base64, or none at all."""
    trace = generation.trace
    assert trace is not None
    over_images = Emergence.over_images(trace.emergence)
    timesteps = trace.timesteps.tolist()
    return {
        "timesteps": timesteps,
        "activations": numbers(trace.activations.mean(axis=0)),
        "emergence": _known(over_images.median),
        "emergence_spread": _known(over_images.spread),
        "num_emerged": over_images.count.tolist(),
        "images": [
            TracedImage(
                seed=image.seed,
                activations=numbers(trace.activations[i]),
                emergence=[None if t == NEVER else t for t in trace.emergence[i].tolist()],
                previews=[
                    PreviewModel(step=step, timestep=timesteps[step - 1], image=picture)
                    for step, picture in zip(trace.preview_steps, previews[i], strict=True)
                ]
                if previews
                else [],
            )
            for i, image in enumerate(generation.images)
        ],
    }


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
