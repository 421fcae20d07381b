"""Do wide and whole-image prototypes tell global attributes better than local ones do?

    python -m benchmarks.global_attributes [--size 32] [--images 100000] [--prototypes 48] [--seeds 0 1 2]
        [--out runs/global-attributes]

Trains, on as many cartoon faces each, three encoders of as many prototypes jointly with their denoisers:

published   the paper's encoder (kernels of 3, widths 32, 64, 64, 128) and its recipe: summed distance,
            initial weights N(0, 0.1²), uniform prototypes, no term beside the denoising error, s as it is
local       ours: the encoder of `small-cartoon-faces`, whose terms and standardised s it takes
global      ours with 10 of 48 prototypes on wide patches and 8 on the whole image

Denoiser, optimiser and average are ours for all three. That is where "published" leaves the published recipe:
at its constant learning rate of 1e-5 nothing is learned in such a budget. A probe (logistic regression, of
`training.evaluation.attributes`) on s then tells each attribute; its AUROC is that of the test split, and of
an attribute with several values the mean over these. Beside it, how much better eps is predicted with an
image's own s than with another's: 0 where the denoiser does not use s, and so never taught the encoder.
Runs that are already in --out are continued or taken as they are. Writes
benchmarks/results/global_attributes.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.ground_truth.small_models import small_config, train_in
from benchmarks.machine import describe
from benchmarks.result_file import result_file
from model.attributes import Attributes
from model.config import EncoderConfig, ImageConfig, ModelConfig, Scale
from model.patronus import Patronus
from model.prototype_boxes import PrototypeBoxes
from model.statistics import ActivationStatistics
from model.transforms import to_x_0
from training.config import LossConfig, TrainConfig
from training.data import Dataset, load_dataset
from training.data.cartoon_faces import ATTRIBUTES, CARTOON_FACES, LABELS, Attribute
from training.evaluation.attributes import measure_attributes
from training.exemplars import encode_all
from training.trainer import conditioning_losses

NUM_PROBE_IMAGES = 10_000
"""Training images that probes are fitted to."""
NUM_GAP_IMAGES = 512
GAP_TIMESTEP = 300
SIZES = (32, 64)

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One run: by attribute, AUROC of the probe and the scale of the single prototype that tells it best."""

    encoder: str
    seed: int
    auroc: Mapping[str, float]
    best_scale: Mapping[str, Scale]
    gap: float

    def mean(self, reach: str) -> float:
        """AUROC, mean over the local or the global attributes."""
        return float(np.mean([self.auroc[attribute.name] for attribute in _reaching(reach)]))


def published(size: int, num_prototypes: int, num_images: int) -> TrainConfig:
    """The paper's encoder, and what its recipe says of it."""
    config = local(size, num_prototypes, num_images)
    model = replace(config.model, encoder=EncoderConfig(num_prototypes=num_prototypes, distance="sum"))
    return replace(
        config,
        model=replace(model, denoiser=replace(model.denoiser, standardize=False)),
        loss=LossConfig(nearest_patch_weight=0.0, decorrelation_weight=0.0),
        encoder_init="normal",
        prototype_init="uniform",
    )


def local(size: int, num_prototypes: int, num_images: int) -> TrainConfig:
    """Ours: patches of 19 pixels at 64x64, of 9 pixels at 32x32."""
    config = small_config(CARTOON_FACES, num_images=num_images, size=size)
    encoder = replace(config.model.encoder, num_prototypes=num_prototypes)
    return replace(config, model=replace(config.model, encoder=encoder))


def with_whole_image(size: int, num_prototypes: int, num_images: int) -> TrainConfig:
    """Ours, and of 48 prototypes 10 wide and 8 global ones."""
    config = local(size, num_prototypes, num_images)
    encoder = replace(
        config.model.encoder,
        num_wide_prototypes=round(num_prototypes * 10 / 48),
        num_global_prototypes=round(num_prototypes * 8 / 48),
    )
    return replace(config, model=replace(config.model, encoder=encoder))


ENCODERS: dict[str, Callable[[int, int, int], TrainConfig]] = {
    "published": published,
    "local": local,
    "global": with_whole_image,
}


def train_and_measure(
    name: str, config: TrainConfig, train: Dataset, test: Dataset, directory: Path, device: str = "auto"
) -> Outcome:
    """One encoder with its denoiser, trained in `directory` as far as it is not yet."""
    patronus = train_in(directory, config, train, device=device)
    return measure(name, config.seed, patronus, train, test)


