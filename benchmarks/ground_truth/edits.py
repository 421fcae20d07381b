"""Edits: does asking for a label give pictures that have the label, and are else the same?

Faces that lack a label are edited as POST /edit does it with `preserve: "others"`, in two ways: the label is
asked for as an attribute, at the 0.99 quantile of its log-odds; or the one prototype that tells it best is
moved to its 0.99 quantile (its 0.01 quantile where a low activation tells it). What the pictures show is said
by an independent judge (`benchmarks.ground_truth.judge`).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

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
class Outcome:
    """What the judge sees after an edit, shares of faces against the same faces regenerated without it.

    success: the label; leakage: mean over the labels of other attributes of the share that turned.
    """

    success: float
    leakage: float

    @property
    def ratio(self) -> float:
        """Leakage for each success; infinite without any."""
        return self.leakage / self.success if self.success else float("inf")


@dataclass(frozen=True)
class LabelEdit:
    """One label, asked for in `faces` faces that lack it, of the prototype and of the attribute, and of each
    after the first round, before anything is corrected.

    raised: share of faces in which the prototype's re-encoded activation moved the way it was asked.
    """

    label: Value
    prototype: int
    auroc: float
    probe_auroc: float
    faces: int
    raised: float
    by_prototype: Outcome
    by_prototype_once: Outcome
    by_attribute: Outcome
    by_attribute_once: Outcome


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
        whole = trials.edit_attribute(trip, inverted, label.name, holds_others=True, rounds=rounds)
        outcomes = [
            _turned(label, before, judge.decisions(pictures.pixels))
            for pictures in (trial.after[-1], trial.after[0], whole.after[-1], whole.after[0])
        ]
        edits.append(
            LabelEdit(
                label=label,
                prototype=j,
                auroc=float(aurocs[j]),
                probe_auroc=float(subject.attributes.probe_auroc[k]),
                faces=len(faces),
                raised=float((moved > 0 if rises else moved < 0).mean()),
                by_prototype=outcomes[0],
                by_prototype_once=outcomes[1],
                by_attribute=outcomes[2],
                by_attribute_once=outcomes[3],
            )
        )
    return Measurement(edits, float(np.mean(flips)))


def _turned(label: Value, before: Bools, after: Bools) -> Outcome:
    """Of answers (n, K), in the faces in which the judge did not see the label before."""
    lacking = ~before[:, NAMES.index(label.name)]
    if not lacking.any():
        return Outcome(0.0, 0.0)
    changed = (before != after)[lacking]
    return Outcome(
        float(after[lacking, NAMES.index(label.name)].mean()),
        float(changed[:, others_of(label.name)].mean()),
    )


def table_of(measurement: Measurement, judge: Judge) -> list[str]:
    """Markdown lines."""
    edits = measurement.edits
    lines = [
        "Success: the judge sees the label after the edit. Leakage: share of the judge's answers on labels "
        "of other attributes that turned, against the same picture regenerated without the edit. "
        f"Regenerating alone turns {measurement.unedited_flips:.3f} of the answers on the given picture. "
        "Judge: balanced accuracy on faces that it did not learn from. Moved: the prototype's re-encoded "
        "activation went the way it was asked.",
        "",
        "| label | judge | probe AUROC | success | leakage | leakage / success | success, one round "
        "| leakage, one round | prototype | AUROC | moved | prototype's success | prototype's leakage "
        "| prototype's leakage / success |",
        "|" + "---|" * 14,
    ]
    for edit in edits:
        accuracy = judge.accuracy[NAMES.index(edit.label.name)]
        whole, once, one = edit.by_attribute, edit.by_attribute_once, edit.by_prototype
        lines.append(
            f"| {edit.label.name} | {accuracy:.2f} | {edit.probe_auroc:.2f} | {whole.success:.2f} "
            f"| {whole.leakage:.3f} | {whole.ratio:.2f} | {once.success:.2f} | {once.leakage:.3f} "
            f"| {edit.prototype} | {edit.auroc:.2f} | {edit.raised:.2f} | {one.success:.2f} "
            f"| {one.leakage:.3f} | {one.ratio:.2f} |"
        )
    for reach in ("local", "global"):
        chosen = [edit for edit in edits if edit.label.attribute.reach == reach]
        whole, once, one = (
            Outcome(
                float(np.mean([outcome(edit).success for edit in chosen])),
                float(np.mean([outcome(edit).leakage for edit in chosen])),
            )
            for outcome in map(attrgetter, ("by_attribute", "by_attribute_once", "by_prototype"))
        )
        raised = float(np.mean([edit.raised for edit in chosen]))
        lines.append(
            f"| **{reach}, mean** | | | {whole.success:.2f} | {whole.leakage:.3f} | {whole.ratio:.2f} "
            f"| {once.success:.2f} | {once.leakage:.3f} | | | {raised:.2f} | {one.success:.2f} "
            f"| {one.leakage:.3f} | {one.ratio:.2f} |"
        )
    return lines
