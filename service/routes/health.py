"""GET /healthz, /readyz, /metrics, /version

Health answers HEAD too, as some load balancers ask.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.drain import Drain
from service.engine.async_engine import AsyncEngine, EngineState
from service.problems import RETRY_AFTER_S
from service.routes.answering import Context


def health_router(context: Context, drain: Drain, version: dict[str, object]) -> APIRouter:
    router = APIRouter(tags=["operation"])
    engine = context.engine

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> Response:
        """Liveness: 503 when only a restart can help."""
        return _status(death(engine), engine)

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz")
    async def readyz() -> Response:
        """Readiness: 503, with the reason, while requests cannot be served."""
        return _status(unreadiness(engine, drain), engine)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(context.metrics.exposition(), headers={"Content-Type": context.metrics.content_type})

    @router.get("/version")
    async def version_() -> dict[str, object]:
        """The program, the bundles and their provenance."""
        return version

    return router


def death(engine: AsyncEngine) -> str | None:
    """Why only a restart can help; None where it is not needed."""
    if engine.state is EngineState.DEAD:
        return "the engine thread died"
    return engine.hang if engine.hangs_for_good else engine.failure


def unreadiness(engine: AsyncEngine, drain: Drain) -> str | None:
    """Why requests cannot be served now; None where they can."""
    reason = "the service is shutting down" if drain.has_started else engine.hang or engine.failure
    if reason is None and engine.state is not EngineState.READY:
        return f"the engine is {engine.state}"
    return reason


def _status(reason: str | None, engine: AsyncEngine) -> Response:
    body = {
        "status": "ok" if reason is None else "unavailable",
        "reason": reason,
        "engine": engine.state.value,
        "heartbeat_age_s": round(engine.heartbeat_age_s, 3),
    }
    if reason is None:
        return JSONResponse(body)
    return JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER_S)})
