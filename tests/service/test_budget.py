"""Row-steps in flight for each client."""

from __future__ import annotations

import pytest

from service.budget import Budget, BudgetExceededError, BudgetTooSmallError


def test_client_may_hold_its_budget_and_not_a_row_step_more() -> None:
    budget = Budget(max_row_steps=100)
    with budget.share("a") as first, budget.share("a") as second, budget.share("b") as other:
        first.take(60)
        second.take(40)
        other.take(100)
        with budget.share("a") as third, pytest.raises(BudgetExceededError, match=r"of the 100 .* 100 are"):
            third.take(1)


def test_finished_request_gives_back_what_it_took() -> None:
    budget = Budget(max_row_steps=100)
    with budget.share("a") as running:
        running.take(30)
        for _ in range(3):
            with budget.share("a") as share:
                share.take(70)
        with budget.share("a") as share, pytest.raises(BudgetExceededError):
            share.take(71)
    assert len(budget) == 0


def test_failed_request_gives_back_what_it_took() -> None:
    budget = Budget(max_row_steps=100)

    def fail() -> None:
        with budget.share("a") as share:
            share.take(100)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with budget.share("a") as share:
        share.take(100)


def test_request_that_could_never_fit_is_told_so_even_while_others_run() -> None:
    budget = Budget(max_row_steps=100)
    with budget.share("a") as running:
        running.take(50)
        with budget.share("a") as share, pytest.raises(BudgetTooSmallError, match=r"needs 101 .* 1 to 100"):
            share.take(101)
        with pytest.raises(BudgetTooSmallError, match="needs 101 "):
            running.take(51)  # with what it holds already


def test_refused_request_takes_nothing() -> None:
    budget = Budget(max_row_steps=100)
    with budget.share("a") as running:
        running.take(50)
        with budget.share("a") as share, pytest.raises(BudgetExceededError):
            share.take(51)
        with budget.share("a") as share:
            share.take(50)


def test_zero_is_no_limit() -> None:
    with Budget(max_row_steps=0).share("a") as share:
        share.take(10**15)
        assert share.row_steps == 10**15


def test_only_clients_with_something_in_flight_are_remembered() -> None:
    budget = Budget(max_row_steps=10)
    for i in range(100):
        with budget.share(f"client {i}") as share:
            share.take(5)
        with budget.share(f"client {i}"):
            pass
    assert len(budget) == 0
