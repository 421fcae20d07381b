"""Does the latent prior draw s as the encoder gives it, and images as good as those from real s?

    python -m benchmarks.prior_fidelity --data DIRECTORY [--bundle BUNDLE] [--steps 10000] [--images 500]

DIRECTORY holds Fashion-MNIST's official files. Nine tenths of the training images' s train the prior; the
last tenth, which it never sees, is what all rows are compared with. Beside it: the Gaussian copula that it
replaces, the published sampler's fresh noise on the same prior, the same on a prior of s that is not
normalised, and other real s, the best that a row can be. FD-classifier is that of `training.evaluate`: images
decoded from s, against the test split. Both priors are trained here, for --steps: one from a run has seen all
of s, so nothing would be held out from it. Writes benchmarks/results/prior_fidelity.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from model.bundle import WEIGHTS, Bundle
from model.config import PriorConfig
from model.patronus import Patronus
from model.prior import Prior
from model.samplers import SamplerTable, ddim, dpmpp_2m
from model.schedule import NoiseSchedule
from model.statistics import ActivationStatistics
from service.settings import SHIPPED_BUNDLE
from training.classifier import train_classifier
from training.data import load_fashion_mnist
from training.evaluation.samples import PRIOR_S, UNCONDITIONAL_SAMPLER, Drawing, ImageSampling
from training.exemplars import encode_all
from training.frechet import feature_distance
from training.prior import (
    NUM_STEPS,
    fit_prior,
    hold_out,
    sample_activations,
    sample_vectors,
    train_prior,
)
from training.prior_evaluation import Fidelity, Novelty, eps_loss, fidelity, fresh_noise, novelty

RESULT = Path(__file__).parent / "results" / "prior_fidelity.md"
IMAGE_STEPS = 20
SEED = 0
COPULA, REAL = "Gaussian copula (replaced)", "other real s"

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One way to draw s; `fd_classifier` of its images where it was measured."""

    name: str
    fidelity: Fidelity
    fd_classifier: float | None = None


@dataclass(frozen=True)
class Overfitting:
    """eps losses of the prior on vectors it was trained on and on others, and whether it copies."""

    loss_train: float
    loss_held_out: float
    novelty: Novelty


def measure(
    prior: Prior, unnormalised: Prior, train: Float32, held_out: Float32
) -> Iterator[tuple[str, Float32, Fidelity]]:
    """Each way to draw s, as many vectors as `held_out` (n, m) has, and their fidelity to it."""
    statistics = ActivationStatistics.measure(train)
    for name, draw in _ways(prior, unnormalised, statistics, train).items():
        samples = draw(len(held_out))
        yield name, samples, fidelity(samples, held_out, SEED)


def _ways(
    prior: Prior, unnormalised: Prior, statistics: ActivationStatistics, train: Float32
) -> Mapping[str, Callable[[int], Float32]]:
    schedule = NoiseSchedule.from_config(prior.config.schedule)
    longest = schedule.num_timesteps

    def normalised(table: SamplerTable) -> Callable[[int], Float32]:
        return lambda count: sample_activations(prior, statistics, table, count, seed=SEED)

    def raw(table: SamplerTable) -> Callable[[int], Float32]:
        return lambda count: sample_vectors(unnormalised, table, count, seed=SEED)

    tables: dict[str, Callable[[int], Float32]] = {}
    for steps in sorted({20, prior.config.sampling_steps} & set(range(longest + 1))):
        tables[f"prior, dpmpp_2m, {steps} steps"] = normalised(dpmpp_2m(schedule, steps))
    many = min(100, longest)
    tables[f"prior, ddim, {many} steps"] = normalised(ddim(schedule, many))
    for steps in sorted({min(20, longest), min(50, longest), longest}):
        tables[f"fresh noise, {steps} steps"] = normalised(fresh_noise(schedule, steps))
    tables[f"not normalised, ddim, {many} steps"] = raw(ddim(schedule, many))
    for steps in sorted({min(50, longest), longest}):
        tables[f"not normalised, fresh noise, {steps} steps"] = raw(fresh_noise(schedule, steps))
    return {
        REAL: lambda count: train[:count],
        **tables,
        COPULA: lambda count: statistics.resample(np.random.default_rng(SEED), count),
    }


