"""Shortcuts on purpose: how one attribute is made to tell another, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.cartoon_faces.attributes import ATTRIBUTES, Attribute, Value, value_named
from training.data.dataset import DataError

Float64 = npt.NDArray[np.float64]

FORM = "VALUE=VALUE@STRENGTH, several joined by +"
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Coupling:
    """Faces with the value `premise` have the value `conclusion` more often.

    P(conclusion | premise) = P(conclusion) + strength (1 - P(conclusion)): at 0 the two are independent,
    at 1 the premise implies the conclusion. Both values stay as frequent as they are without it: what faces
    with the premise gain, the others lose. Raises DataError.
    """

    premise: Value
    conclusion: Value
    strength: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise DataError(f"{self}: a strength must be 0 to 1, not {self.strength}")
        if self.premise.attribute == self.conclusion.attribute:
            raise DataError(f"{self}: both are values of {self.premise.attribute.name}, name two attributes")

    def __str__(self) -> str:
        return f"{self.premise.name}={self.conclusion.name}@{self.strength:g}"

    @property
    def phi(self) -> float:
        """The correlation of the two values over faces."""
        p, q = self.premise.attribute.probability, self.conclusion.attribute.probability
        return self.strength * math.sqrt(p * (1.0 - q) / (q * (1.0 - p)))

    @classmethod
    def parse(cls, text: str) -> Coupling:
        """From VALUE=VALUE@STRENGTH, such as fair_hair=smile@0.8. Raises DataError."""
        pair, at, strength = text.partition("@")
        premise, equals, conclusion = pair.partition("=")
        if not at or not equals:
            raise DataError(f"a coupling is {FORM}, such as fair_hair=smile@0.8, not {text!r}")
        try:
            number = float(strength)
        except ValueError as error:
            raise DataError(f"{text}: a strength must be 0 to 1, not {strength!r}") from error
        return cls(value_named(premise), value_named(conclusion), number)


@dataclass(frozen=True)
class ConditionalTable:
    """Probabilities (G, V) of an attribute's V values given each of the G values of another; (1, V) alone."""

    attribute: Attribute
    given: Attribute | None
    probabilities: Float64


def parse_couplings(text: str) -> tuple[Coupling, ...]:
    """Couplings joined by +. Raises DataError, also where they cannot all hold."""
    couplings = tuple(Coupling.parse(part) for part in text.split("+"))
    conditional_tables(couplings)
    return couplings


def conditional_tables(couplings: Sequence[Coupling]) -> tuple[ConditionalTable, ...]:
    """One table for each attribute, every attribute after the one that it is given by.

    Raises DataError where an attribute is concluded from two others or from itself, where two couplings have
    the same premise and attribute, and where the values of an attribute cannot stay as frequent as they are.
    """
    concluded: dict[str, list[Coupling]] = {}
    for coupling in couplings:
        concluded.setdefault(coupling.conclusion.attribute.name, []).append(coupling)
    tables = {
        attribute.name: _table(attribute, concluded.get(attribute.name, [])) for attribute in ATTRIBUTES
    }
    return tuple(_ordered(tables).values())


def _table(attribute: Attribute, couplings: list[Coupling]) -> ConditionalTable:
    usual = np.full(len(attribute.values), attribute.probability)
    if not couplings:
        return ConditionalTable(attribute, None, usual[None])
    given = couplings[0].premise.attribute
    rows: dict[int, Float64] = {}
    for coupling in couplings:
        premise = coupling.premise
        if premise.attribute != given:
            raise DataError(
                f"{couplings[0]} and {coupling}: {attribute.name} can be coupled to one attribute only, "
                f"not to {given.name} and {premise.attribute.name}"
            )
        if premise.index in rows:
            raise DataError(f"{premise.name} is coupled to {attribute.name} twice, once is allowed")
        certain = np.eye(len(usual))[coupling.conclusion.index]
        rows[premise.index] = (1.0 - coupling.strength) * usual + coupling.strength * certain
    others = 1.0 - given.probability * len(rows)
    left = usual - given.probability * sum(rows.values())
    if others < _TOLERANCE:
        possible = np.abs(left).max() < _TOLERANCE
        rest = usual
    else:
        rest = left / others
        possible = rest.min() > -_TOLERANCE
        rest = np.clip(rest, 0.0, 1.0)
    if not possible:
        raise DataError(_impossible(attribute, given, couplings))
    probabilities = np.stack([rows.get(index, rest) for index in range(len(given.values))])
    return ConditionalTable(attribute, given, probabilities)


def _impossible(attribute: Attribute, given: Attribute, couplings: list[Coupling]) -> str:
    asked = "+".join(str(coupling) for coupling in couplings)
    message = f"{asked}: the values of {attribute.name} cannot stay as frequent as they are"
    if len(couplings) > 1:
        return f"{message}; choose other strengths"
    p, q = given.probability, attribute.probability
    largest = q * (1.0 - p) / (p * (1.0 - q))
    turned = Coupling(couplings[0].conclusion, couplings[0].premise, couplings[0].strength)
    return f"{message}; a strength up to {largest:.3g} is possible, and so is the other way round, {turned}"


def _ordered(tables: dict[str, ConditionalTable]) -> dict[str, ConditionalTable]:
    """The same tables, every attribute after the one that it is given by."""
    ordered: dict[str, ConditionalTable] = {}
    while len(ordered) < len(tables):
        ready = {
            name: table
            for name, table in tables.items()
            if name not in ordered and (table.given is None or table.given.name in ordered)
        }
        if not ready:
            names = ", ".join(name for name in tables if name not in ordered)
            raise DataError(f"couplings go round in a circle through {names}: leave one out")
        ordered |= ready
    return ordered
