"""Docker's engine and Compose: those that are there, or Debian's, started for as long as they are needed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = {"dockerd": "docker.io", "docker-compose": "docker-compose", "debootstrap": "debootstrap"}
START_S = 60.0
POLL_S = 0.2


class CommandError(Exception):
    """A command failed; with what it was and what it said."""


@dataclass(frozen=True)
class Engine:
    """Runs `docker` and Compose with the environment that the compose files read."""

    compose_command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def docker(self, *arguments: str, timeout_s: float = 60) -> str:
        return run(["docker", *arguments], self.environment, timeout_s)

    def compose(self, *arguments: str, timeout_s: float = 600) -> str:
        return run([*self.compose_command, *arguments], self.environment, timeout_s)

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, the stopped ones too."""
        return sorted(
            self.docker("ps", "-aq", "--filter", f"label=com.docker.compose.service={service}").split()
        )

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def kill_process(self, container: str) -> None:
        """SIGKILL from outside: for the engine a crash, after which the restart policy holds."""
        os.kill(self.inspect(container)["State"]["Pid"], 9)

    def image_mb(self, image: str) -> float:
        return float(json.loads(self.docker("image", "inspect", image))[0]["Size"]) / 1e6


def run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """What a command writes to stdout. Raises CommandError."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)}: not done within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def install_packages() -> None:
    """What is missing, from Debian. Raises CommandError where that is not allowed."""
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if os.geteuid() != 0:
        raise CommandError(f"please install: {' '.join(missing)}  (sudo apt-get install {' '.join(missing)})")
    run(["apt-get", "update", "-qq"], {}, 300)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, "iptables"]
    run(install, {"DEBIAN_FRONTEND": "noninteractive"}, 600)


@contextlib.contextmanager
def engine(directory: Path, environment: Mapping[str, str]) -> Iterator[Engine]:
    """The engine that answers; else one of our own, whose images are kept in `directory`."""
    environment = {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", **environment}
    if _answers(environment):
        yield Engine(_compose_command(), environment)
        return
    directory.mkdir(parents=True, exist_ok=True)
    socket = f"unix://{directory}/docker.sock"
    environment["DOCKER_HOST"] = socket
    command = ["dockerd", "--host", socket, "--data-root", str(directory / "data")]
    command += ["--exec-root", str(directory / "exec"), "--pidfile", str(directory / "dockerd.pid")]
    with (directory / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_S
        while not _answers(environment):
            if daemon.poll() is not None or time.monotonic() > end:
                said = (directory / "dockerd.log").read_text()[-2000:]
                raise CommandError(f"dockerd did not start:\n{said}")
            time.sleep(POLL_S)
        yield Engine(_compose_command(), environment)
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        run(["docker", "version"], environment, 20)
    except (CommandError, OSError):
        return False
    return True


def _compose_command() -> Sequence[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return ["docker", "compose"]
