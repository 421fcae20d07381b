"""POST /diagnose"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.bundle import Bundle
from model.couplings import FAMILYWISE_ERROR, Effects
from model.transforms import Pixels, crop
from service.images import encode_png, to_base64
from service.pipeline.diagnosis import (
    MOSTLY_ASKED,
    SHARED_PATCH,
    STRONG_CORRELATION,
    AttributeEffects,
    Coupling,
    Diagnosis,
    diagnose,
)
from service.pipeline.edits import Edit
from service.pipeline.experiment import Experiment, Intervention
from service.pipeline.pipeline import Pipeline
from service.problems import ProblemError
from service.routes.answering import Context, accepts, drawn, json_response, model_info, numbers
from service.routes.bodies import check_limits, read_body, read_images
from service.routes.diagnosis_page import diagnosis_page
from service.routes.event_stream import Follower, answer_or_stream, feed_of
from service.routes.openapi import HTML_OR_EVENTS_OR_JSON, body_of
from service.routes.sampling import clamped, edits_from
from service.routes.schemas import (
    AttributesDiagnosis,
    CouplingModel,
    DiagnoseRequest,
    DiagnoseResponse,
    EditModel,
    EffectsModel,
    InterventionModel,
    ThresholdsModel,
)
from service.settings import Settings

DEFAULT_NUM_SAMPLES = 32
"""Half of them leave most couplings undetected: an effect must stand out from all others that are tested."""
NOTABLE_LEAKAGE = 0.1
"""What changes by less of what was meant to change is hardly seen."""
THRESHOLDS = ThresholdsModel(
    p=FAMILYWISE_ERROR,
    leakage=NOTABLE_LEAKAGE,
    data_correlation=STRONG_CORRELATION,
    overlap=round(SHARED_PATCH, 6),
    asked=MOSTLY_ASKED,
)
PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def diagnose_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["prototypes"])
    settings = context.settings

    @router.post(
        "/diagnose",
        response_model=DiagnoseResponse,
        responses=HTML_OR_EVENTS_OR_JSON,
        openapi_extra=body_of(DiagnoseRequest, files=True),
    )
    async def post(request: Request) -> Response:
        """Unwanted couplings: what else changes when one prototype or one attribute is changed, ranked.

        Each effect has its uncertainty and the correlation in the data beside it. With `Accept: text/html`, a
        report to read.
        """

        async def work(deadline: float, follower: Follower | None) -> Response:
            started = time.perf_counter()
            body, files = await read_body(request, DiagnoseRequest, max_files=settings.max_images)
            pipeline = context.pipeline(request, body.model)
            feed = feed_of(follower, preview_every=0)
            images = await read_images(body.images or [], files, pipeline, settings)
            experiment = _experiment(pipeline, settings, body, images)
            request.state.row_steps.take(experiment.num_row_steps)
            diagnosis = await diagnose(
                pipeline, experiment, num_examples=body.num_couplings, deadline=deadline, feed=feed
            )
            seconds = time.perf_counter() - started
            answer = await drawn(lambda: _response(pipeline, body, diagnosis, seconds))
            if _wants_page(request):
                image = pipeline.bundle.config.image
                page = await drawn(
                    lambda: diagnosis_page(answer, _patches(pipeline.bundle), (image.height, image.width))
                )
                headers = {"Content-Security-Policy": PAGE_POLICY}
                return Response(page, headers=headers, media_type="text/html")
            return json_response(answer)

        return await answer_or_stream(context, request, "diagnose", work)

    return router


def _experiment(
    pipeline: Pipeline, settings: Settings, body: DiagnoseRequest, images: Sequence[Pixels]
) -> Experiment:
    check_limits(settings, steps=body.steps)
    is_named = body.prototypes is not None or body.attributes is not None
    if is_named and body.edits is not None:
        named = "prototypes" if body.attributes is None else "prototypes and attributes"
        raise ProblemError(422, f"give {named} or edits, not both")
    if images and body.num_samples is not None:
        raise ProblemError(422, "give images or num_samples, not both")
    if (body.num_samples or 0) > settings.max_images:
        raise ProblemError(422, f"num_samples must be 6 to {settings.max_images}, not {body.num_samples}")
    return Experiment(
        interventions=_interventions(pipeline.bundle, body),
        images=images,
        num_new=body.num_samples or min(DEFAULT_NUM_SAMPLES, settings.max_images),
        steps=body.steps,
        seed=body.seed,
        extrapolate=body.extrapolate,
    )


def _interventions(bundle: Bundle, body: DiagnoseRequest) -> list[Intervention]:
    if body.edits is not None:
        return Intervention.by(bundle, edits_from(body.edits))
    if body.attributes is None:
        return Intervention.on(bundle, body.prototypes)
    on_prototypes = [] if body.prototypes is None else Intervention.on(bundle, body.prototypes)
    return on_prototypes + Intervention.on_attributes(bundle, body.attributes)


def _wants_page(request: Request) -> bool:
    return accepts(request, "text/html") and not (
        accepts(request, "application/json") or accepts(request, "text/event-stream")
    )


def _response(
    pipeline: Pipeline, body: DiagnoseRequest, diagnosis: Diagnosis, seconds: float
) -> DiagnoseResponse:
    effects, bundle = diagnosis.effects, pipeline.bundle
    leaks = np.nan_to_num(np.abs(effects.leakage.value)) >= NOTABLE_LEAKAGE
    agreement = diagnosis.agreement_with_data
    return DiagnoseResponse(
        model=model_info(pipeline),
        num_samples=diagnosis.num_samples,
        steps=body.steps,
        seed=body.seed,
        activations_from=diagnosis.activations_from,
        interventions=[
            _intervention(diagnosis, bundle, intervention, i)
            for i, intervention in enumerate(diagnosis.interventions)
        ],
        effects=_effects(effects, diagnosis.data_correlation, diagnosis.asked),
        overlap=_known_rows(diagnosis.overlap),
        num_pairs=_num_tested(effects),
        num_established=int(effects.is_established.sum()),
        num_leaking=int((effects.is_established & leaks).sum()),
        agreement_with_data=None if agreement is None else round(agreement, 6),
        couplings=[
            _coupling(
                diagnosis,
                coupling,
                effects,
                bundle,
                affected_name=bundle.prototypes[coupling.affected].name,
                data_correlation=_number(
                    diagnosis.data_correlation[coupling.intervention, coupling.affected]
                ),
                overlap=_known(diagnosis.overlap[coupling.intervention, coupling.affected]),
                auroc=_known(diagnosis.auroc[coupling.intervention, coupling.affected]),
                asked=_known(diagnosis.asked[coupling.intervention, coupling.affected]),
            )
            for coupling in diagnosis.couplings
        ],
        attributes=None
        if diagnosis.attributes is None
        else _attributes(diagnosis, diagnosis.attributes, bundle),
        thresholds=THRESHOLDS,
        clamped=clamped(diagnosis.clamped),
        total_s=round(seconds, 6),
    )


def _attributes(diagnosis: Diagnosis, attributes: AttributeEffects, bundle: Bundle) -> AttributesDiagnosis:
    return AttributesDiagnosis(
        names=list(attributes.names),
        effects=_effects(attributes.effects, attributes.data_correlation, attributes.asked),
        num_pairs=_num_tested(attributes.effects),
        num_established=int(attributes.effects.is_established.sum()),
        couplings=[
            _coupling(
                diagnosis,
                coupling,
                attributes.effects,
                bundle,
                affected_name=attributes.names[coupling.affected],
                data_correlation=_number(
                    attributes.data_correlation[coupling.intervention, coupling.affected]
                ),
                overlap=None,
                auroc=_known(attributes.auroc[coupling.intervention, coupling.affected]),
                asked=_known(attributes.asked[coupling.intervention, coupling.affected]),
            )
            for coupling in attributes.couplings
        ],
    )


def _intervention(
    diagnosis: Diagnosis, bundle: Bundle, intervention: Intervention, i: int
) -> InterventionModel:
    effects, own = diagnosis.own_effect(i)
    effect, low, high = (_number(part[i, own]) for part in vars(effects.effect).values())
    return InterventionModel(
        prototype=intervention.prototype,
        attribute=intervention.attribute,
        name=_name(bundle, intervention),
        edit=None if intervention.before is not None else _edit(intervention.after),
        effect=effect,
        low=low,
        high=high,
        asked=_number(diagnosis.own_asked[i]),
        responds=not np.isnan(effects.leakage.value[i, own]),
    )


def _name(bundle: Bundle, intervention: Intervention) -> str | None:
    return None if intervention.prototype is None else bundle.prototypes[intervention.prototype].name


def _edit(edit: Edit) -> EditModel:
    return EditModel(**vars(edit))


def _num_tested(effects: Effects) -> int:
    return int((~np.isnan(effects.p)).sum())


def _effects(effects: Effects, data_correlation: np.ndarray, asked: np.ndarray) -> EffectsModel:
    return EffectsModel(
        effect=numbers(effects.effect.value),
        low=numbers(effects.effect.low),
        high=numbers(effects.effect.high),
        p=_known_rows(effects.p),
        leakage=_known_rows(effects.leakage.value),
        data_correlation=numbers(data_correlation),
        asked=_known_rows(asked),
        beyond=numbers(effects.beyond.value),
    )


def _coupling(
    diagnosis: Diagnosis,
    coupling: Coupling,
    effects: Effects,
    bundle: Bundle,
    *,
    affected_name: str | None,
    data_correlation: float,
    overlap: float | None,
    auroc: float | None,
    asked: float | None,
) -> CouplingModel:
    at, example = (coupling.intervention, coupling.affected), coupling.example
    intervention = diagnosis.interventions[coupling.intervention]
    effect, low, high = (_number(part[at]) for part in vars(effects.effect).values())
    beyond, beyond_low, beyond_high = (_number(part[at]) for part in vars(effects.beyond).values())
    leakage, leakage_low, leakage_high = (_known(part[at]) for part in vars(effects.leakage).values())
    return CouplingModel(
        intervention=coupling.intervention,
        prototype=intervention.prototype,
        attribute=intervention.attribute,
        name=_name(bundle, intervention),
        affected=coupling.affected,
        affected_name=affected_name,
        effect=effect,
        low=low,
        high=high,
        p=_number(effects.p[at]),
        is_established=bool(effects.is_established[at]),
        leakage=leakage,
        leakage_low=leakage_low,
        leakage_high=leakage_high,
        data_correlation=data_correlation,
        overlap=overlap,
        auroc=auroc,
        asked=asked,
        beyond=beyond,
        beyond_low=beyond_low,
        beyond_high=beyond_high,
        finding=coupling.finding,
        explained_by=list(coupling.explained_by),
        sample=example.sample,
        before=to_base64(encode_png(example.before)),
        after=to_base64(encode_png(example.after)),
        box=example.box,
        affected_box=example.affected_box,
    )


def _patches(bundle: Bundle) -> dict[int, str]:
    """Each prototype's nearest training patch as base64, where the bundle keeps them."""
    pictures = bundle.pictures
    if pictures is None:
        return {}
    patches = zip(pictures.exemplar_images, pictures.exemplar_boxes, strict=True)
    return {j: to_base64(encode_png(crop(image, box))) for j, (image, box) in enumerate(patches)}


def _number(value: np.floating) -> float:
    return round(float(value), 6)


def _known_rows(values: np.ndarray) -> list[list[float | None]]:
    return [[_known(value) for value in row] for row in values]


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else _number(value)
