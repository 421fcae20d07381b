"""Where: does a prototype's similarity map point at what it tells?

For every label of a local attribute, the prototype whose activation tells it best (by the bundle's AUROC, on
the test split) and the probe of the label are asked where they see it in faces that have it, drawn from a
seed of their own. The pointing game (Zhang et al. 2018, Top-down neural attention by excitation backprop)
counts a hit where the strongest cell's centre lies on the label's own strokes, or within TOLERANCE pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from benchmarks.ground_truth.subject import Subject
from model.config import ModelConfig
from model.pixel_map import cell_centre, pixel_maps
from training.data.cartoon_faces.attributes import LABELS, Value
from training.data.cartoon_faces.drawing import masks, render
from training.data.cartoon_faces.faces import Faces, sample_faces

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

SEED = 2_000_003
TOLERANCE = 2
"""Pixels of 64: what 15 are in photographs of 500, the margin of the published game."""
LEVELS = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True)
class Place:
    """Of one label, over `faces` that have it.

    prototype, auroc: the one that tells it best; strict, hit: share of faces in which its strongest cell is
    on the strokes, or within TOLERANCE of them; probe_hit: the same for the probe's map; chance: of a pixel
    at random; iou: of its map, cut at the level that was best in other faces, with the strokes.
    """

    label: Value
    prototype: int
    auroc: float
    faces: int
    strict: float
    hit: float
    probe_hit: float
    chance: float
    iou: float


def measure(subject: Subject, num_faces: int) -> list[Place]:
    """One `Place` for every label of a local attribute."""
    pool = sample_faces(SEED, 8 * num_faces)
    found = []
    for label in LABELS:
        if label.attribute.reach == "local":
            faces = pool[pool.has(label.name)][: 2 * num_faces]
            found.append(_place(subject, label, faces))
    return found


def _place(subject: Subject, label: Value, faces: Faces) -> Place:
    """The first half of the faces chooses the level of the map, the second is measured."""
    attributes, statistics = subject.attributes, subject.statistics
    k = attributes.names.index(label.name)
    j = int(attributes.auroc[:, k].argmax())
    size = subject.bundle.config.image.height
    _, maps = subject.encode(render(faces, size))  # (n, m, h, w)
    strokes = masks(faces, label.attribute.name, size) > 0.5
    own = _pixel_maps(subject, maps[:, j])
    probe = _pixel_maps(
        subject, np.einsum("j,njhw->nhw", attributes.probe_weights[k] / statistics.spread, maps)
    )
    half = len(faces) // 2
    lowest, highest = own[:half].min(), own[:half].max()
    cuts = lowest + LEVELS * (highest - lowest)
    cut = cuts[np.argmax([iou(own[:half] >= cut, strokes[:half]).mean() for cut in cuts])]
    near = np.stack([binary_dilation(stroke, iterations=TOLERANCE) for stroke in strokes])
    rest = slice(half, None)
    return Place(
        label=label,
        prototype=j,
        auroc=float(attributes.auroc[j, k]),
        faces=len(faces) - half,
        strict=hits(maps[rest, j], strokes[rest], subject.bundle.config),
        hit=hits(maps[rest, j], near[rest], subject.bundle.config),
        probe_hit=float(np.mean(_at_peak(probe[rest], near[rest]))),
        chance=float(near[rest].mean()),
        iou=float(iou(own[rest] >= cut, strokes[rest]).mean()),
    )


def _pixel_maps(subject: Subject, maps: Float32) -> Float32:
    return pixel_maps(maps.astype(np.float32), subject.bundle.config)


def hits(maps: Float32, targets: Bools, config: ModelConfig) -> float:
    """Share of maps (n, h, w) whose strongest cell is centred on its target (n, H, W)."""
    cells = maps.reshape(len(maps), -1).argmax(axis=1).tolist()
    centres = np.array([cell_centre(cell, config) for cell in cells])  # (n, 2) of x, y
    x, y = np.rint(centres).astype(np.int64).T
    return float(targets[np.arange(len(maps)), y, x].mean())


def _at_peak(maps: Float32, targets: Bools) -> Bools:
    peaks = maps.reshape(len(maps), -1).argmax(axis=1)
    return np.asarray(targets.reshape(len(maps), -1)[np.arange(len(maps)), peaks])


def iou(found: Bools, true: Bools) -> npt.NDArray[np.float64]:
    """(n,) intersection over union of masks (n, H, W), 0 where both are empty."""
    union = (found | true).sum(axis=(1, 2))
    return np.asarray((found & true).sum(axis=(1, 2)) / np.maximum(union, 1))


def table_of(places: list[Place]) -> list[str]:
    """Markdown lines."""
    lines = [
        f"Strict: the strongest cell's centre is on the label's strokes; hit: within {TOLERANCE} pixels of "
        "them. Probe: the peak of the label's probe over all maps. Chance: a pixel at random, within "
        f"{TOLERANCE}. IoU: of the prototype's map, cut where it was best in as many other faces, with the "
        "strokes.",
        "",
        "| label | prototype | AUROC | faces | strict | hit | probe | chance | IoU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for place in places:
        lines.append(
            f"| {place.label.name} | {place.prototype} | {place.auroc:.2f} | {place.faces} "
            f"| {place.strict:.2f} | {place.hit:.2f} | {place.probe_hit:.2f} | {place.chance:.2f} "
            f"| {place.iou:.2f} |"
        )
    for name, chosen in (
        ("mean", places),
        ("mean, AUROC at least .8", [place for place in places if place.auroc >= 0.8]),
    ):
        if chosen:
            columns = ("strict", "hit", "probe_hit", "chance", "iou")
            means = " | ".join(f"{np.mean([getattr(p, column) for p in chosen]):.2f}" for column in columns)
            auroc = np.mean([place.auroc for place in chosen])
            lines.append(f"| **{name}** ({len(chosen)}) | | {auroc:.2f} | | {means} |")
    return lines
