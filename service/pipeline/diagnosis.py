"""Unwanted couplings: what else a model changes when one prototype is changed, and what is known beside it.

Instead of a prototype it can be an attribute that is changed, as edits of attributes change it: by asking all
prototypes at once for what goes with the attribute in the data. So what prototypes do then was asked of them,
and only what goes beyond it is a coupling (`model.couplings.measure_effects`). What other attributes do is a
finding, asked for or not, as nobody wanted it: `asked` says how much of it lies in the request, before any
picture is made. Of a prototype that is changed there is such a part on attributes, too: their probes read it,
so that its own change is a change of theirs.

An effect is measured by intervention. What stands beside it (a correlation in the data, boxes that overlap)
was only observed, and proves no cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.attributes import Attributes
from model.bundle import Bundle
from model.couplings import LEAST_SAMPLES, Effects, measure_effects
from model.prototype_boxes import PrototypeBoxes
from model.receptive_field import Box
from model.statistics import ActivationStatistics
from model.transforms import Pixels
from service.images import image_id
from service.pipeline.edits import Clamping
from service.pipeline.errors import PipelineError
from service.pipeline.experiment import Experiment, Findings, Intervention, Pair, carry_out
from service.pipeline.measured import statistics_of
from service.pipeline.pipeline import Origin, Pipeline
from service.pipeline.progress import ProgressFeed
from service.pipeline.threaded import Proceed, threaded

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Explanation = Literal["data", "overlap", "asked"]
Finding = Literal["established", "within_asked", "chance"]

STRONG_CORRELATION = 0.3
"""From here on two are said to be correlated in the data too, in the direction of the effect."""
SHARED_PATCH = 1.0 / 3.0
"""From this mean overlap of boxes on, two prototypes are said to share a place: half of their patches."""
MOSTLY_ASKED = 0.5
"""From this share of an effect on, it is said to be asked for by the intervention itself."""


@dataclass(frozen=True, eq=False)
class Example:
    """The sample with the median effect: its pictures before and after (C, H, W).

    box: where the intervened prototype is, in whichever of the two pictures it is more active; affected_box:
    likewise the other prototype; None for an attribute.
    """

    sample: int
    before: Pixels
    after: Pixels
    box: Box | None
    affected_box: Box | None


@dataclass(frozen=True, eq=False)
class Coupling:
    """A row (intervention) and a column (prototype or attribute) of effects, in rank order.

    finding: whether it is established, or no more than the intervention itself asks for, or not to be told
    from chance; explained_by: what else was seen that goes with it.
    """

    intervention: int
    affected: int
    finding: Finding
    explained_by: tuple[Explanation, ...]
    example: Example


@dataclass(frozen=True, eq=False)
class AttributeEffects:
    """On the log-odds of K labelled attributes, by linear probes on the re-encoded s.

    effects: (J, K), in standard deviations of the log-odds over the training data; asked: (J, K), in the same
    unit, what the probes read in the change of s as it was asked for, or where a prototype is changed, in its
    own change; data_correlation: (J, K), of s_j, or the changed attribute's log-odds, and these; auroc:
    (J, K), of s_j alone as a sign of the attribute, NaN where an attribute is changed; couplings: the first
    in rank.
    """

    names: tuple[str, ...]
    effects: Effects
    asked: Float64
    data_correlation: Float64
    auroc: Float64
    couplings: list[Coupling]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Of J interventions on m prototypes.

    own_asked: (J,), how far each was asked to change what it changes; effects: (J, m); both in standard
    deviations of the training data. data_correlation: (J, m), of the normal scores of s_j and s_k over the
    training data; overlap: (J, m), mean intersection over union of the boxes in which j and k are most
    present; clamped: edits that reached too far; couplings: the first in rank; attributes: None where the
    bundle has no labels.

    Where an attribute is changed, data_correlation is that of its log-odds and s_k, and overlap NaN. Only
    there asked, (J, m), is what was asked of s_k, in the unit of effects, and auroc, (J, m), how surely s_k
    alone is a sign of the attribute; both are NaN elsewhere.
    """

    interventions: Sequence[Intervention]
    num_samples: int
    activations_from: Origin
    own_asked: Float64
    effects: Effects
    asked: Float64
    data_correlation: Float64
    overlap: Float64
    auroc: Float64
    clamped: list[Clamping]
    couplings: list[Coupling]
    attributes: AttributeEffects | None

    def own_effect(self, i: int) -> tuple[Effects, int]:
        """The effects, on prototypes or on attributes, and the column of them that intervention i changes."""
        intervention = self.interventions[i]
        if intervention.prototype is not None:
            return self.effects, intervention.prototype
        assert self.attributes is not None  # or there would be no such intervention
        assert intervention.attribute is not None
        return self.attributes.effects, self.attributes.names.index(intervention.attribute)

    @property
    def agreement_with_data(self) -> float | None:
        """The correlation of leakage with the data's correlation over all pairs; None of too few.

        Of pairs of prototypes: an attribute that is changed takes others along as the data do by itself.
        """
        leakage = self.effects.leakage.value
        is_compared = ~np.isnan(self.effects.p) & ~np.isnan(leakage) & np.isnan(self.asked)
        pairs = np.stack([leakage[is_compared], self.data_correlation[is_compared]])
        if pairs.shape[1] < 3 or not pairs.std(axis=1).all():
            return None
        return float(np.asarray(np.corrcoef(pairs))[0, 1])


