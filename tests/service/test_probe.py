"""The health check of containers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from service.probe import main


@contextmanager
def answering(statuses: dict[str, int]) -> Iterator[int]:
    """A server that answers each path with its status; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"this is {self.path}".encode()
            self.send_response(statuses[self.path])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def ended() -> list[str]:
    return []


def probe(monkeypatch: pytest.MonkeyPatch, port: int, ended: list[str], *arguments: str) -> int:
    monkeypatch.setenv("PATRONUS_HOST", "0.0.0.0")
    monkeypatch.setenv("PATRONUS_PORT", str(port))
    return main(arguments, end=lambda: ended.append("ended"))


def test_running_service_is_ready(fake_url: str, monkeypatch: pytest.MonkeyPatch, ended: list[str]) -> None:
    port = urlsplit(fake_url).port
    assert port is not None
    assert probe(monkeypatch, port, ended, "--end-dead") == 0
    assert probe(monkeypatch, port, ended, "--path", "/version") == 0
    assert probe(monkeypatch, port, ended, "--path", "/nowhere") == 1
    assert ended == []


def test_what_it_says_of_itself_is_printed(
    monkeypatch: pytest.MonkeyPatch, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with answering({"/readyz": 503, "/healthz": 200}) as port:
        assert probe(monkeypatch, port, ended, "--end-dead") == 1
    assert capsys.readouterr().out == "this is /readyz\n"
    assert ended == []  # it may recover


def test_what_only_a_restart_can_help_is_ended_where_that_is_asked(
    monkeypatch: pytest.MonkeyPatch, ended: list[str]
) -> None:
    with answering({"/readyz": 503, "/healthz": 503}) as port:
        assert probe(monkeypatch, port, ended) == 1
        assert ended == []
        assert probe(monkeypatch, port, ended, "--end-dead") == 1
    assert ended == ["ended"]


def test_silence_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert probe(monkeypatch, port, ended, "--end-dead") == 1
    assert capsys.readouterr().out.startswith(f"no answer from 127.0.0.1:{port}")
    assert ended == []


def test_bad_setting_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATRONUS_PORT", "many")
    assert main([]) == 1
    assert "PATRONUS_PORT" in capsys.readouterr().err
