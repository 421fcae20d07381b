"""GET /references, GET /references/{index}"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.images import encode_png, to_base64
from service.pipeline.measured import reference_images
from service.problems import ProblemError
from service.routes.answering import Context, answer, json_response, model_info, png_response
from service.routes.schemas import ReferencesResponse

PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}


def references_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])

    @router.get("/references", response_model=ReferencesResponse)
    async def references(request: Request, model: str | None = None) -> Response:
        """The test images that the bundle keeps: pictures to try things on."""

        async def work(deadline: float) -> Response:
            del deadline
            pipeline = context.pipeline(request, model)
            pictures = reference_images(pipeline.bundle)
            files = await asyncio.to_thread(lambda: [to_base64(encode_png(pixels)) for pixels in pictures])
            return json_response(ReferencesResponse(model=model_info(pipeline), images=files))

        return await answer(context, request, "references", work)

    @router.get("/references/{index}", response_class=Response, responses=PNG)
    async def reference(request: Request, index: str, model: str | None = None) -> Response:
        """One of them, as a PNG file."""

        async def work(deadline: float) -> Response:
            del deadline
            pipeline = context.pipeline(request, model)
            pictures = reference_images(pipeline.bundle)
            names = [str(i) for i in range(len(pictures))]
            if index not in names:
                raise ProblemError(
                    404,
                    f"no reference picture {index[:20]!r}: {pipeline.bundle.name!r} keeps {len(pictures)}",
                )
            return png_response(encode_png(pictures[names.index(index)]))

        return await answer(context, request, "reference", work)

    return router
