"""POST /visualize"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.bundle import Bundle
from model.transforms import Pixels
from service.drawing import Card, montage, png, tile
from service.images import encode_png, to_base64
from service.pipeline.edits import prototype_indices
from service.pipeline.measured import reference_images
from service.pipeline.visualization import Visualization, visualize
from service.problems import ProblemError
from service.routes.answering import Context, drawn, json_response, model_info, png_response, wants_png
from service.routes.bodies import check_limits, read_body, read_images
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.schemas import EnhancedSource, VisualizedPrototype, VisualizeRequest, VisualizeResponse

DEFAULT_NUM_SAMPLES = 20
"""n of the paper."""
FEW_PROTOTYPES, LARGE_SIDE, SMALL_SIDE = 100, 128, 96
"""Pictures of a montage are large where there are few prototypes."""


def visualize_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    settings = context.settings

    @router.post(
        "/visualize",
        response_model=VisualizeResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(VisualizeRequest, files=True),
    )
    async def post(request: Request) -> Response:
        """What prototypes stand for: each enhanced in several images, and the one in which it rose most.

        With `Accept: image/png`, one labelled picture: of each prototype its patch, the source, and the
        source enhanced.
        """

        async def work(deadline: float, follower: Follower | None) -> Response:
            body, files = await read_body(request, VisualizeRequest, max_files=settings.max_images)
            pipeline = context.pipeline(request, body.model)
            bundle = pipeline.bundle
            feed = feed_of(follower, body.preview_every)
            check_limits(settings, steps=body.steps)
            prototypes = prototype_indices(bundle, body.prototypes)
            sources = await read_images(body.images or [], files, pipeline, settings)
            if sources and body.num_samples is not None:
                raise ProblemError(422, "give images or num_samples, not both")
            if not sources:
                default = min(DEFAULT_NUM_SAMPLES, len(reference_images(bundle)))
                sources = pipeline.choose_sources(body.num_samples or default, body.seed)
            request.state.row_steps.take(body.steps * len(sources) * (len(prototypes) + 1))
            found = await visualize(
                pipeline,
                prototypes,
                sources,
                steps=body.steps,
                keeps_samples=body.samples,
                deadline=deadline,
                feed=feed,
            )
            if wants_png(request):
                return png_response(await drawn(_picture, bundle, found))

            def respond() -> Response:
                return json_response(
                    VisualizeResponse(
                        model=model_info(pipeline),
                        sources=_encoded(sources) if body.samples else None,
                        prototypes=[_described(bundle, item) for item in found],
                    )
                )

            return await drawn(respond)

        return await answer_or_stream(context, request, "visualize", work)

    return router


def _described(bundle: Bundle, found: Visualization) -> VisualizedPrototype:
    return VisualizedPrototype(
        prototype=found.prototype,
        name=bundle.prototypes[found.prototype].name,
        target=round(found.target, 6),
        source=to_base64(encode_png(found.source)),
        enhanced=to_base64(encode_png(found.enhanced)),
        patch=to_base64(encode_png(found.patch)),
        box=found.box,
        activation_before=round(float(found.before[found.best]), 6),
        activation_after=round(float(found.after[found.best]), 6),
        source_index=found.best,
        rise=round(found.rise, 6),
        num_sources=len(found.before),
        raised=found.num_raised,
        mean_before=round(float(found.before.mean()), 6),
        mean_after=round(float(found.after.mean()), 6),
        samples=None if found.samples is None else _samples(found, found.samples),
    )


def _samples(found: Visualization, pictures: Pixels) -> list[EnhancedSource]:
    return [
        EnhancedSource(
            source=i,
            image=image,
            activation_before=round(float(found.before[i]), 6),
            activation_after=round(float(found.after[i]), 6),
        )
        for i, image in enumerate(_encoded(list(pictures)))
    ]


def _encoded(pictures: Sequence[Pixels]) -> list[str]:
    return [to_base64(encode_png(picture)) for picture in pictures]


def _picture(bundle: Bundle, found: Sequence[Visualization]) -> bytes:
    side = LARGE_SIDE if len(found) <= FEW_PROTOTYPES else SMALL_SIDE
    cards = []
    for item in found:
        name = bundle.prototypes[item.prototype].name
        change = f"s {item.before[item.best]:.2f} to {item.after[item.best]:.2f}"
        lines = (
            f"{item.prototype}  {name or ''}".rstrip(),
            f"{change}   rose in {item.num_raised or 'none'} of {len(item.before)}",
        )
        shown = (tile(item.patch, side), tile(item.source, side), tile(item.enhanced, side, item.box))
        cards.append(Card(lines, shown))
    return png(montage(cards, title="patch · source · source with the prototype enhanced"))
