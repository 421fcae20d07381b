"""The files of deploy/prometheus, as Prometheus' own tools judge them, and the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.monitoring.dashboard import alerts, panels, rules, selectors
from service.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"
LOOKED_UP = {"models", "prototype", "prototypes", "reference", "references", "rename"}
"""Endpoints without a network call, which nobody waits for."""


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is not on the PATH: the project's set-up installs it (see CONTRIBUTING.md)")
    return subprocess.run([program, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=300)


def test_configuration_and_rules_are_valid() -> None:
    checked = promtool("check", "config", "--lint-fatal", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rules_do_what_their_unit_tests_say() -> None:
    files = [str(path) for path in sorted((PROMETHEUS / "tests").glob("*.yml"))]
    assert len(files) == 2
    checked = promtool("test", "rules", *files)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_unit_test() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (PROMETHEUS / "tests" / "alerts_test.yml").read_text()))
    assert tested == {alert["alert"] for alert in alerts()}


def test_every_alert_links_to_its_section_of_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        link = f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == link
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]


def test_metrics_that_panels_and_rules_read_are_those_of_the_service() -> None:
    metrics = Metrics()
    exposed = set(re.findall(r"^# TYPE (\w+)", metrics.exposition().decode(), re.MULTILINE))
    exposed |= {rule["record"] for rule in rules() if "record" in rule} | {"up"}
    expressions = [panel.expression for panel in panels()] + [rule["expr"] for rule in rules()]
    read = {selector.partition("{")[0] for expression in expressions for selector in selectors(expression)}
    read = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
    assert len(read) > 25
    assert read <= exposed


def test_every_endpoint_that_computes_has_a_latency_target() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "service" / "routes").glob("*.py")))
    endpoints = set(re.findall(r'answer(?:_or_stream)?\(\s*context,\s*request,\s*"(\w+)"', source))
    assert endpoints > LOOKED_UP
    targets = {rule["labels"]["endpoint"] for rule in rules() if rule.get("record", "").endswith(":target")}
    assert targets == endpoints - LOOKED_UP


def test_metrics_are_named_as_prometheus_likes_them() -> None:
    program = shutil.which("promtool")
    assert program is not None
    linted = subprocess.run(
        [program, "check", "metrics"], input=Metrics().exposition(), capture_output=True, timeout=60
    )
    complaints = [line for line in linted.stdout.decode().splitlines() if line.startswith("patronus_")]
    complaints += [line for line in linted.stderr.decode().splitlines() if line.startswith("patronus_")]
    assert complaints == []


def test_selectors_are_found_in_an_expression() -> None:
    expression = 'sum by (job, endpoint) (rate(patronus_a_total{reason="job"}[5m])) / on (job) job:b:rate5m'
    assert selectors(expression) == ['patronus_a_total{reason="job"}', "job:b:rate5m"]
