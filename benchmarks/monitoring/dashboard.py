"""The expressions of the Grafana dashboard and of the rules, as Prometheus can be asked for them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.service_process import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "patronus.json"
RULES = ROOT / "deploy" / "prometheus" / "rules"
VARIABLES = {"$__rate_interval": "10s", "$__interval": "5s", "$instance": ".*", "$endpoint": ".*"}
"""What Grafana would put in for a scrape interval of a second, and with everything chosen."""

_SELECTOR = re.compile(
    r"""\b(?P<name>(?:patronus|process|python|job|endpoint|up)[a-z0-9_:]*)\b\s*(?P<labels>\{[^}]*\})?"""
)
_LABEL = re.compile(r"\{\{(\w+)\}\}")
_STRING = re.compile(r'"[^"]*"')
_GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)")


@dataclass(frozen=True)
class Panel:
    """One expression of a panel; `legend` names a series by its labels: `{{endpoint}} p99`."""

    title: str
    expression: str
    legend: str

    def name_of(self, labels: Mapping[str, str]) -> str:
        return _LABEL.sub(lambda match: labels.get(match[1], ""), self.legend)


def panels(dashboard: Path = DASHBOARD) -> list[Panel]:
    """Every expression of every panel, without variables. Raises ValueError for an unknown variable."""
    found = json.loads(dashboard.read_text())
    return [
        Panel(panel["title"], _without_variables(target["expr"]), target["legendFormat"])
        for panel in _panels(found["panels"])
        for target in panel.get("targets", ())
    ]


def rules() -> Iterator[dict[str, Any]]:
    """Every recording and alerting rule as it stands in its file."""
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def selectors(expression: str) -> list[str]:
    """The series that an expression reads: `name{labels}`, each once."""
    plain = _GROUPING.sub("", expression)
    strings = [match.span() for match in _STRING.finditer(plain)]
    found = []
    for match in _SELECTOR.finditer(plain):
        inside_labels = plain[: match.start()].count("{") > plain[: match.start()].count("}")
        if not inside_labels and not any(start <= match.start() < end for start, end in strings):
            found.append(match["name"] + (match["labels"] or ""))
    return list(dict.fromkeys(found))


def _panels(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in found:
        if panel["type"] == "row":
            yield from _panels(panel["panels"])
        else:
            yield panel


def _without_variables(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    if "$" in expression:
        raise ValueError(f"an unknown variable in {expression}")
    return expression
