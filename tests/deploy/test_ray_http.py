"""What deploy/ray puts around Ray's proxy and into each replica, without a cluster."""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from collections.abc import Mapping

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.ray.http_contract import middlewares
from deploy.ray.leaving_clients import LeavingClients
from deploy.ray.scrape_port import OpenPaths, ScrapePortError, scrape_port

with warnings.catch_warnings():  # Ray's own: it uses what pydantic will drop
    warnings.simplefilter("ignore")
    from deploy.ray.scrape_targets import FORGET_AFTER_S, ScrapeTargets


def around(app: ASGIApp) -> ASGIApp:
    """As Ray's proxy applies its callback."""
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


def ask(app: ASGIApp, path: str = "/generate", headers: Mapping[str, str] | None = None) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, headers=headers)

    return asyncio.run(scenario())


def answering(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, is_complete: bool = True
) -> ASGIApp:
    """Adds X-Request-ID twice, as application and proxy do."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = Request(scope).headers["x-request-id"].encode()
        sent = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
        sent += [(b"x-request-id", name), (b"x-request-id", name)]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": body, "more_body": not is_complete})

    return app


TEXT = {"content-type": "text/plain; charset=utf-8"}


@pytest.mark.parametrize(("sent", "is_kept"), [("mine", True), ("two words", False), ("x" * 129, False)])
def test_one_request_id_is_answered_and_an_unfit_one_replaced(sent: str, is_kept: bool) -> None:
    response = ask(around(answering(200)), headers={"X-Request-ID": sent})
    [name] = response.headers.get_list("x-request-id")
    assert (name == sent) is is_kept
    assert name


@pytest.mark.parametrize(("status", "expected"), [(503, 503), (429, 429), (408, 504), (404, 503)])
def test_plain_text_of_the_proxy_becomes_problem_details(status: int, expected: int) -> None:
    response = ask(around(answering(status, b"dropped, said Ray", TEXT)))
    assert response.status_code == response.json()["status"] == expected
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "dropped, said Ray"
    assert response.headers.get("retry-after") == (None if expected == 504 else "1")
    assert len(response.headers.get_list("x-request-id")) == 1


def test_retry_after_of_the_proxy_is_kept() -> None:
    response = ask(around(answering(503, b"full", {**TEXT, "retry-after": "7"})))
    assert response.headers.get_list("retry-after") == ["7"]


def test_answers_of_the_application_are_not_touched() -> None:
    problem = {"content-type": "application/problem+json"}
    response = ask(around(answering(404, b'{"detail": "no such prototype"}', problem)))
    assert (response.status_code, response.json()) == (404, {"detail": "no such prototype"})
    assert ask(around(answering(200, b"text", TEXT))).text == "text"


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """As Ray's proxy where the replica died."""


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("of the proxy's own")


@pytest.mark.parametrize("app", [silent, failing])
def test_request_of_a_dead_replica_may_be_sent_again(app: ASGIApp) -> None:
    response = ask(around(app))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "send it again" in response.json()["detail"]
    assert ask(around(app), "/v2/models/none/infer").json() == {"error": response.json()["detail"]}


def test_stream_of_a_dead_replica_ends_in_an_error_event() -> None:
    events = {"content-type": "text/event-stream; charset=utf-8"}
    response = ask(around(answering(200, b"event: progress\ndata: {}\n\n", events, is_complete=False)))
    begun, error, rest = response.text.split("\n\n")
    assert begun == "event: progress\ndata: {}"
    assert error.startswith('event: error\ndata: {"type": "about:blank"')
    assert '"status": 503' in error
    assert rest == ""


def test_metrics_of_some_replica_are_nobodys() -> None:
    assert ask(around(answering(200, b"patronus_x 1", TEXT)), "/metrics").status_code == 404


def test_paths_of_the_proxy_itself_are_left_alone() -> None:
    async def health(scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": b"draining"})

    assert ask(around(health), "/-/healthz").text == "draining"


def test_clients_cannot_ask_ray_to_go_on_without_them() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(Request(scope).headers)

    hints = {
        "X-Request-Disconnect-Disabled": "?1",
        "X-Request-Timeout-Seconds": "9",
        "X-Request-Timeout": "2",
    }
    ask(around(app), headers=hints)
    assert "x-request-timeout" in seen
    assert "x-request-disconnect-disabled" not in seen
    assert "x-request-timeout-seconds" not in seen


def test_cancelled_request_is_told_as_one_whose_client_left() -> None:
    ended: list[str] = []
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        try:
            assert (await receive())["type"] == "http.disconnect"
            ended.append("left")
            await asyncio.sleep(0)
            raise ClientDisconnect
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def nothing_comes() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def nobody_hears(message: Message) -> None:
        raise AssertionError

    async def scenario() -> None:
        asking = asyncio.ensure_future(LeavingClients(app)({"type": "http"}, nothing_comes, nobody_hears))
        await began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scenario())
    assert ended == ["left"]


def test_body_of_a_client_that_stays_is_read_whole() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def scenario() -> bytes:
        transport = httpx.ASGITransport(LeavingClients(echo))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/", content=b"abc" * 1000)).content

    assert asyncio.run(scenario()) == b"abc" * 1000


def test_scrape_port_takes_the_next_free_port_and_opens_nothing_else() -> None:
    async def scenario() -> tuple[int, int, str]:
        app = answering(200, b"patronus_x 1", TEXT)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ScrapePortError):
                async with scrape_port(OpenPaths(app), "127.0.0.1", [port]):
                    pass
            async with (
                scrape_port(app, "127.0.0.1", [port, 0]) as address,
                httpx.AsyncClient(base_url=f"http://{address}", headers={"X-Request-ID": "me"}) as client,
            ):
                refused = await client.post("/generate")
                return port, refused.status_code, (await client.get("/metrics")).text

    port, status, text = asyncio.run(scenario())
    assert port
    assert (status, text) == (404, "patronus_x 1")


def test_scrapes_are_not_logged_and_the_loggers_of_the_process_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("uvicorn.access")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        async with (
            scrape_port(answering(200, b"patronus_x 1", TEXT), "127.0.0.1", [0]) as address,
            httpx.AsyncClient(base_url=f"http://{address}", headers={"X-Request-ID": "me"}) as client,
        ):
            assert (await client.get("/metrics")).status_code == 200

    asyncio.run(scenario())
    assert logger.propagate
    assert [record for record in caplog.records if record.name == "uvicorn.access"] == []


def test_targets_are_forgotten_when_nothing_is_heard_of_them() -> None:
    now = 0.0
    known = ScrapeTargets(clock=lambda: now)
    known.keep("a", "10.0.0.1:9464")
    known.keep("b", "10.0.0.2:9464")
    now = FORGET_AFTER_S
    known.keep("b", "10.0.0.2:9464")
    known.keep("c", "10.0.0.1:9464")  # started where `a` had died
    assert [target["labels"]["__meta_patronus_replica"] for target in known.targets()] == ["c", "b"]
    assert [target["targets"] for target in known.targets()] == [["10.0.0.1:9464"], ["10.0.0.2:9464"]]
    known.forget("b")
    now += FORGET_AFTER_S + 1
    assert known.targets() == []
