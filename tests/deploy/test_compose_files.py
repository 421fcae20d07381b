"""docker-compose.yml and the Dockerfile, as far as they can be judged without Docker."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import FILE, PREFIX, SECRETS, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
LASTING = ("patronus", "redis", "proxy", "prometheus", "grafana")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load("docker-compose.yml")["services"]
    return found


@pytest.mark.parametrize("name", LASTING)
def test_each_service_is_bounded_watched_and_restarted(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    if name != "patronus":  # whose image has its own
        assert service["healthcheck"]["test"]


def test_only_what_people_look_at_is_published_and_to_this_machine_alone(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"proxy", "prometheus", "grafana"}
    assert all(re.fullmatch(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+", port) for [port] in published.values())


def test_redis_is_reached_by_the_service_alone(services: dict[str, Any]) -> None:
    members = {name for name, service in services.items() if "cache" in service.get("networks", ())}
    assert members == {"redis", "patronus"}
    assert load("docker-compose.yml")["networks"]["cache"] == {"internal": True}


def test_redis_is_a_bounded_cache_within_its_container(services: dict[str, Any]) -> None:
    text = (ROOT / "deploy" / "redis" / "redis.conf").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    settings = {name: value for name, value in lines}
    assert settings["maxmemory-policy"] == "allkeys-lru"
    assert settings["save"] == '""'
    assert int(settings["maxmemory"].removesuffix("mb")) < int(
        services["redis"]["mem_limit"].removesuffix("m")
    )


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.keys.yml"])
def test_settings_in_the_files_are_settings_of_the_service(name: str) -> None:
    known = {PREFIX + item.name.upper() for item in dataclasses.fields(Settings)}
    known |= {PREFIX + secret.upper() + FILE for secret in SECRETS}
    environment = load(name)["services"]["patronus"]["environment"]
    assert {variable for variable in environment if variable.startswith(PREFIX)} <= known


def test_no_two_services_build_one_image(services: dict[str, Any]) -> None:
    built = [service["image"] for service in services.values() if "build" in service]
    assert len(built) == len(set(built)) == 2


def test_settings_in_the_image_are_settings_of_the_service() -> None:
    found = dict(re.findall(r"^ +(PATRONUS_\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    assert set(found) == {"PATRONUS_HOST", "PATRONUS_PORT", "PATRONUS_BUNDLE", "PATRONUS_STATE_DIR"}
    assert Settings.from_environment(found).host == "0.0.0.0"


def test_mounted_files_are_there(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    files = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(files) >= 5
    assert [file for file in files if not (ROOT / file).exists()] == []
    volumes = {mount.partition(":")[0] for mount in mounts if not mount.startswith("./")}
    assert volumes == set(load("docker-compose.yml")["volumes"])


def test_a_stopping_replica_has_longer_than_its_requests(services: dict[str, Any]) -> None:
    grace_s = float(services["patronus"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings().drain_timeout_s + 5


def test_proxy_waits_longer_than_the_service_works() -> None:
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    found = re.search(r"timeout server (\d+)m", text)
    assert found is not None
    assert float(found[1]) * 60 > 2 * Settings().request_timeout_s


def test_targets_of_the_image_are_there_and_do_not_run_as_root() -> None:
    starts = {stage: start for start, stage in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}
    assert [starts[target] for target in ("cpu", "gpu", "gpu-torch")] == ["base"] * 3
    base = DOCKERFILE.split(" AS base")[1].split("\nFROM ")[0]
    assert "\nUSER 10001:10001\n" in base
    assert "service.probe" in base


def test_every_image_can_send_spans_and_the_bill_of_materials_is_of_what_it_installs() -> None:
    installed = re.findall(r'install --quiet "\.\[([\w,]+)\]"', DOCKERFILE)
    assert len(installed) == 4
    assert all("tracing" in extras.split(",") for extras in installed)
    found = re.search(
        r'--constraint deploy/constraints\.txt "\.\[([\w,]+)\]"', (ROOT / "Makefile").read_text()
    )
    assert found is not None
    assert found[1] == installed[0]


def test_build_context_holds_all_that_is_copied() -> None:
    kept = {
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    assert copied == kept
    assert [path for path in kept if not (ROOT / path).exists()] == []


def test_secrets_are_made_once_and_fit_together(tmp_path: Path) -> None:
    cache, grafana = tmp_path / "cache", tmp_path / "grafana"
    cache.mkdir()
    grafana.mkdir()
    command = [sys.executable, str(ROOT / "deploy" / "make_secrets.py"), str(cache), str(grafana)]
    subprocess.run(command, check=True)
    first = {path: path.read_text() for path in (*cache.iterdir(), *grafana.iterdir())}
    assert {path.name for path in first} == {
        "redis_password",
        "redis_auth.conf",
        "cache_url",
        "admin_password",
    }
    subprocess.run(command, check=True)
    assert {path: path.read_text() for path in first} == first
    password = (cache / "redis_password").read_text().strip()
    assert (cache / "redis_auth.conf").read_text() == f"requirepass {password}\n"
    settings = Settings.from_environment({"PATRONUS_CACHE_URL_FILE": str(cache / "cache_url")})
    assert settings.cache_url == f"redis://:{password}@redis:6379/0"
    assert password != (grafana / "admin_password").read_text().strip()
