from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.evaluation.error import EvaluationError
from training.evaluation.lpips import load_lpips


class PerPair(nn.Module):
    """Mean absolute difference of two colour images in [-1, 1], shaped as the lpips package shapes it."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        assert one.shape[1] == 3
        return (one - other).abs().mean(dim=(1, 2, 3), keepdim=True)


class MeanOfPairs(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().mean()


class Maps(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one - other


def saved(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(path)  # type: ignore[no-untyped-call]
    return path


@pytest.mark.parametrize("network", [PerPair(), MeanOfPairs()])
def test_the_mean_is_over_images_whatever_the_batches(tmp_path: Path, network: nn.Module) -> None:
    black, found = np.zeros((5, 1, 4, 4), np.uint8), np.zeros((5, 1, 4, 4), np.uint8)
    found[4] = 255  # one of five is 2 away in [-1, 1]
    lpips = load_lpips(saved(network, tmp_path / "lpips.pt"))
    assert lpips.mean(black, found, batch_size=4) == pytest.approx(2.0 / 5.0)


def test_a_network_that_gives_no_distances_is_refused(tmp_path: Path) -> None:
    black = np.zeros((2, 1, 4, 4), np.uint8)
    with pytest.raises(EvaluationError, match=r"one distance per pair, or their mean: 2 pairs gave"):
        load_lpips(saved(Maps(), tmp_path / "lpips.pt")).mean(black, black)


def test_a_network_that_takes_other_images_is_refused(tmp_path: Path) -> None:
    black = np.zeros((2, 1, 4, 4), np.uint8)
    one_image = saved(nn.Flatten(), tmp_path / "lpips.pt")
    with pytest.raises(EvaluationError, match=r"does not take two images of shape \(3, 4, 4\)"):
        load_lpips(one_image).mean(black, black)


def test_what_is_no_torchscript_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save({"lin0": torch.zeros(1)}, tmp_path / "alex.pth")
    with pytest.raises(EvaluationError, match=r"alex\.pth is no TorchScript file; .* trace `lpips\.LPIPS`"):
        load_lpips(tmp_path / "alex.pth")
    with pytest.raises(EvaluationError, match=r"absent\.pt is missing"):
        load_lpips(tmp_path / "absent.pt")