def overfitting(prior: Prior, samples: Float32, train: Float32, held_out: Float32) -> Overfitting:
    """What the prior knows of vectors it saw beyond what it knows of others. `samples`: (n, m), its own."""
    statistics = ActivationStatistics.measure(train)
    return Overfitting(
        loss_train=eps_loss(prior, statistics.to_scores(train[: len(held_out)])),
        loss_held_out=eps_loss(prior, statistics.to_scores(held_out)),
        novelty=novelty(samples, train, held_out),
    )


def report(rows: list[Row], checked: Overfitting, *, head: str) -> str:
    """The results as Markdown."""
    new = checked.novelty
    lines = [
        "# Fidelity of the latent prior",
        "",
        head,
        "",
        "| s drawn by | KS mean | KS max | correlation, mean difference | Frobenius | two-sample accuracy "
        "| FD-classifier |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        "",
        f"eps loss on s that the prior was trained on {checked.loss_train:.4f}, on held-out s "
        f"{checked.loss_held_out:.4f}. Distance of samples to the nearest training s: "
        f"{new.distance_ratio:.2f} times that of held-out s; near copies (under 0.3 of that distance): "
        f"{100 * new.near_copies:.2f}% of samples, {100 * new.near_copies_held_out:.2f}% of held-out s.",
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    f = row.fidelity
    distance = "" if row.fd_classifier is None else f"{row.fd_classifier:.2f}"
    return (
        f"| {row.name} | {f.ks_mean:.4f} | {f.ks_max:.4f} | {f.correlation_mean:.4f} "
        f"| {f.correlation_frobenius:.3f} | {f.two_sample_accuracy:.3f} | {distance} |"
    )


def main() -> int:
    """Train or load the priors, measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=SHIPPED_BUNDLE)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="of training")
    parser.add_argument("--images", type=int, default=500, help="for the FD-classifier")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    patronus = Patronus(bundle.config)
    patronus.load_state_dict(load_file(options.bundle / WEIGHTS))
    patronus.eval()
    train = load_fashion_mnist(options.data, "train", bundle.config.image)
    test = load_fashion_mnist(options.data, "test", bundle.config.image)
    seen, held_out = hold_out(encode_all(patronus, train.pixels)[0])

    config = PriorConfig(num_prototypes=bundle.config.num_prototypes)
    prior = train_prior(seen, config, num_steps=options.steps, seed=SEED)
    unnormalised = fit_prior(seen, config, num_steps=options.steps, seed=SEED)

    recommended = f"prior, dpmpp_2m, {prior.config.sampling_steps} steps"
    longest = prior.config.schedule.num_timesteps
    decoded = {recommended, COPULA, f"fresh noise, {longest} steps"}
    decoded.add(f"not normalised, fresh noise, {longest} steps")
    rows: list[Row] = []
    drawn: dict[str, Float32] = {}
    for name, samples, figures in measure(prior, unnormalised, seen, held_out):
        rows.append(Row(name, figures))
        drawn[name] = samples
        print(_line(rows[-1]), flush=True)

    classifier = train_classifier(train)
    real = classifier.features(test.pixels)
    order = np.random.default_rng(SEED).permutation(len(test))[: options.images]
    drawn[REAL] = encode_all(patronus, test.pixels[order])[0]  # the same images as in training.evaluate
    with tqdm(desc="denoiser", unit="image-call", disable=not sys.stderr.isatty()) as progress:
        sampling = ImageSampling(patronus, progress, SEED)
        drawing = Drawing(UNCONDITIONAL_SAMPLER, IMAGE_STEPS, PRIOR_S)
        for i, row in enumerate(rows):
            if row.name in decoded | {REAL}:
                images = sampling.draw(drawing, drawn[row.name][: options.images])
                distance = feature_distance(classifier.features(images), real)
                rows[i] = replace(row, fd_classifier=distance)
                print(f"{row.name}: FD-classifier {distance:.2f}", flush=True)

    head = (
        f"Bundle {bundle.name} {bundle.digest[:12]}, {len(held_out)} vectors of s drawn by each row against "
        f"as many held-out real ones that neither prior was trained on; FD-classifier of "
        f"{options.images} images, {UNCONDITIONAL_SAMPLER}, "
        f"{IMAGE_STEPS} steps (first row: from the s of test images). torch {torch.__version__}, "
        f"{platform.machine()}.\n"
        f"Command: `python -m benchmarks.prior_fidelity --data DIRECTORY --steps {options.steps} "
        f"--images {options.images}`"
    )
    table = report(rows, overfitting(prior, drawn[recommended], seen, held_out), head=head)
    print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
