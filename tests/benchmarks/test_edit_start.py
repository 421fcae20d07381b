"""The trade of where an edit starts, on few images of the shipped bundle."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.edit_start import Comparison, Trade, Way, table_of, ways
from benchmarks.edit_trials import EditTrials
from model.bundle import Bundle, Prototype
from service.settings import SHIPPED_BUNDLE

NUM_IMAGES = 4


@pytest.fixture(scope="module")
def trades() -> dict[Way, Trade]:
    """Of two prototypes that are said to emerge at 250 and 450, by 10 steps."""
    bundle = Bundle.load(SHIPPED_BUNDLE)
    prototypes = [Prototype(emergence_timestep=250 if j == 3 else 450) for j in range(30)]
    assert bundle.pictures is not None
    images = bundle.pictures.reference_images[:NUM_IMAGES]
    trials = EditTrials(dataclasses.replace(bundle, prototypes=tuple(prototypes)), images)
    comparison = Comparison(trials, [3, 7], steps=10, rounds=2)
    return {way: comparison.trade(way) for way in ways([299])}


def test_fewer_calls_are_made_and_less_is_changed_from_a_lower_start(trades: dict[Way, Trade]) -> None:
    full, part = (trades[Way(start, "ddim", False)].figures for start in ("full", 299))
    assert (full.start_timestep, part.start_timestep) == (999, 299)
    assert 30 <= full.calls <= 40  # there, back for the reconstruction, and one or two rounds
    assert 9 <= part.calls <= 12
    assert part.mse_elsewhere < full.mse_elsewhere


def test_auto_starts_where_each_prototype_emerges(trades: dict[Way, Trade]) -> None:
    auto = trades[Way("auto", "ddim", False)].figures
    assert auto.start_timestep == (299 + 499) / 2
    assert (3 * 3 + 3 * 5) / 2 <= auto.calls <= (4 * 3 + 4 * 5) / 2


def test_bdia_reconstructs_every_pixel(trades: dict[Way, Trade]) -> None:
    for way, trade in trades.items():
        assert (trade.figures.psnr_db == 100.0) == (way.inversion == "bdia")


def test_table_has_a_row_for_each_way(trades: dict[Way, Trade]) -> None:
    table = table_of(list(trades.values()), ["heading"])
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(trades)
    assert len({row.count("|") for row in rows}) == 1
