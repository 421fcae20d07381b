"""Short and long jobs, urgent and patient ones, in an engine that has too few rows for all of them."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from model.samplers import ddim, ddpm, dpmpp_2m
from service.engine.jobs import DenoiseJob, Priority
from service.engine.urgency import STRETCH
from tests.service.engine_bench import SCHEDULE, EngineBench, Submitted, TimedRunner, alone, job


def test_short_job_is_not_stuck_behind_a_wall_of_long_ones() -> None:
    bench = EngineBench(max_batch=4)
    bench.submit(job(1000, 12))
    bench.tick(3)
    short = bench.submit(job(10, 4))
    bench.tick(10)
    assert short.num_ticks == 10


def test_long_job_is_done_in_time_though_short_ones_never_stop_coming() -> None:
    bench = EngineBench(max_batch=2)
    long = bench.submit(job(50))
    overtaken_for = STRETCH[Priority.NORMAL] * (50 - 5)
    while long.ticket.result is None:
        ticks_for_those_who_overtook = overtaken_for * 5 // 3
        assert bench.num_ticks <= ticks_for_those_who_overtook + 50 + 3
        bench.submit(job(5, 2, seed=bench.num_ticks))  # five thirds of what there is room for
        bench.tick(3)
    assert bench.core.num_waiting_samples > 0


def test_jobs_that_are_equally_long_start_in_the_order_in_which_they_came() -> None:
    bench = EngineBench(max_batch=1)
    jobs = [bench.submit(job(3, seed=seed)) for seed in range(4)]
    bench.run()
    assert [item.ended_at_tick for item in jobs] == [3, 6, 9, 12]
    assert bench.preemptions.count == 0


def test_higher_priority_goes_first_and_lower_priority_last() -> None:
    bench = EngineBench(max_batch=1)
    order = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    jobs = {priority: bench.submit(job(6, priority=priority)) for priority in order}
    bench.run()
    ends = {priority: submitted.ended_at_tick for priority, submitted in jobs.items()}
    assert ends == {Priority.HIGH: 6, Priority.NORMAL: 12, Priority.LOW: 18}


def test_low_priority_is_late_but_never_starves() -> None:
    bench = EngineBench(max_batch=1)
    low = bench.submit(job(5, priority=Priority.LOW))
    while low.ticket.result is None:
        assert bench.num_ticks <= STRETCH[Priority.LOW] * 5 * 5 // 4 + 5 + 4
        bench.submit(job(5, priority=Priority.HIGH, seed=bench.num_ticks))
        bench.tick(4)
    assert bench.core.num_waiting_samples > 0


def test_large_request_does_not_keep_small_ones_out() -> None:
    bench = EngineBench(max_batch=4)
    large = bench.submit(job(20, 64))
    bench.tick()
    small = bench.submit(job(20))
    bench.run()
    assert small.num_ticks == 20
    assert large.num_ticks <= (64 * 20) // 4 + 20


@pytest.mark.parametrize("table", [ddpm(SCHEDULE, 30), dpmpp_2m(SCHEDULE, 30), ddim(SCHEDULE, 30, eta=1.0)])
def test_preempted_job_gives_the_same_image_to_the_bit(table: object) -> None:
    given = job(table, 4, seed=1)  # type: ignore[arg-type]
    bench = EngineBench(max_batch=4)
    long = bench.submit(given)
    for seed in range(6):
        bench.tick(3)
        bench.submit(job(2, 1 + seed % 4, seed=seed))
    bench.run()
    assert bench.preemptions.count > 6
    np.testing.assert_array_equal(long.x, alone(given))


def test_preempted_samples_take_places_in_the_queue() -> None:
    bench = EngineBench(max_batch=2, max_queue=4)
    bench.submit(job(100, 2))
    bench.tick()
    assert (bench.core.num_active_samples, bench.core.num_waiting_samples) == (2, 0)
    bench.submit(job(10, 2))
    bench.tick()
    assert (bench.core.num_active_samples, bench.core.num_waiting_samples) == (2, 2)
    assert bench.submit(job(5, 3)).ticket.error is not None


def test_cancelling_a_preempted_job_leaves_nothing_of_it() -> None:
    bench = EngineBench(max_batch=2)
    long = bench.submit(job(100, 2))
    bench.tick()
    short = bench.submit(job(10, 2))
    bench.tick()
    bench.core.cancel(long.ticket)
    assert (bench.core.num_active_samples, bench.core.num_waiting_samples) == (2, 0)
    bench.run()
    np.testing.assert_array_equal(short.x, alone(short.job))


def mixed_load(load: float, num_jobs: int) -> tuple[EngineBench, list[Submitted]]:
    """Poisson arrivals of 8 images in 10, 20, 50 or 250 steps, at a share of what 32 rows can do."""
    rng, choices = random.Random(0), (10, 20, 50, 250)
    bench = EngineBench(TimedRunner(max_batch=32))
    jobs_per_s = load * 32 / bench.runner.step_s(32) / (8 * sum(choices) / len(choices))
    arrivals: list[tuple[float, DenoiseJob]] = []
    at = 0.0
    tables = {steps: ddim(SCHEDULE, steps) for steps in choices}
    for seed in range(num_jobs):
        at += rng.expovariate(jobs_per_s)
        arrivals.append((at, job(tables[rng.choice(choices)], 8, seed=seed)))
    submitted: list[Submitted] = []
    while arrivals or bench.core.has_work:
        if not bench.core.has_work:
            bench.runner.now = max(bench.runner.now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= bench.runner.now:
            submitted.append(bench.submit(arrivals.pop(0)[1]))
        bench.tick()
    return bench, submitted


def test_every_step_count_is_slowed_down_alike_under_load() -> None:
    bench, submitted = mixed_load(load=0.9, num_jobs=200)
    slowdowns: dict[int, list[float]] = defaultdict(list)
    for item in submitted:
        steps = len(item.job.table)
        slowdowns[steps].append((item.ended_at - item.submitted_at) / (steps * bench.runner.step_s(8)))
    means = np.array([np.mean(values) for values in slowdowns.values()])
    assert max(bench.runner.rows_per_step) == 32
    assert means.sum() ** 2 / (len(means) * (means**2).sum()) > 0.9  # Jain's index
