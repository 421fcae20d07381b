"""The way into an image's own noise and back, whole and in part, over the shipped model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle
from model.samplers import ddim, ddim_inversion
from model.schedule import NoiseSchedule
from model.transforms import to_x_0
from service.engine.onnx_runner import OnnxRunner
from service.engine.runner import StepInputs
from service.pipeline.errors import PipelineError
from service.pipeline.round_trip import Inversion, RoundTrip, level_reaching, round_trip

Float32 = npt.NDArray[np.float32]

STEPS = 10
LEVELS = [99, 199, 299, 399, 499, 599, 699, 799, 899, 999]


class Traveller:
    """Takes four of the bundle's images there and back under their own s."""

    def __init__(self, bundle: Bundle) -> None:
        assert bundle.pictures is not None
        self._runner = OnnxRunner(bundle, device="cpu", max_batch=4)
        self.x_0 = to_x_0(bundle.pictures.reference_images[:4])
        self._s = self._runner.encode(self.x_0)[0]

    def back_again(self, trip: RoundTrip) -> Float32:
        x, memory = self._follow(trip.there.timesteps, trip.there.coefficients, self.x_0, None)
        starts = [trip.turned(*states) for states in zip(x, memory, strict=True)]
        x = np.stack([start.x for start in starts])
        memories = [start.memory for start in starts if start.memory is not None]
        return self._follow(
            trip.back.timesteps, trip.back.coefficients, x, np.stack(memories) if memories else None
        )[0]

    def error(self, trip: RoundTrip) -> float:
        """Root of the mean squared difference to the given images, x_0 in [-1, 1]."""
        return float(np.sqrt(np.square(self.back_again(trip) - self.x_0).mean()))

    def _follow(
        self,
        timesteps: npt.NDArray[np.int64],
        coefficients: npt.NDArray[np.float64],
        x: Float32,
        memory: Float32 | None,
    ) -> tuple[Float32, Float32]:
        n = len(x)
        memory = np.zeros_like(x) if memory is None else memory
        for t, row in zip(timesteps, coefficients, strict=True):
            rows = np.repeat(row[None].astype(np.float32), n, axis=0)
            step = StepInputs(x, np.full(n, t, np.int64), self._s, memory, np.zeros_like(x), rows)
            out = self._runner.denoise_step(step)
            x, memory = out.x_next.copy(), out.memory_next.copy()
        return x, memory


@pytest.fixture(scope="module")
def traveller(bundle: Bundle) -> Traveller:
    return Traveller(bundle)


@pytest.fixture(scope="module")
def schedule(bundle: Bundle) -> NoiseSchedule:
    return NoiseSchedule.from_config(bundle.config.schedule)


def test_whole_way_is_ddim_inversion_and_ddim(schedule: NoiseSchedule) -> None:
    trip = round_trip(schedule, STEPS)
    for ours, theirs in ((trip.there, ddim_inversion(schedule, STEPS)), (trip.back, ddim(schedule, STEPS))):
        np.testing.assert_array_equal(ours.timesteps, theirs.timesteps)
        np.testing.assert_array_equal(ours.coefficients, theirs.coefficients)
    assert trip.start_timestep == 999


@pytest.mark.parametrize(("start", "reached"), [(99, 99), (198, 99), (500, 499), (998, 899), (999, 999)])
def test_start_is_the_next_level_at_or_below_what_was_asked(
    schedule: NoiseSchedule, start: int, reached: int
) -> None:
    trip = round_trip(schedule, STEPS, start=start)
    assert trip.start_timestep == reached
    assert trip.there.timesteps.tolist() == LEVELS[: LEVELS.index(reached) + 1]
    assert trip.back.timesteps.tolist() == trip.there.timesteps.tolist()[::-1]


def test_partial_way_back_gives_the_image_at_least_as_well_as_the_whole(
    schedule: NoiseSchedule, traveller: Traveller
) -> None:
    errors = [traveller.error(round_trip(schedule, STEPS, start=start)) for start in (199, 399, 599, 999)]
    assert 0.001 < errors[-1] < 0.2  # of a range of 2
    assert all(error <= errors[-1] for error in errors)


@pytest.mark.parametrize("start", [199, 499, 999])
def test_bdia_gives_the_image_back_exactly_from_everywhere(
    schedule: NoiseSchedule, traveller: Traveller, start: int
) -> None:
    trip = round_trip(schedule, STEPS, start=start, inversion="bdia")
    assert trip.start_timestep == start
    np.testing.assert_allclose(traveller.back_again(trip), traveller.x_0, atol=1e-4)


def test_bdia_takes_one_call_less_on_the_way_back(schedule: NoiseSchedule) -> None:
    trip = round_trip(schedule, STEPS, start=499, inversion="bdia")
    assert (len(trip.there), len(trip.back)) == (5, 4)


def test_different_ways_have_different_names(schedule: NoiseSchedule) -> None:
    inversions: tuple[Inversion, ...] = ("ddim", "bdia")
    trips = [
        round_trip(schedule, steps, start=start, inversion=inversion)
        for inversion in inversions
        for steps in (10, 20)
        for start in (None, 499, 299)
    ]
    assert len({trip.name for trip in trips}) == len(trips)


def test_the_same_way_has_one_name(schedule: NoiseSchedule) -> None:
    assert round_trip(schedule, STEPS).name == round_trip(schedule, STEPS, start=999).name
    assert round_trip(schedule, STEPS, start=450).name == round_trip(schedule, STEPS, start=399).name


@pytest.mark.parametrize(
    ("steps", "start", "inversion", "message"),
    [
        (0, None, "ddim", "steps must be 1 to 1000"),
        (1001, None, "ddim", "steps must be 1 to 1000"),
        (1, None, "bdia", "steps must be 2 to 1000 with inversion bdia, not 1"),
        (10, 98, "ddim", "start must be 99 to 999 with 10 steps of ddim, not 98"),
        (10, 198, "bdia", "start must be 199 to 999 with 10 steps of bdia, not 198"),
        (10, 1000, "ddim", "start must be 99 to 999"),
    ],
)
def test_impossible_way_is_refused_with_what_is_possible(
    schedule: NoiseSchedule, steps: int, start: int | None, inversion: Inversion, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        round_trip(schedule, steps, start=start, inversion=inversion)


@pytest.mark.parametrize(
    ("timestep", "inversion", "level"),
    [(0, "ddim", 99), (0, "bdia", 199), (299, "ddim", 299), (300, "ddim", 399), (999, "ddim", 999)],
)
def test_level_reaching_a_timestep_is_the_lowest_at_or_above_it(
    schedule: NoiseSchedule, timestep: int, inversion: Inversion, level: int
) -> None:
    assert level_reaching(schedule, STEPS, timestep, inversion) == level
