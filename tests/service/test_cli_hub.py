"""push, pull and serving from a hub, as programs of their own that read HF_ENDPOINT, HF_TOKEN and HF_HOME."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from model.bundle import Bundle
from tests.hub_stand_in import WRITER, StandInHub
from tests.service.test_main import free_port, wait_until_ready

ROOT = Path(__file__).parents[2]
Environment = dict[str, str]
Patronus = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stand_in() -> Iterator[StandInHub]:
    pytest.importorskip("huggingface_hub")
    with StandInHub().serving() as hub:
        yield hub


@pytest.fixture
def environment(stand_in: StandInHub, tmp_path: Path) -> Environment:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PATRONUS_"))}
    return {
        **others,
        "HF_ENDPOINT": stand_in.url,
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_TOKEN": WRITER,
        "HF_HUB_DISABLE_XET": "1",
        "PATRONUS_STATE_DIR": str(tmp_path / "state"),
        "PATRONUS_TUNE_BATCH": "off",
    }


@pytest.fixture
def patronus(environment: Environment, tmp_path: Path) -> Patronus:
    def run(*arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *map(str, arguments)],
            cwd=ROOT,
            env={**environment, **changed},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_what_is_pushed_is_pulled_and_serves(
    patronus: Patronus, environment: Environment, tiny_bundle: Path, tmp_path: Path
) -> None:
    digest = Bundle.load(tiny_bundle).digest
    done = patronus("push", tiny_bundle, "hf://lab/tiny", "--license", "mit", "--private", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    pushed = json.loads(done.stdout)
    assert pushed["digest"] == digest

    done = patronus("pull", "hf://lab/tiny", tmp_path / "here", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["source"] == pushed["source"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {
        path.name: path.read_bytes() for path in tiny_bundle.iterdir()
    }

    done = patronus("pull", "hf://lab/tiny", tmp_path / "other", HF_TOKEN="", HF_HOME=str(tmp_path / "new"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "patronus: hf://lab/tiny: the repository does not exist, or is private: "
        "set HF_TOKEN to a token that may read it\n"
    )

    port = free_port()
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        "--bundle",
        "hf://lab/tiny@main",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url)
        for path in ("/version", "/models"):
            [served] = httpx.get(url + path).json()["models"]
            assert (served["digest"], served["source"]) == (digest, pushed["source"])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.communicate()


def test_without_a_hub_the_cache_serves_and_else_the_status_says_so(
    patronus: Patronus, tiny_bundle: Path, tmp_path: Path
) -> None:
    pushed = json.loads(patronus("push", tiny_bundle, "hf://lab/tiny", "--json").stdout)
    models = ("models", "--json", "--bundle", "hf://lab/tiny")
    assert json.loads(patronus(*models).stdout)["models"][0]["source"] == pushed["source"]
    [offline] = json.loads(patronus(*models, HF_HUB_OFFLINE="1").stdout)["models"]
    assert offline["source"] == pushed["source"]
    done = patronus(*models, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "patronus: hf://lab/tiny: HF_HUB_OFFLINE is set, and the cache does not hold it\n"


def test_a_dry_run_prints_the_card_and_asks_nobody(
    patronus: Patronus, stand_in: StandInHub, tiny_bundle: Path
) -> None:
    done = patronus("push", tiny_bundle, "hf://lab/tiny", "--license", "mit", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('---\nlicense: "mit"\n')
    assert stand_in.asked == []
