"""The engine's state machine, driven tick by tick with a runner that needs no weights and a clock we set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.config import small_config
from model.samplers import (
    SamplerTable,
    bdia,
    bdia_inversion,
    bdia_regeneration,
    ddim,
    ddim_inversion,
    ddpm,
    dpmpp_2m,
)
from model.schedule import NoiseSchedule
from service.engine.engine_core import EngineCore
from service.engine.errors import (
    DeadlineExceededError,
    EngineStoppedError,
    JobCancelledError,
    JobTooLargeError,
    NonFiniteOutputError,
    OutOfMemoryError,
    QueueFullError,
    StepFailedError,
)
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import Admission, DenoiseJob, EncodeJob, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]

CONFIG = small_config(size=16, num_prototypes=4)
SCHEDULE = NoiseSchedule.from_config(CONFIG.schedule)
MAX_TICKS = 1000


def all_tables(steps: int) -> dict[str, SamplerTable]:
    """Every sampler, in as many steps; BDIA has no fewer than two."""
    return {
        "ddim": ddim(SCHEDULE, steps),
        "ddim, eta 1, clipped": ddim(SCHEDULE, steps, eta=1.0, clip=1.0),
        "ddpm": ddpm(SCHEDULE, steps),
        "dpmpp_2m": dpmpp_2m(SCHEDULE, steps, clip=1.0),
        "ddim_inversion": ddim_inversion(SCHEDULE, steps),
        "bdia": bdia(SCHEDULE, max(2, steps)),
        "bdia_inversion": bdia_inversion(SCHEDULE, max(2, steps), gamma=0.96),
    }


def make_job(seed: int, table: SamplerTable, count: int = 1, deadline: float = math.inf) -> DenoiseJob:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *CONFIG.image.shape), dtype=np.float32)
    activations = rng.uniform(0.0, 3.0, (count, CONFIG.num_prototypes)).astype(np.float32)
    return DenoiseJob(x, activations, table, tuple(rng.integers(0, 2**32, count).tolist()), deadline)


def marked(job: DenoiseJob, mark: float, sample: int = 0) -> DenoiseJob:
    """The same job, with one sample that a faulty runner recognises by its first activation."""
    activations = job.activations.copy()
    activations[sample, 0] = mark
    return DenoiseJob(job.x, activations, job.table, job.noise_seeds, job.deadline)


@dataclass
class Claim:
    """A ticket, and how often it was told its outcome."""

    times_told: int = 0
    ticket: Ticket[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.ticket = Ticket(self._tell)

    def _tell(self, ticket: Ticket[Any]) -> None:
        self.times_told += 1

    @property
    def is_open(self) -> bool:
        return self.times_told == 0

    @property
    def x(self) -> Float32:
        assert self.ticket.error is None, self.ticket.error
        assert self.times_told == 1
        x: Float32 = self.ticket.result.x  # type: ignore[union-attr]
        return x

    @property
    def memory(self) -> Float32:
        memory: Float32 = self.ticket.result.memory  # type: ignore[union-attr]
        return memory

    def failed_with(self, kind: type[Exception]) -> bool:
        return self.times_told == 1 and type(self.ticket.error) is kind


def with_memory(job: DenoiseJob) -> DenoiseJob:
    """The same job, continuing from a memory of its own in every sample."""
    rng = np.random.default_rng(job.noise_seeds[0])
    return replace(job, memory=rng.standard_normal(job.x.shape, dtype=np.float32))


class Counts(SilentObserver):
    """Remembers what the engine tells its observer."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.wasted = 0
        self.out_of_memory_at: list[int] = []
        self.finished = 0
        self.last_occupancy = (0, 0, 0)

    def step_started(self, rows: int, bucket: int) -> None:
        self.steps.append((rows, bucket))

    def step_finished(self, rows: int, wasted: int) -> None:
        self.wasted += wasted

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
        self.last_occupancy = (running, waiting, active_samples)

    def job_finished(self, queue_s: float, inference_s: float) -> None:
        self.finished += 1

    def ran_out_of_memory(self, rows: int) -> None:
        self.out_of_memory_at.append(rows)


