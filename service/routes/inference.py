"""The Open Inference Protocol v2 (KServe, Triton): /v2, /v2/health/…, /v2/models/….

The protocol knows models that take and give tensors. Each bundle is two of them: under its own name, encode;
with `-generate` behind it, generate. A version is the beginning of the bundle's digest. Errors, in the
protocol's own shape, are written by `service.middleware.protocol_errors`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from fastapi import APIRouter
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model.samplers import Sampler
from model.transforms import Pixels, from_x_0
from service.drain import Drain
from service.pipeline.known_images import together
from service.pipeline.pipeline import GenerateRequest, Pipeline
from service.problems import RETRY_AFTER_S, ProblemError
from service.routes.answering import Context, answer, json_response
from service.routes.bodies import MAX_ON_THE_LOOP_BYTES, check_limits, parse_body, read_images
from service.routes.health import death, unreadiness
from service.routes.inference_schemas import (
    Datatype,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from service.routes.openapi import body_of
from service.routes.sampling import edits_from
from service.routes.schemas import EditModel
from service.routes.tensors import (
    HEADER_LENGTH,
    Tensor,
    check_output,
    read_tensors,
    split_body,
    write_tensors,
)

Kind = Literal["encode", "generate"]
Outputs = dict[str, tuple[Datatype, np.ndarray]]

GENERATE_SUFFIX = "-generate"
VERSION_DIGITS = 12
EXTENSIONS = ("binary_tensor_data",)
OCTETS = "application/octet-stream"
COMMON_PARAMETERS = frozenset({"timeout", "binary_data_output"})
GENERATE_PARAMETERS = frozenset({"steps", "sampler", "eta", "extrapolate", "edits"})
EDITS: TypeAdapter[list[EditModel]] = TypeAdapter(list[EditModel])
UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "it is not"}}


def inference_router(context: Context, drain: Drain, version: str) -> APIRouter:
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])
    engine = context.engine
    server = ServerMetadata(name="patronus-server", version=version, extensions=list(EXTENSIONS))

    @router.get("", response_model=ServerMetadata)
    async def server_metadata(request: Request) -> Response:
        """The server and the extensions that it knows."""
        return await _told(context, request, "v2_server", lambda: json_response(server))

    @router.get("/health/live", response_model=ServerLive, responses=UNAVAILABLE)
    async def live() -> Response:
        """As /healthz."""
        return _health({"live": death(engine) is None})

    @router.get("/health/ready", response_model=ServerReady, responses=UNAVAILABLE)
    async def ready() -> Response:
        """As /readyz."""
        return _health({"ready": unreadiness(engine, drain) is None})

    @router.get("/models/{model_name}", response_model=ModelMetadata)
    async def model_metadata(request: Request, model_name: str) -> Response:
        """The tensors that a model takes and gives."""
        return await _told(context, request, "v2_model", lambda: metadata(request, model_name, None))

    @router.get("/models/{model_name}/versions/{version}", response_model=ModelMetadata)
    async def version_metadata(request: Request, model_name: str, version: str) -> Response:
        """The same of one version; there is one."""
        return await _told(context, request, "v2_model", lambda: metadata(request, model_name, version))

    @router.get("/models/{model_name}/ready", response_model=ModelReady, responses=UNAVAILABLE)
    async def model_ready(request: Request, model_name: str) -> Response:
        """Whether a model takes requests."""
        return await _told(context, request, "v2_model", lambda: readiness(request, model_name, None))

    @router.get(
        "/models/{model_name}/versions/{version}/ready", response_model=ModelReady, responses=UNAVAILABLE
    )
    async def version_ready(request: Request, model_name: str, version: str) -> Response:
        """The same of one version; there is one."""
        return await _told(context, request, "v2_model", lambda: readiness(request, model_name, version))

    documented: dict[str, Any] = {
        "response_model": InferResponse,
        "responses": {200: {"content": {OCTETS: {}}}},
        "openapi_extra": body_of(InferRequest, files=False),
    }

    @router.post("/models/{model_name}/infer", **documented)
    async def infer(request: Request, model_name: str) -> Response:
        """Encode images, or generate them: tensors in, tensors out, in JSON or as binary data behind it."""
        return await inferred(request, model_name, None)

    @router.post("/models/{model_name}/versions/{version}/infer", **documented)
    async def version_infer(request: Request, model_name: str, version: str) -> Response:
        """The same of one version; there is one."""
        return await inferred(request, model_name, version)

    def metadata(request: Request, model_name: str, version: str | None) -> Response:
        pipeline, kind = _model(context, request, model_name, version)
        inputs, outputs = _tensors(pipeline, kind)
        return json_response(
            ModelMetadata(
                name=model_name,
                versions=[_version(pipeline)],
                platform="patronus_server",
                inputs=inputs,
                outputs=outputs,
            )
        )

    def readiness(request: Request, model_name: str, version: str | None) -> Response:
        _model(context, request, model_name, version)
        return _health({"name": model_name, "ready": unreadiness(engine, drain) is None})

    async def inferred(request: Request, model_name: str, version: str | None) -> Response:
        async def work(deadline: float) -> Response:
            body, binary = await _read(request)
            pipeline, kind = _model(context, request, model_name, version)
            tensors = await _off_loop(len(binary), read_tensors, body.inputs, binary)
            _check(body, pipeline, kind)
            run = _encode if kind == "encode" else _generate
            timeout_s = _timeout_s(body)
            deadline = deadline if timeout_s is None else min(deadline, engine.deadline_in(timeout_s))
            async with asyncio.timeout(timeout_s):
                outputs = await run(context, pipeline, request, body, tensors, deadline)
            head, tail = await asyncio.to_thread(
                lambda: write_tensors(
                    outputs,
                    body.outputs,
                    all_binary=body.parameters.get("binary_data_output") is True,
                    model_name=model_name,
                    model_version=_version(pipeline),
                    request_id=body.id,
                )
            )
            if not tail:
                return Response(head, media_type="application/json")
            return Response(head + tail, headers={HEADER_LENGTH: str(len(head))}, media_type=OCTETS)

        return await answer(context, request, "v2_infer", work)

    return router


async def _told(context: Context, request: Request, endpoint: str, tell: Callable[[], Response]) -> Response:
    async def work(deadline: float) -> Response:
        del deadline
        return tell()

    return await answer(context, request, endpoint, work)


def _health(body: dict[str, Any]) -> Response:
    is_well = body.get("live", True) and body.get("ready", True)
    return JSONResponse(body) if is_well else JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER_S)})


def _model(context: Context, request: Request, name: str, version: str | None) -> tuple[Pipeline, Kind]:
    """Raises UnknownModelError, or ProblemError for a version that there is not."""
    served = {pipeline.bundle.name for pipeline in context.pipelines}
    kind: Kind = "encode"
    bundle_name = name
    if name not in served and name.endswith(GENERATE_SUFFIX):
        kind, bundle_name = "generate", name.removesuffix(GENERATE_SUFFIX)
    pipeline = context.pipeline(request, bundle_name)
    if version not in (None, _version(pipeline)):
        raise ProblemError(
            404, f"there is one version of {name!r}, {_version(pipeline)}, not {version!r:.40}"
        )
    return pipeline, kind


def _version(pipeline: Pipeline) -> str:
    return pipeline.bundle.digest[:VERSION_DIGITS]


def _tensors(pipeline: Pipeline, kind: Kind) -> tuple[list[TensorMetadata], list[TensorMetadata]]:
    """What a model needs, and what it gives; `image` may stand for x_0, and `activations` go with `seed`."""
    config = pipeline.bundle.config
    m, shape = config.num_prototypes, list(config.image.shape)
    activations = TensorMetadata(name="activations", datatype="FP32", shape=[-1, m])
    if kind == "encode":
        maps = TensorMetadata(name="similarity_maps", datatype="FP32", shape=[-1, m, *config.grid_shape])
        return [TensorMetadata(name="x_0", datatype="FP32", shape=[-1, *shape])], [activations, maps]
    return [TensorMetadata(name="seed", datatype="INT64", shape=[-1])], [
        TensorMetadata(name="images", datatype="UINT8", shape=[-1, *shape]),
        activations,
        TensorMetadata(name="achieved", datatype="FP32", shape=[-1, m]),
    ]


async def _read(request: Request) -> tuple[InferRequest, bytes]:
    """The request and the binary data behind it. Raises ProblemError."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "send the body without a content-encoding")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("", "application/json", OCTETS):
        raise ProblemError(415, f"send application/json, or {OCTETS} with {HEADER_LENGTH}")
    body = await request.body()
    request.state.body_read.set()
    head, binary = split_body(body, request.headers.get(HEADER_LENGTH))
    return await _off_loop(len(head), parse_body, head, InferRequest), binary


