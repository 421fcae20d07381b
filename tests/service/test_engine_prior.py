"""The latent prior's samples run in the same engine, beside the images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model.config import ImageConfig, ModelConfig, ScheduleConfig, small_config
from model.samplers import ddim, dpmpp_2m
from model.schedule import NoiseSchedule
from service.engine.engine_core import EngineCore
from service.engine.errors import StepFailedError
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Network, Ticket
from service.engine.observer import SilentObserver
from service.engine.runner import StepInputs, StepOutputs

Float32 = npt.NDArray[np.float32]

CONFIG: ModelConfig = small_config()
M = CONFIG.num_prototypes
SCHEDULE = NoiseSchedule.from_config(ScheduleConfig())


def latent_job(count: int, steps: int, seed: int) -> DenoiseJob:
    x = np.random.default_rng(seed).standard_normal((count, M), dtype=np.float32)
    table = dpmpp_2m(SCHEDULE, steps)
    return DenoiseJob(x, np.zeros((count, 0), np.float32), table, (0,) * count, network=Network.PRIOR)


def image_job(count: int, steps: int, seed: int) -> DenoiseJob:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *CONFIG.image.shape), dtype=np.float32)
    s = rng.random((count, M), dtype=np.float32)
    return DenoiseJob(x, s, ddim(SCHEDULE, steps), (0,) * count)


def run(core: EngineCore, jobs: list[DenoiseJob]) -> list[Ticket[DenoiseResult]]:
    tickets: list[Ticket[DenoiseResult]] = []
    for job in jobs:
        tickets.append(Ticket(lambda ticket: None))
        core.submit_denoise(job, tickets[-1], 0.0)
    for _ in range(1000):
        if core.has_work:
            core.tick(lambda: 0.0)
    assert all(ticket.is_resolved for ticket in tickets)
    return tickets


def engine(max_batch: int = 8, observer: SilentObserver | None = None, has_prior: bool = True) -> EngineCore:
    runner = FakeRunner(CONFIG, max_batch=max_batch, has_prior=has_prior)
    return EngineCore(runner, max_queue=100, observer=observer or SilentObserver())


def test_latents_batched_with_others_and_images_come_out_as_alone() -> None:
    jobs = [latent_job(3, 12, 1), image_job(4, 5, 2), latent_job(5, 7, 3), image_job(2, 9, 4)]
    together = run(engine(max_batch=4), jobs)
    for job, ticket in zip(jobs, together, strict=True):
        alone = run(engine(), [job])[0]
        assert ticket.result is not None
        assert alone.result is not None
        assert ticket.result.x.shape == job.x.shape
        np.testing.assert_allclose(ticket.result.x, alone.result.x, rtol=1e-5, atol=1e-5)


def test_a_model_without_a_prior_says_so() -> None:
    ticket = run(engine(has_prior=False), [latent_job(1, 3, 0)])[0]
    assert isinstance(ticket.error, StepFailedError)
    assert "no prior" in str(ticket.error)


def test_latents_in_flight_are_occupancy_but_not_denoise_steps() -> None:
    class Counts(SilentObserver):
        steps = 0
        occupied: tuple[int, int, int] = (0, 0, 0)

        def step_finished(self, rows: int, wasted: int) -> None:
            self.steps += rows

        def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
            self.occupied = (running, waiting, active_samples)

    counts = Counts()
    core = engine(max_batch=2, observer=counts)
    for job in (latent_job(3, 4, 0), image_job(2, 4, 0), image_job(1, 4, 0)):
        core.submit_denoise(job, Ticket(lambda ticket: None), 0.0)
    assert core.num_waiting_samples == 6
    core.tick(lambda: 0.0)
    assert counts.occupied == (2, 1, 4)
    assert core.num_waiting_samples == 2
    assert counts.steps == 2


def test_a_cancelled_latent_frees_its_rows() -> None:
    core = engine(max_batch=2)
    ticket: Ticket[DenoiseResult] = Ticket(lambda ticket: None)
    core.submit_denoise(latent_job(2, 50, 0), ticket, 0.0)
    core.tick(lambda: 0.0)
    assert core.num_active_samples == 2
    core.cancel(ticket)
    assert core.num_active_samples == 0
    assert not core.has_work


def test_a_latent_that_is_not_finite_fails_alone() -> None:
    class Marked(FakeRunner):
        def prior_step(self, inputs: StepInputs) -> StepOutputs:
            outputs = super().prior_step(inputs)
            outputs.x_next[inputs.x_t[:, 0] == 99.0] = np.nan
            return outputs

    core = EngineCore(Marked(CONFIG, has_prior=True), max_queue=100, observer=SilentObserver())
    bad, good = latent_job(1, 4, 0), latent_job(1, 4, 1)
    bad.x[0, 0] = 99.0
    tickets = run(core, [bad, good])
    assert tickets[0].error is not None
    assert tickets[1].result is not None


def test_the_prior_is_sized_by_the_model() -> None:
    wide = ModelConfig(image=ImageConfig(3, 32, 32))
    core = EngineCore(FakeRunner(wide, has_prior=True), max_queue=10, observer=SilentObserver())
    x = np.zeros((1, wide.num_prototypes), np.float32)
    job = DenoiseJob(x, np.zeros((1, 0), np.float32), ddim(SCHEDULE, 2), (0,), network=Network.PRIOR)
    result = run(core, [job])[0].result
    assert result is not None
    assert result.x.shape == (1, wide.num_prototypes)
