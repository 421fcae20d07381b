"""The composition root: everything is put together here, once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from model.bundle import Bundle
from model.hub import open_bundle
from service.budget import Budget
from service.cache.cache import Cache, Store
from service.cache.memory_store import MemoryStore
from service.cache.redis_store import RedisStore
from service.cpu_quota import cores_of_quota
from service.drain import Drain
from service.engine.async_engine import AsyncEngine
from service.engine.batch_limit import BatchLimits, batch_limit
from service.engine.engine_core import EngineCore
from service.engine.observer import EngineObserver
from service.engine.onnx_runner import OnnxRunner
from service.engine.runner import Runner
from service.metrics import Metrics
from service.middleware.access_log import AccessLog
from service.middleware.api_keys import ApiKeys
from service.middleware.body_limit import BodyLimit
from service.middleware.client_limits import ClientLimits
from service.middleware.drain_gate import DrainGate
from service.middleware.last_resort import LastResort
from service.middleware.protocol_errors import ProtocolErrors
from service.middleware.request_id import RequestId
from service.pipeline.pipeline import Pipeline
from service.pipeline.prototype_names import PrototypeNames
from service.problems import problem
from service.rate_limit import RateLimiter
from service.routes.answering import Context
from service.routes.diagnose import diagnose_router
from service.routes.encode import encode_router
from service.routes.extrapolate import extrapolate_router
from service.routes.generate import generate_router
from service.routes.health import health_router
from service.routes.inference import inference_router
from service.routes.interpolate import interpolate_router
from service.routes.locate import locate_router
from service.routes.models import models_router, served_models
from service.routes.openapi import describe
from service.routes.prototypes import prototypes_router
from service.routes.references import references_router
from service.routes.studio import studio_router
from service.routes.trace import trace_router
from service.routes.visualize import visualize_router
from service.settings import Settings, SettingsError, cache_directory
from service.version import program_version

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

    from service.tracing.tracing import Tracing

log = logging.getLogger(__name__)

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""Of FastAPI's own, which would send spans, and what clients sent, whatever PATRONUS_TRACING says."""

METHODS = ("GET", "HEAD", "POST", "PUT")
"""That any route has."""

RunnerFactory = Callable[[Bundle, Settings], Runner]
TracingFactory = Callable[[Settings], "Tracing | None"]


def open_runner(bundle: Bundle, settings: Settings) -> Runner:
    """The runner that the settings ask for. Raises BundleError, DeviceError or SettingsError."""
    if settings.backend == "torch":
        try:
            from service.engine.torch_runner import TorchRunner  # nothing else in the service needs torch
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"PATRONUS_BACKEND is torch, but the module {error.name} is not installed: "
                "install torch 2.11 or newer, or set PATRONUS_BACKEND to onnx"
            ) from error
        return TorchRunner(
            bundle, device=settings.device, precision=settings.precision, max_batch=settings.max_batch
        )
    return OnnxRunner(
        bundle, device=settings.device, max_batch=settings.max_batch, num_threads=settings.num_threads
    )


def load_bundles(settings: Settings) -> list[Bundle]:
    """The bundles of the settings, in order; a hub's are fetched. Raises BundleError or SettingsError."""
    bundles = [open_bundle(address) for address in settings.bundle]
    names = [bundle.name for bundle in bundles]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"PATRONUS_BUNDLE must name different models, not two of the name {name!r}")
    return bundles


def open_store(settings: Settings) -> Store:
    if settings.cache_url.startswith("memory://"):
        return MemoryStore(max_bytes=settings.cache_bytes)
    try:
        return RedisStore(
            settings.cache_url, ttl_s=settings.cache_ttl_s, timeout_s=settings.cache_timeout_ms / 1000
        )
    except ValueError as error:  # the URL itself is not repeated: it may hold a password
        raise SettingsError(f"PATRONUS_CACHE_URL is not a usable Redis URL: {error}") from error


def open_tracing(settings: Settings) -> Tracing | None:
    """What makes spans and sends them to where the settings say; None where tracing is off.

    Raises SettingsError.
    """
    if settings.tracing == "off":
        return None
    try:
        from service.tracing.tracing import Tracing  # nothing else in the service needs OpenTelemetry
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"PATRONUS_TRACING is {settings.tracing}, but the module {error.name} is not installed: "
            "install the extra named tracing (patronus-server[tracing]), or set PATRONUS_TRACING to off"
        ) from error
    try:
        return Tracing.exporting_to(settings.tracing, program_version())
    except ValueError as error:
        raise SettingsError(
            f"PATRONUS_TRACING is {settings.tracing}, but an OTEL_* variable has no value for it: {error}"
        ) from error


