"""Shortcuts: are planted couplings told from those that are none?

In the data of a model, faces with a label (the premise) have another one (the conclusion) more often, by a
strength of 0 (no coupling) to 1 (always): five such pairs of ten attributes at once, one of each strength,
other ones for each of up to four models. Each label is stood for by a prototype of its own, the best
assignment by AUROC on faces without any coupling. In generated pictures the premise's prototype is moved from
its 0.01 to its 0.99 quantile, all else the same, as POST /diagnose does it, and what that does to the
conclusion is the score of the pair: on its prototype and on its probe, which POST /diagnose reports, and by
an independent judge of the pictures. The same is done with the premise's attribute, which is moved as an edit
of an attribute moves it: all prototypes together, as they vary together in the data. Beside them stands what
needs no intervention at all, and no denoiser: how activations, and the probes on them, correlate over the
training data.

A pair is real where it was planted with a strength above 0. False alarms are all other ordered pairs of
labels whose attributes are independent in the model's data; `matched` counts of these only the planted pairs
themselves, in the models in which they are not planted, so that labels that are hard to tell are as many on
both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from benchmarks.ground_truth.judge import ATTRIBUTES, NAMES, Judge
from benchmarks.ground_truth.small_models import fine_tuning, model_of, run_directory, small_config, train_in
from model.attributes import Attributes
from model.couplings import measure_effects
from model.patronus import Patronus
from model.samplers import ddim
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from model.transforms import Pixels, from_x_0
from training.config import TrainConfig
from training.data import load_dataset
from training.data.cartoon_faces import CARTOON_FACES
from training.data.cartoon_faces.source import SPLITS
from training.evaluation.attributes import measure_attributes
from training.exemplars import encode_all
from training.sampling import run_table

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SEED = 2_000_101
STEPS = 10
NUM_SAMPLES = 64
FALSE_ALARMS = 0.05
NUM_RESAMPLES = 2000
PAIRS = (
    ("fair_hair=smile", "glasses=moustache", "hat=earrings", "red_collar=dark_skin",
     "long_hair=bright_light"),
    ("fair_hair=glasses", "spiky_hair=smile", "red_collar=hat", "dark_skin=moustache", "old=earrings"),
    ("black_hair=hat", "curly_hair=glasses", "blue_collar=smile", "light_skin=earrings",
     "bright_light=moustache"),
    ("red_hair=moustache", "long_hair=hat", "green_collar=glasses", "tan_skin=smile", "large_face=earrings"),
)  # fmt: skip
"""Of each model; the attributes of a model are all different, so that no coupling brings about another."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)

READINGS = (
    "the conclusion's prototype",
    "the conclusion's probe",
    "an independent judge of the pictures",
    "premise's attribute moved: the conclusion's probe",
    "premise's attribute moved: an independent judge",
)
BASELINES = (
    "no intervention: correlation with its prototype in the data",
    "no intervention: correlation with its probe in the data",
    "no intervention: correlation of the two probes in the data",
)


@dataclass(frozen=True)
class Planted:
    """A pair of labels, by index into NAMES, and its strength in a model's data."""

    premise: int
    conclusion: int
    strength: float

    def __str__(self) -> str:
        return f"{NAMES[self.premise]}={NAMES[self.conclusion]}@{self.strength:g}"


@dataclass(frozen=True, eq=False)
class Reading:
    """Of one model: K labels, L = K prototypes that stand for them.

    scores: by title, |score| (K, K) of the pair [premise, conclusion]; is_established: (K, K), by the test of
    POST /diagnose on prototypes; prototypes, auroc: (K,), of either sign, on faces without couplings;
    own: (K,) change of a premise's own prototype in standard deviations; premise_seen: (K,) change of the
    judge's probability of the premise, counted towards it; attribute_seen: the same where the attribute is
    moved.
    """

    planted: Sequence[Planted]
    scores: Mapping[str, Float64]
    is_established: Bools
    prototypes: Int64
    auroc: Float64
    own: Float64
    premise_seen: Float64
    attribute_seen: Float64

    @property
    def strengths(self) -> Float64:
        """(K, K) by [premise, conclusion]: 0 where they are independent; NaN of one attribute, and of two
        that are coupled by other values or the other way round."""
        attributes = np.array(ATTRIBUTES)
        strengths = np.where(attributes[:, None] == attributes, np.nan, 0.0)
        for pair in self.planted:
            if pair.strength > 0.0:
                of_premise = attributes == attributes[pair.premise]
                of_conclusion = attributes == attributes[pair.conclusion]
                coupled = of_premise[:, None] & of_conclusion
                strengths[coupled | coupled.T] = np.nan
                strengths[pair.premise, pair.conclusion] = pair.strength
        return strengths