class Bench:
    """An EngineCore with its runner, observer and clock at hand."""

    def __init__(self, runner: FakeRunner | None = None, *, max_batch: int = 8, max_queue: int = 100) -> None:
        self.runner = runner or FakeRunner(CONFIG, max_batch=max_batch)
        self.counts = Counts()
        self.core = EngineCore(self.runner, max_queue=max_queue, observer=self.counts)
        self.now = 0.0

    def submit(self, job: DenoiseJob) -> Claim:
        claim = Claim()
        self.core.submit_denoise(job, claim.ticket, self.now)
        return claim

    def submit_images(self, x_0: Float32, deadline: float = math.inf) -> Claim:
        claim = Claim()
        self.core.submit_encode(EncodeJob(x_0, deadline), claim.ticket, self.now)
        return claim

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.core.tick(lambda: self.now)

    def run(self) -> None:
        for _ in range(MAX_TICKS):
            if not self.core.has_work:
                return
            self.tick()
        pytest.fail(f"work is left after {MAX_TICKS} ticks")


def alone(job: DenoiseJob) -> Float32:
    """What each sample of a job becomes in an engine of its own."""
    samples = []
    for i in range(len(job)):
        part = slice(i, i + 1)
        bench = Bench(max_batch=1)
        memory = None if job.memory is None else job.memory[part]
        claim = bench.submit(
            DenoiseJob(job.x[part], job.activations[part], job.table, job.noise_seeds[part], memory=memory)
        )
        bench.run()
        samples.append(claim.x)
    return np.concatenate(samples)


def assert_as_alone(claim: Claim, job: DenoiseJob) -> None:
    np.testing.assert_allclose(claim.x, alone(job), rtol=1e-4, atol=1e-4)


class MarkedRowsFail(FakeRunner):
    """Raises for a batch that holds a sample whose first activation is `mark`."""

    mark = 99.0

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        if (inputs.activations[:, 0] == self.mark).any():
            raise RuntimeError("a kernel failed")
        return super().denoise_step(inputs)

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        if (x_0[:, 0, 0, 0] == self.mark).any():
            raise RuntimeError("a kernel failed")
        return super().encode(x_0)


class MarkedRowsBecomeNaN(FakeRunner):
    """Gives NaN for each sample whose first activation, or pixel, is `mark`."""

    mark = 99.0

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        outputs = super().denoise_step(inputs)
        for array in (outputs.x_next, outputs.memory_next):
            array[inputs.activations[:, 0] == self.mark] = np.nan
        return outputs

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        activations, maps = super().encode(x_0)
        activations[x_0[:, 0, 0, 0] == self.mark] = np.nan
        return activations, maps


class SmallMemory(FakeRunner):
    """Has memory for `fits` rows at a time; `sizes` are the calls that were tried."""

    def __init__(self, *, fits: int, max_batch: int) -> None:
        super().__init__(CONFIG, max_batch=max_batch)
        self.fits = fits
        self.sizes: list[int] = []

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        self._allocate(len(inputs))
        return super().denoise_step(inputs)

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        self._allocate(len(x_0))
        return super().encode(x_0)

    def _allocate(self, rows: int) -> None:
        self.sizes.append(rows)
        if rows > self.fits:
            raise OutOfMemoryError(f"{rows} rows need more memory than there is")


class Dying(FakeRunner):
    """Ends the thread that calls it."""

    def denoise_step(self, inputs: StepInputs) -> StepOutputs:
        raise SystemExit

    def encode(self, x_0: Float32) -> tuple[Float32, Float32]:
        raise SystemExit


def images(seed: int, count: int) -> Float32:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, *CONFIG.image.shape)).astype(np.float32)


# --- Company


