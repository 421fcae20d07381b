"""Jobs with a deadline: refused early where it is out of reach, never because of a guess."""

from __future__ import annotations

import math

import pytest

from service.engine.errors import DeadlineExceededError
from service.engine.step_times import FRESH_S, LEAST_MEASURED, StepTimes
from tests.service.engine_bench import EngineBench, Submitted, TimedRunner, job


def bench_of(max_batch: int) -> EngineBench:
    """A step takes 1 s, whatever the batch."""
    return EngineBench(TimedRunner(max_batch=max_batch, base_s=1.0, row_s=0.0))


def measured(max_batch: int) -> EngineBench:
    """The same at its time 0, when it knows that."""
    bench = bench_of(max_batch)
    bench.submit(job(LEAST_MEASURED))
    bench.run()
    bench.runner.now = 0.0
    return bench


def refusal(submitted: Submitted) -> str | None:
    """What was said to a job that did not get its result, None as long as it may."""
    error = submitted.ticket.error
    assert error is None or isinstance(error, DeadlineExceededError)
    return None if error is None else str(error)


def test_engine_that_measured_nothing_tries_every_deadline() -> None:
    bench = bench_of(4)
    hopeless = bench.submit(job(1000, deadline=2.0))
    assert refusal(hopeless) is None


def test_deadline_out_of_reach_is_refused_at_once_and_says_by_how_much() -> None:
    bench = measured(4)
    bench.submit(job(5))
    bench.tick(2)
    late = bench.submit(job(100, deadline=bench.runner.now + 50.0))
    assert refusal(late) == "the job needs about 100 s, 50 s are left before its deadline"
    assert bench.core.num_waiting_samples == 0


def test_deadline_within_reach_is_kept() -> None:
    bench = bench_of(4)
    bench.submit(job(5))
    bench.tick(2)
    just = bench.submit(job(100, deadline=bench.runner.now + 101.0))
    bench.run()
    assert just.ticket.result is not None


def test_more_samples_than_rows_need_more_time() -> None:
    bench = measured(2)
    bench.submit(job(2, 2))
    bench.tick()
    deadline = bench.runner.now + 25.0
    assert refusal(bench.submit(job(10, 4, deadline=deadline))) is None
    assert refusal(bench.submit(job(10, 6, deadline=deadline))) is not None


def test_time_that_more_urgent_work_takes_counts() -> None:
    bench = measured(1)
    bench.submit(job(20))
    bench.tick()
    deadline = bench.runner.now + 30.0
    assert refusal(bench.submit(job(20, deadline=deadline))) is not None
    assert refusal(bench.submit(job(4, deadline=deadline))) is None  # overtakes


def test_rows_that_become_free_in_time_count_too() -> None:
    bench = measured(2)
    bench.submit(job(10))
    bench.submit(job(20))
    bench.tick()
    deadline = bench.runner.now + 9.0 + 25.0
    assert refusal(bench.submit(job(26, deadline=deadline))) is not None
    assert refusal(bench.submit(job(25, deadline=deadline))) is None


def test_rows_work_side_by_side_on_what_is_more_urgent() -> None:
    bench = measured(2)
    for seed in range(3):
        bench.submit(job(10, seed=seed))
    deadline = bench.runner.now + 10.0 + 20.0
    assert refusal(bench.submit(job(21, deadline=deadline))) is not None
    assert refusal(bench.submit(job(20, deadline=deadline))) is None


def test_time_that_more_urgent_work_takes_counts_where_only_full_batches_were_measured() -> None:
    bench = bench_of(4)
    for seed in range(40):
        bench.submit(job(10, seed=seed))
    bench.tick(20)
    assert set(bench.runner.rows_per_step) == {4}
    deadline = bench.runner.now + 50.0
    assert refusal(bench.submit(job(10, deadline=deadline))) is not None
    assert refusal(bench.submit(job(2, deadline=deadline))) is None  # overtakes


