"""The batch limit: measured, kept, and changed by a lack of memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.engine.batch_limit import BatchLimits, batch_limit, measure_batch_limit
from service.engine.buckets import bucket_sizes
from service.engine.errors import OutOfMemoryError
from service.engine.isolation import BatchFailures
from service.engine.memory_limit import PATIENCE, MemoryLimit
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs
from tests.service.engine_bench import EngineBench, TimedRunner, alone, job


class BucketRunner(TimedRunner):
    """Computes sizes of `bucket_sizes` only; up to `parallel` rows take no longer than one."""

    def __init__(self, *, max_batch: int, parallel: int, one_s: float = 0.001) -> None:
        super().__init__(max_batch=max_batch)
        self.parallel = parallel
        self.one_s = one_s

    def bucket(self, rows: int) -> int:
        return next(size for size in bucket_sizes(self.max_batch) if size >= rows)

    def step_s(self, rows: int) -> float:
        return self.one_s * max(1.0, rows / self.parallel)


def measured(runner: TimedRunner, budget_s: float = 1.0) -> int:
    return measure_batch_limit(runner, budget_s=budget_s, clock=lambda: runner.now)


def known_or_measured(
    runner: TimedRunner, limits: BatchLimits, digest: str = "digest", **options: int
) -> int:
    return batch_limit(runner, digest, limits, clock=lambda: runner.now, **options)


@pytest.mark.parametrize(("parallel", "limit"), [(1, 1), (4, 4), (5, 6), (16, 16), (100, 32)])
def test_limit_is_the_smallest_size_that_keeps_the_device_busy(parallel: int, limit: int) -> None:
    assert measured(BucketRunner(max_batch=32, parallel=parallel)) == limit


def test_size_of_almost_the_best_throughput_is_good_enough() -> None:
    limit = measured(TimedRunner(max_batch=200, base_s=0.001, row_s=0.001), budget_s=1e6)
    best = 200 / 0.201
    assert limit / (0.001 + 0.001 * limit) >= 0.95 * best
    assert (limit - 1) / (0.001 * limit) < 0.95 * best


def test_measuring_keeps_to_its_budget_however_slow_the_device_is() -> None:
    runner = BucketRunner(max_batch=64, parallel=2, one_s=0.1)
    assert measured(runner) == 2
    assert runner.now <= 1.0


def test_measuring_makes_at_least_one_call() -> None:
    runner = BucketRunner(max_batch=64, parallel=2, one_s=50.0)
    assert measured(runner) == 1
    assert runner.rows_per_step == [1]


def test_limit_is_measured_once_for_each_bundle(tmp_path: Path) -> None:
    limits = BatchLimits(tmp_path / "cache" / "limits.json")
    runner = BucketRunner(max_batch=8, parallel=4)
    first = known_or_measured(runner, limits)
    calls = runner.calls
    assert known_or_measured(runner, limits) == first
    assert runner.calls == calls
    known_or_measured(runner, limits, "another digest")
    assert runner.calls > calls


class DisturbedRunner(BucketRunner):
    """All but the very first of its first calls wait for somebody else."""

    disturbed_calls = range(1, 28)

    def step_s(self, rows: int) -> float:
        return super().step_s(rows) * (30.0 if self.calls in self.disturbed_calls else 1.0)


def test_limit_of_a_disturbed_measurement_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = BatchLimits(tmp_path / "limits.json")
    assert known_or_measured(DisturbedRunner(max_batch=32, parallel=16), limits) == 16
    assert "is the machine busy?" in caplog.text
    undisturbed = BucketRunner(max_batch=32, parallel=16)
    assert known_or_measured(undisturbed, limits) == 16
    assert undisturbed.calls > 0
    assert known_or_measured(BucketRunner(max_batch=32, parallel=1), limits) == 16


def test_limit_is_measured_again_for_another_number_of_threads(tmp_path: Path) -> None:
    limits = BatchLimits(tmp_path / "limits.json")
    runner = BucketRunner(max_batch=8, parallel=4)
    known_or_measured(runner, limits, num_threads=1)
    calls = runner.calls
    known_or_measured(runner, limits, num_threads=2)
    assert runner.calls > calls


def test_limit_is_measured_again_for_another_largest_batch(tmp_path: Path) -> None:
    limits = BatchLimits(tmp_path / "limits.json")
    known_or_measured(BucketRunner(max_batch=8, parallel=100), limits)
    wider = BucketRunner(max_batch=16, parallel=100)
    known_or_measured(wider, limits)
    assert wider.calls > 0


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"key": "eight"}', '{"key": true}', "\udcff"])
def test_file_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "limits.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    limits = BatchLimits(path)
    assert limits.get("key") is None
    limits.keep("key", 8)
    assert limits.get("key") == 8


def test_limit_in_the_file_that_cannot_be_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    runner = BucketRunner(max_batch=8, parallel=100)
    known_or_measured(runner, BatchLimits(path))
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), 9)))
    limit = known_or_measured(runner, BatchLimits(path))
    assert 1 <= limit <= 8
    assert list(json.loads(path.read_text()).values()) == [limit]


def test_place_that_cannot_be_written_to_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    limits = BatchLimits(tmp_path / "file" / "limits.json")
    runner = BucketRunner(max_batch=8, parallel=4)
    assert 1 <= known_or_measured(runner, limits) <= 8
    assert limits.get("digest") is None


def test_engine_keeps_to_the_limit() -> None:
    bench = EngineBench(max_batch=8)
    bench.core.limit_batch(3)
    given = job(4, 8)
    submitted = bench.submit(given)
    bench.run()
    assert set(bench.runner.rows_per_step) == {3, 2}
    np.testing.assert_allclose(submitted.x, alone(given), rtol=1e-4, atol=1e-4)


class SmallMemory(TimedRunner):
    """Has memory for `fits` rows."""

    fits = 8

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        outputs = super().denoise_step(inputs)
        if len(inputs) > self.fits:
            raise OutOfMemoryError("too many rows")
        return outputs


def test_batches_grow_back_after_memory_was_short() -> None:
    runner = SmallMemory(max_batch=8)
    bench = EngineBench(runner)
    bench.submit(job(1000, 8))
    runner.fits = 2
    bench.tick()
    runner.fits = 8
    runner.rows_per_step.clear()
    bench.tick()
    assert max(runner.rows_per_step) == 2
    bench.tick(20 * PATIENCE)
    assert runner.rows_per_step[-1] == 8


def failures(at: int | None) -> BatchFailures:
    return BatchFailures(out_of_memory_at=at)


def test_limit_doubles_once_per_patience_and_never_beyond_the_first() -> None:
    limit = MemoryLimit(6, SilentObserver())
    limit.observe(failures(6))
    grown = []
    for _ in range(4 * PATIENCE):
        limit.observe(failures(None))
        grown.append(limit.rows)
    assert grown[0] == 3
    assert grown.index(6) == 2 * PATIENCE - 1
    assert grown[-1] == 6


def test_each_failure_doubles_the_patience() -> None:
    limit = MemoryLimit(8, SilentObserver())
    waited = []
    for _ in range(3):
        limit.observe(failures(8))
        count = 0
        while limit.rows < 8:
            limit.observe(failures(None))
            count += 1
        waited.append(count)
    assert waited == [2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE]


def calls_until(limit: MemoryLimit, rows: int) -> int:
    """How many calls must fit until the limit is `rows`."""
    count = 0
    while limit.rows < rows:
        limit.observe(failures(None))
        count += 1
    return count


def test_failures_in_a_row_are_one_shortage_and_double_the_patience_once() -> None:
    limit = MemoryLimit(8, SilentObserver())
    for at in (8, 4, 2, *[1] * 50):
        limit.observe(failures(at))
    assert limit.rows == 1
    assert calls_until(limit, 8) == 3 * 2 * PATIENCE


def test_patience_is_forgotten_when_full_batches_have_fitted_for_as_long() -> None:
    limit = MemoryLimit(8, SilentObserver())
    waited = []
    for _ in range(3):
        limit.observe(failures(8))
        waited.append(calls_until(limit, 8))
        for _ in range(2 * PATIENCE):
            limit.observe(failures(None))
    assert waited == [2 * PATIENCE] * 3


def test_each_call_of_a_batch_counts() -> None:
    limit = MemoryLimit(2, SilentObserver())
    limit.observe(failures(2))
    limit.observe(BatchFailures(num_calls=2 * PATIENCE - 1))
    assert limit.rows == 1
    limit.observe(BatchFailures(num_calls=1))
    assert limit.rows == 2
