"""Following a job: what a listener is told, and that it neither delays nor breaks anything."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.engine.errors import NonFiniteOutputError
from tests.service.engine_bench import EngineBench, alone, job

Float32 = npt.NDArray[np.float32]


def test_each_step_of_each_sample_is_told() -> None:
    told: list[tuple[int, int]] = []
    bench = EngineBench()
    bench.submit(job(3, 2, on_step=lambda sample, step, x_0_hat: told.append((sample, step))))
    bench.run()
    assert told == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]


def test_preview_is_a_copy_and_the_last_one_is_the_image() -> None:
    previews: list[Float32] = []
    bench = EngineBench()
    submitted = bench.submit(job(4, on_step=lambda sample, step, x_0_hat: previews.append(x_0_hat)))
    bench.run()
    assert all(preview.base is None for preview in previews)  # it keeps no batch alive
    np.testing.assert_allclose(previews[-1], submitted.x[0], atol=1e-3)  # DDIM ends at x_0_hat
    assert np.abs(previews[0] - previews[-1]).max() > 0.01


def test_listener_that_raises_loses_neither_its_job_nor_the_engine() -> None:
    def complain(sample: int, step: int, x_0_hat: Float32) -> None:
        raise RuntimeError("the listener is broken")

    bench = EngineBench()
    submitted, neighbour = bench.submit(job(3, on_step=complain)), bench.submit(job(3, seed=1))
    bench.run()
    np.testing.assert_array_equal(submitted.x, alone(submitted.job))
    np.testing.assert_array_equal(neighbour.x, alone(neighbour.job))


def test_nothing_is_told_of_a_job_that_has_failed() -> None:
    told: list[tuple[int, int]] = []
    bench = EngineBench()
    given = job(3, 2, on_step=lambda sample, step, x_0_hat: told.append((sample, step)))
    given.x[0] = np.nan
    failed = bench.submit(given)
    bench.run()
    assert isinstance(failed.ticket.error, NonFiniteOutputError)
    assert told == []
