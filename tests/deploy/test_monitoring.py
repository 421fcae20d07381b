"""The shipped service under load, scraped by a real Prometheus: do dashboard and rules show anything?"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.monitoring.dashboard import DASHBOARD, alerts, panels, rules, selectors
from benchmarks.monitoring.prometheus_process import Series
from benchmarks.monitoring.stage import Stage, stage

WITHIN_S = 45.0


@dataclass(frozen=True)
class Observed:
    """What Prometheus answered, by expression, and what it says of its rules."""

    answers: Mapping[str, Sequence[Series]]
    rules: Sequence[Mapping[str, Any]]

    def silent(self, expressions: Sequence[str]) -> list[str]:
        return [
            expression
            for expression in expressions
            if not any(series.is_finite for series in self.answers[expression])
        ]


def asked() -> list[str]:
    """Every expression that must have data: panels, recording rules, and what alerts read."""
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    read = [selector for alert in alerts() for selector in selectors(alert["expr"])]
    return [*(panel.expression for panel in panels()), *recorded, *read]


async def observe(directory: Path) -> Observed:
    async with stage(directory) as running:
        await running.break_redis()
        answers = await poll(running)
        evaluated = {alert["expr"]: await running.prometheus.query(alert["expr"]) for alert in alerts()}
        return Observed({**answers, **evaluated}, await running.prometheus.rules())


async def poll(running: Stage) -> dict[str, list[Series]]:
    """Ask for each expression until it has data, or the time is over."""
    answers: dict[str, list[Series]] = {expression: [] for expression in asked()}
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        missing = [
            expression for expression, found in answers.items() if not any(one.is_finite for one in found)
        ]
        if not missing:
            break
        for expression in missing:
            answers[expression] = await running.prometheus.query(expression)
        await asyncio.sleep(0.2)  # a poll of another process, bounded above
    return answers


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return asyncio.run(observe(tmp_path_factory.mktemp("monitoring")))


def test_every_panel_shows_data(observed: Observed) -> None:
    silent = set(observed.silent([panel.expression for panel in panels()]))
    assert [panel for panel in panels() if panel.expression in silent] == []


def test_every_recording_rule_records(observed: Observed) -> None:
    recorded = [rule["expr"] for rule in rules() if "record" in rule]
    assert recorded
    assert observed.silent(recorded) == []


def test_everything_that_alerts_read_exists(observed: Observed) -> None:
    assert {
        alert["alert"]: silent for alert in alerts() if (silent := observed.silent(selectors(alert["expr"])))
    } == {}
    assert all(selectors(alert["expr"]) for alert in alerts())


def test_prometheus_evaluates_every_rule_without_error(observed: Observed) -> None:
    assert len(observed.rules) == len(list(rules()))
    assert [rule for rule in observed.rules if rule["health"] != "ok"] == []


def test_nothing_pages_while_only_redis_was_away(observed: Observed) -> None:
    firing = [rule["name"] for rule in observed.rules if rule.get("state") == "firing"]
    assert firing == []


def test_data_source_of_every_panel_is_the_provisioned_one() -> None:
    text = (DASHBOARD.parents[1] / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert "uid: prometheus\n" in text
    found = json.loads(DASHBOARD.read_text())
    assert {panel["datasource"]["uid"] for panel in found["panels"] if panel["type"] != "row"} == {
        "prometheus"
    }
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
