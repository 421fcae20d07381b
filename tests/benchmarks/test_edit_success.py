"""An edit does what it says, on real test images and the shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edit_success import measure
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE
from training.data import load_fashion_mnist

DATA = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is missing: Fashion-MNIST is not part of the repository"
)
def test_raising_a_prototype_raises_its_activation_in_90_of_100_images() -> None:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    images = load_fashion_mnist(DATA, "test", bundle.config.image).pixels[:100]
    results = measure(bundle, images, [0, 24], steps=20, rounds=4, holds=[False]).results
    in_the_end = [result for result in results if result.rounds == 4]
    assert len(in_the_end) == 2
    assert all(result.raised >= 90 for result in in_the_end), in_the_end


def test_holding_others_lets_them_change_less_and_the_edit_still_succeeds() -> None:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    assert bundle.pictures is not None
    images = bundle.pictures.reference_images[:20]
    results = measure(bundle, images, [5, 12], steps=10, rounds=3).results
    for j in (5, 12):
        free, held = (
            next(r for r in results if (r.prototype, r.holds_others, r.rounds) == (j, holds, 3))
            for holds in (False, True)
        )
        assert held.others_change < free.others_change
        assert held.raised >= 18
        assert held.achieved > held.before
