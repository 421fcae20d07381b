"""Unwanted couplings: what else a model changes when one prototype is changed, and what may be the reason."""

from __future__ import annotations

from collections.abc import Sequence
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

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Explanation = Literal["data", "overlap"]

STRONG_CORRELATION = 0.3
"""A coupling is explained by the data where those correlate this much, in the same direction."""
SHARED_PATCH = 1.0 / 3.0
"""The mean overlap of two prototypes' boxes that explains a coupling: they share half of their patches."""


@dataclass(frozen=True, eq=False)
class Example:
    """The sample with the median effect: its pictures before and after (C, H, W).

    box: where the intervened prototype is, in whichever of the two pictures it is more active; affected_box:
    likewise the other prototype, None for an attribute.
    """

    sample: int
    before: Pixels
    after: Pixels
    box: Box
    affected_box: Box | None


@dataclass(frozen=True, eq=False)
class Coupling:
    """A row (intervention) and a column (prototype or attribute) of effects, in rank order.

    explained_by: what was measured that may be its reason, nothing where the model couples the two by itself.
    """

    intervention: int
    affected: int
    explained_by: tuple[Explanation, ...]
    example: Example


@dataclass(frozen=True, eq=False)
class AttributeEffects:
    """On the log-odds of K labelled attributes, by linear probes on the re-encoded s.

    effects: (J, K), in standard deviations of the log-odds over the training data; data_correlation: (J, K),
    of s_j and these; auroc: (J, K), of s_j alone as a sign of the attribute; couplings: the first in rank.
    """

    names: tuple[str, ...]
    effects: Effects
    data_correlation: Float64
    auroc: Float64
    couplings: list[Coupling]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Of J interventions on m prototypes.

    effects: (J, m), in standard deviations of the training data; data_correlation: (J, m), of the normal
    scores of s_j and s_k over the training data; overlap: (J, m), mean intersection over union of the boxes
    in which j and k are most present; clamped: edits that reached too far; couplings: the first in rank;
    attributes: None where the bundle has no labels.
    """

    interventions: Sequence[Intervention]
    num_samples: int
    activations_from: Origin
    effects: Effects
    data_correlation: Float64
    overlap: Float64
    clamped: list[Clamping]
    couplings: list[Coupling]
    attributes: AttributeEffects | None

    @property
    def agreement_with_data(self) -> float | None:
        """The correlation of leakage with the data's correlation over all pairs: 1, they mirror the data."""
        leakage = self.effects.leakage.value
        is_compared = ~np.isnan(self.effects.p) & ~np.isnan(leakage)
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
    pairs = findings.pairs
    prototypes = np.array([intervention.prototype for intervention in experiment.interventions])  # (J,)
    spread = statistics.spread
    differences = np.stack([(pair.after.activations - pair.before.activations) / spread for pair in pairs])
    own = np.stack([differences[i, :, j] for i, j in enumerate(prototypes)])  # (J, n)
    is_other = np.arange(bundle.config.num_prototypes) != prototypes[:, None]
    effects = measure_effects(differences, own, is_other, seed=experiment.seed, proceed=proceed)
    correlation = statistics.correlation[prototypes]
    places = _places(bundle, pairs)
    overlap = np.stack([_overlap(places[i], j) for i, j in enumerate(prototypes)])
    album = _Album(pairs, places, prototypes, num_examples)
    attributes = None
    if bundle.attributes is not None:
        attributes = _attribute_effects(bundle.attributes, statistics, experiment.seed, own, album, proceed)
    return Diagnosis(
        interventions=experiment.interventions,
        num_samples=experiment.num_samples,
        activations_from=findings.activations_from,
        effects=effects,
        data_correlation=correlation,
        overlap=overlap,
        clamped=findings.clamped,
        couplings=album.couplings(effects, differences, correlation, overlap),
        attributes=attributes,
    )


def _attribute_effects(
    attributes: Attributes,
    statistics: ActivationStatistics,
    seed: int,
    own: Float64,
    album: _Album,
    proceed: Proceed,
) -> AttributeEffects:
    differences = np.stack(
        [
            attributes.probe_logits(pair.after.activations, statistics)
            - attributes.probe_logits(pair.before.activations, statistics)
            for pair in album.pairs
        ]
    )
    differences /= attributes.logit_spread(statistics)  # (J, n, K)
    is_tested = np.ones((len(own), len(attributes.names)), dtype=bool)
    effects = measure_effects(differences, own, is_tested, seed=seed, proceed=proceed)
    correlation = attributes.logit_correlation(statistics).T[album.prototypes]
    return AttributeEffects(
        names=attributes.names,
        effects=effects,
        data_correlation=correlation,
        auroc=attributes.auroc[album.prototypes],
        couplings=album.couplings(effects, differences, correlation, None),
    )


@dataclass(frozen=True, eq=False)
class _Album:
    """Shows the first `num_examples` of ranked effects; places: (J, n, m, 4), as `_places` gives them."""

    pairs: Sequence[Pair]
    places: Int64
    prototypes: Int64
    num_examples: int

    def couplings(
        self, effects: Effects, differences: Float64, correlation: Float64, overlap: Float64 | None
    ) -> list[Coupling]:
        """differences: (J, n, K); correlation and overlap: (J, K), the latter None for attributes."""
        shown = []
        for i, k in effects.ranked()[: self.num_examples]:
            explained_by: list[Explanation] = []
            if np.sign(effects.leakage.value[i, k]) * correlation[i, k] >= STRONG_CORRELATION:
                explained_by.append("data")
            if overlap is not None and overlap[i, k] >= SHARED_PATCH:
                explained_by.append("overlap")
            sample = int(np.argsort(differences[i, :, k], kind="stable")[len(differences[i]) // 2])
            places = self.places[i, sample]  # (m, 4)
            example = Example(
                sample=sample,
                before=self.pairs[i].before.pixels[sample],
                after=self.pairs[i].after.pixels[sample],
                box=_box(places[self.prototypes[i]]),
                affected_box=None if overlap is None else _box(places[k]),
            )
            shown.append(Coupling(i, k, tuple(explained_by), example))
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
