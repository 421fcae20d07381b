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


def require_weights(metrics: Mapping[str, Any], module: nn.Module, prior: nn.Module | None = None) -> None:
    """Raises EvaluationError unless `evaluate` measured `metrics` on these weights, and with this prior."""
    measured = metrics.get("measured", {})
    for name, what, weights in (
        ("weights_sha256", "weights", module),
        ("prior_sha256", "prior", prior),
    ):
        found = measured.get(name, "nothing")
        expected = "nothing" if weights is None else weights_digest(weights)
        if found != expected:
            raise EvaluationError(
                f"the evaluation measured the {what} {found[:12]}, not these ({expected[:12]}): "
                "run `python -m training evaluate` again"
            )
