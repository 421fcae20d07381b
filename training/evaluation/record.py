"""The figures of a run as files beside its checkpoint: evaluation.json, and a table to read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.evaluation.error import EvaluationError
from training.evaluation.published import markdown_tables

EVALUATION = "evaluation.json"
EVALUATION_TABLE = "evaluation.md"


def write_evaluation(run: Path, metrics: Mapping[str, Any]) -> None:
    """Keep the figures in the run directory and print them.

    evaluation.json holds them all; evaluation.md, where the figures say what they measured, the published
    table's rows beside the published figures. Raises EvaluationError where a figure is not finite.
    """
    wrong = [name for name, value in _flat(metrics) if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise EvaluationError(f"not finite, did training diverge? {', '.join(wrong)}")
    text = json.dumps(dict(metrics), indent=1, allow_nan=False)
    (run / EVALUATION).write_text(text + "\n", encoding="utf-8")
    rows = list(_flat(metrics))
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:{width}}  {value:.4f}" if isinstance(value, float) else f"{name:{width}}  {value}")
    if "measured" in metrics:
        table = markdown_tables(metrics)
        (run / EVALUATION_TABLE).write_text(table, encoding="utf-8")
        print(f"\n{table}", end="")


def read_evaluation(run: Path) -> dict[str, Any]:
    """The figures that `write_evaluation` kept. Raises EvaluationError."""
    path = run / EVALUATION
    try:
        metrics = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise EvaluationError(f"{path} is missing: run `python -m training evaluate` first") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error
    if not isinstance(metrics, dict):
        raise EvaluationError(f"{path} must hold an object, not {type(metrics).__name__}")
    return metrics


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
