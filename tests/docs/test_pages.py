"""What pages tell people to type is there: commands, options, settings, targets and files."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from docs.site_hooks import PAGES_ELSEWHERE
from service.cli.program import program
from service.settings import FILE, SECRETS, Settings
from tests.docs.fenced_blocks import fenced_blocks
from tests.service.conftest import serving
from training.__main__ import _parser

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted((ROOT / "docs" / "site").rglob("*.md")),
    *(
        page for page in PAGES_ELSEWHERE.values() if page.name != "CHANGELOG.md"
    ),  # which tells of the past too
]
HOST = "127.0.0.1:8000"

ENVIRONMENT = re.compile(r"(?:[A-Z_]+=\S* )*")
COMPOSE = {"PATRONUS_PUBLISH", "PATRONUS_CPUS", "PATRONUS_MEMORY", "PATRONUS_TARGET"}
"""Variables of the compose files."""


def commands(program_name: str) -> Iterator[tuple[Path, list[str]]]:
    """(page, arguments) of every command of that program in every page."""
    for page in PAGES:
        for block in fenced_blocks(page):
            if block.language != "bash":
                continue
            for line in block.code.splitlines():
                line = ENVIRONMENT.sub("", line, count=1)
                if program_name in line.split("#")[0]:
                    yield page, shlex.split(line.split(program_name, 1)[1], comments=True)


def test_commands_of_training_parse() -> None:
    found = [arguments for _, arguments in commands("-m training")]
    assert len(found) > 8
    for arguments in found:
        try:
            _parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"python -m training {shlex.join(arguments)}")


def test_commands_of_patronus_parse() -> None:
    found = [arguments for _, arguments in commands(".venv/bin/patronus")]
    assert len(found) > 8
    for name, *arguments in found:
        command = program.commands[name]
        existing = [
            str(ROOT / "bundles" / "fashion-mnist") if "bundles/" in part else part for part in arguments
        ]
        try:
            command.make_context(name, existing, resilient_parsing=False)
        except click.ClickException as error:
            pytest.fail(f"patronus {name} {shlex.join(arguments)}: {error.format_message()}")


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^|^ +|\S=\S+ )make ([a-z-]+)", page.read_text(), re.M))
        assert named <= targets, page.name


def test_settings_that_pages_name_are_there() -> None:
    known = {f"PATRONUS_{name.upper()}" for name in Settings.__dataclass_fields__}
    known |= {f"PATRONUS_{name.upper()}{FILE}" for name in SECRETS} | COMPOSE
    known |= {"PATRONUS_CLIENT_API_KEY", "PATRONUS_CLIENT_URL"}
    for page in PAGES:
        named = set(re.findall(r"\bPATRONUS_[A-Z_]*[A-Z]\b", page.read_text()))
        assert named <= known, page.name


def test_files_that_pages_name_are_there() -> None:
    made = {"deploy/secrets", "deploy/secrets/api_keys"}
    for page in PAGES:
        named = set(
            re.findall(r"`((?:docs|deploy|model|service|benchmarks)/[\w./-]*|[A-Z]+\.md)`", page.read_text())
        )
        for name in named - made:
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_all_alerts_are_listed() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text())["groups"]
    expected = [(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]]
    page = (ROOT / "docs" / "site" / "operating" / "monitoring.md").read_text()
    assert re.findall(r"^\| (\w+) \| (\w+) \| \[", page, re.M) == expected


def test_python_of_the_how_to_pages_runs(
    docs_settings: Settings, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    with serving(docs_settings) as url:
        ran = 0
        for page in PAGES:
            if page.parent.name != "how-to":
                continue
            for block in fenced_blocks(page):
                if block.language == "python":
                    code = block.code.replace(HOST, url.removeprefix("http://"))
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(compile(code, f"{page.name}, line {block.line}", "exec"), {})
                    ran += 1
    assert ran >= 6
    assert (checkout / "edited-example.png").is_file()
