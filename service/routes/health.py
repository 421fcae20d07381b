"""GET /healthz, /readyz, /metrics, /version"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.engine.async_engine import AsyncEngine, EngineState
from service.problems import RETRY_AFTER_S
from service.routes.answering import Context

STALLED_AFTER_S = 10.0
"""A thread that has not come round for so long hangs in a step; a step takes well under a second."""


def health_router(context: Context, engine: AsyncEngine, version: dict[str, object]) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> Response:
        """Liveness: 503 when only a restart can help."""
        is_dead = engine.state is EngineState.DEAD
        return _status("the engine thread died" if is_dead else None, engine)

    @router.get("/readyz")
    async def readyz() -> Response:
        """Readiness: 503, with the reason, while requests cannot be served."""
        reason = None
        if engine.state is not EngineState.READY:
            reason = f"the engine is {engine.state}"
        elif engine.heartbeat_age_s > STALLED_AFTER_S:
            reason = f"the engine has been in one step for {engine.heartbeat_age_s:.0f} s"
        return _status(reason, engine)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(context.metrics.exposition(), headers={"Content-Type": context.metrics.content_type})

    @router.get("/version")
    async def version_() -> dict[str, object]:
        """The program, the bundle and its provenance."""
        return version

    return router


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
