"""How one request ended, judged against what would have been right."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.faults.calls import Reply

PROBLEM = "application/problem+json"
BUSY = frozenset({429, 503})
"""Refusals that must say when to come back."""


class Outcome(enum.StrEnum):
    """ok, refused and left are as they should be; unreachable is where nobody was meant to listen.

    late: the right answer, after its deadline; hung: none at all by then; lost: the connection ended
    without one; wrong: another picture than the same seed gives alone, a status that does not fit the
    request, or a refusal that is no proper problem+json.
    """

    OK = "ok"
    REFUSED = "refused"
    LEFT = "left"
    UNREACHABLE = "unreachable"
    LATE = "late"
    HUNG = "hung"
    LOST = "lost"
    WRONG = "wrong"


@dataclass(frozen=True)
class Expected:
    """`check` says what is wrong with a 200, None if nothing is; `refusals` are other statuses that fit."""

    check: Callable[[Reply], str | None]
    refusals: frozenset[int] = frozenset()
    deadline_s: float = 30.0


@dataclass(frozen=True)
class Record:
    """One request: when it was sent (monotonic seconds), how long it took, and how it ended."""

    sent_at: float
    seconds: float
    outcome: Outcome
    status: int | None = None
    detail: str = ""
    kind: str = ""


def judge(reply: Reply, expected: Expected, seconds: float) -> tuple[Outcome, str]:
    """How a complete answer is to be counted, and why."""
    if reply.status == 200:
        fault = expected.check(reply)
        if fault is not None:
            return Outcome.WRONG, fault
        if seconds > expected.deadline_s:
            return Outcome.LATE, f"{seconds:.2f} s for a deadline of {expected.deadline_s:g} s"
        return Outcome.OK, ""
    if reply.status not in expected.refusals:
        return Outcome.WRONG, f"status {reply.status}: {reply.body[:200]!r}"
    fault = problem_fault(reply)
    return (Outcome.REFUSED, "") if fault is None else (Outcome.WRONG, fault)


def never_ok(reply: Reply) -> str:
    """The check of a request that no server may answer with 200."""
    return f"answered with 200: {reply.body[:200]!r}"


def problem_fault(reply: Reply) -> str | None:
    """What keeps a refusal from being a proper RFC 9457 problem, None if nothing does."""
    if reply.headers.get("content-type") != PROBLEM:
        return f"status {reply.status} as {reply.headers.get('content-type')}"
    try:
        problem = json.loads(reply.body)
    except ValueError:
        return f"status {reply.status} with a body that is not JSON"
    if not isinstance(problem, dict) or problem.get("status") != reply.status or not problem.get("title"):
        return f"status {reply.status} with the problem {reply.body[:200]!r}"
    if reply.status in BUSY and not reply.headers.get("retry-after", "").isdecimal():
        return f"status {reply.status} without Retry-After"
    return None


class Tally:
    """Counts of outcomes and statuses, and the details of what went wrong."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = list(records)

    def __add__(self, other: Tally) -> Tally:
        return Tally([*self._records, *other._records])

    @property
    def sent(self) -> int:
        return len(self._records)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(record.status for record in self._records if record.status is not None)

    @property
    def ok_seconds(self) -> list[float]:
        return [record.seconds for record in self._records if record.outcome is Outcome.OK]

    def count(self, outcome: Outcome) -> int:
        return sum(record.outcome is outcome for record in self._records)

    def details(self, *outcomes: Outcome) -> Counter[str]:
        return Counter(record.detail for record in self._records if record.outcome in outcomes)
