"""Equal differences look equally different."""

from __future__ import annotations

import numpy as np

from service.heat_colours import NUM_COLOURS, heat_colours, to_oklab

ALL = heat_colours(np.linspace(0.0, 1.0, NUM_COLOURS))


def test_oklab_is_that_of_its_author() -> None:
    """White and pure red, as Ottosson 2020 gives them for his matrices."""
    assert np.allclose(to_oklab(np.array([255, 255, 255], np.uint8)), [1.0, 0.0, 0.0], atol=1e-3)
    assert np.allclose(to_oklab(np.array([255, 0, 0], np.uint8)), [0.628, 0.225, 0.126], atol=1e-3)


def test_colours_are_evenly_spaced() -> None:
    lab = to_oklab(ALL)
    steps = np.linalg.norm(lab[16::16] - lab[:-16:16], axis=1)  # rounding to bytes hides smaller ones
    assert steps.max() / steps.min() < 1.1


def test_more_is_lighter() -> None:
    assert (np.diff(to_oklab(ALL)[:, 0]) > 0.0).all()


def test_levels_beyond_the_ends_are_the_ends() -> None:
    assert heat_colours([[-1.0, 0.0], [1.0, 7.0]]).tolist() == [[ALL[0].tolist()] * 2, [ALL[-1].tolist()] * 2]
