"""Edits: does moving the prototype of a label give pictures that have the label, and are else the same?

Faces that lack a label are inverted, and the prototype that tells it best is moved to its 0.99 quantile (its
0.01 quantile where a low activation tells it), as POST /edit does it with `preserve: "others"`. What the
pictures show is said by an independent judge (`benchmarks.ground_truth.judge`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.edit_trials import EditTrials
from benchmarks.ground_truth.judge import NAMES, Judge, others_of
from benchmarks.ground_truth.subject import Subject
from model.schedule import NoiseSchedule
from service.pipeline.round_trip import round_trip
from training.data.cartoon_faces.attributes import LABELS, Value
from training.data.cartoon_faces.drawing import render
from training.data.cartoon_faces.faces import sample_faces

Bools = npt.NDArray[np.bool_]

SEED = 2_000_081


@dataclass(frozen=True)
class LabelEdit:
    """One label, asked for in `faces` faces that lack it; shares are of faces, against the reconstruction.

    raised: the prototype's re-encoded activation moved the way it was asked; success: the judge sees the
    label; leakage: mean over the labels of other attributes of the share in which the judge's answer turned;
    once_success, once_leakage: after the first round, before anything is corrected.
    """

    label: Value
    prototype: int
    auroc: float
    faces: int
    raised: float
    success: float
    leakage: float
    once_success: float
    once_leakage: float

    @property
    def ratio(self) -> float:
        """Leakage for each success; infinite without any."""
        return self.leakage / self.success if self.success else float("inf")


@dataclass(frozen=True)
class Measurement:
    """The edits, and what regenerating a picture without one does to the judge's answers."""

    edits: list[LabelEdit]
    unedited_flips: float


def measure(subject: Subject, judge: Judge, *, num_faces: int, steps: int, rounds: int) -> Measurement:
    """One `LabelEdit` for every label of cartoon faces."""
    size = subject.bundle.config.image.height
    trip = round_trip(NoiseSchedule.from_config(subject.bundle.config.schedule), steps)
    pool = sample_faces(SEED, 8 * num_faces)
    edits, flips = [], []
    for label in tqdm(LABELS, unit="label"):
        k = subject.attributes.names.index(label.name)
        aurocs = subject.attributes.auroc[:, k]
        j = int(np.maximum(aurocs, 1.0 - aurocs).argmax())
        faces = pool[~pool.has(label.name)][:num_faces]
        trials = EditTrials(subject.bundle, render(faces, size))
        inverted = trials.invert(trip)
        plain = trials.reconstruct(trip, inverted)
        before = judge.decisions(plain.pixels)
        flips.append(float((judge.decisions(trials.given.pixels) != before).mean()))
        rises = aurocs[j] >= 0.5
        others = [other for other in range(subject.bundle.config.num_prototypes) if other != j]
        to = trials.high(j) if rises else trials.low(j)
        trial = trials.edit(trip, inverted, j, held=others, rounds=rounds, to=to)
        moved = trial.after[-1].activations[:, j] - plain.activations[:, j]
        success, leakage = _turned(label, before, judge.decisions(trial.after[-1].pixels))
        once_success, once_leakage = _turned(label, before, judge.decisions(trial.after[0].pixels))
        edits.append(
            LabelEdit(
                label=label,
                prototype=j,
                auroc=float(aurocs[j]),
                faces=len(faces),
                raised=float((moved > 0 if rises else moved < 0).mean()),
                success=success,
                leakage=leakage,
                once_success=once_success,
                once_leakage=once_leakage,
            )
        )
    return Measurement(edits, float(np.mean(flips)))


def _turned(label: Value, before: Bools, after: Bools) -> tuple[float, float]:
    """Success and leakage of answers (n, K), of the faces in which the judge did not see the label before."""
    lacking = ~before[:, NAMES.index(label.name)]
    if not lacking.any():
        return 0.0, 0.0
    changed = (before != after)[lacking]
    return (
        float(after[lacking, NAMES.index(label.name)].mean()),
        float(changed[:, others_of(label.name)].mean()),
    )


def table_of(measurement: Measurement, judge: Judge) -> list[str]:
    """Markdown lines."""
    edits = measurement.edits
    lines = [
        "Moved: the prototype's re-encoded activation went the way it was asked. Success: the judge sees the "
        "label after the edit. Leakage: share of the judge's answers on labels of other attributes that "
        "turned, against the same picture regenerated without the edit. Regenerating alone turns "
        f"{measurement.unedited_flips:.3f} of the answers on the given picture. Judge: balanced accuracy on "
        "faces that it did not learn from.",
        "",
        "| label | judge | prototype | AUROC | moved | success | leakage | leakage / success "
        "| success, one round | leakage, one round |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for edit in edits:
        accuracy = judge.accuracy[NAMES.index(edit.label.name)]
        lines.append(
            f"| {edit.label.name} | {accuracy:.2f} | {edit.prototype} | {edit.auroc:.2f} "
            f"| {edit.raised:.2f} | {edit.success:.2f} | {edit.leakage:.3f} | {edit.ratio:.2f} "
            f"| {edit.once_success:.2f} | {edit.once_leakage:.3f} |"
        )
    for reach in ("local", "global"):
        chosen = [edit for edit in edits if edit.label.attribute.reach == reach]
        means = {
            name: float(np.mean([getattr(edit, name) for edit in chosen]))
            for name in ("raised", "success", "leakage", "once_success", "once_leakage")
        }
        ratio = means["leakage"] / means["success"] if means["success"] else float("inf")
        lines.append(
            f"| **{reach}, mean** | | | | {means['raised']:.2f} | {means['success']:.2f} "
            f"| {means['leakage']:.3f} | {ratio:.2f} | {means['once_success']:.2f} "
            f"| {means['once_leakage']:.3f} |"
        )
    return lines
