"""Inception features of images, from weights that are given by path: with them alone a distance is an FID."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.transforms import Pixels
from training.evaluation.error import EvaluationError
from training.evaluation.torchscript import first_line, is_torchscript, load_torchscript

FEATURE_WIDTH = 2048


class Inception:
    """uint8 images to features, with the network's own resizing to 299x299 (Heusel et al. 2017).

    Images stay uint8 until the network has them, as they would be read from PNG files.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: str) -> None:
        self._network = network
        self._device = device

    @torch.no_grad()
    def features(self, pixels: Pixels, *, batch_size: int = 64) -> npt.NDArray[np.float32]:
        """pixels (N, C, H, W) uint8, C = 1 or 3 -> features (N, D). Raises EvaluationError."""
        finished = []
        starts = range(0, len(pixels), batch_size)
        for start in tqdm(starts, desc="inception", unit="batch", leave=False):
            batch = as_rgb(pixels[start : start + batch_size])
            try:
                found = self._network(torch.from_numpy(batch).to(self._device))
            except RuntimeError as error:
                raise EvaluationError(
                    f"the Inception network does not take uint8 images of shape {batch.shape[1:]}: {error}"
                ) from error
            if found.ndim != 2 or len(found) != len(batch):
                raise EvaluationError(
                    f"the Inception network must give (N, D) features: {len(batch)} images gave "
                    f"{tuple(found.shape)}"
                )
            finished.append(found.float().cpu().numpy())
        return np.concatenate(finished)


def load_inception(path: Path, *, device: str = "cpu") -> Inception:
    """Inception from a file of one of two kinds. Raises EvaluationError, which names what is missing.

    TorchScript, called with uint8 images (B, 3, H, W), and `return_features=True` where it has such an
    argument (inception-2015-12-05.pt of StyleGAN-ADA); or the state dict of torch-fidelity and pytorch-fid
    (pt_inception-2015-12-05-6726825d.pth), which needs torch-fidelity and, through it, torchvision.
    """
    if not is_torchscript(path):
        return Inception(_from_state_dict(path).to(device), device)
    network = load_torchscript(path, device)
    forward: Any = network.forward
    names = [argument.name for argument in forward.schema.arguments]
    if "return_features" not in names:
        return Inception(network, device)
    return Inception(lambda images: network(images, return_features=True), device)


def as_rgb(pixels: Pixels) -> Pixels:
    """A copy of images (N, C, H, W), C = 1 or 3, as (N, 3, H, W): gray is repeated."""
    return np.array(np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])))


def _from_state_dict(path: Path) -> nn.Module:
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # the library's own reading runs any pickle
    except Exception as error:  # whatever a damaged file makes of the unpickler
        raise EvaluationError(
            f"{path} is neither a TorchScript file nor a state dict of plain tensors: {type(error).__name__}"
        ) from error
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        # Without antialiasing: the resizing that published FIDs were measured with.
        metric = FrechetInceptionDistance(
            FEATURE_WIDTH, feature_extractor_weights_path=str(path), antialias=False
        )
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"{path} is a state dict, which needs torch-fidelity (and torchvision, which that needs): "
            "install it, or give the TorchScript file inception-2015-12-05.pt, which needs neither"
        ) from error
    except RuntimeError as error:
        raise EvaluationError(f"{path} holds another network than Inception: {first_line(error)}") from error
    return metric.inception