def measure(name: str, seed: int, patronus: Patronus, train: Dataset, test: Dataset) -> Outcome:
    """Probes of `patronus`, by attribute, and whether its denoiser uses s."""
    train = _first(train, NUM_PROBE_IMAGES)
    train_activations, _ = encode_all(patronus, train.pixels)
    test_activations, _ = encode_all(patronus, test.pixels)
    statistics = ActivationStatistics.measure(train_activations)
    attributes = measure_attributes(train, test, train_activations, test_activations, statistics)
    assert attributes is not None, "cartoon faces have labels"
    device = patronus.activation_mean.device
    x_0 = torch.from_numpy(to_x_0(test.pixels[:NUM_GAP_IMAGES])).to(device)
    s = torch.from_numpy(test_activations[:NUM_GAP_IMAGES]).to(device)
    true, shuffled = conditioning_losses(patronus, x_0, s, GAP_TIMESTEP)
    return Outcome(
        encoder=name,
        seed=seed,
        auroc={
            attribute.name: float(np.mean(attributes.probe_auroc[_labels(attribute, attributes)]))
            for attribute in ATTRIBUTES
        },
        best_scale=_best_scales(patronus.config, attributes),
        gap=1.0 - true / shuffled,
    )


def table_of(outcomes: Sequence[Outcome], heading: Sequence[str]) -> str:
    """Means over seeds, and lowest to highest where there are several: first by reach, then by attribute."""
    by_encoder = {
        name: [outcome for outcome in outcomes if outcome.encoder == name]
        for name in dict.fromkeys(outcome.encoder for outcome in outcomes)
    }
    lines = [
        *heading,
        "",
        "| encoder | local attributes | global attributes | local - global | eps-loss gap at t = 300 |",
        "|---|---|---|---|---|",
    ]
    for name, runs in by_encoder.items():
        means = [[run.mean(reach) for run in runs] for reach in ("local", "global")]
        differences = [one - other for one, other in zip(*means, strict=True)]
        cells = [_span(values) for values in (*means, differences, [run.gap for run in runs])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += [
        "",
        "| attribute | reach | " + " | ".join(by_encoder) + " | best single prototype of `global` |",
        "|---" * (3 + len(by_encoder)) + "|",
    ]
    for attribute in (*_reaching("local"), *_reaching("global")):
        cells = [_span([run.auroc[attribute.name] for run in runs]) for runs in by_encoder.values()]
        scales = Counter(run.best_scale[attribute.name] for run in by_encoder.get("global", []))
        told_by = ", ".join(f"{scale} ({count})" for scale, count in scales.most_common())
        lines.append("| " + " | ".join([attribute.name, attribute.reach, *cells, told_by]) + " |")
    return "\n".join(lines) + "\n"


def _reaching(reach: str) -> list[Attribute]:
    return [attribute for attribute in ATTRIBUTES if attribute.reach == reach]


def _labels(attribute: Attribute, measured: Attributes) -> list[int]:
    """Columns of the labels that are values of an attribute."""
    names = {label.name for label in LABELS if label.attribute == attribute}
    return [k for k, name in enumerate(measured.names) if name in names]


def _best_scales(config: ModelConfig, measured: Attributes) -> dict[str, Scale]:
    """Of each attribute, the scale of the prototype that alone tells one of its values most surely."""
    scales = PrototypeBoxes(config).scales
    sureness: Float64 = np.abs(measured.auroc - 0.5)  # (m, K)
    return {
        attribute.name: scales[int(sureness[:, _labels(attribute, measured)].max(axis=1).argmax())]
        for attribute in ATTRIBUTES
    }


def _first(dataset: Dataset, count: int) -> Dataset:
    return Dataset(
        dataset.pixels[:count],
        dataset.labels[:count],
        dataset.class_names,
        dataset.attributes[:count],
        dataset.attribute_names,
    )


def _span(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def main() -> int:
    """Train, measure, print and keep the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, choices=SIZES, default=32)
    parser.add_argument("--images", type=int, default=100_000, help="seen by each run (default 100000)")
    parser.add_argument("--prototypes", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs") / "global-attributes")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    image = ImageConfig(3, options.size, options.size)
    train, test = (load_dataset(CARTOON_FACES, None, split, image) for split in ("train", "test"))
    outcomes = []
    for seed in options.seeds:
        for name, configure in ENCODERS.items():
            config = replace(configure(options.size, options.prototypes, options.images), seed=seed)
            run = f"{options.size}px-{options.prototypes}-{options.images}-{name}-seed{seed}"
            outcomes.append(train_and_measure(name, config, train, test, options.out / run, options.device))
    seeds = " ".join(map(str, options.seeds))
    heading = [
        "# Local and global attributes",
        "",
        f"Cartoon faces of {options.size}x{options.size}, {options.images:,} images for each run, "
        f"{options.prototypes} prototypes, seeds {seeds}; AUROC of linear probes on s, "
        f"{len(test):,} test images; mean over seeds, and lowest to highest; {describe()}.",
        f"Command: `python -m benchmarks.global_attributes --size {options.size} --images {options.images} "
        f"--prototypes {options.prototypes} --seeds {seeds}`",
        'The encoders, and what "published" has of the published recipe: `benchmarks/global_attributes.py`.',
    ]
    table = table_of(outcomes, heading)
    print(table)
    result_file("global_attributes").write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
