"""When the client tries again, and when it gives up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from service.client import (
    AnswerError,
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    Client,
    DeadlineError,
    NotFoundError,
    OverloadedError,
    PatronusError,
    Progress,
    Retries,
    ServerError,
    TimedOutError,
    UnreachableError,
    calls,
)
from service.client.errors import error_from
from service.client.retrying import Attempts

AT_ONCE = Retries(max_retries=3, first_wait_s=0.0)
HEALTHY = {"status": "ok", "reason": None, "engine": "ready", "heartbeat_age_s": 0.1}
MODELS: dict[str, list[object]] = {"models": []}
Failure = Callable[[], httpx.Response | Exception]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def largest(low: float, high: float) -> float:
    return high


def problem(status: int, detail: str = "", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "t", "status": status, "detail": detail}
    return httpx.Response(status, headers=headers, content=json.dumps(body))


class Script:
    """Answers one after the other, and the requests that they were given to."""

    def __init__(self, *steps: httpx.Response | Exception) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


Ask = Callable[[Script, Retries], object]


def models_of_client(script: Script, retries: Retries) -> object:
    with Client("http://service", transport=httpx.MockTransport(script), retries=retries) as client:
        return client.models()


def models_of_async_client(script: Script, retries: Retries) -> object:
    async def ask() -> object:
        transport = httpx.MockTransport(script)
        async with AsyncClient("http://service", transport=transport, retries=retries) as client:
            return await client.models()

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [models_of_client, models_of_async_client], ids=["sync", "async"])


@both
@pytest.mark.parametrize(
    "failure",
    [
        lambda: problem(429, **{"Retry-After": "0"}),
        lambda: problem(503),
        lambda: httpx.ConnectError("refused"),
        lambda: httpx.ReadError("reset"),
        lambda: httpx.RemoteProtocolError("ended early"),
    ],
    ids=["429", "503", "connect", "read", "protocol"],
)
def test_what_may_pass_is_tried_again(ask: Ask, failure: Failure) -> None:
    script = Script(failure(), failure(), httpx.Response(200, json=MODELS))
    ask(script, AT_ONCE)
    assert len(script.requests) == 3


@both
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (404, NotFoundError),
        (413, BadRequestError),
        (422, BadRequestError),
        (500, ServerError),
        (502, ServerError),
        (504, TimedOutError),
    ],
)
def test_what_would_fail_again_is_raised_at_once(ask: Ask, status: int, kind: type[PatronusError]) -> None:
    script = Script(problem(status, "because", **{"X-Request-ID": "r1"}))
    with pytest.raises(kind, match="because") as caught:
        ask(script, AT_ONCE)
    assert len(script.requests) == 1
    assert vars(caught.value)["status"] == status
    assert vars(caught.value)["request_id"] == "r1"


@both
def test_attempts_are_bounded_and_the_last_error_is_raised(ask: Ask) -> None:
    script = Script(*[problem(503, f"try {i}") for i in range(9)])
    with pytest.raises(OverloadedError, match="try 3"):
        ask(script, AT_ONCE)
    assert len(script.requests) == 4


@both
def test_an_answer_that_is_not_ours_says_so(ask: Ask) -> None:
    for body in ("<html>", "[]", '{"models": 3}', '{"models": [{"name": 1}]}'):
        with pytest.raises(AnswerError, match="/models"):
            ask(Script(httpx.Response(200, content=body)), AT_ONCE)


def test_a_503_that_is_no_problem_is_an_answer_of_health() -> None:
    unwell = {**HEALTHY, "status": "unavailable", "reason": "the engine thread died"}
    script = Script(httpx.Response(503, json=unwell), problem(503), httpx.Response(200, json=HEALTHY))
    with Client("http://service", transport=httpx.MockTransport(script), retries=AT_ONCE) as client:
        assert client.health().reason == "the engine thread died"
        with pytest.raises(AnswerError):  # somebody else's 503
            client.health()
        assert client.health().is_ok


def test_each_attempt_tells_the_service_what_is_left_of_the_time() -> None:
    script = Script(problem(503), httpx.Response(200, json=MODELS))
    with Client("http://service", transport=httpx.MockTransport(script), timeout_s=5) as client:
        client.send(calls.Call("GET", "/models", dict, timeout_s=3))
    first, second = (float(request.headers["x-request-timeout"]) for request in script.requests)
    assert 0 < second < first <= 3


def test_a_call_that_is_not_idempotent_is_not_sent_twice_by_chance() -> None:
    call = calls.Call("POST", "/models", dict, is_idempotent=False)
    script = Script(httpx.ReadError("reset"))
    with (
        Client("http://service", transport=httpx.MockTransport(script), retries=AT_ONCE) as client,
        pytest.raises(UnreachableError, match="reset"),
    ):
        client.send(call)
    assert len(script.requests) == 1


def test_a_prototype_is_renamed_again_by_its_index_alone() -> None:
    assert calls.rename(5, "sleeve").is_idempotent
    assert not calls.rename("cuff", "sleeve").is_idempotent


@both
def test_a_service_that_has_moved_says_where_to(ask: Ask) -> None:
    moved = httpx.Response(308, headers={"location": "https://service/models"})
    with pytest.raises(AnswerError, match="/models redirects to https://service/models"):
        ask(Script(moved), AT_ONCE)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "localhost:8000", "ftp://host", "http://", "http://[::1", ""]
)
def test_an_address_that_none_can_be_is_refused_at_once(kind: type[Client | AsyncClient], url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        kind(url)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["secret-key\n", " secret-key", "secret\x00key", "secret-kéy"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(
    kind: type[Client | AsyncClient], key: str
) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        kind("http://service", api_key=key)
    assert "secret" not in str(caught.value)


def events(*lines: str) -> httpx.Response:
    return httpx.Response(
        200, headers={"content-type": "text/event-stream; charset=utf-8"}, content="".join(lines)
    )


PROGRESS = 'event: progress\ndata: {"stage": "generate", "image": 0, "step": 1, "steps": 2}\n\n'


def streamed_by_client(script: Script) -> list[object]:
    with Client("http://service", transport=httpx.MockTransport(script), retries=AT_ONCE) as client:
        return [event for event in client.stream(calls.models())]


def streamed_by_async_client(script: Script) -> list[object]:
    async def read() -> list[object]:
        transport = httpx.MockTransport(script)
        async with AsyncClient("http://service", transport=transport, retries=AT_ONCE) as client:
            return [event async for event in client.stream(calls.models())]

    return asyncio.run(read())


both_streams = pytest.mark.parametrize(
    "stream", [streamed_by_client, streamed_by_async_client], ids=["sync", "async"]
)
Stream = Callable[[Script], list[object]]


@both_streams
def test_a_stream_is_tried_again_until_it_has_begun(stream: Stream) -> None:
    result = f"event: result\ndata: {json.dumps(MODELS)}\n\n"
    script = Script(problem(503), httpx.ConnectError("refused"), events(": waiting\n\n", PROGRESS, result))
    progress, found = stream(script)
    assert progress == Progress("generate", 0, 1, 2)
    assert found == calls.models().read(json.dumps(MODELS).encode())


@both_streams
def test_a_stream_that_breaks_off_is_not_begun_anew(stream: Stream) -> None:
    script = Script(events(PROGRESS), events(PROGRESS))
    with pytest.raises(UnreachableError, match="before the result"):
        stream(script)
    assert len(script.requests) == 1


@both_streams
def test_an_error_event_is_raised_as_what_it_says(stream: Stream) -> None:
    body = json.dumps({"title": "Gateway Timeout", "status": 504, "detail": "too slow"})
    with pytest.raises(TimedOutError, match="too slow"):
        stream(Script(events(PROGRESS, f"event: error\ndata: {body}\n\n")))


def test_waits_grow_and_add_what_the_service_asks_for() -> None:
    attempts = Attempts(Retries(first_wait_s=0.5, longest_wait_s=1.5), 60, clock=Clock(), draw=largest)
    patient = error_from(503, {"retry-after": "2"}, b"")
    assert [attempts.wait_after(patient) for _ in range(4)] == [2.5, 3.0, 3.5, 3.5]
    with pytest.raises(OverloadedError):
        attempts.wait_after(patient)


def test_nobody_waits_beyond_the_deadline() -> None:
    clock = Clock()
    attempts = Attempts(Retries(first_wait_s=0.0), 10, clock=clock, draw=largest)
    with pytest.raises(OverloadedError):
        attempts.wait_after(error_from(429, {"retry-after": "10"}, b""))
    clock.now += 4
    assert attempts.seconds_left() == 6.0
    clock.now += 6
    with pytest.raises(DeadlineError, match="10 s"):
        attempts.seconds_left()


@pytest.mark.parametrize(
    ("header", "expected"), [("3", 3.0), ("-1", 0.0), ("soon", None), ("nan", None), ("inf", None)]
)
def test_retry_after_is_seconds(header: str, expected: float | None) -> None:
    assert error_from(429, {"retry-after": header}, b"").retry_after_s == expected


def test_retry_after_may_be_a_date() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    seconds = error_from(429, {"retry-after": later}, b"").retry_after_s
    assert seconds is not None
    assert 3000 < seconds <= 3600


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_timeout_is_above_zero(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        Attempts(Retries(), timeout_s)
