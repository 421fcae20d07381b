"""What holds for every request: keys, limits, origins, ids, the access log."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping

import httpx
import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.budget import Budget
from service.logs import JsonFormatter, request_id
from service.middleware.access_log import AccessLog
from service.middleware.api_keys import ApiKeys, address_of, fingerprint
from service.middleware.client_limits import ClientLimits
from service.middleware.last_resort import LastResort
from service.middleware.request_id import RequestId
from service.rate_limit import Rate, RateLimiter

KEYS = ("first-key-123", "second-key-456")
PATHS = ("/healthz", "/readyz", "/metrics")


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and answers with 5 bytes."""
    await Request(scope, receive).body()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hel", "more_body": True})
    await send({"type": "http.response.body", "body": b"lo"})


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret of the house")


def ask(
    app: ASGIApp,
    path: str = "/encode",
    *,
    address: str = "10.0.0.1",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1234))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sent = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
            return await client.post(path, headers=sent, content=body)

    return asyncio.run(scenario())


def limited(rate: str = "1/h", keys: tuple[str, ...] = (), *, app: ASGIApp = hello) -> ASGIApp:
    limiter = RateLimiter(Rate.parse(rate)) if rate else None
    return ApiKeys(ClientLimits(app, limiter=limiter, budget=Budget(max_row_steps=0)), keys=keys)


