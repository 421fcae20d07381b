"""An edit does what it says, on real test images and the shipped model."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edit_success import measure, table_of
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
    results = measure(bundle, images, [0, 12, 24], steps=20, rounds=4)
    assert all(result.raised >= 90 for result in results), table_of(
        results, bundle=bundle, steps=20, rounds=4
    )


def test_raising_a_prototype_raises_its_activation_in_the_images_that_the_bundle_keeps() -> None:
    bundle = Bundle.load(SHIPPED_BUNDLE)
    assert bundle.pictures is not None
    (result,) = measure(bundle, bundle.pictures.reference_images[:20], [5], steps=10, rounds=2)
    assert result.raised >= 18
    assert result.achieved > result.before
