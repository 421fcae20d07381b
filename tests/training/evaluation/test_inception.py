"""Inception by path. The real weights are not here: small networks of the same interface stand in."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.evaluation.error import EvaluationError
from training.evaluation.inception import as_rgb, load_inception

RNG = np.random.default_rng(0)


class WithFlag(nn.Module):
    """Interface of inception-2015-12-05.pt: logits, or features where they are asked for."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.dtype == torch.uint8
        x = images.to(torch.float32).mean(dim=(2, 3))
        if return_features:
            return x
        return torch.zeros(len(x), 1000)


class Plain(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).amax(dim=(2, 3))


class Maps(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.float32)


class ManyChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(7, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.convolution(images.to(torch.float32))
        return y.flatten(1)


def saved(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(path)  # type: ignore[no-untyped-call]
    return path


def test_a_torchscript_network_is_asked_for_features_of_exact_pixels(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (7, 3, 5, 5), dtype=np.uint8)
    inception = load_inception(saved(WithFlag(), tmp_path / "inception.pt"))
    features = inception.features(pixels, batch_size=3)
    np.testing.assert_allclose(features, pixels.mean(axis=(2, 3)), rtol=1e-5)


def test_a_torchscript_network_without_the_flag_is_called_plainly_on_gray_as_rgb(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 1, 5, 5), dtype=np.uint8)
    features = load_inception(saved(Plain(), tmp_path / "inception.pt")).features(pixels)
    np.testing.assert_array_equal(features, np.repeat(pixels.max(axis=(2, 3)), 3, axis=1))
    np.testing.assert_array_equal(as_rgb(pixels), np.repeat(pixels, 3, axis=1))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Maps(), r"must give \(N, D\) features: 2 images gave \(2, 3, 5, 5\)"),
        (ManyChannels(), r"does not take uint8 images of shape \(3, 5, 5\)"),
    ],
)
def test_another_network_is_refused_by_what_it_gives(
    tmp_path: Path, network: nn.Module, message: str
) -> None:
    inception = load_inception(saved(network, tmp_path / "inception.pt"))
    with pytest.raises(EvaluationError, match=message):
        inception.features(np.zeros((2, 1, 5, 5), np.uint8))


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"absent\.pth is missing: give the path"):
        load_inception(tmp_path / "absent.pth")


def test_a_file_of_neither_kind_is_refused_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "notes.pth").write_text("no weights")
    torch.save({"network": nn.Linear(1, 1)}, tmp_path / "pickle.pth")
    for name in ("notes.pth", "pickle.pth"):
        with pytest.raises(EvaluationError, match=f"{name} is neither a TorchScript file nor a state dict"):
            load_inception(tmp_path / name)


def test_a_damaged_torchscript_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inception/constants.pkl", b"rubbish")
    with pytest.raises(EvaluationError, match=r"inception\.pt cannot be read as TorchScript"):
        load_inception(path)


def test_a_state_dict_says_which_package_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    if importlib.util.find_spec("torch_fidelity") is None:
        message = r"weights\.pth is a state dict, which needs torch-fidelity .* install it, or give"
    else:
        message = r"weights\.pth holds another network than Inception"
    with pytest.raises(EvaluationError, match=message):
        load_inception(path)
