"""POST /generate and POST /edit"""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.bundle import Bundle
from service.images import encode_png, grid_png, to_base64
from service.pipeline.editing import EditedImage, plan_edit
from service.pipeline.edits import Target
from service.pipeline.other_attributes import other_attributes
from service.pipeline.pipeline import Generation, Pipeline
from service.problems import ProblemError
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
from service.routes.bodies import check_limits, read_body, read_source
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import PNG_OR_EVENTS_OR_JSON, body_of
from service.routes.sampling import clamped, edits_from, sample
from service.routes.schemas import (
    EditActivations,
    EditedAttribute,
    EditRequest,
    EditResponse,
    GeneratedImageModel,
    GenerateRequestModel,
    GenerateResponse,
    OtherAttribute,
    TraceModel,
)
from service.routes.trace import trace_fields


def generate_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["images"])
    settings = context.settings

    @router.post(
        "/generate",
        response_model=GenerateResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(GenerateRequestModel, files=True),
    )
    async def generate(request: Request) -> Response:
        """Sample images: under an image's activations, given ones, or resampled ones, with edits."""

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, GenerateRequestModel, max_files=1)
            pipeline, generation = await sample(
                context, request, body, files, deadline, follower, is_traced=body.trace
            )
            pictures = [image.pixels for image in generation.images]
            if wants_png(request):
                return png_response(await drawn(lambda: grid_png(pictures)))
            files_out = await drawn(lambda: [encode_png(picture) for picture in pictures])
            return json_response(_generate_response(pipeline, generation, files_out, started))

        return await answer_or_stream(context, request, "generate", work)

    @router.post(
        "/edit",
        response_model=EditResponse,
        responses=PNG_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(EditRequest, files=True),
    )
    async def edit(request: Request) -> Response:
        """Change prototypes or attributes in an image, keep the rest: invert it, regenerate with s edited."""

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, EditRequest, max_files=1)
            pipeline = context.pipeline(request, body.model)
            feed = feed_of(follower, body.preview_every)
            check_limits(settings, steps=body.steps)
            plan = plan_edit(
                pipeline.bundle,
                edits_from(body.edits),
                extrapolate=body.extrapolate,
                preserve=body.preserve,
                preserve_attributes=body.preserve_attributes,
                start=body.start,
                steps=body.steps,
                inversion=body.inversion,
                rounds=body.rounds,
                decouple=body.decouple,
            )
            request.state.row_steps.take(plan.num_row_steps)
            pixels = await read_source(body.image, body.image_id, files, pipeline, settings)
            if pixels is None:
                raise ProblemError(422, "give an image: as file, base64 or image_id")
            edited = await pipeline.edit(pixels, plan, deadline, feed)
            await pipeline.remember([pixels])
            if wants_png(request):
                return png_response(await drawn(lambda: encode_png(edited.edited)))
            files_out = await drawn(lambda: [encode_png(p) for p in (edited.edited, edited.reconstruction)])
            return json_response(_edit_response(pipeline, edited, files_out, started))

        return await answer_or_stream(context, request, "edit", work)

    return router


def _generate_response(
    pipeline: Pipeline, generation: Generation, files: list[bytes], started: float
) -> GenerateResponse:
    return GenerateResponse(
        model=model_info(pipeline),
        images=[
            GeneratedImageModel(image=to_base64(file), seed=image.seed, achieved=numbers(image.achieved))
            for file, image in zip(files, generation.images, strict=True)
        ],
        activations=[numbers(image.asked) for image in generation.images],
        activations_from=generation.activations_from,
        clamped=clamped(generation.clamped),
        trace=None if generation.trace is None else TraceModel(**trace_fields(generation, [])),
        timings=timings(
            generation.timing.queue_s, generation.timing.inference_s, time.perf_counter() - started
        ),
    )


def _edit_response(
    pipeline: Pipeline, edited: EditedImage, files: list[bytes], started: float
) -> EditResponse:
    return EditResponse(
        model=model_info(pipeline),
        image_id=edited.source.image_id,
        image=to_base64(files[0]),
        reconstruction=to_base64(files[1]),
        activations=EditActivations(
            driven=numbers(edited.driven), **{moment: numbers(s) for moment, s in edited.moments.items()}
        ),
        attributes=[
            EditedAttribute(name=target.attribute, **_log_odds(target, edited))
            for target in edited.plan.targets
            if target.attribute is not None
        ],
        other_attributes=_other_attributes(pipeline.bundle, edited),
        preserved=edited.plan.held,
        preserved_attributes=edited.plan.names_held,
        leakage=None if edited.leakage is None else round(edited.leakage, 6),
        rounds=edited.rounds,
        start_timestep=edited.plan.trip.start_timestep,
        network_calls=edited.num_calls,
        clamped=clamped(edited.clamped),
        timings=timings(edited.timing.queue_s, edited.timing.inference_s, time.perf_counter() - started),
    )


def _other_attributes(bundle: Bundle, edited: EditedImage) -> list[OtherAttribute] | None:
    found = other_attributes(bundle, edited)
    if found is None:
        return None
    return [
        OtherAttribute.model_validate(
            {
                name: round(value, 6) if isinstance(value, float) else value
                for name, value in vars(item).items()
            }
        )
        for item in found
    ]


def _log_odds(target: Target, edited: EditedImage) -> dict[str, float]:
    """The numbers of an EditedAttribute."""
    return {moment: round(float(target.value(s)), 6) for moment, s in edited.moments.items()}
