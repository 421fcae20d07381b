"""Which pairs of prototypes a run is to decouple: named one by one, or those that a diagnosis found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from model.config import ConfigError

Pairs = list[list[int]]

LEAST_LEAKAGE = 0.1
"""Of what was meant to change; a coupling below it is hardly seen."""
TOP = 10


def coupled_pairs(
    text: str, num_prototypes: int, *, top: int = TOP, least_leakage: float = LEAST_LEAKAGE
) -> Pairs:
    """Ordered pairs [j, k], from "3:7,4:9" or from the file of a POST /diagnose answer in JSON.

    Of a diagnosis of a model with `num_prototypes`, the first `top` couplings of prototypes in its rank that
    are established and whose leakage is at least `least_leakage`, of either sign. Raises ConfigError.
    """
    if re.fullmatch(r"\d+:\d+(,\d+:\d+)*", text):
        return [[int(index) for index in pair.split(":")] for pair in text.split(",")]
    if not text.endswith(".json"):
        raise ConfigError(
            f"--decouple takes pairs such as 3:7,4:9, or a diagnosis in a .json file, not {text!r}"
        )
    report = _read(Path(text))
    try:
        m = len(report["effects"]["effect"][0])
        found = [
            [item["prototype"], item["affected"]]
            for item in report["couplings"]
            if item["prototype"] is not None  # but an attribute, which is no pair of prototypes
            and item["is_established"]
            and abs(item["leakage"] or 0.0) >= least_leakage
        ]
        if not all(type(index) is int for pair in found for index in pair):
            raise TypeError("prototypes are not whole numbers")
    except (KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{text} is no answer of POST /diagnose: {type(error).__name__}: {error}"
        ) from error
    if m != num_prototypes:
        raise ConfigError(f"{text} diagnoses a model of {m} prototypes, this run has {num_prototypes}")
    different = [pair for i, pair in enumerate(found) if pair not in found[:i]]  # one row for each edit
    if not different:
        raise ConfigError(
            f"{text} lists no established coupling with a leakage of {least_leakage:g} or more: nothing to "
            "decouple (more samples find weaker ones, num_couplings lists more)"
        )
    return different[:top]


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(report, dict):
        raise ConfigError(f"{path} must hold an object, the answer of POST /diagnose")
    return report
