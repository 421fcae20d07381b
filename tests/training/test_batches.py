from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.transforms import Pixels
from training.batches import Batches

CPU = torch.device("cpu")


@pytest.fixture
def pixels() -> Pixels:
    """20 images that differ in every pixel's value."""
    return np.repeat(np.arange(20, dtype=np.uint8), 3 * 4 * 4).reshape(20, 3, 4, 4)


def shown(batch: torch.Tensor) -> list[int]:
    return [int(value) for value in batch[:, 0, 0, 0]]


def test_an_epoch_that_batches_do_not_divide_still_shows_every_image_once(pixels: Pixels) -> None:
    batches = Batches(pixels, size=8, seed=0, device=CPU)
    seen = [value for step in range(5) for value in shown(batches.pixels(step))]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))


def test_the_processes_share_a_batch_in_order(pixels: Pixels) -> None:
    whole = Batches(pixels, size=8, seed=3, device=CPU)
    parts = [Batches(pixels, size=8, seed=3, device=CPU, rank=rank, num_processes=4) for rank in range(4)]
    for step in (0, 1, 7):
        together = torch.cat([part.pixels(step) for part in parts])
        assert torch.equal(together, whole.pixels(step))


def test_steps_may_be_asked_for_in_any_order(pixels: Pixels) -> None:
    forward = Batches(pixels, size=6, seed=0, device=CPU)
    expected = [shown(forward.pixels(step)) for step in range(6)]
    jumping = Batches(pixels, size=6, seed=0, device=CPU)
    for step in (4, 0, 5, 3, 3, 2, 1):
        assert shown(jumping.pixels(step)) == expected[step]


def test_a_read_only_memory_map_serves_like_an_array(pixels: Pixels, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    one, other = (Batches(source, size=8, seed=0, device=CPU) for source in (pixels, mapped))
    assert torch.equal(one.pixels(2), other.pixels(2))
    assert torch.equal(one.sample(5), other.sample(5))


def test_a_sample_is_drawn_from_the_whole_data_set(pixels: Pixels) -> None:
    batches = Batches(pixels, size=4, seed=0, device=CPU)
    drawn = shown(batches.sample(6))
    assert drawn == sorted(set(drawn))
    assert drawn != list(range(6))
    assert len(batches.sample(100)) == 20
    assert shown(Batches(pixels, size=4, seed=1, device=CPU).sample(6)) != drawn
