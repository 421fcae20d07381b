"""The stack of docker-compose.yml, really started and really broken.

    make compose-test

Needs root on Debian (it installs docker.io, docker-compose and debootstrap where they are missing) and some
minutes; no part of the tests that `make test` runs. Images that cannot be pulled are replaced by stand-ins of
Debian's packages. Prints what it saw and what it could not cover; exits with 1 if anything was wrong.
"""

from __future__ import annotations

import sys
import time

from tests.compose.engine import ROOT, CommandError, engine, install_packages
from tests.compose.images import can_trace, images_of, packages_in, programs_in, provide
from tests.compose.scenario import KEY, Stack, check_stack, free_port
from tests.compose.transcript import Transcript

DIRECTORY = ROOT / "build" / "compose-test"
IMAGE = "patronus-server:cpu"
BUILD_TOOLS = ("pip", "gcc", "cc", "make", "git", "curl")


def main() -> int:
    transcript = Transcript()
    ports = {name: free_port() for name in ("PATRONUS_PUBLISH", "PROMETHEUS_PUBLISH", "GRAFANA_PUBLISH")}
    environment = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    environment |= {"COMPOSE_PROJECT_NAME": "patronus-compose-test", "PATRONUS_MAX_QUEUE": "64"}
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / "api_keys").write_text(f"{KEY}\n")
    environment["PATRONUS_API_KEYS_FILE"] = str(DIRECTORY / "api_keys")
    install_packages()
    with engine(DIRECTORY, environment) as running:
        version = running.docker("version", "--format", "{{.Server.Version}}").strip()
        compose = running.compose("version", "--short").strip()
        transcript.note(f"Docker engine {version}, Compose {compose}")

        transcript.section("Images")
        origins, missing = provide(running, images_of(running), DIRECTORY)
        for image, origin in origins.items():
            transcript.note(f"{image}: {origin}, {running.image_mb(image):.0f} MB")
        started = time.monotonic()
        running.compose("build", "secrets", "patronus", timeout_s=1800)
        transcript.note(
            f"{IMAGE} built in {time.monotonic() - started:.0f} s, {running.image_mb(IMAGE):.0f} MB"
        )
        tools = programs_in(running, IMAGE, BUILD_TOOLS)
        is_stand_in = "stand-in" in next(iter(origins.values()))
        # The stand-in has Debian's own pip, which the Dockerfile cannot remove; the image proper loses its.
        left = [tool for tool in tools if not (is_stand_in and tool.endswith("/pip"))]
        seen = f"{', '.join(tools) or 'none'} of {', '.join(BUILD_TOOLS)}"
        note = " (the stand-in's own)" if tools != left else ""
        transcript.check("no build tools in the image", not left, seen + note)
        transcript.check(
            "every package has its version from deploy/constraints.txt", *_pinned(packages_in(running, IMAGE))
        )

        transcript.check("the image can send spans", can_trace(running, IMAGE))

        stack = Stack(
            running,
            f"http://127.0.0.1:{ports['PATRONUS_PUBLISH']}",
            f"http://127.0.0.1:{ports['PROMETHEUS_PUBLISH']}",
            f"http://127.0.0.1:{ports['GRAFANA_PUBLISH']}",
        )
        services = [
            name for name in ("patronus", "redis", "prometheus", "proxy", "grafana") if name not in missing
        ]
        try:
            check_stack(stack, services, transcript)
        except Exception:
            for service in services:
                print(running.compose("logs", "--no-color", "--tail", "30", service), file=sys.stderr)
            raise
        finally:
            running.compose("down", "--volumes", "--timeout", "60")

    transcript.section("Not covered")
    for service in missing:
        transcript.note(f"{service}: its image could not be pulled, and Debian has no package to stand in")
    for image, origin in origins.items():
        if "stand-in" in origin:
            transcript.note(f"the image {image} itself: {origin} was used")
    transcript.note("the targets gpu and gpu-torch, and docker-compose.gpu.yml: no GPU here")
    transcript.note("the targets ray and ray-gpu: they were not built")
    other = "Compose v2 with BuildKit" if compose.startswith("1.") else "Compose 1.29"
    transcript.note(f"{other}: only {compose} was used")
    return transcript.conclude()


def _pinned(packages: list[str]) -> tuple[bool, str]:
    pins = {
        _canonical(line) for line in (ROOT / "deploy" / "constraints.txt").read_text().split() if "==" in line
    }
    own = [package for package in packages if not package.startswith(("patronus", "pip==", "wheel=="))]
    loose = [package for package in own if _canonical(package) not in pins]
    return not loose, f"{len(own)} packages" if not loose else ", ".join(loose)


def _canonical(requirement: str) -> str:
    return requirement.lower().replace("_", "-")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