@dataclass(frozen=True)
class Detection:
    """Of real pairs against others: ROC AUC with its 95% bootstrap interval over pairs, and the share of the
    real ones that score above all but FALSE_ALARMS of the others. NaN where one of the two lacks."""

    auc: float
    low: float
    high: float
    found: float


def plan(model: int) -> list[Planted]:
    """What is planted in the data of a model (0 to 3): each strength once, dealt out by SEED."""
    strengths = np.random.default_rng(SEED + model).permutation(STRENGTHS).tolist()
    pairs = [names.partition("=") for names in PAIRS[model]]
    return [
        Planted(NAMES.index(premise), NAMES.index(conclusion), strength)
        for (premise, _, conclusion), strength in zip(pairs, strengths, strict=True)
    ]


def dataset_of(planted: Sequence[Planted]) -> str:
    """The name of cartoon faces with these couplings."""
    return f"{CARTOON_FACES}:{'+'.join(str(pair) for pair in planted if pair.strength)}"


def config_of(model: int, num_images: int, init_from: Path | None) -> TrainConfig:
    """How a model is trained: from scratch, or gently from where the run `init_from` ended, in its shape."""
    config = small_config(dataset_of(plan(model)), num_images=num_images, seed=model)
    if init_from is None:
        return config
    return fine_tuning(replace(config, model=model_of(init_from)))


def measure(
    judge: Judge, *, num_images: int, num_models: int, runs: Path, init_from: Path | None = None
) -> list[Reading]:
    """Readings of the first `num_models` models, which are kept in `runs`, and trained if not there."""
    readings = []
    for model in range(num_models):
        config = config_of(model, num_images, init_from)
        directory = run_directory(runs, f"shortcuts-{model}", config, init_from)
        train = load_dataset(config.dataset, None, "train", config.model.image)
        patronus = train_in(directory, config, train, init_from=init_from)
        readings.append(read(patronus, plan(model), judge))
    return readings


def read(patronus: Patronus, planted: Sequence[Planted], judge: Judge) -> Reading:
    """Move the prototypes that stand for labels in NUM_SAMPLES generated pictures, and see what changes."""
    image = patronus.config.image
    train, own_test = (load_dataset(dataset_of(planted), None, split, image) for split in SPLITS)
    unbiased = load_dataset(CARTOON_FACES, None, "test", image)
    s_train, s_unbiased, s_own = (
        encode_all(patronus, dataset.pixels)[0] for dataset in (train, unbiased, own_test)
    )
    statistics = ActivationStatistics.measure(s_train)
    attributes = measure_attributes(train, unbiased, s_train, s_unbiased, statistics)
    assert attributes is not None, "cartoon faces have labels"
    assert attributes.names == NAMES, "and each of them both with and without"
    prototypes, auroc = standing_for(attributes.auroc)
    chosen = np.random.default_rng(SEED).choice(len(s_own), NUM_SAMPLES, replace=False)
    rows = np.arange(len(NAMES))
    draw = _Drawing(patronus, statistics, s_own[chosen])
    by_prototype = draw.changes([partial(draw.with_prototype, j) for j in prototypes.tolist()], judge)
    by_attribute = draw.changes([partial(draw.with_attribute, attributes, k) for k in rows.tolist()], judge)
    own = by_prototype.activations[rows, :, prototypes]  # (K, n)
    on_prototypes = measure_effects(
        by_prototype.activations[:, :, prototypes], own, ~np.eye(len(rows), dtype=bool), seed=SEED
    )
    correlation = statistics.correlation[np.ix_(prototypes, prototypes)]
    with_probes = attributes.logit_correlation(statistics)[:, prototypes].T
    scores = (
        on_prototypes.effect.value,
        by_prototype.of_probes(attributes, statistics),
        by_prototype.judged,
        by_attribute.of_probes(attributes, statistics),
        by_attribute.judged,
        correlation,
        with_probes,
        attributes.logit_correlations(statistics),
    )
    tells = np.where(attributes.auroc[prototypes, rows] >= 0.5, 1.0, -1.0)
    return Reading(
        planted=planted,
        scores={title: np.abs(score) for title, score in zip((*READINGS, *BASELINES), scores, strict=True)},
        is_established=on_prototypes.is_established,
        prototypes=prototypes,
        auroc=auroc,
        own=own.mean(axis=1),
        premise_seen=tells * by_prototype.judged.diagonal(),
        attribute_seen=by_attribute.judged.diagonal(),
    )


