"""One way for every endpoint to run its work: bounded in time, given up when the client leaves, counted."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.engine.async_engine import AsyncEngine
from service.engine.jobs import Priority
from service.metrics import Metrics
from service.middleware import CLIENT_CLOSED_REQUEST
from service.pipeline.errors import UnknownModelError
from service.pipeline.pipeline import Pipeline
from service.pipeline.request_context import begin_request
from service.problems import ProblemError, finished_reason, problem, problem_from, rejection, status_of
from service.routes.schemas import ModelInfo, Timings
from service.settings import Settings
from service.spans import span

log = logging.getLogger(__name__)

T = TypeVar("T")

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_REFUSED = re.compile(r"q=0(\.0{0,3})?")


@dataclass(frozen=True)
class Context:
    """What every route needs; made once in `service.app`. The first of the pipelines is the default."""

    settings: Settings
    engine: AsyncEngine
    pipelines: Sequence[Pipeline]
    metrics: Metrics

    def pipeline(self, request: Request, model: str | None) -> Pipeline:
        """The pipeline of the model of that name, to which the request is counted from now on.

        Raises UnknownModelError.
        """
        for pipeline in self.pipelines if model is not None else self.pipelines[:1]:
            if model in (None, pipeline.bundle.name):
                request.state.model_name = pipeline.bundle.name
                return pipeline.under_current_names()
        names = ", ".join(pipeline.bundle.name for pipeline in self.pipelines)
        raise UnknownModelError(f"there is no model {(model or '')[:100]!r}: this service has {names}")


async def answer(
    context: Context, request: Request, endpoint: str, work: Callable[[float], Awaitable[Response]]
) -> Response:
    """Run `work(deadline)` and turn whatever comes of it into a response.

    The time limit covers everything, so that even an engine that hangs ends in a 504. It is what
    X-Request-Timeout asks for, the setting at most; X-Request-Priority holds for all jobs of the request.
    """
    started = time.perf_counter()
    reason, why_rejected = "cancelled", ""
    try:
        limit_s = min(context.settings.request_timeout_s, _timeout_s(request))
        begin_request(_priority(request))
        async with asyncio.timeout(limit_s):
            response = await _unless_disconnected(request, work(context.engine.deadline_in(limit_s)))
        reason, why_rejected = finished_reason(response.status_code), rejection(response.status_code)
        return response
    except ClientDisconnect:
        reason = "disconnected"
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except HTTPException as error:
        reason, why_rejected = "rejected", rejection(error.status_code)
        raise
    except asyncio.CancelledError:  # only the server does that, to those that run when it goes
        return problem(503, "the service shut down before the request was done: send it again")
    except Exception as error:
        status = status_of(error)
        reason, why_rejected = finished_reason(status, error), rejection(status, error)
        if status == 500:
            log.exception("%s failed", endpoint)
        return problem_from(error)
    finally:
        request.state.finished_reason = reason  # for the access log
        seconds = time.perf_counter() - started
        model_name = getattr(request.state, "model_name", context.pipelines[0].bundle.name)
        context.metrics.request_finished(endpoint, model_name, reason, seconds)
        if reason == "rejected":
            context.metrics.request_rejected(endpoint, why_rejected)


def _timeout_s(request: Request) -> float:
    """What X-Request-Timeout asks for. Raises ProblemError unless it is a number of seconds above 0."""
    text = request.headers.get("x-request-timeout")
    if text is None:
        return math.inf
    if not _SECONDS.fullmatch(text) or float(text) == 0.0:
        raise ProblemError(
            400, f"X-Request-Timeout must be a number of seconds above 0, such as 2.5, not {text[:64]!r}"
        )
    return float(text)


def _priority(request: Request) -> Priority:
    """What X-Request-Priority asks for. Raises ProblemError for an unknown one."""
    text = request.headers.get("x-request-priority", Priority.NORMAL)
    try:
        return Priority(text)
    except ValueError:
        raise ProblemError(
            400, f"X-Request-Priority must be {', '.join(Priority)}, not {text[:64]!r}"
        ) from None


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; it is cancelled, and ClientDisconnect raised, when the client leaves first."""
    body_read = asyncio.Event()

    async def run() -> T:
        return await work

    async def leave() -> None:
        # `receive` may be called by one reader at a time: only once the body is complete is it ours.
        await body_read.wait()
        while (await request.receive())["type"] != "http.disconnect":
            pass

    request.state.body_read = body_read
    working: asyncio.Task[T] = asyncio.create_task(run())
    leaving = asyncio.create_task(leave())
    try:
        done, _ = await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()


async def drawn(draw: Callable[..., T], *arguments: Any) -> T:
    """What `draw` makes of pictures for an answer; off the event loop, which drawing would hold up."""
    with span("pixels out"):
        return await asyncio.to_thread(draw, *arguments)


def model_info(pipeline: Pipeline) -> ModelInfo:
    return ModelInfo(name=pipeline.bundle.name, digest=pipeline.bundle.digest)


def json_response(body: BaseModel) -> Response:
    return Response(body.model_dump_json(), media_type="application/json")


def png_response(data: bytes) -> Response:
    return Response(data, media_type="image/png")


def wants_png(request: Request) -> bool:
    """Whether the client asked for the picture itself."""
    return accepts(request, "image/png") and not (
        accepts(request, "application/json") or accepts(request, "text/event-stream")
    )


def accepts(request: Request, media_type: str) -> bool:
    """Whether the client names that type in its Accept header; wildcards do not."""
    for part in request.headers.get("accept", "").lower().split(","):
        named, *parameters = (piece.strip() for piece in part.split(";"))
        if named == media_type and not any(_REFUSED.fullmatch(parameter) for parameter in parameters):
            return True
    return False


def numbers(values: np.ndarray) -> list[Any]:
    """An array as nested lists, rounded to the 6 decimals that float32 activations have."""
    rounded: list[Any] = np.round(values.astype(np.float64), 6).tolist()
    return rounded


def timings(queue_s: float, inference_s: float, total_s: float) -> Timings:
    return Timings(queue_s=round(queue_s, 6), inference_s=round(inference_s, 6), total_s=round(total_s, 6))
