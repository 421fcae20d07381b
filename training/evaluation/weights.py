"""Name a model's weights, so that figures are never kept beside other weights than those they measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from training.evaluation.error import EvaluationError


def weights_digest(module: nn.Module) -> str:
    """sha256 over name, type, shape and bytes of every tensor of the state dict, in the order of names.

    The same on every device and for every memory layout.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_weights(metrics: Mapping[str, Any], module: nn.Module) -> None:
    """Raises EvaluationError unless `metrics` (of `evaluate`) were measured on the weights of `module`."""
    measured = metrics.get("measured", {}).get("weights_sha256", "no weights it names")
    expected = weights_digest(module)
    if measured != expected:
        raise EvaluationError(
            f"the evaluation measured {measured[:12]}, not these weights ({expected[:12]}): "
            "run `python -m training evaluate` again"
        )
