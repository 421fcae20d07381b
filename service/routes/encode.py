"""POST /encode"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.pipeline.known_images import Encoding
from service.pipeline.pipeline import Pipeline
from service.problems import ProblemError
from service.routes.answering import Context, answer, json_response, model_info, numbers
from service.routes.bodies import read_body, read_images
from service.routes.openapi import body_of
from service.routes.schemas import EncodedImage, EncodeRequest, EncodeResponse, Patch

MAX_ON_THE_LOOP = 4
"""Images whose answer is written by the event loop; more of them hold it up for too long."""


def encode_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])
    settings = context.settings

    @router.post("/encode", response_model=EncodeResponse, openapi_extra=body_of(EncodeRequest, files=True))
    async def encode(request: Request) -> Response:
        """Activations of one or more images, and where in the image each prototype is most present."""

        async def work(deadline: float) -> Response:
            del deadline  # several requests may wait for the same encoding; the time limit ends the waiting
            body, files = await read_body(request, EncodeRequest, max_files=settings.max_images)
            pipeline = context.pipeline(request, body.model)
            given = (body.image is not None) + (body.images is not None) + (body.image_id is not None)
            if given + bool(files) != 1:
                raise ProblemError(422, "give images in one way: files, image, images or image_id")
            if body.image_id is not None:
                pictures = [await pipeline.recall(body.image_id)]
            else:
                texts = body.images or ([] if body.image is None else [body.image])
                pictures = await read_images(texts, files, pipeline, settings)
            encodings = await pipeline.encode(pictures)
            await pipeline.remember(pictures)

            def respond() -> Response:
                images = [_encoded_image(pipeline, encoding, maps=body.maps) for encoding in encodings]
                return json_response(EncodeResponse(model=model_info(pipeline), images=images))

            is_long = body.maps or len(encodings) > MAX_ON_THE_LOOP
            return await asyncio.to_thread(respond) if is_long else respond()

        return await answer(context, request, "encode", work)

    return router


def _encoded_image(pipeline: Pipeline, encoding: Encoding, *, maps: bool) -> EncodedImage:
    similarities = numbers(encoding.activations)
    return EncodedImage(
        image_id=encoding.image_id,
        activations=similarities,
        patches=[
            Patch(prototype=j, similarity=similarity, box=box)
            for j, (similarity, box) in enumerate(
                zip(similarities, pipeline.best_boxes(encoding.similarity_maps), strict=True)
            )
        ],
        cached=encoding.cached,
        similarity_maps=numbers(encoding.similarity_maps) if maps else None,
    )
