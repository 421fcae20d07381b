"""The model under test: a bundle, whose networks answer directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.edit_trials import MAX_BATCH, encode_in_batches
from model.attributes import Attributes
from model.bundle import Bundle
from model.statistics import ActivationStatistics
from model.transforms import Pixels
from service.engine.onnx_runner import OnnxRunner

Float32 = npt.NDArray[np.float32]


class Subject:
    """A bundle that knows its labels. Raises ValueError for one that does not."""

    def __init__(self, directory: Path) -> None:
        self.bundle = Bundle.load(directory)
        if self.bundle.attributes is None or self.bundle.statistics is None:
            raise ValueError(f"{directory} knows no labels: `python -m training remeasure` finds them out")
        self.attributes: Attributes = self.bundle.attributes
        self.statistics: ActivationStatistics = self.bundle.statistics
        self._runner = OnnxRunner(self.bundle, device="auto", max_batch=MAX_BATCH)

    def encode(self, pixels: Pixels) -> tuple[Float32, Float32]:
        """pixels (N, C, H, W) -> activations (N, m), similarity_maps (N, m, h, w)."""
        return encode_in_batches(self._runner, pixels)