@pytest.mark.parametrize("company", range(8))
def test_samples_in_random_company_match_their_solo_runs(company: int) -> None:
    rng = np.random.default_rng(company)
    bench = Bench(max_batch=int(rng.integers(2, 9)))
    claims: list[tuple[Claim, DenoiseJob]] = []
    leaving: list[Claim] = []
    for seed in range(12):
        tables = list(all_tables(int(rng.integers(1, 12))).values())
        job = make_job(seed, tables[seed % len(tables)], count=int(rng.integers(1, 4)))
        claims.append((bench.submit(job), job))
        if rng.random() < 0.4:
            leaving.append(bench.submit(make_job(1000 + seed, tables[int(rng.integers(len(tables)))], 2)))
        bench.tick(int(rng.integers(0, 4)))
        if leaving and rng.random() < 0.5:
            bench.core.cancel(leaving[int(rng.integers(len(leaving)))].ticket)
    bench.run()
    assert max(rows for rows, _ in bench.counts.steps) > 1
    for claim, job in claims:
        assert_as_alone(claim, job)


@pytest.mark.parametrize("name", all_tables(1))
def test_late_arrival_matches_solo_run(name: str) -> None:
    bench = Bench()
    first = make_job(1, ddpm(SCHEDULE, 9), count=2)
    late = make_job(2, all_tables(5)[name])
    first_claim = bench.submit(first)
    bench.tick(3)
    late_claim = bench.submit(late)
    bench.run()
    assert_as_alone(first_claim, first)
    assert_as_alone(late_claim, late)


def test_late_arrival_joins_at_the_next_step() -> None:
    bench = Bench()
    bench.submit(make_job(1, ddim(SCHEDULE, 10)))
    bench.tick(4)
    late = bench.submit(make_job(2, ddim(SCHEDULE, 3)))
    bench.tick()
    assert bench.counts.steps == [(1, 1)] * 4 + [(2, 2)]
    bench.tick(2)
    assert not late.is_open
    assert bench.core.has_work


def test_the_same_seed_alone_and_in_a_batch_of_copies_gives_one_image() -> None:
    job = make_job(1, ddpm(SCHEDULE, 6))
    bench = Bench()
    claims = [bench.submit(job) for _ in range(5)]
    bench.run()
    for claim in claims:
        assert_as_alone(claim, job)


def test_different_noise_seeds_give_different_images() -> None:
    job = make_job(1, ddpm(SCHEDULE, 6))
    other = DenoiseJob(job.x, job.activations, job.table, (job.noise_seeds[0] + 1,))
    assert np.abs(alone(job) - alone(other)).max() > 0.01


def test_images_are_encoded_while_samples_are_denoised() -> None:
    bench = Bench()
    job = make_job(1, ddim(SCHEDULE, 4))
    denoised = bench.submit(job)
    bench.tick()
    x_0 = images(0, 3)
    encoded = bench.submit_images(x_0)
    bench.tick()
    expected, maps = FakeRunner(CONFIG).encode(x_0)
    np.testing.assert_array_equal(encoded.ticket.result.activations, expected)  # type: ignore[union-attr]
    np.testing.assert_array_equal(encoded.ticket.result.similarity_maps, maps)  # type: ignore[union-attr]
    bench.run()
    assert_as_alone(denoised, job)


def test_more_images_than_a_batch_holds_are_encoded_in_parts() -> None:
    bench = Bench(max_batch=4)
    x_0 = images(0, 11)
    claims = [bench.submit_images(part) for part in (x_0[:2], x_0[2:10], x_0[10:])]
    bench.tick()
    assert [claim.is_open for claim in claims] == [False, True, True]  # a batch in each tick
    bench.tick(2)
    expected, _ = FakeRunner(CONFIG).encode(x_0)
    found = np.concatenate([claim.ticket.result.activations for claim in claims])  # type: ignore[union-attr]
    np.testing.assert_array_equal(found, expected)
    assert [claim.times_told for claim in claims] == [1, 1, 1]


def test_encoding_holds_up_a_denoise_step_by_no_more_than_a_batch() -> None:
    bench = Bench(max_batch=4)
    bench.submit(make_job(1, ddim(SCHEDULE, 9)))
    waiting = [bench.submit_images(images(seed, 40)) for seed in range(2)]
    for num_steps in range(1, 4):
        bench.tick()
        assert len(bench.counts.steps) == num_steps
    assert bench.core.num_waiting_samples == 80 - 3 * 4
    assert all(claim.is_open for claim in waiting)