async def diagnose(
    pipeline: Pipeline,
    experiment: Experiment,
    *,
    num_examples: int,
    deadline: float,
    feed: ProgressFeed | None = None,
) -> Diagnosis:
    """Carry out an experiment and see what it shows, the first `num_examples` in pictures.

    Raises PipelineError and EngineError.
    """
    statistics = statistics_of(pipeline.bundle, "a diagnosis")
    if experiment.num_samples < LEAST_SAMPLES:
        raise PipelineError(
            f"a diagnosis needs at least {LEAST_SAMPLES} samples, not {experiment.num_samples}: "
            "with fewer nothing can be told from chance"
        )
    if len({image_id(pixels) for pixels in experiment.images}) < len(experiment.images):
        raise PipelineError("an image is given twice: it would count as two independent samples")
    findings = await carry_out(pipeline, experiment, deadline, feed)
    return await threaded(
        lambda proceed: _diagnosis(pipeline.bundle, statistics, experiment, findings, num_examples, proceed)
    )


def _diagnosis(
    bundle: Bundle,
    statistics: ActivationStatistics,
    experiment: Experiment,
    findings: Findings,
    num_examples: int,
    proceed: Proceed,
) -> Diagnosis:
    pairs, m = findings.pairs, bundle.config.num_prototypes
    columns = _Columns(statistics, bundle.attributes)
    causes = [columns.index(intervention) for intervention in experiment.interventions]
    is_prototype = np.array([cause < m for cause in causes])  # (J,)
    shown, asked = columns.changes(pairs)  # (J, n, m + K) each
    own_asked = asked.mean(axis=1)[np.arange(len(pairs)), causes]
    own = np.stack([shown[i, :, cause] for i, cause in enumerate(causes)])  # (J, n)
    asked[is_prototype, :, :m] = np.nan  # no other prototype was asked for anything
    for i in np.flatnonzero(is_prototype):
        asked[i, :, m:] = own[i, :, None] * columns.probe_weights[:, causes[i]]
    is_other = np.arange(shown.shape[2]) != np.array(causes)[:, None]  # (J, m + K)
    correlation, auroc = columns.correlation[causes], columns.auroc[causes]
    places = _places(bundle, pairs)
    overlap = np.full((len(pairs), m), np.nan)
    for i in np.flatnonzero(is_prototype):
        overlap[i] = _overlap(places[i], causes[i])
    album = _Album(experiment.interventions, pairs, places, own.mean(axis=1), num_examples)

    effects = measure_effects(
        shown[..., :m],
        own,
        is_other[:, :m],
        seed=experiment.seed,
        asked=np.nan_to_num(asked[..., :m]),
        proceed=proceed,
    )
    asked = asked.mean(axis=1)
    on_prototypes = _Table(effects, shown[..., :m], asked[:, :m], correlation[:, :m], overlap)
    attributes = None
    if bundle.attributes is not None:
        effects = measure_effects(shown[..., m:], own, is_other[:, m:], seed=experiment.seed, proceed=proceed)
        on_attributes = _Table(effects, shown[..., m:], asked[:, m:], correlation[:, m:], None)
        attributes = AttributeEffects(
            names=bundle.attributes.names,
            effects=effects,
            asked=on_attributes.asked,
            data_correlation=on_attributes.correlation,
            auroc=auroc[:, m:],
            couplings=album.couplings(on_attributes),
        )
    return Diagnosis(
        interventions=experiment.interventions,
        num_samples=experiment.num_samples,
        activations_from=findings.activations_from,
        own_asked=own_asked,
        effects=on_prototypes.effects,
        asked=on_prototypes.asked,
        data_correlation=on_prototypes.correlation,
        overlap=overlap,
        auroc=auroc[:, :m],
        clamped=findings.clamped,
        couplings=album.couplings(on_prototypes),
        attributes=attributes,
    )