def test_job_that_falls_behind_while_it_runs_is_given_up_before_its_deadline() -> None:
    bench = measured(1)
    bench.runner.base_s = 2.0
    tried = bench.submit(job(80, deadline=100.0))
    assert refusal(tried) is None
    bench.tick(30)
    assert "are left before its deadline" in str(refusal(tried))
    assert bench.runner.now < 100.0
    assert bench.core.num_active_samples == 0


def test_job_that_waits_is_given_up_when_it_could_no_longer_be_done() -> None:
    bench = bench_of(1)
    first = bench.submit(job(10))
    bench.tick()
    waiting = bench.submit(job(10, deadline=25.0))
    overtaking = bench.submit(job(6))
    bench.tick(15)
    assert refusal(waiting) is None
    bench.tick()
    assert refusal(waiting) == "the job needs about 10 s, 9 s are left before its deadline"
    assert first.ticket.result is not None
    assert overtaking.ticket.result is not None


def test_job_that_waits_unmeasured_is_looked_at_again_later() -> None:
    bench = bench_of(1)
    bench.submit(job(10))
    waiting = bench.submit(job(10, deadline=15.0))
    bench.tick(9)
    assert refusal(waiting) == "the job needs about 10 s, 7 s are left before its deadline"


def test_what_was_measured_long_ago_refuses_nobody() -> None:
    bench = bench_of(1)
    bench.submit(job(2))
    bench.run()
    bench.runner.now += FRESH_S + 1.0
    assert refusal(bench.submit(job(100, deadline=bench.runner.now + 5.0))) is None


def test_slow_first_steps_refuse_nobody() -> None:
    bench = bench_of(1)
    bench.runner.base_s = 100.0
    bench.submit(job(200))
    bench.tick(LEAST_MEASURED - 1)
    bench.runner.base_s = 1.0
    assert refusal(bench.submit(job(10, deadline=bench.runner.now + 12.0))) is None
    bench.tick()
    assert refusal(bench.submit(job(10, seed=1, deadline=bench.runner.now + 24.0))) is None


def test_slow_step_after_a_pause_is_not_blended_into_what_was_before() -> None:
    times = StepTimes()
    for _ in range(10):
        times.add(1, 100.0, now=0.0)
    for _ in range(LEAST_MEASURED):
        times.add(1, 1.0, now=FRESH_S + 1.0)
    assert times.at_least(1, now=FRESH_S + 1.0) == 1.0


def test_one_slow_step_does_not_refuse_what_follows() -> None:
    bench = bench_of(1)
    bench.submit(job(200))
    bench.tick(2)
    bench.runner.base_s = 500.0
    bench.tick()
    bench.runner.base_s = 1.0
    assert refusal(bench.submit(job(10, deadline=bench.runner.now + 12.0))) is None


def test_estimate_is_the_average_of_the_largest_measured_size_that_is_not_larger() -> None:
    times = StepTimes()
    assert times.at_least(8, now=0.0) is None
    for _ in range(LEAST_MEASURED):
        assert times.at_least(8, now=0.0) is None
        times.add(4, 2.0, now=0.0)
    for _ in range(LEAST_MEASURED):
        times.add(2, 1.0, now=0.0)
    assert times.at_least(8, now=1.0) == 2.0
    assert times.at_least(3, now=1.0) == 1.0
    assert times.at_least(1, now=1.0) is None


def test_estimate_falls_quickly_and_rises_slowly() -> None:
    times = StepTimes()
    for seconds in (7.0, 1.0, 3.0):  # the least of them counts
        times.add(1, seconds, now=0.0)
    times.add(1, 0.5, now=0.0)
    assert times.at_least(1, now=0.0) == pytest.approx(0.75)
    times.add(1, 1e6, now=0.0)
    assert times.at_least(1, now=0.0) == pytest.approx(0.825)


@pytest.mark.parametrize("deadline", [math.inf, 1e9])
def test_patient_jobs_are_never_refused(deadline: float) -> None:
    bench = bench_of(1)
    jobs = [bench.submit(job(20, seed=seed, deadline=deadline)) for seed in range(5)]
    bench.run()
    assert all(item.ticket.result is not None for item in jobs)
