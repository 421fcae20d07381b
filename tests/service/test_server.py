"""The HTTP server over real sockets: clients that do not read, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import httpx
import uvicorn

from model.bundle import Bundle
from service.app import RunnerFactory, create_app
from service.server import Server
from service.settings import Settings
from tests.service.conftest import eventually, fake_runner
from tests.service.test_http_life import GatedRunner

PATIENCE_S = 30.0


@contextlib.contextmanager
def serving(
    settings: Settings, make_runner: RunnerFactory, *, stall_s: float = 30.0
) -> Iterator[tuple[str, Server, threading.Thread]]:
    """As `python -m service` serves, in a thread."""
    app = create_app(settings, make_runner)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None)
    server = Server(config, app.state.drain, drain_timeout_s=settings.drain_timeout_s, stall_s=stall_s)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    give_up_at = time.monotonic() + PATIENCE_S
    while not server.started:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)  # a poll of another thread, bounded above
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server, thread
    finally:
        server.handle_exit(signal.SIGINT, None)
        server.handle_exit(signal.SIGINT, None)
        thread.join(PATIENCE_S)
        listener.close()
    assert not thread.is_alive()


def ask_and_do_not_read(url: str, connection: socket.socket, body: Mapping[str, object]) -> None:
    host, port = url.removeprefix("http://").split(":")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    data = json.dumps(body).encode()
    headers = ("Host: x", "Accept: text/event-stream", "Content-Type: application/json")
    head = "\r\n".join(["POST /generate HTTP/1.1", *headers, f"Content-Length: {len(data)}", "", ""])
    connection.sendall(head.encode() + data)


LONG = {"steps": 200, "num_images": 32, "preview_every": 1, "trace": True}
"""Its events are more than the buffers between us and a client hold."""


def test_client_that_never_reads_loses_its_connection(settings: Settings) -> None:
    with serving(settings, fake_runner, stall_s=1.0) as (url, server, _), socket.socket() as connection:
        ask_and_do_not_read(url, connection, LONG)
        done = 'patronus_requests_total{endpoint="generate"'
        give_up_at = time.monotonic() + PATIENCE_S
        while not server.server_state.connections:
            assert time.monotonic() < give_up_at
        while server.server_state.tasks:  # it ends, although nobody reads
            assert time.monotonic() < give_up_at
            time.sleep(0.01)  # a poll of another thread, bounded above
        eventually(url, done, 1.0)
        connection.settimeout(PATIENCE_S)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(2**16):
                received += more
        assert b"event: result" not in received
        assert not received.endswith(b"0\r\n\r\n")  # what the client got does not look complete


def test_second_sigint_ends_it_although_a_client_does_not_read(settings: Settings) -> None:
    with serving(settings, fake_runner) as (url, server, thread), socket.socket() as connection:
        ask_and_do_not_read(url, connection, LONG)
        give_up_at = time.monotonic() + PATIENCE_S
        while not server.server_state.tasks:
            assert time.monotonic() < give_up_at
        server.handle_exit(signal.SIGINT, None)
        server.handle_exit(signal.SIGINT, None)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_running_request_is_answered_when_the_time_to_drain_is_over(
    bundle: Bundle, settings: Settings
) -> None:
    runner = GatedRunner(bundle, settings.max_batch)
    answers: list[httpx.Response] = []
    with serving(replace(settings, drain_timeout_s=0.5), lambda *_: runner) as (url, server, thread):
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/generate", json={"steps": 3}, timeout=60))
        )
        asking.start()
        assert runner.entered.wait(PATIENCE_S)
        server.handle_exit(signal.SIGTERM, None)
        asking.join(PATIENCE_S)
        assert [answer.status_code for answer in answers] == [503]
        assert answers[0].headers["retry-after"].isdecimal()
        thread.join(PATIENCE_S)  # though the step still hangs
        assert not thread.is_alive()
        runner.gate.set()