class _Columns:
    """What can be changed and can change: m prototypes, and after them K attributes, none without labels.

    correlation: (m + K, m + K), over the training data; auroc: likewise, of prototypes as a sign of
    attributes and the other way round, NaN of two of one kind; probe_weights: (K, m), standard deviations of
    an attribute's log-odds for each one of an activation.
    """

    def __init__(self, statistics: ActivationStatistics, attributes: Attributes | None) -> None:
        self._statistics = statistics
        self._attributes = attributes
        m = statistics.num_prototypes
        self.correlation = statistics.correlation
        self.auroc = np.full((m, m), np.nan)
        self.probe_weights = np.empty((0, m))
        if attributes is not None:
            with_prototypes = attributes.logit_correlation(statistics)  # (K, m)
            with_attributes = attributes.logit_correlations(statistics)
            self.correlation = np.block(
                [[statistics.correlation, with_prototypes.T], [with_prototypes, with_attributes]]
            )
            self.probe_weights = attributes.probe_weights / attributes.logit_spread(statistics)[:, None]
            none = np.full_like(with_attributes, np.nan)
            self.auroc = np.block([[self.auroc, attributes.auroc], [attributes.auroc.T, none]])

    def index(self, intervention: Intervention) -> int:
        """Of what it changes."""
        if intervention.prototype is not None:
            return intervention.prototype
        assert self._attributes is not None  # or there would be no such intervention
        assert intervention.attribute is not None
        return self._statistics.num_prototypes + self._attributes.names.index(intervention.attribute)

    def changes(self, pairs: Sequence[Pair]) -> tuple[Float64, Float64]:
        """(J, n, m + K), in standard deviations over the training data: what pictures show, and of s as it
        was asked for."""
        shown = [self._read(pair.after.activations) - self._read(pair.before.activations) for pair in pairs]
        asked = [self._read(pair.after.asked) - self._read(pair.before.asked) for pair in pairs]
        return np.stack(shown), np.stack(asked)

    def _read(self, s: Float32) -> Float64:
        """(n, m + K) of activations (n, m)."""
        activations = s / self._statistics.spread
        if self._attributes is None:
            return activations
        logits = self._attributes.probe_logits(s, self._statistics)
        logits /= self._attributes.logit_spread(self._statistics)
        return np.concatenate([activations, logits], axis=1)


