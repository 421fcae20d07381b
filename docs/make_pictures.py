"""Draw the pictures of README.md from the shipped bundle: `python docs/make_pictures.py`."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from model.bundle import Bundle
from model.transforms import Pixels, crop, to_picture
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.onnx_runner import OnnxRunner
from service.metrics import Metrics
from service.pipeline.editing import EditedImage, plan_edit
from service.pipeline.edits import Edit
from service.pipeline.pipeline import Pipeline
from service.settings import SHIPPED_BUNDLE

DOCS = Path(__file__).parent
SIZE, GAP, LABEL = 96, 8, 16
HEADINGS = ("image", "reconstruction", "edited", "prototype", "where")


async def draw(image: int = 0, num_rows: int = 4) -> None:
    """example.png, a test image to send; edits.png, edits that gain most for the pixels they change."""
    bundle = Bundle.load(SHIPPED_BUNDLE)
    metrics = Metrics()
    core = EngineCore(
        OnnxRunner(bundle, device="cpu", max_batch=32), max_queue=1024, observer=metrics.engine_observer()
    )
    async with AsyncEngine(core, max_queue=1024) as engine:
        cache = Cache(MemoryStore(max_bytes=2**26), namespace=bundle.digest, observer=metrics)
        pipeline = Pipeline(bundle, engine, cache)
        assert bundle.pictures is not None  # the shipped bundle has them
        pixels = bundle.pictures.reference_images[image]
        to_picture(pixels).save(DOCS / "example.png")
        edits = [(j, await _edited(pipeline, pixels, j)) for j in range(bundle.config.num_prototypes)]
        edits.sort(key=lambda pair: -_gain(*pair) / _change(pair[1]))
        rows = [await _row(pipeline, j, edited) for j, edited in edits[:num_rows]]
    _compose(rows).save(DOCS / "edits.png")


async def _edited(pipeline: Pipeline, pixels: Pixels, j: int) -> EditedImage:
    return await pipeline.edit(pixels, plan_edit(pipeline.bundle, [Edit(j, "max")], steps=50), math.inf)


def _gain(j: int, edited: EditedImage) -> float:
    """How much the prototype's activation rose over the reconstruction's."""
    return float(edited.achieved[j] - edited.reconstruction_activations[j])


def _change(edited: EditedImage) -> float:
    """Mean absolute difference to the reconstruction in gray levels, at least 4: less is hard to see."""
    difference = np.abs(edited.edited.astype(float) - edited.reconstruction.astype(float)).mean()
    return max(float(difference), 4.0)


async def _row(pipeline: Pipeline, j: int, edited: EditedImage) -> tuple[str, list[Image.Image]]:
    pictures = pipeline.bundle.pictures
    assert pictures is not None
    patch = to_picture(crop(pictures.exemplar_images[j], pictures.exemplar_boxes[j]))
    (result,) = await pipeline.encode([edited.edited])
    where = _tile(to_picture(edited.edited)).convert("RGB")
    scale = SIZE / edited.edited.shape[-1]
    box = [scale * side for side in pipeline.best_box(j, result.similarity_maps[j])]
    ImageDraw.Draw(where).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], outline=(255, 90, 0), width=2)
    before, after = edited.source.activations[j], edited.achieved[j]
    tiles = [_tile(to_picture(p)) for p in (edited.source.pixels, edited.reconstruction, edited.edited)]
    return f"prototype {j}: {before:.1f} to {after:.1f}", [*tiles, _tile(patch), where]


def _tile(picture: Image.Image) -> Image.Image:
    return picture.resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _compose(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    height = SIZE + LABEL + GAP
    canvas = Image.new("RGB", (len(HEADINGS) * (SIZE + GAP) + GAP, LABEL + len(rows) * height + GAP), "white")
    text = ImageDraw.Draw(canvas)
    for column, heading in enumerate(HEADINGS):
        text.text((GAP + column * (SIZE + GAP), 3), heading, fill="black")
    for i, (label, tiles) in enumerate(rows):
        top = LABEL + i * height + GAP
        text.text((GAP, top + SIZE + 2), label, fill="black")
        for column, tile in enumerate(tiles):
            canvas.paste(tile, (GAP + column * (SIZE + GAP), top))
    return canvas


if __name__ == "__main__":
    asyncio.run(draw())
