"""POST /locate"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.bundle import Bundle
from service.drawing import Card, montage, overlay, png
from service.images import to_base64
from service.pipeline.edits import prototype_indices
from service.pipeline.known_images import Encoding
from service.pipeline.location import Location, locate
from service.pipeline.pipeline import Pipeline
from service.problems import ProblemError
from service.routes.answering import (
    Context,
    answer,
    json_response,
    model_info,
    numbers,
    png_response,
    wants_png,
)
from service.routes.bodies import read_body, read_source
from service.routes.openapi import PNG_OR_JSON, body_of
from service.routes.schemas import LocatedPrototype, LocateRequest, LocateResponse

MAX_MAP_NUMBERS = 2**22
"""Of all maps of one answer, which is text of about ten bytes for each."""


def locate_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    settings = context.settings

    @router.post(
        "/locate",
        response_model=LocateResponse,
        responses=PNG_OR_JSON,
        openapi_extra=body_of(LocateRequest, files=True),
    )
    async def post(request: Request) -> Response:
        """Where in an image prototypes are: a box, a centre, and a heat map over the picture for each.

        With `Accept: image/png`, all of them in one labelled picture.
        """

        async def work(deadline: float) -> Response:
            del deadline  # as for /encode
            body, files = await read_body(request, LocateRequest, max_files=1)
            pipeline = context.pipeline(request, body.model)
            _check(pipeline, body)
            pixels = await read_source(body.image, body.image_id, files, pipeline, settings)
            if pixels is None:
                raise ProblemError(422, "give an image: as file, base64 or image_id")
            [encoding] = await pipeline.encode([pixels])
            await pipeline.remember([pixels])
            bundle = pipeline.bundle

            def respond() -> Response:
                found = locate(bundle, encoding, body.prototypes)
                if wants_png(request):
                    return png_response(_picture(bundle, encoding, found))
                return json_response(
                    LocateResponse(
                        model=model_info(pipeline),
                        image_id=encoding.image_id,
                        prototypes=[_located(bundle, encoding, item, maps=body.maps) for item in found],
                    )
                )

            return await asyncio.to_thread(respond)

        return await answer(context, request, "locate", work)

    return router


def _check(pipeline: Pipeline, body: LocateRequest) -> None:
    """Raises PipelineError or ProblemError before anything is read for nothing."""
    image = pipeline.bundle.config.image
    count = 1 if body.prototypes is None else len(prototype_indices(pipeline.bundle, body.prototypes))
    if body.maps and count * image.height * image.width > MAX_MAP_NUMBERS:
        raise ProblemError(
            422,
            f"maps of {count} prototypes are {count * image.height * image.width} numbers, "
            f"of at most {MAX_MAP_NUMBERS}: ask for fewer prototypes",
        )


def _located(bundle: Bundle, encoding: Encoding, found: Location, *, maps: bool) -> LocatedPrototype:
    return LocatedPrototype(
        prototype=found.prototype,
        name=bundle.prototypes[found.prototype].name,
        activation=round(found.activation, 6),
        z=None if found.z is None else round(found.z, 6),
        box=found.box,
        centre=found.centre,
        overlay=to_base64(png(overlay(encoding.pixels, found.pixel_map, found.box))),
        map=numbers(found.pixel_map) if maps else None,
    )


def _picture(bundle: Bundle, encoding: Encoding, found: list[Location]) -> bytes:
    cards = []
    for item in found:
        name = bundle.prototypes[item.prototype].name
        unusual = "" if item.z is None else f"   z {item.z:+.1f}"
        lines = [f"{item.prototype}  {name or ''}".rstrip(), f"s {item.activation:.2f}{unusual}"]
        cards.append(Card(lines, [overlay(encoding.pixels, item.pixel_map, item.box)]))
    return png(montage(cards))
