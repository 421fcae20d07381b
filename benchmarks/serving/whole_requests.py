"""What a peer's worker does with a batch of whole requests: all of their steps, then everybody's answer.

It is the best that batching by request allows: at most `max_rows` samples run, those with the most steps
first; a sample that is done leaves its place to the next one, and each step is one network call over
what is left. Requests of the next batch wait until this one is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from benchmarks.serving.stand_in import StandInRunner
from model.bundle import Bundle
from model.prototype_boxes import PrototypeBoxes
from model.samplers import SamplerTable, ddim
from model.schedule import NoiseSchedule
from model.transforms import Pixels, from_x_0, to_x_0
from service.engine.batch_limit import measure_batch_limit
from service.engine.onnx_runner import OnnxRunner
from service.engine.runner import Float32, Runner, StepInputs
from service.images import decode_base64, decode_image, encode_png, image_id, to_base64
from service.pipeline.randomness import initial_noise, sample_seeds
from service.settings import SHIPPED_BUNDLE

Backend = Literal["stand-in", "bundle"]

MAX_ROWS = 32
MAX_PIXELS = 25_000_000


@dataclass(frozen=True)
class Encode:
    """A picture (C, H, W) whose activations are asked for."""

    pixels: Pixels


@dataclass(frozen=True)
class Generate:
    """Samples to draw under activations (m,)."""

    activations: Float32
    num_images: int
    steps: int
    seed: int


Work = Encode | Generate
Answer = dict[str, Any]


class WholeRequests:
    """The model of a peer: `parse` each request, `run` a batch of them; the answers are those of our API."""

    def __init__(self, backend: Backend) -> None:
        self._bundle = Bundle.load(SHIPPED_BUNDLE)
        self._runner: Runner
        if backend == "stand-in":
            self._runner = StandInRunner(self._bundle.config, max_batch=MAX_ROWS)
            self._max_rows = MAX_ROWS
        else:
            self._runner = OnnxRunner(self._bundle, device="cpu", max_batch=MAX_ROWS)
            self._runner.warm_up()
            self._max_rows = measure_batch_limit(self._runner)
        self._schedule = NoiseSchedule.from_config(self._bundle.config.schedule)

    def parse(self, body: dict[str, Any]) -> Work:
        """The JSON body of one request."""
        if "image" in body:
            data = decode_base64(body["image"])
            return Encode(decode_image(data, self._bundle.config.image, max_pixels=MAX_PIXELS))
        activations = np.array(body["activations"], np.float32)
        return Generate(activations, body["num_images"], body["steps"], body["seed"])

    def run(self, batch: Sequence[Work]) -> list[Answer]:
        """Everything that the network is needed for, then the answers, in order."""
        generated = iter(self._denoise([work for work in batch if isinstance(work, Generate)]))
        pictures = [[work.pixels] if isinstance(work, Encode) else next(generated) for work in batch]
        encodings = iter(self._encode([pixels for group in pictures for pixels in group]))
        answers = []
        for work, group in zip(batch, pictures, strict=True):
            known = [next(encodings) for _ in group]
            if isinstance(work, Encode):
                answers.append(self._encoded(group[0], *known[0]))
            else:
                answers.append(self._generated(work, group, [s for s, _ in known]))
        return answers

    def _denoise(self, batch: Sequence[Generate]) -> list[list[Pixels]]:
        shape = self._bundle.config.image.shape
        samples = [
            _Sample(initial_noise(seed, shape), work, self._table(work.steps))
            for work in batch
            for seed in sample_seeds(work.seed, work.num_images)
        ]
        waiting = sorted(samples, key=lambda sample: len(sample.table))  # the longest last, to be popped
        running: list[_Sample] = []
        while waiting or running:
            while waiting and len(running) < self._max_rows:
                running.append(waiting.pop())
            x_t = np.stack([sample.x for sample in running])
            zeros = np.zeros_like(x_t)  # DDIM needs neither memory nor noise
            outputs = self._runner.denoise_step(
                StepInputs(
                    x_t,
                    np.array([sample.table.timesteps[sample.step] for sample in running]),
                    np.stack([sample.work.activations for sample in running]),
                    zeros,
                    zeros,
                    np.stack([sample.table.coefficients[sample.step] for sample in running]).astype(
                        np.float32
                    ),
                )
            )
            for sample, x in zip(running, outputs.x_next, strict=True):
                sample.x = x
                sample.step += 1
            running = [sample for sample in running if sample.step < len(sample.table)]
        pixels = iter([from_x_0(sample.x) for sample in samples])
        return [[next(pixels) for _ in range(work.num_images)] for work in batch]

    def _encode(self, pictures: Sequence[Pixels]) -> list[tuple[Float32, Float32]]:
        known: list[tuple[Float32, Float32]] = []
        for start in range(0, len(pictures), MAX_ROWS):
            x_0 = to_x_0(np.stack(pictures[start : start + MAX_ROWS]))
            known += zip(*self._runner.encode(x_0), strict=True)
        return known

    def _encoded(self, pixels: Pixels, activations: Float32, maps: Float32) -> Answer:
        boxes = PrototypeBoxes(self._bundle.config)
        similarities = _numbers(activations)
        cells = maps.reshape(len(maps), -1).argmax(axis=1)
        patches = [
            {"prototype": j, "similarity": s, "box": boxes.box(j, int(cell))}
            for j, (s, cell) in enumerate(zip(similarities, cells, strict=True))
        ]
        encoded = {
            "image_id": image_id(pixels),
            "activations": similarities,
            "patches": patches,
            "cached": False,
            "similarity_maps": None,
        }
        return {"model": self._model, "images": [encoded]}

    def _generated(self, work: Generate, pictures: Sequence[Pixels], achieved: Sequence[Float32]) -> Answer:
        seeds = sample_seeds(work.seed, work.num_images)
        return {
            "model": self._model,
            "images": [
                {"image": to_base64(encode_png(pixels)), "seed": seed, "achieved": _numbers(s)}
                for pixels, seed, s in zip(pictures, seeds, achieved, strict=True)
            ],
            "activations": [_numbers(work.activations)] * work.num_images,
            "activations_from": "request",
            "clamped": [],
        }

    @cache  # noqa: B019  (there is one of us in a process)
    def _table(self, steps: int) -> SamplerTable:
        return ddim(self._schedule, steps, clip=1.0)

    @property
    def _model(self) -> dict[str, str]:
        return {"name": self._bundle.name, "digest": self._bundle.digest}


class _Sample:
    def __init__(self, x: Float32, work: Generate, table: SamplerTable) -> None:
        self.x = x
        self.work = work
        self.table = table
        self.step = 0


def _numbers(values: Float32) -> list[float]:
    rounded: list[float] = np.round(values.astype(np.float64), 6).tolist()
    return rounded
