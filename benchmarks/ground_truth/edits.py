"""Edits: does asking for a label give pictures that have the label, and are else the same?

Faces that lack a label are edited as POST /edit does it, in three ways. The label is asked for as an
attribute, at the 0.99 quantile of its log-odds, with `preserve_attributes`: all labels that it does not
exclude (red hair excludes fair hair); or with `preserve: "others"`, all prototypes. Or the one prototype that
tells it best is moved to its 0.99 quantile (its 0.01 quantile where a low activation tells it), with
`preserve: "others"`. What the pictures show is said by an independent judge.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """One label, asked for in `faces` faces that lack it: of the attribute with other attributes held, also
    after the first round, before anything is corrected; of the attribute and of the prototype with prototypes
    held.

    raised: share of faces in which the prototype's re-encoded activation moved the way it was asked.
    """

    label: Value
    prototype: int
    auroc: float
    probe_auroc: float
    faces: int
    raised: float
    holding_attributes: Outcome
    holding_attributes_once: Outcome
    holding_prototypes: Outcome
    by_prototype: Outcome


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
        free = [NAMES[other] for other in others_of(label.name)]
        clean = trials.edit_attribute(trip, inverted, label.name, rounds=rounds, held_attributes=free)
        whole = trials.edit_attribute(trip, inverted, label.name, rounds=rounds, holds_prototypes=True)
        outcomes = [
            _turned(label, before, judge.decisions(pictures.pixels))
            for pictures in (clean.after[-1], clean.after[0], whole.after[-1], trial.after[-1])
        ]
        edits.append(
            LabelEdit(
                label=label,
                prototype=j,
                auroc=float(aurocs[j]),
                probe_auroc=float(subject.attributes.probe_auroc[k]),
                faces=len(faces),
                raised=float((moved > 0 if rises else moved < 0).mean()),
                holding_attributes=outcomes[0],
                holding_attributes_once=outcomes[1],
                holding_prototypes=outcomes[2],
                by_prototype=outcomes[3],
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


WAYS = ("holding_attributes", "holding_attributes_once", "holding_prototypes", "by_prototype")
"""The outcomes of a LabelEdit in the order of the table's columns."""


def table_of(measurement: Measurement, judge: Judge) -> list[str]:
    """Markdown lines."""
    edits = measurement.edits
    lines = [
        "Success: the judge sees the label after the edit. Leakage: share of the judge's answers on labels "
        "of other attributes that turned, against the same picture regenerated without the edit; ratio: "
        "leakage over success. "
        f"Regenerating alone turns {measurement.unedited_flips:.3f} of the answers on the given picture. "
        "Judge: balanced accuracy on faces that it did not learn from. Moved: the prototype's re-encoded "
        "activation went the way it was asked.",
        "",
        "Attribute: edited with `preserve_attributes`, all labels of other attributes; once: the same after "
        "one round; prototypes held: the attribute edited with `preserve: others`; prototype: the one that "
        "tells the label best, edited with `preserve: others`.",
        "",
        "| label | judge | probe AUROC | attribute: success | attribute: leakage | attribute: ratio "
        "| once: success | once: leakage | once: ratio "
        "| prototypes held: success | prototypes held: leakage | prototypes held: ratio "
        "| prototype | AUROC | moved | prototype: success | prototype: leakage | prototype: ratio |",
        "|" + "---|" * 18,
    ]
    for edit in edits:
        accuracy = judge.accuracy[NAMES.index(edit.label.name)]
        outcomes: list[Outcome] = [getattr(edit, way) for way in WAYS]
        lines.append(
            f"| {edit.label.name} | {accuracy:.2f} | {edit.probe_auroc:.2f} {_cells(outcomes[:3])}"
            f"| {edit.prototype} | {edit.auroc:.2f} | {edit.raised:.2f} {_cells(outcomes[3:])}|"
        )
    for reach in ("local", "global"):
        chosen = [edit for edit in edits if edit.label.attribute.reach == reach]
        outcomes = [
            Outcome(
                float(np.mean([getattr(edit, way).success for edit in chosen])),
                float(np.mean([getattr(edit, way).leakage for edit in chosen])),
            )
            for way in WAYS
        ]
        raised = float(np.mean([edit.raised for edit in chosen]))
        lines.append(
            f"| **{reach}, mean** | | {_cells(outcomes[:3])}| | | {raised:.2f} {_cells(outcomes[3:])}|"
        )
    return lines


def _cells(outcomes: Sequence[Outcome]) -> str:
    return "".join(f"| {one.success:.2f} | {one.leakage:.3f} | {one.ratio:.2f} " for one in outcomes)
