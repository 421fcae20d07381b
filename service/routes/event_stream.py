"""Answers that tell how far they are: server-sent events (WHATWG HTML Living Standard, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.transforms import from_x_0
from service import spans
from service.images import encode_png, to_base64
from service.middleware import CLIENT_CLOSED_REQUEST
from service.pipeline.progress import Progress, ProgressFeed, Stage
from service.problems import ProblemError
from service.routes.answering import Context, accepts, answer
from service.routes.schemas import ProgressEvent

MEDIA_TYPE = "text/event-stream"
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # or nginx keeps the events until the answer is complete
)
KEEP_ALIVE_S = 10.0
"""After so long without news a comment is sent, so that nobody in between takes the connection for dead."""


@dataclass(eq=False)
class Follower:
    """A client that follows its request: what is told, and after how many steps it wants a picture."""

    feed: ProgressFeed = field(default_factory=ProgressFeed)
    preview_every: int = 0
    _pictured: dict[tuple[Stage, int | None, int], int] = field(default_factory=dict)

    def events(self, news: Sequence[Progress]) -> list[ProgressEvent]:
        """`progress` events; pictures are made here, so it is not for the event loop if there are any."""
        return [
            ProgressEvent(
                stage=progress.stage.value,
                image=progress.image,
                step=progress.step,
                steps=progress.steps,
                prototype=progress.prototype,
                preview=self._preview(progress),
            )
            for progress in news
        ]

    def _preview(self, progress: Progress) -> str | None:
        if not self.preview_every or progress.x_0_hat is None or progress.stage is Stage.INVERT:
            return None
        key = (progress.stage, progress.prototype, progress.image)
        before = self._pictured.get(key, 0)
        if before >= progress.step:  # a stage that began anew
            before = 0
        if progress.step - before < self.preview_every and progress.step < progress.steps:
            return None
        self._pictured[key] = progress.step
        spans.event("preview", stage=progress.stage.value, image=progress.image, step=progress.step)
        return to_base64(encode_png(from_x_0(progress.x_0_hat)))


FollowedWork = Callable[[float, Follower | None], Awaitable[Response]]


async def answer_or_stream(context: Context, request: Request, endpoint: str, work: FollowedWork) -> Response:
    """Run `work(deadline, follower)`, and stream how far it is where the client accepts that."""
    if accepts(request, MEDIA_TYPE):
        return EventStream(context, request, endpoint, work)
    return await answer(context, request, endpoint, lambda deadline: work(deadline, None))


def feed_of(follower: Follower | None, preview_every: int) -> ProgressFeed | None:
    """The feed of a streamed request, whose pictures come as often as asked. Raises ProblemError."""
    if follower is not None:
        follower.preview_every = preview_every
        follower.feed.keeps_x_0_hat = preview_every > 0
        return follower.feed
    if preview_every:
        raise ProblemError(422, f"preview_every is for streamed answers: send Accept: {MEDIA_TYPE}")
    return None


class EventStream(Response):
    """`progress` events while `work` goes on, then its response as one `result` or `error` event.

    Until the first event there may still be any other response: what is refused at once, is so with its
    HTTP status.
    """

    def __init__(
        self,
        context: Context,
        request: Request,
        endpoint: str,
        work: FollowedWork,
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._keep_alive_s = keep_alive_s
        self._context = context
        self._request = request
        self._endpoint = endpoint
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = _EventWriter(send)
        outcome = await answer(
            self._context, self._request, self._endpoint, lambda deadline: self._follow(deadline, writer)
        )
        if outcome.status_code == CLIENT_CLOSED_REQUEST:
            return
        is_error = outcome.status_code >= 400
        if is_error and not writer.is_started:
            await outcome(scope, receive, send)
            return
        if is_error:
            title = HTTPStatus(outcome.status_code).phrase
            spans.event("problem", status=outcome.status_code, title=title)
        await writer.write_event("error" if is_error else "result", bytes(outcome.body))
        await writer.end()

    async def _follow(self, deadline: float, writer: _EventWriter) -> Response:
        follower = Follower()
        working = asyncio.ensure_future(self._work(deadline, follower))
        working.add_done_callback(lambda _: follower.feed.close())
        try:
            while not follower.feed.is_over:
                news = await follower.feed.take(self._keep_alive_s)
                if news:
                    await writer.write_progress(await _events(follower, news))
                elif not working.done() and self._request.state.body_read.is_set():
                    await writer.write_comment("waiting")
            return await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


class _EventWriter:
    """Sends events over ASGI; the response starts with the first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def write_progress(self, events: Sequence[ProgressEvent]) -> None:
        bodies = (event.model_dump_json(exclude_none=True).encode() for event in events)
        await self._write(b"".join(_event("progress", body) for body in bodies))

    async def write_event(self, name: str, json: bytes) -> None:
        await self._write(_event(name, json))

    async def write_comment(self, text: str) -> None:
        await self._write(f": {text}\n\n".encode())

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, data: bytes) -> None:
        if not self.is_started:
            self.is_started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


async def _events(follower: Follower, news: Sequence[Progress]) -> list[ProgressEvent]:
    if follower.preview_every:
        return await asyncio.to_thread(follower.events, news)
    return follower.events(news)


def _event(name: str, json: bytes) -> bytes:
    """One event; JSON as written here has no line breaks, which would end its `data`."""
    return b"event: " + name.encode() + b"\ndata: " + json + b"\n\n"
