"""GET /prototypes, GET and PUT /prototypes/{prototype}"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.attributes import Attributes
from model.bundle import Bundle, Patches, Pictures
from model.receptive_field import Box
from model.statistics import QUANTILE_LEVELS, ActivationStatistics
from model.transforms import Pixels, crop
from service.images import encode_png, to_base64
from service.pipeline.edits import attribute_target, prototype_index
from service.pipeline.measured import REMEDY
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
from service.routes.bodies import read_body
from service.routes.openapi import NAME_TAKEN, PNG_OR_JSON, body_of
from service.routes.schemas import (
    AttributeModel,
    NameRequest,
    PrototypeAttribute,
    PrototypeEffect,
    PrototypeModel,
    PrototypeResponse,
    PrototypesResponse,
    PrototypeStatistics,
)

SHOWN_ATTRIBUTES = 5
SHOWN_EFFECTS = 5
SHOWN_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def prototypes_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])

    @router.get("/prototypes", response_model=PrototypesResponse)
    async def prototypes(request: Request, model: str | None = None) -> Response:
        """All prototypes: statistics over the training data and the nearest training patch, where known."""

        async def work(deadline: float) -> Response:
            del deadline
            pipeline = context.pipeline(request, model)
            bundle = pipeline.bundle

            def respond() -> Response:  # it makes a picture of each
                described = [_described(bundle, j) for j in range(bundle.config.num_prototypes)]
                attributes = _all_attributes(bundle)
                return json_response(
                    PrototypesResponse(
                        model=model_info(pipeline), prototypes=described, attributes=attributes
                    )
                )

            return await asyncio.to_thread(respond)

        return await answer(context, request, "prototypes", work)

    @router.get("/prototypes/{prototype}", response_model=PrototypeResponse, responses=PNG_OR_JSON)
    async def prototype(request: Request, prototype: str, model: str | None = None) -> Response:
        """One prototype, by index or name; with `Accept: image/png`, its patch."""

        async def work(deadline: float) -> Response:
            del deadline
            pipeline = context.pipeline(request, model)
            return await asyncio.to_thread(_shown, request, pipeline, _index(pipeline, prototype))

        return await answer(context, request, "prototype", work)

    @router.put(
        "/prototypes/{prototype}",
        response_model=PrototypeResponse,
        responses=PNG_OR_JSON | NAME_TAKEN,
        openapi_extra=body_of(NameRequest, files=False),
    )
    async def rename(request: Request, prototype: str, model: str | None = None) -> Response:
        """Name a prototype, given by index or the name it has; the answer is that of GET.

        Names are kept over restarts, and hold wherever a prototype is asked for or shown. `model` may stand
        in the address, as for GET, or in the body.
        """

        async def work(deadline: float) -> Response:
            del deadline
            body, _ = await read_body(request, NameRequest, max_files=0)
            if None not in (model, body.model) and model != body.model:
                raise ProblemError(422, "model in the address and in the body must be the same")
            chosen = model if body.model is None else body.model
            pipeline = context.pipeline(request, chosen)
            j = _index(pipeline, prototype)
            await asyncio.to_thread(pipeline.names.rename, j, body.name)
            return await asyncio.to_thread(_shown, request, context.pipeline(request, chosen), j)

        return await answer(context, request, "rename", work)

    return router


def _index(pipeline: Pipeline, prototype: str) -> int:
    return prototype_index(pipeline.bundle, int(prototype) if _is_index(prototype) else prototype)


def _shown(request: Request, pipeline: Pipeline, j: int) -> Response:
    bundle = pipeline.bundle
    pictures = bundle.pictures
    if wants_png(request):
        if pictures is None:
            raise ProblemError(404, f"the bundle {bundle.name!r} keeps no picture of prototypes: {REMEDY}")
        return png_response(encode_png(_patch(pictures, j)))
    exemplar = None if pictures is None else to_base64(encode_png(pictures.exemplar_images[j]))
    return json_response(
        PrototypeResponse(
            model=model_info(pipeline),
            prototype=_described(bundle, j),
            exemplar_image=exemplar,
            **_effects(bundle, j),
            **_patches(None if pictures is None else pictures.patches, j),
        )
    )


def _is_index(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 10


def _described(bundle: Bundle, j: int) -> PrototypeModel:
    statistics, pictures, prototype = bundle.statistics, bundle.pictures, bundle.prototypes[j]
    return PrototypeModel(
        index=j,
        name=prototype.name,
        statistics=None if statistics is None else _statistics(statistics, j),
        emergence_timestep=prototype.emergence_timestep,
        emergence_spread=prototype.emergence_spread,
        emergence_share=prototype.emergence_share,
        attributes=None if bundle.attributes is None else _attributes(bundle.attributes, j),
        picture=None if pictures is None else to_base64(encode_png(_patch(pictures, j))),
        exemplar_box=None if pictures is None else _box(pictures, j),
        exemplar_similarity=None if pictures is None else round(float(pictures.exemplar_similarities[j]), 6),
    )


def _statistics(statistics: ActivationStatistics, j: int) -> PrototypeStatistics:
    quantiles = np.interp(SHOWN_QUANTILES, QUANTILE_LEVELS, statistics.quantiles[j])
    return PrototypeStatistics(
        mean=float(statistics.mean[j]),
        std=float(statistics.std[j]),
        min=float(statistics.minimum[j]),
        max=float(statistics.maximum[j]),
        quantiles={str(level): float(q) for level, q in zip(SHOWN_QUANTILES, quantiles, strict=True)},
    )


def _attributes(attributes: Attributes, j: int) -> list[PrototypeAttribute]:
    return [
        PrototypeAttribute(name=found.name, auroc=round(found.auroc, 4), sign=found.sign)
        for found in attributes.best(j, SHOWN_ATTRIBUTES)
    ]


def _all_attributes(bundle: Bundle) -> list[AttributeModel] | None:
    attributes = bundle.attributes
    if attributes is None:
        return None
    return [
        AttributeModel(
            name=name,
            auroc=round(float(auroc), 4),
            low=round(float(low), 6),
            high=round(float(high), 6),
            prototypes=list(attribute_target(bundle, name).prototypes),
        )
        for name, auroc, low, high in zip(
            attributes.names, attributes.probe_auroc, attributes.probe_low, attributes.probe_high, strict=True
        )
    ]


def _effects(bundle: Bundle, j: int) -> dict[str, Any]:
    """The fields of a PrototypeResponse that say what driving prototype j does."""
    if bundle.effects is None or bundle.statistics is None:
        return {"own_effect": None, "effects": None}
    mean, error = (part[j] for part in bundle.effects.over_range(bundle.statistics))  # (m,) each

    def effect(k: int) -> PrototypeEffect:
        name = bundle.prototypes[k].name
        values = {"effect": round(float(mean[k]), 4), "standard_error": round(float(error[k]), 4)}
        return PrototypeEffect(prototype=k, name=name, **values)

    order = np.argsort(-np.abs(mean), kind="stable").tolist()
    strongest = [k for k in order if k != j][:SHOWN_EFFECTS]
    return {"own_effect": effect(j), "effects": [effect(k) for k in strongest]}


def _patches(patches: Patches | None, j: int) -> dict[str, Any]:
    """The fields of a PrototypeResponse that show patches."""
    return {
        "patches": None if patches is None else [to_base64(encode_png(patch)) for patch in patches.pixels[j]],
        "patch_similarities": None if patches is None else numbers(patches.similarities[j]),
        "patch_image_indices": None if patches is None else patches.image_indices[j].tolist(),
    }


def _patch(pictures: Pictures, j: int) -> Pixels:
    return crop(pictures.exemplar_images[j], pictures.exemplar_boxes[j])


def _box(pictures: Pictures, j: int) -> Box:
    x0, y0, x1, y1 = pictures.exemplar_boxes[j].tolist()
    return (x0, y0, x1, y1)
