"""An image comes back from a BDIA inversion as it was, with the shipped model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.inversion import Method, Outcome, Refused, measure, methods, table_of
from model.bundle import Bundle
from model.config import ScheduleConfig
from model.schedule import NoiseSchedule
from service.settings import SHIPPED_BUNDLE


@pytest.fixture(scope="module")
def outcomes() -> Sequence[Outcome | Refused]:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    assert bundle.pictures is not None
    images = bundle.pictures.reference_images[:8]
    return measure(bundle, images, steps=[10], gammas=[0.3, 0.96, 1.0], prototypes=[5], windows=1)


def outcome(outcomes: Sequence[Outcome | Refused], name: str) -> Outcome:
    (found,) = [o for o in outcomes if isinstance(o, Outcome) and o.method.name == name]
    return found


@pytest.mark.parametrize("name", ["BDIA, γ 0.96", "BDIA, γ 1"])
def test_every_pixel_comes_back_from_bdia_whatever_company_it_is_regenerated_in(
    outcomes: Sequence[Outcome | Refused], name: str
) -> None:
    zero_edit = outcome(outcomes, name).zero_edit
    assert zero_edit.identical_pixels == 1.0
    assert zero_edit.psnr_db == pytest.approx(100.0)
    assert zero_edit.largest_difference < 1e-4


def test_ddim_inversion_gives_back_a_likeness_only(outcomes: Sequence[Outcome | Refused]) -> None:
    zero_edit = outcome(outcomes, "DDIM").zero_edit
    assert 20.0 < zero_edit.psnr_db < 40.0
    assert zero_edit.largest_difference > 0.1


def test_edits_after_bdia_do_what_they_say(outcomes: Sequence[Outcome | Refused]) -> None:
    small, full = outcome(outcomes, "BDIA, γ 1").edits
    assert small.raised >= 0.8
    assert full.raised >= 0.8
    assert small.mse_elsewhere < full.mse_elsewhere


def test_table_has_a_line_for_every_method_and_says_which_were_refused(
    outcomes: Sequence[Outcome | Refused],
) -> None:
    lines = table_of(outcomes, ["heading"]).splitlines()
    assert sum(line.startswith("| 10 | DDIM |") for line in lines) == 2
    assert (
        sum(line.startswith("| 10 | BDIA, γ 0.3 | refused: gamma must be 0.3298 to 1") for line in lines) == 2
    )
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {9, 11}


def test_bdia_takes_one_network_call_less_than_ddim() -> None:
    ddim, bdia = methods(NoiseSchedule.from_config(ScheduleConfig()), [20], [1.0])
    assert isinstance(ddim, Method)
    assert isinstance(bdia, Method)
    assert (ddim.num_calls, bdia.num_calls) == (40, 39)
