"""GET /models"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.routes.answering import Context, answer, json_response
from service.routes.schemas import ModelsResponse, ServedModel


def models_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    described = ModelsResponse(models=served_models(context))

    @router.get("/models", response_model=ModelsResponse)
    async def models(request: Request) -> Response:
        """The models that are served, the default one first; requests choose one by `model`."""

        async def work(deadline: float) -> Response:
            del deadline
            return json_response(described)

        return await answer(context, request, "models", work)

    return router


def served_models(context: Context) -> list[ServedModel]:
    bundles = [pipeline.bundle for pipeline in context.pipelines]
    return [
        ServedModel(
            name=bundle.name,
            digest=bundle.digest,
            is_default=bundle is bundles[0],
            image_shape=bundle.config.image.shape,
            num_prototypes=bundle.config.num_prototypes,
            has_prior=bundle.prior is not None,
            metrics=dict(bundle.metrics),
            provenance=dict(bundle.provenance),
            source=bundle.source,
        )
        for bundle in bundles
    ]