async def _off_loop(num_bytes: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """`work(*arguments)`, in another thread where there is so much of it that others would wait."""
    if num_bytes > MAX_ON_THE_LOOP_BYTES:
        return await asyncio.to_thread(work, *arguments)
    return work(*arguments)


def _check(body: InferRequest, pipeline: Pipeline, kind: Kind) -> None:
    """Before anything is computed: raises ProblemError for parameters and outputs that there are not."""
    known = COMMON_PARAMETERS | (GENERATE_PARAMETERS if kind == "generate" else frozenset())
    unknown = sorted(set(body.parameters) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise ProblemError(422, f"there is no parameter {unknown[0][:100]!r}: this model takes {names}")
    if not isinstance(body.parameters.get("binary_data_output", False), bool):
        raise ProblemError(422, "binary_data_output must be true or false")
    outputs = {tensor.name: tensor for tensor in _tensors(pipeline, kind)[1]}
    for output in body.outputs:
        check_output(output, outputs)


def _timeout_s(body: InferRequest) -> float | None:
    """Of the parameter `timeout`, which is in microseconds; 0 is none, as in Triton."""
    timeout = body.parameters.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 <= timeout < 2**53:
        raise ProblemError(422, f"timeout must be a whole number of microseconds, not {timeout!r:.40}")
    return timeout / 1e6 if timeout else None


async def _encode(
    context: Context,
    pipeline: Pipeline,
    request: Request,
    body: InferRequest,
    tensors: Mapping[str, Tensor],
    deadline: float,
) -> Outputs:
    del request, body, deadline  # as in /encode: several may wait for one encoding
    if set(tensors) == {"image"}:
        tensor = _typed(tensors["image"], "BYTES", "[n] or [n, 1]")
        if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
            raise ProblemError(
                422, f"the input 'image' must have shape [n] or [n, 1], not {list(tensor.shape)}"
            )
        _check_count(len(tensor.texts) + len(tensor.files), "images")
        pictures = await read_images(tensor.texts, tensor.files, pipeline, context.settings)
    elif set(tensors) == {"x_0"}:
        x_0 = _array(tensors["x_0"], "FP32", (None, *pipeline.bundle.config.image.shape))
        _check_count(len(x_0), "images")
        check_limits(context.settings, steps=1, num_images=len(x_0))
        pictures = await asyncio.to_thread(_pictures, x_0)
    else:
        raise ProblemError(422, f"give the input 'x_0' or the input 'image', not {sorted(tensors)!r:.200}")
    encodings = await pipeline.encode(pictures)
    await pipeline.remember(pictures)
    return {
        "activations": ("FP32", np.stack([encoding.activations for encoding in encodings])),
        "similarity_maps": ("FP32", np.stack([encoding.similarity_maps for encoding in encodings])),
    }


async def _generate(
    context: Context,
    pipeline: Pipeline,
    request: Request,
    body: InferRequest,
    tensors: Mapping[str, Tensor],
    deadline: float,
) -> Outputs:
    if not {"seed"} <= set(tensors) <= {"seed", "activations"}:
        raise ProblemError(
            422, f"give the input 'seed', and 'activations' if you like, not {sorted(tensors)!r:.200}"
        )
    seeds = _array(tensors["seed"], "INT64", (None,))
    _check_count(len(seeds), "seeds")
    if not ((seeds >= 0) & (seeds < 2**32)).all():
        raise ProblemError(422, "the input 'seed' must be 0 to 4294967295")
    steps = _number(body, "steps", 20, int, 1, 100_000)
    eta = _number(body, "eta", 0.0, float, 0.0, 1.0)
    sampler = _sampler(body.parameters.get("sampler", "ddim"))
    extrapolate = body.parameters.get("extrapolate", False)
    if not isinstance(extrapolate, bool):
        raise ProblemError(422, "extrapolate must be true or false")
    edits = edits_from(_edits(body))
    check_limits(context.settings, steps=steps, num_images=len(seeds))
    rows: Sequence[np.ndarray | None] = [None] * len(seeds)
    if "activations" in tensors:
        s = _array(tensors["activations"], "FP32", (None, pipeline.bundle.config.num_prototypes))
        if len(s) not in (1, len(seeds)):
            raise ProblemError(422, f"activations must have 1 row, or {len(seeds)} as seed has, not {len(s)}")
        rows = list(np.broadcast_to(s, (len(seeds), s.shape[1])))
    request.state.row_steps.take(steps * len(seeds))
    wanted = [
        GenerateRequest(
            pixels=None,
            activations=row,
            edits=edits,
            extrapolate=extrapolate,
            num_images=1,
            steps=steps,
            sampler=sampler,
            eta=eta,
            seed=int(seed),
            inverted=False,
        )
        for seed, row in zip(seeds, rows, strict=True)
    ]
    generations = await together([pipeline.generate(each, deadline) for each in wanted])
    images = [generation.images[0] for generation in generations]
    return {
        "images": ("UINT8", np.stack([image.pixels for image in images])),
        "activations": ("FP32", np.stack([image.asked for image in images])),
        "achieved": ("FP32", np.stack([image.achieved for image in images])),
    }


def _typed(tensor: Tensor, datatype: Datatype, shape: str) -> Tensor:
    if tensor.datatype != datatype:
        raise ProblemError(
            422, f"the input {tensor.name!r} must be {datatype} of shape {shape}, not {tensor.datatype}"
        )
    return tensor


def _array(tensor: Tensor, datatype: Datatype, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array of a tensor that must have that shape, None being any size."""
    expected = str([-1 if size is None else size for size in shape])
    array = _typed(tensor, datatype, expected).array
    assert array is not None  # it is not BYTES
    fits = len(shape) == array.ndim and all(
        size in (None, given) for size, given in zip(shape, array.shape, strict=False)
    )
    if not fits:
        raise ProblemError(
            422, f"the input {tensor.name!r} must have shape {expected}, not {list(array.shape)}"
        )
    return array


def _pictures(x_0: np.ndarray) -> list[Pixels]:
    """The pixels that x_0 (n, C, H, W) stands for: of 256 levels, as those that the model was trained on."""
    if not (np.abs(x_0) <= 1.0).all():  # not so for NaN either
        raise ProblemError(422, "the input 'x_0' must be from -1 to 1")
    return list(from_x_0(x_0))


def _check_count(count: int, what: str) -> None:
    if count == 0:
        raise ProblemError(422, f"there are no {what}")


def _number(body: InferRequest, name: str, default: Any, kind: type, low: float, high: float) -> Any:
    value = body.parameters.get(name, default)
    kinds = (int, float) if kind is float else (int,)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        raise ProblemError(422, f"{name} must be {low} to {high}, not {value!r:.40}")
    return kind(value)


def _sampler(value: object) -> Sampler:
    samplers: tuple[Sampler, ...] = get_args(Sampler)
    for sampler in samplers:
        if sampler == value:
            return sampler
    raise ProblemError(422, f"sampler must be one of {', '.join(samplers)}, not {value!r:.40}")


def _edits(body: InferRequest) -> list[EditModel]:
    """Of the parameter `edits`: parameters are no lists, so it is a JSON text."""
    text = body.parameters.get("edits", "[]")
    try:
        return EDITS.validate_python(json.loads(text) if isinstance(text, str) else text)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ProblemError(422, 'edits must be a text such as [{"prototype": 3, "op": "max"}]') from error
