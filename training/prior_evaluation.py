"""Whether drawn activation vectors are distributed as real ones, in numbers, and whether they are copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

from model.prior import Prior
from model.samplers import NO_CLIP, SamplerTable, sampling_timesteps
from model.schedule import CLEAN, NoiseSchedule

FOLDS = 3
LOSS_REPEATS = 4
NEAR_COPY_RATIO = 0.3

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class PriorEvaluationError(ValueError):
    """Two sets of activation vectors cannot be compared."""


@dataclass(frozen=True)
class Fidelity:
    """How far samples are from real vectors; each figure is best where two sets of real vectors have it.

    ks_mean, ks_max: Kolmogorov-Smirnov distance of the marginals, over prototypes. correlation_mean:
    mean absolute difference of the off-diagonal correlations; correlation_frobenius: Frobenius norm of the
    difference of the correlation matrices. two_sample_accuracy: how often gradient-boosted trees tell a
    sample from a real vector they have not seen; 0.5 is guessing.
    """

    ks_mean: float
    ks_max: float
    correlation_mean: float
    correlation_frobenius: float
    two_sample_accuracy: float


def fidelity(samples: Float32, reference: Float32, seed: int) -> Fidelity:
    """The figures of samples (n, m) against real vectors (n', m).

    All of them depend on n and n': compare figures of equally many vectors only. Trees tell best with
    equally many of both, so the larger set is cut. Raises PriorEvaluationError.
    """
    if samples.ndim != 2 or reference.ndim != 2 or samples.shape[1] != reference.shape[1]:
        raise PriorEvaluationError(f"samples {samples.shape} and reference {reference.shape} differ in width")
    count = min(len(samples), len(reference))
    if count < 2 * FOLDS:
        raise PriorEvaluationError(f"need at least {2 * FOLDS} vectors of each kind, not {count}")
    for name, vectors in (("samples", samples), ("reference", reference)):
        if not np.isfinite(vectors).all():
            raise PriorEvaluationError(f"{name} have values that are not finite")
    samples, reference = samples[:count], reference[:count]
    distances = [float(ks_2samp(samples[:, j], reference[:, j]).statistic) for j in range(samples.shape[1])]
    difference = correlation(samples) - correlation(reference)  # (m, m), zero diagonal
    pairs = max(difference.size - len(difference), 1)
    return Fidelity(
        ks_mean=float(np.mean(distances)),
        ks_max=float(np.max(distances)),
        correlation_mean=float(np.abs(difference).sum() / pairs),
        correlation_frobenius=float(np.sqrt(np.square(difference).sum())),
        two_sample_accuracy=two_sample_accuracy(samples, reference, seed),
    )


def two_sample_accuracy(samples: Float32, reference: Float32, seed: int) -> float:
    """Cross-validated accuracy of trees that tell two sets apart (Lopez-Paz and Oquab 2017, C2ST)."""
    vectors = np.concatenate([samples, reference])
    real = np.repeat([0, 1], [len(samples), len(reference)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    trees = HistGradientBoostingClassifier(random_state=seed)
    return float(cross_val_score(trees, vectors, real, cv=folds, scoring="accuracy").mean())


def correlation(vectors: Float32) -> Float64:
    """The correlation matrix (m, m) of vectors (n, m); 0 beside, 1 on the diagonal for a constant entry."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    norms = np.linalg.norm(centred, axis=0)
    units = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0.0)
    matrix = units.T @ units
    np.fill_diagonal(matrix, 1.0)
    return np.asarray(matrix)


def fresh_noise(schedule: NoiseSchedule, steps: int) -> SamplerTable:
    """The published sampler's step: x_{t-1} = sqrt(ᾱ_{t-1}) x̂₀ + sqrt(1 - ᾱ_{t-1}) fresh noise.

    DDIM (Song et al. 2021, eq. 12) has the predicted eps in place of the fresh noise. This table exists to
    measure what the difference costs; nothing is served with it.
    """
    timesteps = sampling_timesteps(schedule, steps)
    rows = []
    for t, t_next in zip(timesteps.tolist(), [*timesteps.tolist()[1:], CLEAN], strict=True):
        alpha, sigma = schedule.alpha_sigma(t)
        alpha_next, sigma_next = schedule.alpha_sigma(t_next)
        rows.append((alpha, sigma, NO_CLIP, 0.0, alpha_next, 0.0, sigma_next, 0.0))
    return SamplerTable(timesteps, np.array(rows))


@torch.no_grad()
def eps_loss(prior: Prior, z: Float32, *, seed: int = 0) -> float:
    """MSE of eps over vectors z (N, m) in the prior's space, at uniform timesteps, each used several times.

    Equal on training and on held-out vectors where nothing was learned by heart.
    """
    generator = torch.Generator().manual_seed(seed)
    z_0 = torch.from_numpy(z).repeat(LOSS_REPEATS, 1)
    timesteps = torch.randint(prior.config.schedule.num_timesteps, (len(z_0),), generator=generator)
    eps = torch.randn(z_0.shape, generator=generator)
    z_t, alpha, sigma = prior.add_noise(z_0, eps, timesteps)
    prediction = prior(z_t, timesteps)
    if prior.config.prediction == "v":  # eps = sigma z_t + alpha v
        prediction = sigma * z_t + alpha * prediction
    return float((prediction - eps).square().mean())


@dataclass(frozen=True)
class Novelty:
    """Whether vectors repeat the training data.

    distance_ratio: median distance to the nearest training vector over that of held-out real vectors; well
    below 1 where training vectors are repeated. near_copies: share of vectors nearer to a training vector
    than `NEAR_COPY_RATIO` of that held-out median; near_copies_held_out: the same of real vectors never seen.
    """

    distance_ratio: float
    near_copies: float
    near_copies_held_out: float


def novelty(samples: Float32, train: Float32, held_out: Float32) -> Novelty:
    """Nearest-neighbour distances of samples and of held-out vectors to the training vectors, each (n, m).

    Euclidean, every entry divided by its standard deviation over the training vectors.
    """
    std = train.std(axis=0)
    scale = np.where(std > 0.0, std, 1.0)
    tree = KDTree(train / scale)
    of_samples, of_held_out = (tree.query(vectors / scale)[0] for vectors in (samples, held_out))
    median = float(np.median(of_held_out))
    near = NEAR_COPY_RATIO * median
    ratio = float(np.median(of_samples)) / median if median > 0.0 else math.inf
    return Novelty(
        distance_ratio=ratio,
        near_copies=float((of_samples < near).mean()),
        near_copies_held_out=float((of_held_out < near).mean()),
    )