def standing_for(auroc: Float64) -> tuple[Int64, Float64]:
    """From the AUROC (m, K) of m >= K prototypes a different one for each of K labels, and how well it tells
    its label, whatever the sign: (K,) each. Raises ValueError where prototypes are too few."""
    sureness = np.maximum(auroc, 1.0 - auroc)
    m, num_labels = sureness.shape
    if m < num_labels:
        raise ValueError(f"{num_labels} labels need as many prototypes, the model has {m}")
    chosen, labels = linear_sum_assignment(-sureness)
    prototypes = np.empty(num_labels, np.int64)
    prototypes[labels] = chosen
    return prototypes, sureness[prototypes, np.arange(num_labels)]


End = Literal["low", "high"]


@dataclass(frozen=True, eq=False)
class _Changes:
    """From low to high, of K premises in n pictures: activations (K, n, m) in standard deviations, judged
    (K, K) mean changes of the judge's probabilities."""

    activations: Float64
    judged: Float64

    def of_probes(self, attributes: Attributes, statistics: ActivationStatistics) -> Float64:
        """(K, K) mean changes of the probes' log-odds, in standard deviations over the training data."""
        logits = self.activations.mean(axis=1) @ attributes.probe_weights.T
        return np.asarray(logits / attributes.logit_spread(statistics))


class _Drawing:
    """The same pictures under other activations: s (n, m), each with its x_T."""

    def __init__(self, patronus: Patronus, statistics: ActivationStatistics, s: Float32) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self._x_T = torch.randn((len(s), *patronus.config.image.shape), generator=generator)
        self._table = ddim(NoiseSchedule.from_config(patronus.config.schedule), STEPS, clip=1.0)
        self._patronus = patronus
        self._statistics = statistics
        self._s = s

    def with_prototype(self, j: int, end: End) -> Float32:
        """s (n, m) with s_j at the end of its range."""
        moved = self._s.copy()
        moved[:, j] = getattr(self._statistics, end)[j]
        return moved

    def with_attribute(self, attributes: Attributes, k: int, end: End) -> Float32:
        """s (n, m) with the log-odds of attribute k at the end of their range, as an edit moves it there."""
        value = {"low": attributes.probe_low, "high": attributes.probe_high}[end][k]
        return attributes.moved(self._s, k, np.full(len(self._s), value), self._statistics)

    def changes(self, moves: Sequence[Callable[[End], Float32]], judge: Judge) -> _Changes:
        """Of each move, from its low end to its high one."""
        activations, judged = [], []
        for move in tqdm(moves, desc="interventions", unit="premise", leave=False):
            low, high = (self._drawn(move(end)) for end in ("low", "high"))
            change = encode_all(self._patronus, high)[0] - encode_all(self._patronus, low)[0]
            activations.append(change.astype(np.float64) / self._statistics.spread)
            judged.append((judge.probabilities(high) - judge.probabilities(low)).mean(axis=0))
        return _Changes(np.stack(activations), np.stack(judged))

    def _drawn(self, s: Float32) -> Pixels:
        return from_x_0(run_table(self._patronus, self._table, self._x_T, torch.from_numpy(s)).numpy())


def detection(
    readings: Sequence[Reading], title: str, *, least: float = 0.0, matched: bool = False
) -> Detection:
    """Of pairs of a strength above `least`, by the score `title`, against those that are independent."""
    strengths = np.concatenate([reading.strengths.ravel() for reading in readings])
    scores = np.concatenate([reading.scores[title].ravel() for reading in readings])
    is_other = strengths == 0.0
    if matched:
        planted = np.zeros((len(NAMES), len(NAMES)), bool)
        for pair in (pair for reading in readings for pair in reading.planted):
            planted[pair.premise, pair.conclusion] = True
        is_other &= np.tile(planted.ravel(), len(readings))
    real, others = scores[strengths > least], scores[is_other]  # NaN is neither
    if not len(real) or not len(others):
        return Detection(*(float("nan"),) * 4)
    # Mann and Whitney 1947: the AUC is the share of (real, other) that the score puts in the right order.
    order = (np.sign(real[:, None] - others) + 1.0) / 2.0  # ties count one half
    rng = np.random.default_rng(SEED)
    of_real, of_others = (
        rng.multinomial(n, np.full(n, 1.0 / n), size=NUM_RESAMPLES) / n for n in order.shape
    )
    low, high = np.quantile(((of_real @ order) * of_others).sum(axis=1), [0.025, 0.975])
    threshold = np.sort(others)[::-1][int(FALSE_ALARMS * len(others))]
    return Detection(float(order.mean()), float(low), float(high), float((real > threshold).mean()))