@dataclass(frozen=True, eq=False)
class _Table:
    """Effects (J, K) on prototypes or on attributes, and what is seen beside them.

    shown: (J, n, K), changes in single samples; asked, correlation: (J, K); overlap: (J, K), None for
    attributes.
    """

    effects: Effects
    shown: Float64
    asked: Float64
    correlation: Float64
    overlap: Float64 | None

    def finding(self, i: int, k: int) -> Finding:
        if self.effects.is_established[i, k]:
            return "established"
        effect, asked = float(self.effects.effect.value[i, k]), float(self.asked[i, k])
        if self.deducts_asked and 0.0 < effect * np.sign(asked) <= abs(asked):
            return "within_asked"
        return "chance"

    @property
    def deducts_asked(self) -> bool:
        """Whether only what goes beyond what was asked is tested: of prototypes."""
        return self.overlap is not None

    def explanations(self, own: Float64) -> Mapping[Explanation, Bools]:
        """With which of them each goes, (J, K); own: (J,), mean change of what is changed."""
        effect = self.effects.effect.value
        along = np.sign(effect * own[:, None]) * self.correlation
        is_mostly_asked = (effect * self.asked >= MOSTLY_ASKED * effect**2) & (effect != 0.0)
        if self.deducts_asked:  # what is established goes beyond it
            is_mostly_asked &= ~self.effects.is_established
        return {
            "data": (along >= STRONG_CORRELATION) & ~np.isnan(self.effects.leakage.value),
            "overlap": np.zeros_like(is_mostly_asked)
            if self.overlap is None
            else self.overlap >= SHARED_PATCH,
            "asked": is_mostly_asked,
        }


@dataclass(frozen=True, eq=False)
class _Album:
    """Shows the first `num_examples` of ranked effects; places: (J, n, m, 4), as `_places` gives them; own:
    (J,), mean change of what is changed."""

    interventions: Sequence[Intervention]
    pairs: Sequence[Pair]
    places: Int64
    own: Float64
    num_examples: int

    def couplings(self, table: _Table) -> list[Coupling]:
        explanations = table.explanations(self.own)
        shown = []
        for i, k in table.effects.ranked()[: self.num_examples]:
            explained_by = tuple(name for name, explains in explanations.items() if explains[i, k])
            sample = int(np.argsort(table.shown[i, :, k], kind="stable")[table.shown.shape[1] // 2])
            places, cause = self.places[i, sample], self.interventions[i].prototype  # (m, 4)
            example = Example(
                sample=sample,
                before=self.pairs[i].before.pixels[sample],
                after=self.pairs[i].after.pixels[sample],
                box=None if cause is None else _box(places[cause]),
                affected_box=None if table.overlap is None else _box(places[k]),
            )
            shown.append(Coupling(i, k, table.finding(i, k), explained_by, example))
        return shown


def _places(bundle: Bundle, pairs: Sequence[Pair]) -> Int64:
    """(J, n, m, 4): the box of each prototype in each sample, in the picture in which it is more active."""
    cells = [
        np.where(pair.after.activations > pair.before.activations, pair.after.cells, pair.before.cells)
        for pair in pairs
    ]
    return PrototypeBoxes(bundle.config).at(np.arange(bundle.config.num_prototypes), np.stack(cells))


def _overlap(places: Int64, j: int) -> Float64:
    """(m,): mean over samples of the intersection over union of box j with each, of boxes (n, m, 4)."""
    own = places[:, j, None]  # (n, 1, 4)
    low, high = np.maximum(places[..., :2], own[..., :2]), np.minimum(places[..., 2:], own[..., 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    areas, own_area = ((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (places, own))
    return np.asarray((shared / (areas + own_area - shared)).mean(axis=0))


def _box(corners: Int64) -> Box:
    x0, y0, x1, y1 = corners.tolist()
    return (x0, y0, x1, y1)
