from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from model.patronus import Patronus
from training.evaluation.error import EvaluationError
from training.evaluation.weights import require_weights, weights_digest


def test_the_digest_knows_weights_and_not_their_memory_layout(tiny_patronus: Patronus) -> None:
    other = copy.deepcopy(tiny_patronus)
    other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert weights_digest(other) == weights_digest(tiny_patronus)
    assert len(weights_digest(other)) == 64
    with torch.no_grad():
        other.encoder.prototypes[0, 0] += 1e-3
    assert weights_digest(other) != weights_digest(tiny_patronus)


def test_buffers_names_types_and_shapes_count() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_digest(module)

    plain = digest(a=torch.zeros(4), b=torch.ones(()))
    assert digest(b=torch.ones(()), a=torch.zeros(4)) == plain  # order of registration does not count
    assert digest(a=torch.zeros(4), c=torch.ones(())) != plain
    assert digest(a=torch.zeros(2, 2), b=torch.ones(())) != plain
    assert digest(a=torch.zeros(4, dtype=torch.int32), b=torch.ones(())) != plain
    assert digest(a=torch.zeros(4, dtype=torch.bfloat16), b=torch.ones(())) != plain


def test_figures_of_other_weights_are_refused() -> None:
    module = nn.Linear(2, 2)
    metrics = {"measured": {"weights_sha256": weights_digest(module)}}
    require_weights(metrics, module)
    nn.init.zeros_(module.weight)
    with pytest.raises(
        EvaluationError, match=r"measured the weights [0-9a-f]{12}, not these .*evaluate. again"
    ):
        require_weights(metrics, module)
    with pytest.raises(EvaluationError, match="measured the weights nothing"):
        require_weights({}, module)