def table_of(readings: Sequence[Reading]) -> list[str]:
    """Markdown lines."""
    num_real = sum(int((reading.strengths > 0.0).sum()) for reading in readings)
    num_others = sum(int((reading.strengths == 0.0).sum()) for reading in readings)
    lines = [
        f"{num_real} real couplings among {num_others} ordered pairs of independent labels, {len(readings)} "
        "model(s). Score: the absolute change when the premise's prototype moves from its 0.01 to its 0.99 "
        f"quantile, or where said its attribute's log-odds, mean of {NUM_SAMPLES} generated pictures; found: "
        f"share of the real ones that score above all but {FALSE_ALARMS:.0%} of the others; matched: against "
        "the planted pairs themselves, in the models in which they are not planted. AUC with 95% bootstrap "
        "interval over pairs, as if those of one model were independent.",
        "",
        "| seen by | AUC, strengths .25 to 1 | found | AUC, .5 to 1 | found | AUC, matched | found |",
        "|---|---|---|---|---|---|---|",
    ]
    for title in (*READINGS, *BASELINES):
        cells = []
        for asked in ({}, {"least": 0.25}, {"matched": True}):
            seen = detection(readings, title, **asked)
            cells += ["", ""] if np.isnan(seen.auc) else [_interval(seen), f"{seen.found:.2f}"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", *_established_lines(readings), "", *_strength_lines(readings), "", *_pair_lines(readings)]
    return lines


def _interval(seen: Detection) -> str:
    return f"{seen.auc:.2f} ({seen.low:.2f} to {seen.high:.2f})"


def _established_lines(readings: Sequence[Reading]) -> list[str]:
    real = np.concatenate([reading.is_established[reading.strengths > 0.0] for reading in readings])
    others = np.concatenate([reading.is_established[reading.strengths == 0.0] for reading in readings])
    follow, follow_attribute = (
        ", ".join(f"{float(np.mean(seen)):+.2f}" for seen in of_models)
        for of_models in (
            [reading.premise_seen for reading in readings],
            [reading.attribute_seen for reading in readings],
        )
    )
    return [
        f"Established by the test of POST /diagnose on prototypes: {real.sum()} of {len(real)} real "
        f"couplings, {others.sum()} of {len(others)} others, which are no false alarms of the test: a model "
        "may couple what its data does not. The judge's probability of the premise itself changes by "
        f"{follow} (mean over labels, each model), by {follow_attribute} where its attribute is moved: where "
        "the denoiser does not follow s, nothing can be seen."
    ]


def _strength_lines(readings: Sequence[Reading]) -> list[str]:
    """Mean scores by strength; that of 0 is of the pairs that were dealt it."""
    titles = (*READINGS, *BASELINES)
    lines = ["| strength | pairs | " + " | ".join(titles) + " |", "|---" * (2 + len(titles)) + "|"]
    for strength in STRENGTHS:
        at = [
            (reading, (pair.premise, pair.conclusion))
            for reading in readings
            for pair in reading.planted
            if pair.strength == strength
        ]
        means = [np.mean([reading.scores[title][pair] for reading, pair in at]) for title in titles]
        lines.append(f"| {strength:g} | {len(at)} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return lines


def _pair_lines(readings: Sequence[Reading]) -> list[str]:
    titles = (*READINGS, *BASELINES)
    lines = [
        "| model | premise | conclusion | strength | AUROC of their prototypes | own change, sd "
        "| judge: premise | " + " | ".join(titles) + " |",
        "|---" * (7 + len(titles)) + "|",
    ]
    rows = [(model, reading, pair) for model, reading in enumerate(readings) for pair in reading.planted]
    for model, reading, pair in sorted(rows, key=lambda row: -row[2].strength):
        a, b = pair.premise, pair.conclusion
        scores = " | ".join(f"{reading.scores[title][a, b]:.3f}" for title in titles)
        lines.append(
            f"| {model} | {NAMES[a]} | {NAMES[b]} | {pair.strength:g} "
            f"| {reading.auroc[a]:.2f}, {reading.auroc[b]:.2f} | {reading.own[a]:+.2f} "
            f"| {reading.premise_seen[a]:+.2f} | {scores} |"
        )
    return lines