def create_app(
    settings: Settings,
    make_runner: RunnerFactory = open_runner,
    make_tracing: TracingFactory = open_tracing,
    allowed_cores: Callable[[], int] = cores_of_quota,
) -> FastAPI:
    """The application over the bundles that the settings name; `state.drain` ends its taking requests.

    `state.engine` is for whoever watches over the process from inside. allowed_cores: what `num_threads` is
    where the settings leave it at 0.

    Raises BundleError, DeviceError or SettingsError.
    """
    if not settings.num_threads:
        settings = replace(settings, num_threads=allowed_cores())
    tracing = make_tracing(settings)
    bundles = load_bundles(settings)
    metrics = Metrics()
    runners = [make_runner(bundle, settings) for bundle in bundles]
    cores = [
        _core(runner, bundle, settings, metrics.engine_observer(), tracing)
        for bundle, runner in zip(bundles, runners, strict=True)
    ]
    engine = AsyncEngine(
        *cores,
        max_queue=settings.max_queue,
        drain_timeout_s=settings.drain_timeout_s,
        step_timeout_s=settings.step_timeout_s,
    )
    store = open_store(settings)
    if isinstance(store, RedisStore):
        metrics.watch_cache_circuit(lambda: store.is_left_alone)
    cache = Cache if tracing is None else tracing.cache
    pipelines = [
        Pipeline(
            bundle,
            engine,
            cache(store, namespace=bundle.digest, observer=metrics),
            core,
            PrototypeNames(bundle, settings.state_dir / "names" / f"{bundle.digest}.json"),
        )
        for bundle, core in zip(bundles, cores, strict=True)
    ]
    context = Context(settings, engine, pipelines, metrics)
    metrics.watch_engine_state(lambda: engine.state)
    for bundle, runner in zip(bundles, runners, strict=True):
        metrics.build(
            version=program_version(),
            model_name=bundle.name,
            bundle_digest=bundle.digest,
            backend=runner.backend,
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = BatchLimits(cache_directory() / "batch_limits.json")
        for bundle, runner, core in zip(bundles, runners, cores, strict=True):
            runner.warm_up()
            if settings.tune_batch == "auto":
                core.limit_batch(batch_limit(runner, bundle.digest, limits, num_threads=settings.num_threads))
        async with tracing or nullcontext(), engine:
            for bundle, runner in zip(bundles, runners, strict=True):
                log.info(
                    "serving %s (%s) from %s with %s",
                    bundle.name,
                    bundle.digest[:12],
                    bundle.source or bundle.directory,
                    runner.backend,
                )
            yield
        await store.close()

    app = FastAPI(
        title="Patronus Server",
        version=program_version(),
        description="Encode, generate, edit and explain images with learned visual prototypes.",
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,  # a version of FastAPI that has none takes no notice
    )
    app.state.drain = drain = Drain()
    app.state.engine = engine
    _add_middleware(app, settings, metrics, drain, tracing)
    app.add_exception_handler(HTTPException, _http_problem)
    app.include_router(encode_router(context))
    app.include_router(generate_router(context))
    app.include_router(trace_router(context))
    app.include_router(extrapolate_router(context))
    app.include_router(interpolate_router(context))
    app.include_router(visualize_router(context))
    app.include_router(locate_router(context))
    app.include_router(diagnose_router(context))
    app.include_router(prototypes_router(context))
    app.include_router(references_router(context))
    app.include_router(models_router(context))
    app.include_router(health_router(context, drain, _version(context, runners[0].backend)))
    app.include_router(inference_router(context, drain, program_version()))
    app.include_router(studio_router())
    describe(app, needs_key=bool(settings.api_keys))
    return app


def _core(
    runner: Runner, bundle: Bundle, settings: Settings, observer: EngineObserver, tracing: Tracing | None
) -> EngineCore:
    if tracing is None:
        return EngineCore(runner, max_queue=settings.max_queue, observer=observer)
    spans = tracing.engine_spans(observer, bundle.name)
    return EngineCore(runner, max_queue=settings.max_queue, observer=spans, recorder=spans)


def _add_middleware(
    app: FastAPI, settings: Settings, metrics: Metrics, drain: Drain, tracing: Tracing | None
) -> None:
    """From the inside out: each wraps those above it."""
    limiter = None if settings.rate is None else RateLimiter(settings.rate)
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_body_bytes, max_total_bytes=settings.max_bodies_bytes
    )
    budget = Budget(max_row_steps=settings.max_row_steps_per_key)
    app.add_middleware(ClientLimits, limiter=limiter, budget=budget, refused=metrics.request_refused)
    app.add_middleware(ApiKeys, keys=settings.api_keys, refused=metrics.request_refused)
    app.add_middleware(DrainGate, drain=drain, refused=metrics.request_refused)
    app.add_middleware(LastResort)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=METHODS,
            allow_headers=(
                "Authorization",
                "X-API-Key",
                "X-Request-ID",
                "X-Request-Timeout",
                "X-Request-Priority",
            ),
            expose_headers=("X-Request-ID", "Retry-After"),
        )
    app.add_middleware(ProtocolErrors)
    app.add_middleware(AccessLog)
    if tracing is not None:
        from service.tracing.server_spans import ServerSpans

        app.add_middleware(ServerSpans, tracer=tracing.tracer)
    app.add_middleware(RequestId)


def _version(context: Context, backend: str) -> dict[str, object]:
    models = [model.model_dump() for model in served_models(context)]
    return {"version": program_version(), "backend": backend, "model": models[0], "models": models}


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route that has this address, and it may have several.
        response.headers["Allow"] = ", ".join(method for method in METHODS if _has_route(request, method))
    return response


def _has_route(request: Request, method: str) -> bool:
    """Whether the address of a request could have been asked for by that method."""
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
