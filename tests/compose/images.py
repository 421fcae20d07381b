"""The images that the compose file names: pulled where possible, else stand-ins of Debian's packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.compose.engine import ROOT, CommandError, Engine, run

SUITE = "bookworm"
DEBIAN_PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
DEBIAN_IMAGE = "patronus-compose-test-debian"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
"""Of this machine, which may know authorities that Debian does not."""
STAND_INS = ("redis", "proxy", "prometheus")
STAND_IN = f"a stand-in of Debian {SUITE}'s packages"
LABEL = "patronus.stand-in"
"""Of the stand-ins, which are kept from one run to the next."""
PULL_S = 45.0


def python_image() -> str:
    """What deploy/Dockerfile starts from."""
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def provide(engine: Engine, images: Mapping[str, str], directory: Path) -> tuple[dict[str, str], list[str]]:
    """Have the images of services (by name) and the one that deploy/Dockerfile starts from.

    Gives where each image is from, and the services for which there is none.
    """
    origins, missing = {}, []
    wanted = {"build": python_image(), **images}
    for service, image in wanted.items():
        if _is_there(engine, image):
            origins[image] = _kept(engine, image)
        elif _pulled(engine, image):
            origins[image] = "pulled"
        elif service == "build":
            _import_debian(engine, directory)
            engine.docker("tag", DEBIAN_IMAGE, image)
            origins[image] = STAND_IN
        elif service in STAND_INS:
            _import_debian(engine, directory)
            _build_stand_in(engine, service, image)
            origins[image] = STAND_IN
        else:
            missing.append(service)
    return origins, missing


def _is_there(engine: Engine, image: str) -> bool:
    try:
        engine.docker("image", "inspect", image)
    except CommandError:
        return False
    return True


def _kept(engine: Engine, image: str) -> str:
    labels = json.loads(engine.docker("image", "inspect", image))[0]["Config"]["Labels"] or {}
    return STAND_IN if LABEL in labels else "there already"


def _pulled(engine: Engine, image: str) -> bool:
    try:
        engine.docker("pull", "--quiet", image, timeout_s=PULL_S)
    except CommandError:
        return False
    return True


def _import_debian(engine: Engine, directory: Path) -> None:
    if _is_there(engine, DEBIAN_IMAGE):
        return
    root = directory / "debian"
    shutil.rmtree(root, ignore_errors=True)
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={DEBIAN_PACKAGES}", SUITE, str(root)]
    run(debootstrap, {}, 600)
    shutil.copy(Path("/") / CERTIFICATES, root / CERTIFICATES)
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    changes = ["--change", f"ENV PIP_CERT=/{CERTIFICATES}", "--change", f"LABEL {LABEL}={SUITE}"]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packing:
        importing = subprocess.run(
            ["docker", "import", *changes, "-", DEBIAN_IMAGE],
            env={**os.environ, **engine.environment},
            stdin=packing.stdout,
            capture_output=True,
            text=True,
        )
    shutil.rmtree(root)
    if importing.returncode != 0:
        raise CommandError(f"docker import: {importing.stderr}")


def _build_stand_in(engine: Engine, service: str, image: str) -> None:
    dockerfile = str(Path(__file__).parent / "stand-ins.Dockerfile")
    engine.docker(
        *("build", "--file", dockerfile, "--target", service, "--tag", image),
        *("--build-arg", f"DEBIAN_IMAGE={DEBIAN_IMAGE}", str(Path(__file__).parent)),
        timeout_s=600,
    )


def images_of(engine: Engine) -> dict[str, str]:
    """The images that docker-compose.yml names and does not build, by service."""
    services = yaml.safe_load(engine.compose("config"))["services"]
    return {name: service["image"] for name, service in services.items() if "build" not in service}


def programs_in(engine: Engine, image: str, programs: tuple[str, ...]) -> list[str]:
    """Which of the programs an image has."""
    script = "; ".join(f"command -v {program}" for program in programs) + "; true"
    return engine.docker("run", "--rm", "--network", "none", image, "sh", "-c", script).split()


def packages_in(engine: Engine, image: str) -> list[str]:
    """`name==version` of the Python packages in an image."""
    script = (
        "import json, importlib.metadata as m; "
        "print(json.dumps(sorted(f'{d.name}=={d.version}' for d in m.distributions())))"
    )
    found: list[str] = json.loads(
        engine.docker("run", "--rm", "--network", "none", image, "python3", "-c", script)
    )
    return found


def can_trace(engine: Engine, image: str) -> bool:
    """Whether the service in an image finds what it needs for PATRONUS_TRACING."""
    script = (
        "from service.app import open_tracing; from service.settings import Settings; "
        "print(open_tracing(Settings.from_environment()) is not None)"
    )
    run_in = ("run", "--rm", "--network", "none", "--env", "PATRONUS_TRACING=otlp", image)
    try:
        return engine.docker(*run_in, "python3", "-c", script).strip() == "True"
    except CommandError:
        return False