def test_what_a_request_made_is_encoded_beside_the_newcomers_and_not_after_them() -> None:
    bench = Bench(max_batch=4)
    newcomers = bench.submit_images(images(0, 12))
    own = Claim()
    bench.core.submit_encode(EncodeJob(images(1, 4), admission=Admission(is_taken=True)), own.ticket, 0.0)
    bench.tick()
    assert not own.is_open
    assert newcomers.is_open
    bench.tick(2)
    assert not newcomers.is_open


def test_images_of_somebody_who_left_are_not_encoded() -> None:
    bench = Bench(max_batch=4)
    leaving, staying = bench.submit_images(images(0, 4)), bench.submit_images(images(1, 4))
    leaving.ticket.abandoned = True  # the cancellation is on its way
    bench.tick()
    assert not staying.is_open


# --- Memory


def test_bdia_regeneration_takes_the_end_of_an_inversion_back_to_its_images() -> None:
    start = make_job(1, bdia_inversion(SCHEDULE, 12), count=5)
    bench = Bench(max_batch=3)
    inverted = bench.submit(start)
    bench.run()
    back = replace(start, x=inverted.memory, memory=inverted.x, table=bdia_regeneration(SCHEDULE, 12))
    bench = Bench(max_batch=2)
    restored = bench.submit(back)
    bench.run()
    np.testing.assert_allclose(restored.x, start.x, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_bdia_rows_that_bring_their_memory_match_solo_runs_beside_ddim_rows(gamma: float) -> None:
    bench = Bench(max_batch=4)
    jobs = [
        with_memory(make_job(1, bdia_regeneration(SCHEDULE, 9, gamma=gamma), count=3)),
        make_job(2, ddim(SCHEDULE, 7), count=2),
        with_memory(make_job(3, bdia_regeneration(SCHEDULE, 5, gamma=gamma), count=2)),
        make_job(4, bdia_inversion(SCHEDULE, 6, gamma=gamma)),
    ]
    claims = [bench.submit(job) for job in jobs[:2]]
    bench.tick(2)
    claims += [bench.submit(job) for job in jobs[2:]]
    bench.run()
    assert max(rows for rows, _ in bench.counts.steps) == 4
    for claim, job in zip(claims, jobs, strict=True):
        assert_as_alone(claim, job)


def test_memory_makes_the_difference_that_the_table_gives_it() -> None:
    job = with_memory(make_job(1, bdia_regeneration(SCHEDULE, 2)))
    assert job.memory is not None
    difference = alone(job) - alone(replace(job, memory=None))
    np.testing.assert_allclose(difference, job.memory, atol=1e-5)  # gamma times it, in its only step


def test_table_that_reads_no_memory_at_first_is_not_changed_by_one() -> None:
    for table in (ddim(SCHEDULE, 4), dpmpp_2m(SCHEDULE, 4), bdia(SCHEDULE, 4)):
        job = make_job(1, table)
        np.testing.assert_array_equal(alone(with_memory(job)), alone(job))


def test_sample_that_takes_over_a_row_does_not_see_the_memory_left_in_it() -> None:
    job = make_job(2, bdia_regeneration(SCHEDULE, 3))
    bench = Bench(max_batch=1)
    bench.submit(with_memory(make_job(1, bdia_regeneration(SCHEDULE, 3))))
    claim = bench.submit(job)
    bench.run()
    assert_as_alone(claim, job)


@pytest.mark.parametrize("max_batch", [1, 2, 8])
def test_result_has_each_samples_memory_in_its_place(max_batch: int) -> None:
    bench = Bench(max_batch=max_batch)
    job = make_job(1, bdia_inversion(SCHEDULE, 5), count=5)
    claim = bench.submit(job)
    bench.run()
    all_but_the_last_step = SamplerTable(job.table.timesteps[:-1], job.table.coefficients[:-1])
    np.testing.assert_allclose(
        claim.memory, alone(replace(job, table=all_but_the_last_step)), rtol=1e-5, atol=1e-5
    )


def test_result_outlives_the_rows_it_came_from() -> None:
    bench = Bench(max_batch=1)
    claim = bench.submit(make_job(1, bdia_inversion(SCHEDULE, 3)))
    bench.run()
    x, memory = claim.x.copy(), claim.memory.copy()
    bench.submit(make_job(2, bdia_inversion(SCHEDULE, 3)))
    bench.run()
    np.testing.assert_array_equal(claim.x, x)
    np.testing.assert_array_equal(claim.memory, memory)


def test_memory_of_another_shape_than_x_makes_no_job() -> None:
    job = make_job(1, bdia_regeneration(SCHEDULE, 3), count=2)
    with pytest.raises(ValueError, match=r"memory must have the shape of x, \(2, 1, 16, 16\), not \(1,"):
        replace(job, memory=job.x[:1])


# --- Places


def test_finished_row_frees_its_place_at_once() -> None:
    bench = Bench(max_batch=2)
    bench.submit(make_job(1, ddim(SCHEDULE, 5)))
    short = bench.submit(make_job(2, ddim(SCHEDULE, 2)))
    waiting = bench.submit(make_job(3, ddim(SCHEDULE, 6)))
    bench.tick(2)
    assert (short.is_open, waiting.is_open) == (False, True)
    assert bench.core.num_active_samples == 1
    bench.tick()
    assert bench.core.num_active_samples == 2


def test_job_larger_than_the_batch_is_split_into_rows() -> None:
    bench = Bench(max_batch=3)
    job = make_job(1, dpmpp_2m(SCHEDULE, 4), count=8)
    claim = bench.submit(job)
    bench.tick()
    assert bench.core.num_active_samples == 3
    assert bench.core.num_waiting_samples == 5
    bench.run()
    assert_as_alone(claim, job)
    assert {rows for rows, _ in bench.counts.steps} == {3, 2}


def test_waiting_jobs_start_in_the_order_in_which_they_came() -> None:
    bench = Bench(max_batch=1)
    claims = [bench.submit(make_job(seed, ddim(SCHEDULE, 1))) for seed in range(3)]
    order = []
    for _ in claims:
        bench.tick()
        order.append([claim.is_open for claim in claims])
    assert order == [[False, True, True], [False, False, True], [False, False, False]]


def test_occupancy_tells_jobs_that_run_jobs_that_wait_and_rows() -> None:
    bench = Bench(max_batch=3)
    bench.submit(make_job(1, ddim(SCHEDULE, 3), count=2))
    bench.submit(make_job(2, ddim(SCHEDULE, 3), count=2))
    bench.submit(make_job(3, ddim(SCHEDULE, 3)))
    bench.tick()
    assert bench.counts.last_occupancy == (2, 1, 3)
    bench.run()
    assert bench.counts.last_occupancy == (0, 0, 0)
    assert bench.counts.finished == 3


def test_occupancy_is_told_when_the_last_job_is_cancelled_and_no_tick_follows() -> None:
    bench = Bench(max_batch=3)
    claim = bench.submit(make_job(1, ddim(SCHEDULE, 3), count=2))
    bench.tick()
    assert bench.counts.last_occupancy == (1, 0, 2)
    bench.core.cancel(claim.ticket)
    assert bench.counts.last_occupancy == (0, 0, 0)


def test_timing_counts_from_submission_over_the_first_row_to_the_last_step() -> None:
    bench = Bench(max_batch=1)
    bench.submit(make_job(1, ddim(SCHEDULE, 2)))
    second = bench.submit(make_job(2, ddim(SCHEDULE, 3)))
    for _ in range(5):
        bench.now += 1.0
        bench.tick()
    timing = second.ticket.result.timing  # type: ignore[union-attr]
    assert (timing.queue_s, timing.inference_s) == (3.0, 2.0)


# --- The bound of the queue


def test_full_queue_refuses_a_job_and_keeps_the_others() -> None:
    bench = Bench(max_queue=3)
    kept = bench.submit(make_job(1, ddim(SCHEDULE, 2), count=2))
    refused = bench.submit(make_job(2, ddim(SCHEDULE, 2), count=2))
    fits = bench.submit(make_job(3, ddim(SCHEDULE, 2)))
    assert refused.failed_with(QueueFullError)
    bench.run()
    assert len(kept.x) + len(fits.x) == 3


def test_samples_with_a_row_take_no_place_in_the_queue() -> None:
    bench = Bench(max_batch=4, max_queue=4)
    bench.submit(make_job(1, ddim(SCHEDULE, 5), count=4))
    bench.tick()
    second = bench.submit(make_job(2, ddim(SCHEDULE, 2), count=4))
    assert second.is_open
    assert bench.submit(make_job(3, ddim(SCHEDULE, 2))).failed_with(QueueFullError)


def test_images_to_encode_and_samples_to_denoise_share_one_bound() -> None:
    bench = Bench(max_queue=4)
    bench.submit_images(images(0, 3))
    assert bench.submit(make_job(1, ddim(SCHEDULE, 2), count=2)).failed_with(QueueFullError)
    bench.submit(make_job(2, ddim(SCHEDULE, 2)))
    assert bench.submit_images(images(1, 1)).failed_with(QueueFullError)


def test_job_that_could_never_fit_is_refused_as_too_large() -> None:
    bench = Bench(max_queue=4)
    assert bench.submit(make_job(1, ddim(SCHEDULE, 2), count=5)).failed_with(JobTooLargeError)
    assert bench.submit_images(images(0, 5)).failed_with(JobTooLargeError)
    assert not bench.core.has_work


@pytest.mark.parametrize(
    ("samples", "activations", "seeds", "steps"),
    [(0, 0, 0, 1), (2, 1, 2, 1), (2, 2, 1, 1), (1, 1, 1, 0)],
)
def test_job_whose_parts_disagree_is_not_made(samples: int, activations: int, seeds: int, steps: int) -> None:
    full = ddim(SCHEDULE, 1)
    with pytest.raises(ValueError, match="a job needs samples and steps"):
        DenoiseJob(
            np.zeros((samples, *CONFIG.image.shape), np.float32),
            np.zeros((activations, CONFIG.num_prototypes), np.float32),
            SamplerTable(full.timesteps[:steps], full.coefficients[:steps]),
            (0,) * seeds,
        )


# --- Deadlines and cancelling


def test_deadline_that_passes_in_the_queue_fails_the_job_before_it_has_a_row() -> None:
    bench = Bench(max_batch=1)
    running_job = make_job(1, ddim(SCHEDULE, 5))
    running = bench.submit(running_job)
    late = bench.submit(make_job(2, ddim(SCHEDULE, 5), deadline=2.0))
    bench.tick()
    bench.now = 1.9
    bench.tick()
    assert late.is_open
    bench.now = 2.0
    bench.tick()
    assert late.failed_with(DeadlineExceededError)
    bench.run()
    assert_as_alone(running, running_job)


def test_deadline_that_passes_during_sampling_frees_the_rows_and_leaves_neighbours_intact() -> None:
    bench = Bench()
    neighbour = make_job(1, ddpm(SCHEDULE, 6))
    late = bench.submit(make_job(2, ddim(SCHEDULE, 6), count=3, deadline=2.0))
    claim = bench.submit(neighbour)
    bench.tick(3)
    assert bench.core.num_active_samples == 4
    bench.now = 2.5
    bench.tick()
    assert late.failed_with(DeadlineExceededError)
    assert bench.core.num_active_samples == 1
    bench.run()
    assert_as_alone(claim, neighbour)


def test_deadline_holds_for_images_to_encode() -> None:
    bench = Bench()
    late, early = bench.submit_images(images(0, 1), deadline=1.0), bench.submit_images(images(1, 1), 9.0)
    bench.now = 1.0
    bench.tick()
    assert late.failed_with(DeadlineExceededError)
    assert early.ticket.error is None
    assert not early.is_open


def test_cancelling_frees_rows_at_once_and_leaves_neighbours_intact() -> None:
    bench = Bench(max_batch=4)
    neighbours = [make_job(seed, all_tables(7)["ddpm"]) for seed in range(2)]
    first = bench.submit(neighbours[0])
    leaving = bench.submit(make_job(9, ddim(SCHEDULE, 7), count=2))
    second = bench.submit(neighbours[1])
    bench.tick(2)
    bench.core.cancel(leaving.ticket)
    assert leaving.failed_with(JobCancelledError)
    assert bench.core.num_active_samples == 2
    bench.run()
    assert_as_alone(first, neighbours[0])
    assert_as_alone(second, neighbours[1])


def test_cancelling_a_job_of_which_a_part_still_waits_drops_both_parts() -> None:
    bench = Bench(max_batch=2)
    leaving = bench.submit(make_job(1, ddim(SCHEDULE, 7), count=5))
    bench.tick()
    bench.core.cancel(leaving.ticket)
    assert leaving.failed_with(JobCancelledError)
    assert not bench.core.has_work


def test_cancelling_what_waits_to_be_encoded_leaves_the_others() -> None:
    bench = Bench()
    leaving, staying = bench.submit_images(images(0, 2)), bench.submit_images(images(1, 1))
    bench.core.cancel(leaving.ticket)
    bench.tick()
    assert leaving.failed_with(JobCancelledError)
    expected, _ = FakeRunner(CONFIG).encode(images(1, 1))
    np.testing.assert_array_equal(staying.ticket.result.activations, expected)  # type: ignore[union-attr]


def test_cancelling_a_finished_job_changes_nothing() -> None:
    bench = Bench()
    job = make_job(1, ddim(SCHEDULE, 2))
    claim = bench.submit(job)
    bench.run()
    bench.core.cancel(claim.ticket)
    assert_as_alone(claim, job)


def test_steps_for_somebody_who_has_left_are_counted_as_wasted() -> None:
    bench = Bench()
    bench.submit(make_job(1, ddim(SCHEDULE, 3)))
    leaving = bench.submit(make_job(2, ddim(SCHEDULE, 3), count=2))
    bench.tick()
    assert bench.counts.wasted == 0
    leaving.ticket.abandoned = True  # as AsyncEngine does, before its cancelling reaches the thread
    bench.tick()
    assert bench.counts.wasted == 2


# --- Faults


def test_step_that_raises_fails_only_the_job_of_the_row_it_raises_for() -> None:
    bench = Bench(MarkedRowsFail(CONFIG))
    neighbours = [make_job(seed, ddpm(SCHEDULE, 5), count=2) for seed in range(2)]
    first = bench.submit(neighbours[0])
    poisoned = bench.submit(marked(make_job(7, ddim(SCHEDULE, 5), count=3), MarkedRowsFail.mark, sample=1))
    second = bench.submit(neighbours[1])
    bench.run()
    assert poisoned.failed_with(StepFailedError)
    assert_as_alone(first, neighbours[0])
    assert_as_alone(second, neighbours[1])


def test_failed_job_frees_its_rows_and_drops_its_waiting_samples() -> None:
    bench = Bench(MarkedRowsFail(CONFIG, max_batch=2))
    poisoned = bench.submit(marked(make_job(7, ddim(SCHEDULE, 5), count=5), MarkedRowsFail.mark))
    bench.tick()
    assert poisoned.failed_with(StepFailedError)
    assert not bench.core.has_work


def test_row_that_becomes_nan_fails_only_its_job() -> None:
    bench = Bench(MarkedRowsBecomeNaN(CONFIG))
    neighbour = make_job(1, dpmpp_2m(SCHEDULE, 5), count=2)
    claim = bench.submit(neighbour)
    poisoned = bench.submit(marked(make_job(7, ddim(SCHEDULE, 5)), MarkedRowsBecomeNaN.mark))
    bench.tick()
    assert poisoned.failed_with(NonFiniteOutputError)
    next_in_that_row = bench.submit(neighbour)
    bench.run()
    assert_as_alone(claim, neighbour)
    assert_as_alone(next_in_that_row, neighbour)


@pytest.mark.parametrize(
    ("runner", "error"), [(MarkedRowsFail, StepFailedError), (MarkedRowsBecomeNaN, NonFiniteOutputError)]
)
def test_image_that_cannot_be_encoded_fails_only_its_job(
    runner: type[FakeRunner], error: type[Exception]
) -> None:
    bench = Bench(runner(CONFIG))
    bad = images(0, 3)
    bad[1, 0, 0, 0] = 99.0
    first, poisoned, second = (bench.submit_images(x_0) for x_0 in (images(1, 2), bad, images(2, 1)))
    bench.tick()
    assert poisoned.failed_with(error)
    for claim, x_0 in ((first, images(1, 2)), (second, images(2, 1))):
        expected, _ = FakeRunner(CONFIG).encode(x_0)
        np.testing.assert_array_equal(claim.ticket.result.activations, expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 7])
