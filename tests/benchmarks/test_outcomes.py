"""How the faults judge an answer."""

from __future__ import annotations

import json

import pytest

from benchmarks.faults.calls import Reply
from benchmarks.faults.outcomes import Expected, Outcome, Record, Tally, judge, never_ok, problem_fault
from service.problems import problem


def refusal(status: int, *, leave_out: str = "") -> Reply:
    """The service's own problem, with one header left out."""
    response = problem(status, "not now")
    headers = {name: text for name, text in response.headers.items() if name != leave_out}
    return Reply(status, headers, bytes(response.body))


def is_right(reply: Reply) -> str | None:
    return None if reply.body == b"right" else "another answer"


EXPECTED = Expected(is_right, frozenset({500, 503}), deadline_s=5.0)


@pytest.mark.parametrize(
    ("reply", "seconds", "outcome"),
    [
        (Reply(200, {}, b"right"), 1.0, Outcome.OK),
        (Reply(200, {}, b"right"), 5.5, Outcome.LATE),
        (Reply(200, {}, b"nonsense"), 1.0, Outcome.WRONG),
        (refusal(503), 1.0, Outcome.REFUSED),
        (refusal(500), 1.0, Outcome.REFUSED),
        (refusal(422), 1.0, Outcome.WRONG),
        (refusal(503, leave_out="retry-after"), 1.0, Outcome.WRONG),
        (refusal(503, leave_out="content-type"), 1.0, Outcome.WRONG),
        (Reply(204, {}, b""), 1.0, Outcome.WRONG),
    ],
)
def test_answer_is_judged_by_status_content_and_time(reply: Reply, seconds: float, outcome: Outcome) -> None:
    assert judge(reply, EXPECTED, seconds)[0] is outcome


def test_success_of_a_request_that_must_be_refused_is_wrong() -> None:
    assert judge(Reply(200, {}, b"right"), Expected(never_ok), 0.1)[0] is Outcome.WRONG


def test_every_refusal_of_the_service_is_a_proper_problem() -> None:
    statuses = (400, 413, 415, 422, 429, 500, 503, 504)
    assert [problem_fault(refusal(status)) for status in statuses] == [None] * len(statuses)


@pytest.mark.parametrize("body", [b"Service Unavailable", b"[]", json.dumps({"status": 500}).encode(), b""])
def test_refusal_with_another_body_is_no_proper_problem(body: bytes) -> None:
    headers = {"content-type": "application/problem+json", "retry-after": "1"}
    assert problem_fault(Reply(503, headers, body)) is not None


def test_tally_counts_outcomes_statuses_and_reasons() -> None:
    records = [
        Record(0.0, 0.5, Outcome.OK, 200),
        Record(0.0, 0.1, Outcome.WRONG, 200, "another answer"),
        Record(0.0, 0.2, Outcome.WRONG, 500, "another answer"),
        Record(0.0, 9.0, Outcome.HUNG, None, "no answer"),
    ]
    tally = Tally(records[:2]) + Tally(records[2:])
    assert tally.sent == 4
    assert tally.statuses == {200: 2, 500: 1}
    assert tally.ok_seconds == [0.5]
    assert tally.details(Outcome.WRONG, Outcome.HUNG) == {"another answer": 2, "no answer": 1}
