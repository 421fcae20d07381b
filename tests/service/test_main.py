"""The process that `make serve` starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.service.redis_process import Server

ROOT = Path(__file__).parents[2]


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env={**os.environ, "PATRONUS_TUNE_BATCH": "off", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the service did not become ready"
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)  # a poll of another process, bounded above


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PATRONUS_PORT", "many"),
        ("PATRONUS_MAX_BATCH", "0"),
        ("PATRONUS_BUNDLE", "/nowhere"),
        ("PATRONUS_COLOUR", "red"),
        ("PATRONUS_CACHE_URL", "redis://localhost:port"),
    ],
)
def test_bad_setting_stops_start_up_and_names_itself(variable: str, value: str) -> None:
    process = start({variable: value})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert (value if variable == "PATRONUS_BUNDLE" else variable) in output
    assert "Traceback" not in output


def test_sigterm_lets_running_requests_finish() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start({"PATRONUS_PORT": str(port), "PATRONUS_LOG_LEVEL": "warning"})
    try:
        wait_until_ready(process, url)
        answers: list[int] = []

        def ask() -> None:
            body = {"num_images": 8, "steps": 100}
            answers.append(httpx.post(f"{url}/generate", json=body, timeout=120).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 60
        while "patronus_num_requests_running 1.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline, "the request never reached the batch"
        process.send_signal(signal.SIGTERM)
        asking.join(120)
        assert answers == [200]
        assert process.wait(60) == -signal.SIGTERM  # uvicorn passes it on once it has shut down
    finally:
        process.kill()
        process.communicate()


def test_while_it_drains_new_requests_are_refused_and_the_overdue_one_is_answered() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(
        {"PATRONUS_PORT": str(port), "PATRONUS_DRAIN_TIMEOUT_S": "2", "PATRONUS_REQUEST_TIMEOUT_S": "3600"}
    )
    try:
        wait_until_ready(process, url)
        answers: list[httpx.Response] = []

        def ask() -> None:
            body = {"num_images": 32, "steps": 500}  # far more than two seconds
            answers.append(httpx.post(f"{url}/generate", json=body, timeout=120))

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 60
        while "patronus_num_requests_running 1.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < deadline, "the request never reached the batch"
        process.send_signal(signal.SIGTERM)
        while (ready := httpx.get(f"{url}/readyz")).status_code == 200:
            assert time.monotonic() < deadline, "it never began to drain"
        assert ready.json()["reason"] == "the service is shutting down"
        refused = httpx.post(f"{url}/generate", json={"steps": 1})
        assert refused.status_code == 503
        assert refused.headers["retry-after"].isdecimal()
        asking.join(120)
        (overdue,) = answers
        assert overdue.status_code == 503
        assert overdue.headers["content-type"] == "application/problem+json"
        assert overdue.headers["retry-after"].isdecimal()
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_two_processes_share_what_one_of_them_encoded(server: Server) -> None:
    picture = (ROOT / "docs" / "example.png").read_bytes()
    cached = []
    for _ in range(2):  # the second starts when the first is gone
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        patient = {"PATRONUS_CACHE_URL": server.url, "PATRONUS_CACHE_TIMEOUT_MS": "5000"}
        process = start({"PATRONUS_PORT": str(port), **patient})
        try:
            wait_until_ready(process, url)
            answer = httpx.post(f"{url}/encode", files={"image": picture}, timeout=60)
            cached.append(answer.json()["images"][0]["cached"])
        finally:
            process.kill()
            process.communicate()
    assert cached == [False, True]


def test_every_line_of_the_log_is_json_and_tells_no_secret() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start({"PATRONUS_PORT": str(port), "PATRONUS_API_KEYS": "a-secret-key"})
    try:
        wait_until_ready(process, url)
        headers = {"X-API-Key": "a-secret-key", "X-Request-ID": "request-1"}
        answer = httpx.get(f"{url}/prototypes/0?token=hidden", headers=headers)
        assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in output.splitlines()]
    assert {"service.app", "uvicorn.error"} <= {line["logger"] for line in lines}
    (access,) = [line for line in lines if line["logger"] == "service.access"]
    assert (access["request_id"], access["path"], access["status"]) == ("request-1", "/prototypes/0", 200)
    assert access["client"].startswith("key:")
    assert access["bytes_out"] == len(answer.content)
    assert "hidden" not in output
    assert "a-secret-key" not in output


def test_service_runs_without_torch_and_training() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'training', 'onnx', 'sklearn', 'scipy'): sys.modules[name] = None\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "create_app(Settings())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
