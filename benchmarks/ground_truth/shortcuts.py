"""Shortcuts: are planted couplings told from those that are none?

Twenty pairs of labels, five in each of four small models that are trained for it at 32 pixels: in the data
of a model, faces with the premise have the conclusion more often, by a strength of 0 (no coupling, eight
pairs) to 1 (always). A pair's score is how much the conclusion changes when the premise's prototype is moved
from its 0.01 to its 0.99 quantile in generated pictures, all else the same, as POST /diagnose does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.ground_truth.judge import NAMES, Judge
from benchmarks.ground_truth.small_models import small_config, train_small
from model.effects import LEAST_SPREAD
from model.patronus import Patronus
from model.samplers import ddim
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from model.transforms import from_x_0
from training.data import Dataset
from training.exemplars import encode_all
from training.sampling import run_table

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SEED = 2_000_101
STEPS = 10
NUM_SAMPLES = 64
PAIRS = (
    ("fair_hair=smile", "glasses=moustache", "hat=earrings", "red_collar=dark_skin",
     "long_hair=bright_light"),
    ("fair_hair=glasses", "spiky_hair=smile", "red_collar=hat", "dark_skin=moustache", "old=earrings"),
    ("black_hair=hat", "curly_hair=glasses", "blue_collar=smile", "light_skin=earrings",
     "bright_light=moustache"),
    ("red_hair=moustache", "long_hair=hat", "green_collar=glasses", "tan_skin=smile", "large_face=earrings"),
)  # fmt: skip
STRENGTHS = (0.0,) * 8 + (0.25,) * 3 + (0.5,) * 3 + (0.75,) * 3 + (1.0,) * 3
"""Dealt out to the pairs at random, by SEED."""


@dataclass(frozen=True)
class Pair:
    """One planted coupling, or none (strength 0), and what moving the premise's prototype changes.

    auroc: of that prototype for the premise, either sign; premise_change, conclusion_change: means of the
    judge's probabilities; by_prototype: of the conclusion's best prototype, in standard deviations;
    by_probe: of the conclusion's log-odds by a probe on all activations, likewise.
    """

    premise: str
    conclusion: str
    strength: float
    auroc: float
    premise_change: float
    conclusion_change: float
    by_prototype: float
    by_probe: float


SCORES = {
    "the conclusion's best prototype": "by_prototype",
    "a probe of the conclusion on s": "by_probe",
    "an independent judge of the pictures": "conclusion_change",
}


def measure(judge: Judge, *, num_images: int, models: Sequence[int]) -> list[Pair]:
    """The pairs of the chosen models (0 to 3), each trained on `num_images` images."""
    rng = np.random.default_rng(SEED)
    strengths = rng.permutation(STRENGTHS).reshape(len(PAIRS), -1)
    pairs: list[Pair] = []
    for i in models:
        planted = list(zip(PAIRS[i], strengths[i].tolist(), strict=True))
        couplings = "+".join(f"{names}@{strength:g}" for names, strength in planted if strength)
        config = small_config(f"cartoon-faces:{couplings}", num_images=num_images, seed=i)
        patronus, test = train_small(config)
        laboratory = _Laboratory(patronus, test, judge)
        for names, strength in planted:
            premise, _, conclusion = names.partition("=")
            pairs.append(laboratory.pair(premise, conclusion, strength))
    return pairs


class _Laboratory:
    """Moves prototypes of one model in NUM_SAMPLES generated pictures."""

    def __init__(self, patronus: Patronus, test: Dataset, judge: Judge) -> None:
        self._patronus = patronus
        self._judge = judge
        self._names = test.attribute_names
        self._labels = test.attributes
        self._s, _ = encode_all(patronus, test.pixels)
        self._statistics = ActivationStatistics.measure(self._s)
        rng = np.random.default_rng(SEED)
        self._chosen = self._s[rng.choice(len(self._s), NUM_SAMPLES, replace=False)]
        generator = torch.Generator().manual_seed(SEED)
        self._x_T = torch.randn((NUM_SAMPLES, *patronus.config.image.shape), generator=generator)
        schedule = NoiseSchedule.from_config(patronus.config.schedule)
        self._table = ddim(schedule, STEPS, clip=1.0)

    def pair(self, premise: str, conclusion: str, strength: float) -> Pair:
        j, auroc = self._best(premise)
        k, _ = self._best(conclusion)
        statistics = self._statistics
        pictures = [self._generate(j, float(end[j])) for end in (statistics.low, statistics.high)]
        encoded = [encode_all(self._patronus, pixels)[0] for pixels in pictures]
        change = ((encoded[1] - encoded[0]) / np.maximum(statistics.std, LEAST_SPREAD)).mean(axis=0)  # (m,)
        judged = self._judge.probabilities(pictures[1]) - self._judge.probabilities(pictures[0])
        means = judged.mean(axis=0)
        weights, spread = self._probe(conclusion)
        return Pair(
            premise=premise,
            conclusion=conclusion,
            strength=strength,
            auroc=auroc,
            premise_change=float(means[NAMES.index(premise)]),
            conclusion_change=float(means[NAMES.index(conclusion)]),
            by_prototype=float(change[k]),
            by_probe=float(weights @ change / spread),
        )

    def _best(self, label: str) -> tuple[int, float]:
        """The prototype that tells a label best, of either sign, and its AUROC."""
        truth = self._labels[:, self._names.index(label)]
        aurocs = np.array([roc_auc_score(truth, s) for s in self._s.T])
        either = np.maximum(aurocs, 1.0 - aurocs)
        return int(either.argmax()), float(either.max())

    def _probe(self, label: str) -> tuple[Float64, float]:
        """Weights (m,) on standardised s, and the standard deviation of their log-odds."""
        z = self._statistics.standardised(self._s)
        probe = LogisticRegression(max_iter=1000).fit(z, self._labels[:, self._names.index(label)])
        return probe.coef_[0], float((z @ probe.coef_[0]).std())

    def _generate(self, j: int, value: float) -> npt.NDArray[np.uint8]:
        s = self._chosen.copy()
        s[:, j] = value
        x = run_table(self._patronus, self._table, self._x_T, torch.from_numpy(s))
        return from_x_0(x.numpy())


def detection(pairs: Sequence[Pair], score: str, least: float = 0.0) -> tuple[float, float]:
    """ROC AUC of |score| for pairs with a strength above `least` against those of 0, and the share of the
    former above all but one of the latter."""
    kept = [pair for pair in pairs if pair.strength == 0.0 or pair.strength > least]
    is_real = np.array([pair.strength > 0.0 for pair in kept])
    scores = np.abs([getattr(pair, score) for pair in kept])
    threshold = np.sort(scores[~is_real])[-2]
    return float(roc_auc_score(is_real, scores)), float((scores[is_real] > threshold).mean())


def table_of(pairs: Sequence[Pair]) -> list[str]:
    """Markdown lines."""
    lines = [
        "Score: the absolute change when the premise's prototype moves from its 0.01 to its 0.99 quantile, "
        f"mean of {NUM_SAMPLES} generated pictures. Found: share of real couplings that score above all but "
        "one of the pairs without one.",
        "",
        "| seen by | AUC, strengths .25 to 1 | found | AUC, .5 to 1 | found |",
        "|---|---|---|---|---|",
    ]
    for title, score in SCORES.items():
        every, strong = detection(pairs, score), detection(pairs, score, 0.25)
        lines.append(f"| {title} | {every[0]:.2f} | {every[1]:.2f} | {strong[0]:.2f} | {strong[1]:.2f} |")
    lines += [
        "",
        "| premise | conclusion | strength | AUROC of the prototype | judge: premise | judge: conclusion "
        "| conclusion's prototype, sd | conclusion's probe, sd |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in sorted(pairs, key=lambda pair: -pair.strength):
        lines.append(
            f"| {pair.premise} | {pair.conclusion} | {pair.strength:g} | {pair.auroc:.2f} "
            f"| {pair.premise_change:+.2f} | {pair.conclusion_change:+.2f} | {pair.by_prototype:+.2f} "
            f"| {pair.by_probe:+.2f} |"
        )
    return lines
