"""GET /prototypes and /prototypes/{prototype}"""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.bundle import Bundle
from model.statistics import QUANTILE_LEVELS
from model.transforms import Pixels, crop
from service.images import encode_png, to_base64
from service.pipeline.edits import prototype_index
from service.routes.answering import Context, answer, json_response, png_response, wants_png
from service.routes.openapi import PNG_OR_JSON
from service.routes.schemas import (
    PrototypeModel,
    PrototypeResponse,
    PrototypesResponse,
    PrototypeStatistics,
)

SHOWN_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def prototypes_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    bundle = context.pipeline.bundle

    @router.get("/prototypes", response_model=PrototypesResponse)
    async def prototypes(request: Request) -> Response:
        """All prototypes: statistics over the training data and the nearest training patch."""

        async def work(deadline: float) -> Response:
            del deadline
            described = [_described(bundle, j) for j in range(bundle.config.num_prototypes)]
            return json_response(PrototypesResponse(model=context.model, prototypes=described))

        return await answer(context, request, "prototypes", work)

    @router.get("/prototypes/{prototype}", response_model=PrototypeResponse, responses=PNG_OR_JSON)
    async def prototype(request: Request, prototype: str) -> Response:
        """One prototype, by index or name; with `Accept: image/png`, its patch."""

        async def work(deadline: float) -> Response:
            del deadline
            j = prototype_index(bundle, int(prototype) if _is_index(prototype) else prototype)
            if wants_png(request):
                return png_response(encode_png(_patch(bundle, j)))
            exemplar = to_base64(encode_png(bundle.pictures.exemplar_images[j]))
            return json_response(
                PrototypeResponse(
                    model=context.model, prototype=_described(bundle, j), exemplar_image=exemplar
                )
            )

        return await answer(context, request, "prototype", work)

    return router


def _is_index(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 10


def _described(bundle: Bundle, j: int) -> PrototypeModel:
    statistics, pictures = bundle.statistics, bundle.pictures
    quantiles = np.interp(SHOWN_QUANTILES, QUANTILE_LEVELS, statistics.quantiles[j])
    x0, y0, x1, y1 = pictures.exemplar_boxes[j].tolist()
    return PrototypeModel(
        index=j,
        name=bundle.prototypes[j].name,
        statistics=PrototypeStatistics(
            mean=float(statistics.mean[j]),
            std=float(statistics.std[j]),
            min=float(statistics.minimum[j]),
            max=float(statistics.maximum[j]),
            quantiles={str(level): float(q) for level, q in zip(SHOWN_QUANTILES, quantiles, strict=True)},
        ),
        emergence_timestep=bundle.prototypes[j].emergence_timestep,
        picture=to_base64(encode_png(_patch(bundle, j))),
        exemplar_box=(x0, y0, x1, y1),
        exemplar_similarity=round(float(pictures.exemplar_similarities[j]), 6),
    )


def _patch(bundle: Bundle, j: int) -> Pixels:
    return crop(bundle.pictures.exemplar_images[j], bundle.pictures.exemplar_boxes[j])