def test_running_out_of_memory_makes_calls_smaller_and_loses_nothing(fits: int) -> None:
    runner = SmallMemory(fits=fits, max_batch=8)
    bench = Bench(runner)
    jobs = [make_job(seed, ddpm(SCHEDULE, 4), count=3) for seed in range(4)]
    claims = [bench.submit(job) for job in jobs]
    bench.tick()
    too_large = min(bench.counts.out_of_memory_at)
    runner.sizes.clear()
    bench.run()
    assert max(runner.sizes) <= max(1, too_large // 2)
    for claim, job in zip(claims, jobs, strict=True):
        assert_as_alone(claim, job)


def test_running_out_of_memory_halves_the_limit() -> None:
    runner = SmallMemory(fits=4, max_batch=8)
    bench = Bench(runner)
    bench.submit(make_job(1, ddim(SCHEDULE, 2), count=8))
    bench.tick()
    assert runner.sizes == [8, 4, 4]
    bench.tick()
    assert runner.sizes == [8, 4, 4, 4, 4]
    assert bench.counts.out_of_memory_at == [8]


def test_encoding_that_runs_out_of_memory_is_done_in_smaller_calls() -> None:
    bench = Bench(SmallMemory(fits=2, max_batch=8))
    claim = bench.submit_images(images(0, 8))
    bench.tick()
    expected, _ = FakeRunner(CONFIG).encode(images(0, 8))
    np.testing.assert_array_equal(claim.ticket.result.activations, expected)  # type: ignore[union-attr]


def test_memory_for_not_even_one_row_fails_the_job() -> None:
    bench = Bench(SmallMemory(fits=0, max_batch=4))
    claim = bench.submit(make_job(1, ddim(SCHEDULE, 2), count=2))
    bench.tick()
    assert claim.failed_with(OutOfMemoryError)
    assert not bench.core.has_work


def test_abort_resolves_everything_that_waits_or_runs() -> None:
    bench = Bench(max_batch=3)
    claims: Sequence[Claim] = [bench.submit(make_job(seed, ddim(SCHEDULE, 5), count=2)) for seed in range(3)]
    bench.tick()
    encoding = bench.submit_images(images(0, 1))
    bench.core.abort(EngineStoppedError("the engine stops"))
    assert all(claim.failed_with(EngineStoppedError) for claim in [*claims, encoding])
    assert not bench.core.has_work
    assert bench.core.num_waiting_samples == 0


def test_abort_reaches_the_images_that_a_dying_runner_was_encoding() -> None:
    bench = Bench(Dying(CONFIG))
    claim = bench.submit_images(images(0, 1))
    with pytest.raises(SystemExit):
        bench.tick()
    bench.core.abort(EngineStoppedError("the engine is dead"))
    assert claim.failed_with(EngineStoppedError)


def test_abort_reaches_the_samples_that_a_dying_runner_was_denoising() -> None:
    bench = Bench(Dying(CONFIG))
    claim = bench.submit(make_job(1, ddim(SCHEDULE, 5)))
    with pytest.raises(SystemExit):
        bench.tick()
    bench.core.abort(EngineStoppedError("the engine is dead"))
    assert claim.failed_with(EngineStoppedError)


def test_continuation_of_taken_work_is_not_refused_when_the_queue_is_full() -> None:
    bench = Bench(max_queue=2)
    taken = Admission()
    bench.submit(replace(make_job(1, ddim(SCHEDULE, 2), count=2), admission=taken))
    assert bench.submit(make_job(2, ddim(SCHEDULE, 2))).failed_with(QueueFullError)
    later_part = bench.submit(replace(make_job(3, ddim(SCHEDULE, 2)), admission=taken))
    assert later_part.is_open
    bench.run()
    assert len(later_part.x) == 1
