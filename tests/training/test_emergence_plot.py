from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from model.bundle import Bundle, Prototype
from training.emergence_plot import earliest_first, plot_emergence


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    """Prototypes that emerge late, never, early and, of format 1, unknown when."""
    prototypes = (
        Prototype("late", 5, (2.0, 7.0), 0.9),
        Prototype("never", None, None, 0.0),
        Prototype("early", 30, (20.0, 35.0), 0.2),
        Prototype(),
    )
    return replace(Bundle.load(tiny_bundle), prototypes=prototypes)


def test_the_earliest_stand_on_top_and_those_that_never_emerge_below(bundle: Bundle) -> None:
    assert earliest_first(bundle) == [2, 0, 1, 3]


def test_the_picture_shows_patches_where_there_are_some(bundle: Bundle, tmp_path: Path) -> None:
    paths = tmp_path / "plots" / "with.png", tmp_path / "without.png"
    plot_emergence(bundle, paths[0])
    plot_emergence(replace(bundle, pictures=None), paths[1])
    with Image.open(paths[0]) as shown, Image.open(paths[1]) as bare:
        assert shown.format == bare.format == "PNG"
        assert shown.tobytes() != bare.tobytes()