@pytest.fixture
def access_lines() -> Iterator[list[dict[str, object]]]:
    """What the access log has written, oldest first; filled when read."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger("service.access")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)

    class Lines(list[dict[str, object]]):
        def __iter__(self) -> Iterator[dict[str, object]]:
            return (json.loads(line) for line in stream.getvalue().splitlines())

    yield Lines()
    log.removeHandler(handler)
    log.setLevel(level)


def test_client_over_its_rate_is_told_when_to_come_again() -> None:
    app = limited("2/h")
    assert [ask(app).status_code for _ in range(2)] == [200, 200]
    refused = ask(app)
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["retry-after"]) <= 1800
    assert "over the 2 requests/h" in refused.json()["detail"]


def test_without_keys_each_address_has_a_rate_of_its_own() -> None:
    app = limited()
    assert ask(app, address="10.0.0.1").status_code == 200
    assert ask(app, address="10.0.0.1").status_code == 429
    assert ask(app, address="10.0.0.2").status_code == 200


def test_invented_keys_do_not_multiply_an_addresss_rate_where_no_keys_are_set() -> None:
    app = limited()
    assert ask(app, headers={"X-API-Key": "invented-1"}).status_code == 200
    assert ask(app, headers={"X-API-Key": "invented-2"}).status_code == 429


def test_with_keys_each_key_has_a_rate_of_its_own_wherever_it_comes_from() -> None:
    app = limited(keys=KEYS)
    assert ask(app, headers={"X-API-Key": KEYS[0]}, address="10.0.0.1").status_code == 200
    assert ask(app, headers={"X-API-Key": KEYS[0]}, address="10.0.0.2").status_code == 429
    assert ask(app, headers={"Authorization": f"Bearer {KEYS[0]}"}).status_code == 429
    assert ask(app, headers={"X-API-Key": KEYS[1]}, address="10.0.0.1").status_code == 200


def test_wrong_key_is_refused_before_it_counts_for_anybody() -> None:
    app = limited(keys=KEYS)
    assert [ask(app, headers={"X-API-Key": "wrong"}).status_code for _ in range(3)] == [401, 401, 401]
    assert ask(app, headers={"X-API-Key": KEYS[0]}).status_code == 200


@pytest.mark.parametrize("key", ["", "first-key-12", "first-key-1234", "FIRST-KEY-123", " "])
def test_key_that_only_resembles_one_is_refused(key: str) -> None:
    assert ask(limited(keys=KEYS), headers={"X-API-Key": key}).status_code == 401
    assert ask(limited(keys=KEYS), headers={"Authorization": f"Bearer {key}"}).status_code == 401
    assert ask(limited(keys=KEYS), headers={"Authorization": f"Basic {KEYS[0]}"}).status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_health_readiness_and_metrics_have_neither_key_nor_rate(path: str) -> None:
    app = limited(keys=KEYS)
    assert [ask(app, path).status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("10.0.0.7", 1), "address:10.0.0.7"),
        (("2001:db8:1:2:aaaa::1", 1), "address:2001:db8:1:2::/64"),
        (("2001:db8:1:2:bbbb::2", 1), "address:2001:db8:1:2::/64"),
        (("::ffff:10.0.0.7", 1), "address:10.0.0.7"),
        (None, "address:unknown"),
        (("/run/socket", 1), "address:/run/socket"),
    ],
)
def test_client_is_its_address_or_its_ipv6_network(client: tuple[str, int] | None, name: str) -> None:
    assert address_of({"type": "http", "client": client}) == name


def test_row_steps_are_given_back_once_the_whole_answer_is_sent() -> None:
    budget = Budget(max_row_steps=100)
    holders: list[int] = []

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        Request(scope).state.row_steps.take(100)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        holders.append(len(budget))
        await send({"type": "http.response.body", "body": b" more"})

    app = ApiKeys(ClientLimits(streaming, limiter=None, budget=budget), keys=())
    assert [ask(app).text for _ in range(2)] == ["some more", "some more"]
    assert holders == [1, 1]
    assert len(budget) == 0


def test_exception_becomes_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(RequestId(LastResort(broken)), headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "abc-1"
    assert "secret" not in answer.text
    assert "secret of the house" in caplog.text  # the log has the trace


@pytest.mark.parametrize("sent", [b"", b"with space", b"x" * 129, b"\xfc"])
def test_request_id_that_cannot_be_kept_is_replaced(sent: bytes) -> None:
    answer = ask(RequestId(hello), headers={"X-Request-ID": sent.decode("latin-1")})
    assert answer.headers["x-request-id"] != sent.decode("latin-1")
    assert len(answer.headers["x-request-id"]) == 32


def test_every_request_is_one_line_with_its_id_client_and_size(
    access_lines: list[dict[str, object]],
) -> None:
    app = RequestId(AccessLog(limited("", KEYS)))
    headers = {"X-Request-ID": "abc-1", "X-API-Key": KEYS[1]}
    ask(app, "/encode?token=hidden", headers=headers, body=b"12345678")
    (line,) = access_lines
    assert line["request_id"] == "abc-1"
    assert line["logger"] == "service.access"
    assert line["level"] == "INFO"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/encode", 200)
    assert line["client"] == "key:" + hashlib.sha256(KEYS[1].encode()).hexdigest()[:8]
    assert (line["bytes_in"], line["bytes_out"]) == (8, 5)
    assert line["finished_reason"] == "ok"
    assert isinstance(line["duration_s"], float)
    text = json.dumps(line)
    assert "hidden" not in text
    assert KEYS[1] not in text
    assert "12345678" not in text


def test_fingerprint_is_the_start_of_the_keys_sha256() -> None:
    assert fingerprint("first-key-123") == hashlib.sha256(b"first-key-123").hexdigest()[:8]


def test_refused_and_failed_requests_are_lines_too(access_lines: list[dict[str, object]]) -> None:
    ask(RequestId(AccessLog(limited("", KEYS))), "/x")
    ask(RequestId(AccessLog(LastResort(limited("", app=broken)))), "/y")
    refused, failed = access_lines
    assert (refused["status"], refused["finished_reason"]) == (401, "rejected")
    assert refused["client"] == "address:10.0.0.1"  # guessing keys shows
    assert (failed["status"], failed["finished_reason"]) == (500, "error")
    assert failed["client"] == "address:10.0.0.1"


def test_reason_that_a_route_gave_goes_before_the_status(access_lines: list[dict[str, object]]) -> None:
    async def out_of_memory(scope: Scope, receive: Receive, send: Send) -> None:
        Request(scope).state.finished_reason = "oom"
        await hello(scope, receive, send)

    ask(AccessLog(limited("", app=out_of_memory)))
    (line,) = access_lines
    assert line["finished_reason"] == "oom"


def test_answer_that_breaks_off_is_cancelled(access_lines: list[dict[str, object]]) -> None:
    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        ask(AccessLog(breaking))
    (line,) = access_lines
    assert (line["status"], line["finished_reason"]) == (200, "cancelled")


def test_probes_that_went_well_are_debug_lines(access_lines: list[dict[str, object]]) -> None:
    for path in PATHS:
        ask(AccessLog(hello), path)
    assert [line["level"] for line in access_lines] == ["DEBUG"] * 3
    ask(AccessLog(LastResort(broken)), "/readyz")
    assert list(access_lines)[-1]["level"] == "INFO"


def test_long_path_is_cut_and_newlines_stay_in_their_line(access_lines: list[dict[str, object]]) -> None:
    ask(AccessLog(hello), "/a%0Ab" + "c" * 1000)
    (line,) = access_lines
    assert str(line["path"]).startswith("/a\nbccc")
    assert len(str(line["path"])) == 200


def test_what_a_handler_logs_carries_the_requests_id() -> None:
    seen: list[str | None] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(request_id.get())
        seen.append(await asyncio.to_thread(request_id.get))
        await hello(scope, receive, send)

    ask(RequestId(handler), headers={"X-Request-ID": "abc-1"})
    assert seen == ["abc-1", "abc-1"]
    assert request_id.get() is None
