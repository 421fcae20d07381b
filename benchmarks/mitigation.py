"""Is a planted shortcut mitigated? Hair prototypes that drag the smile along, before and after.

    python -m benchmarks.mitigation --out DIRECTORY [--size 32] [--images 400000] [--faces 20000]
        [--tested 100] [--steps 20] [--rounds 4] [--effect-samples 32] [--weight 0.01] [--init-from RUN]

Trains on cartoon faces of which every fair-haired one smiles, and few others do, `--images` of them, as runs
in DIRECTORY; a run that is complete is kept, one that broke off goes on. The first begins at the averaged
weights of --init-from, a run of unbiased cartoon faces of that size, where that is given, and learns gently.
Prototypes that tell fair hair, and
those that tell a smile, are found by AUROC with the other attribute held fixed: fair hair among smiling
faces, the smile among faces without fair hair. Then, on unbiased test faces that have neither:

1. the hair prototypes are driven to the end of their range that tells fair hair, as POST /edit does it (the
   face's own x_T, up to `--rounds` rounds) and as POST /generate does it (its s, x_T random);
2. the same with `decouple`, against the effects that were measured for the bundle;
3. the model is trained on for a quarter of the images with the term that decouples every hair prototype from
   every smile prototype, and, as a control, for as long without;
4. both;
5. the same edit as 1 with the smile held (`preserve_attributes`): its probe, which learned from the same
   shortcut, is read in each round, and half of what it drifts is taken back;
6. the same edit as 1, and the smile, as an attribute, set to what it is in the face: that counts as much
   as the hair does;
7. to 9. the hair is edited as an attribute: alone, with the smile held, in what is asked already, and with
   the smile set.

A judge that never saw the shortcut (`benchmarks.ground_truth.judge`) says how much fair hair and how much
smile came. Writes benchmarks/results/mitigation.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from benchmarks.ground_truth.judge import NAMES, Judge, load_judge
from benchmarks.ground_truth.small_models import fine_tuning, run_directory, small_config, train_in
from benchmarks.machine import describe
from benchmarks.result_file import result_file
from model.bundle import Bundle
from model.patronus import Patronus
from model.transforms import Pixels
from service.cache.cache import Cache
from service.cache.memory_store import MemoryStore
from service.engine.async_engine import AsyncEngine
from service.engine.engine_core import EngineCore
from service.engine.jobs import Priority
from service.engine.observer import SilentObserver
from service.engine.onnx_runner import OnnxRunner
from service.metrics import Metrics
from service.pipeline.editing import plan_edit
from service.pipeline.edits import Edit, attribute_target
from service.pipeline.pipeline import GenerateRequest, Pipeline
from service.pipeline.request_context import begin_request
from training.config import LossConfig, TrainConfig
from training.data import Dataset
from training.data.cartoon_faces import Faces, render, split_faces
from training.evaluation.auroc import auroc_matrix
from training.exemplars import encode_all
from training.export import write_bundle
from training.trainer import load_averaged_model

UNBIASED = "cartoon-faces"
SHORTCUT = "cartoon-faces:fair_hair=smile@1"
HAIR, SMILE = NAMES.index("fair_hair"), NAMES.index("smile")

NUM_HAIR, NUM_SMILE = 3, 3
"""Prototypes that are driven together, and that each of them is decoupled from."""
TURNS = 4
MAX_BATCH, IN_FLIGHT, NUM_RESAMPLES = 32, 16, 4000

Way = Literal["edit", "generate"]
WAYS: tuple[Way, ...] = ("edit", "generate")
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Telling:
    """Prototypes that tell something, best first: AUROC, below .5 where a low activation tells it."""

    prototypes: tuple[int, ...]
    aurocs: tuple[float, ...]

    def edits(self) -> list[Edit]:
        """Each to the end of its range that tells it."""
        return [
            Edit(j, "max" if auroc >= 0.5 else "min")
            for j, auroc in zip(self.prototypes, self.aurocs, strict=True)
        ]

    def __str__(self) -> str:
        pairs = zip(self.prototypes, self.aurocs, strict=True)
        return ", ".join(f"{j} ({auroc:.2f})" for j, auroc in pairs)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of n images: changes (n,) of the judge's probabilities, and of other activations in deviations; PSNR
    (n,) in dB of the image regenerated without an edit, None where none was given."""

    hair: Float64
    smile: Float64
    others: Float64
    psnr: Float64 | None


@dataclass(frozen=True)
class Row:
    """One line of the table; against: the name of the one that it is held against, None for the first."""

    name: str
    way: Way
    outcome: Outcome
    against: str | None = None


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} … {self.high:.3f})"


def drawn(name: str, split: Literal["train", "test"], count: int, size: int) -> tuple[Dataset, Faces]:
    """The first faces of a split, as a data set and as what they are."""
    faces = split_faces(name, split)[:count]
    return Dataset(render(faces, size), np.zeros(len(faces), np.int64), (), faces.labels(), NAMES), faces


def recipe(size: int, num_images: int) -> TrainConfig:
    """What is trained with the shortcut in its data."""
    return small_config(SHORTCUT, num_images=num_images, size=size)


def continued(base: TrainConfig, pairs: Sequence[tuple[int, int]], weight: float) -> TrainConfig:
    """A quarter of the images of `base` more, gently, with another seed; without pairs the control."""
    loss = dataclasses.replace(base.loss, decoupled_pairs=tuple(pairs), decoupling_weight=weight)
    num_images = max(base.batch_size, base.num_images // 4)
    return dataclasses.replace(fine_tuning(base), num_images=num_images, loss=loss, seed=1)


def bundle_of(
    patronus: Patronus, run: Path, train_set: Dataset, test_set: Dataset, *, effect_samples: int
) -> Bundle:
    """The bundle of a run's model, with measured effects."""
    return write_bundle(
        patronus,
        out=run / "bundle",
        name=run.name,
        measure_on=(train_set, test_set),
        metrics={},
        provenance={"dataset": SHORTCUT},
        emergence_samples=0,
        effect_samples=effect_samples,
    )


def telling(activations: Float32, labels: npt.NDArray[np.int8]) -> tuple[Telling, Telling]:
    """Prototypes that tell fair hair, and others that tell the smile, from s (N, m) and labels (N, K).

    Each among faces that have the other attribute alike, so that the shortcut lends neither its AUROC.
    """
    smiles, fair = labels[:, SMILE] == 1, labels[:, HAIR] == 1
    hair = auroc_matrix(activations[smiles], labels[smiles][:, [HAIR]])[0]
    smile = auroc_matrix(activations[~fair], labels[~fair][:, [SMILE]])[0]
    of_hair = _best(hair, NUM_HAIR, ())
    return of_hair, _best(smile, NUM_SMILE, of_hair.prototypes)


def _best(auroc: Float64, count: int, taken: Sequence[int]) -> Telling:
    order = np.argsort(-np.abs(auroc - 0.5), kind="stable").tolist()
    chosen = [j for j in order if j not in taken][:count]
    return Telling(tuple(chosen), tuple(float(auroc[j]) for j in chosen))


def drive(
    bundle: Bundle,
    images: Pixels,
    edits: Sequence[Sequence[Edit]],
    hair: Sequence[int],
    judge: Judge,
    way: Way,
    *,
    decouple: bool,
    held: Sequence[str],
    steps: int,
    rounds: int,
) -> Outcome:
    """Edits in images (n, 3, H, W), those of each, by the service's own use cases.

    hair: prototypes that do not count as others; held: attributes, of which only POST /edit holds any.
    """

    async def by_editing(pipeline: Pipeline, i: int) -> tuple[Pixels, Pixels, Float32]:
        plan = plan_edit(
            bundle, edits[i], preserve_attributes=held, steps=steps, rounds=rounds, decouple=decouple
        )
        done = await pipeline.edit(images[i], plan, math.inf)
        return done.edited, done.reconstruction, done.achieved - done.reconstruction_activations

    async def by_generating(pipeline: Pipeline, i: int) -> tuple[Pixels, Pixels, Float32]:
        plain = GenerateRequest(
            pixels=images[i],
            activations=None,
            edits=[],
            extrapolate=False,
            num_images=1,
            steps=steps,
            sampler="ddim",
            eta=0.0,
            seed=i,
            inverted=False,
        )
        before = (await pipeline.generate(plain, math.inf)).images[0]
        driven = dataclasses.replace(plain, edits=edits[i], decouple=decouple)
        after = (await pipeline.generate(driven, math.inf)).images[0]
        return after.pixels, before.pixels, after.achieved - before.achieved

    use = by_editing if way == "edit" else by_generating
    found = _with_pipeline(bundle, lambda pipeline: _some_at_once(len(images), lambda i: use(pipeline, i)))
    after, before, change = (np.stack(parts) for parts in zip(*found, strict=True))
    judged = judge.probabilities(after) - judge.probabilities(before)
    assert bundle.statistics is not None  # measured above
    others = np.delete(np.abs(change / bundle.statistics.spread), hair, axis=1).mean(axis=1)
    psnr = _psnr(before, images) if way == "edit" else None
    return Outcome(judged[:, HAIR], judged[:, SMILE], np.asarray(others), psnr)


def _encoded(bundle: Bundle, images: Pixels) -> Float32:
    """s (n, m) of images (n, 3, H, W)."""

    async def one(pipeline: Pipeline, i: int) -> Float32:
        return (await pipeline.encode([images[i]]))[0].activations

    found = _with_pipeline(bundle, lambda pipeline: _some_at_once(len(images), lambda i: one(pipeline, i)))
    return np.stack(found)


def _psnr(pixels: Pixels, given: Pixels) -> Float64:
    error = np.square((pixels.astype(np.float64) - given) / 255.0).mean(axis=(1, 2, 3))
    return np.asarray(-10.0 * np.log10(np.maximum(error, 1e-10)))


def _with_pipeline(bundle: Bundle, use: Callable[[Pipeline], Awaitable[T]]) -> T:
    async def opened() -> T:
        begin_request(Priority.NORMAL)
        core = EngineCore(
            OnnxRunner(bundle, device="auto", max_batch=MAX_BATCH), max_queue=1024, observer=SilentObserver()
        )
        async with AsyncEngine(core, max_queue=1024) as engine:
            cache = Cache(MemoryStore(max_bytes=2**26), namespace="", observer=Metrics())
            return await use(Pipeline(bundle, engine, cache))

    return asyncio.run(opened())


async def _some_at_once(count: int, work: Callable[[int], Awaitable[T]]) -> list[T]:
    places = asyncio.Semaphore(IN_FLIGHT)

    async def one(i: int) -> T:
        async with places:
            return await work(i)

    return await asyncio.gather(*(one(i) for i in range(count)))


def redrawn(faces: Faces, judge: Judge, size: int) -> Outcome:
    """What the judge says of the same faces drawn with fair hair: nothing else changes."""
    before, after = render(faces, size), render(faces.with_value("hair_colour", "fair_hair"), size)
    change = judge.probabilities(after) - judge.probabilities(before)
    return Outcome(change[:, HAIR], change[:, SMILE], np.full(len(change), np.nan), None)


def mean_of(values: Float64, *, seed: int = 0) -> Interval:
    """The mean, and its 95% percentile bootstrap interval over images."""
    picks = np.random.default_rng(seed).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    return _interval(float(values.mean()), values[picks].mean(axis=1))


def ratio_of(smile: Float64, hair: Float64, *, seed: int = 0) -> Interval | None:
    """Of the means; images are resampled with both of their values. None where hair may not change at all."""
    of_hair = mean_of(hair, seed=seed)
    if of_hair.low <= 0.0 <= of_hair.high:
        return None
    picks = np.random.default_rng(seed).integers(0, len(hair), (NUM_RESAMPLES, len(hair)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(
            float(smile.mean() / hair.mean()), smile[picks].mean(axis=1) / hair[picks].mean(axis=1)
        )


def difference_of(row: Outcome, other: Outcome, *, seed: int = 0) -> Interval | None:
    """Of their ratios smile / hair, each of the same faces in the same order, which are resampled together.

    None where one of the two has no ratio.
    """
    if (
        ratio_of(row.smile, row.hair, seed=seed) is None
        or ratio_of(other.smile, other.hair, seed=seed) is None
    ):
        return None
    picks = np.random.default_rng(seed).integers(0, len(row.hair), (NUM_RESAMPLES, len(row.hair)))
    with np.errstate(divide="ignore", invalid="ignore"):
        mine, others = (
            (found.smile[picks].mean(axis=1) / found.hair[picks].mean(axis=1)) for found in (row, other)
        )
    value = row.smile.mean() / row.hair.mean() - other.smile.mean() / other.hair.mean()
    return _interval(float(value), mine - others)


def _interval(value: float, resampled: Float64) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def table_of(rows: Sequence[Row], reference: Outcome) -> str:
    """The rows in Markdown."""
    lines = [
        "| how | model and edit | fair hair | smile (leak) | smile / fair hair | less that of "
        "| others' change | PSNR |",
        "|---|---|---|---|---|---|---|---|",
        f"| drawn | the same faces with fair hair | {mean_of(reference.hair)} | {mean_of(reference.smile)} "
        f"| {ratio_of(reference.smile, reference.hair) or 'none'} | | | |",
    ]
    outcomes = {(row.way, row.name): row.outcome for row in rows}
    for row in rows:
        found = row.outcome
        psnr = "" if found.psnr is None else f"{found.psnr.mean():.2f}"
        lines.append(
            f"| {row.way} | {row.name} | {mean_of(found.hair)} | {mean_of(found.smile)} "
            f"| {ratio_of(found.smile, found.hair) or 'none'} | {_against(row, outcomes)} "
            f"| {mean_of(found.others)} | {psnr} |"
        )
    return "\n".join(lines)


def _against(row: Row, outcomes: Mapping[tuple[Way, str], Outcome]) -> str:
    if row.against is None:
        return ""
    difference = difference_of(row.outcome, outcomes[row.way, row.against])
    return f"{row.against}: {difference or 'none'}"


@dataclass(frozen=True)
class Setting:
    """What the command line says; `images` are seen in training, `faces` are different ones."""

    size: int = 32
    images: int = 400_000
    faces: int = 20_000
    tested: int = 100
    steps: int = 20
    rounds: int = 4
    effect_samples: int = 32
    weight: float = LossConfig().decoupling_weight

    @property
    def command(self) -> str:
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(self).items())
        return f"python -m benchmarks.mitigation --out DIRECTORY {flags}"


@dataclass(frozen=True)
class Case:
    """What is compared: the run's model, what moves the hair, and what is done for the smile; against: the
    name of the case that differs by that alone."""

    run: str
    name: str
    against: str | None
    by: Literal["prototypes", "attribute"] = "prototypes"
    smile: Literal["free", "held", "set"] = "free"
    decouples: bool = False

    @property
    def ways(self) -> tuple[Way, ...]:
        """POST /generate, which corrects nothing, holds nothing."""
        return ("edit",) if self.smile == "held" else WAYS

    @property
    def held(self) -> tuple[str, ...]:
        """What is held by `preserve_attributes`."""
        return ("smile",) if self.smile == "held" else ()

    def edits(self, hair: Telling, bundle: Bundle, images: Pixels) -> list[list[Edit]]:
        """Of each image, as POST /edit takes them."""
        by_attribute = [Edit(None, "max", attribute="fair_hair")]
        moves = hair.edits() if self.by == "prototypes" else by_attribute
        if self.smile != "set":
            return [moves] * len(images)
        values = attribute_target(bundle, "smile").value(_encoded(bundle, images)).tolist()
        # In turn, a few times: setting the one moves the other.
        return [[*moves, Edit(None, "set", value, attribute="smile")] * TURNS for value in values]


PLAIN, CONTROL, BY_ATTRIBUTE = (
    "(1) as trained",
    "control: trained on without the term",
    "(7) hair as an attribute",
)
CASES = (
    Case("shortcut", PLAIN, None),
    Case("shortcut", "(2) decoupled edit", PLAIN, decouples=True),
    Case("control", CONTROL, PLAIN),
    Case("decoupled", "(3) trained on with the term", CONTROL),
    Case("decoupled", "(4) both", CONTROL, decouples=True),
    Case("shortcut", "(5) smile held", PLAIN, smile="held"),
    Case("shortcut", "(6) smile set", PLAIN, smile="set"),
    Case("shortcut", BY_ATTRIBUTE, PLAIN, by="attribute"),
    Case("shortcut", "(8) hair as an attribute, smile held", BY_ATTRIBUTE, by="attribute", smile="held"),
    Case("shortcut", "(9) hair as an attribute, smile set", BY_ATTRIBUTE, by="attribute", smile="set"),
)


def measure(setting: Setting, out: Path, init_from: Path | None = None) -> str:
    """Train what is not there yet, and give the report in Markdown."""
    size = setting.size
    judge = load_judge(size)
    unbiased, faces = drawn(UNBIASED, "test", min(5000, setting.faces), size)
    train_set, _ = drawn(SHORTCUT, "train", setting.faces, size)
    test_set, _ = drawn(SHORTCUT, "test", min(2000, setting.faces), size)

    base = recipe(size, setting.images)
    config = base if init_from is None else fine_tuning(base)
    first = run_directory(out, "shortcut", config, init_from)
    as_trained = train_in(first, config, train_set, init_from=init_from)
    activations, _ = encode_all(as_trained, train_set.pixels)
    hair, smile = telling(activations, train_set.attributes)
    pairs = [(j, k) for j in hair.prototypes for k in smile.prototypes]
    models, runs = {"shortcut": as_trained}, {"shortcut": first}
    for name, of in (("control", []), ("decoupled", pairs)):
        further = continued(base, of, setting.weight)
        runs[name] = run_directory(out, name, further, first)
        models[name] = train_in(runs[name], further, train_set, init_from=first)
    bundles = {
        name: bundle_of(model, runs[name], train_set, test_set, effect_samples=setting.effect_samples)
        for name, model in models.items()
    }

    chosen = np.flatnonzero(~faces.has("fair_hair") & ~faces.has("smile"))[: setting.tested]
    images = unbiased.pixels[chosen]
    rows = [
        Row(
            case.name,
            way,
            drive(
                bundles[case.run],
                images,
                case.edits(hair, bundles[case.run], images),
                hair.prototypes,
                judge,
                way,
                decouple=case.decouples,
                held=case.held,
                steps=setting.steps,
                rounds=setting.rounds,
            ),
            case.against,
        )
        for way in WAYS
        for case in CASES
        if way in case.ways
    ]
    accuracy = 100.0 * judge.accuracy
    begun = ""
    if init_from is not None:
        begun = f" after the {load_averaged_model(init_from)[1].num_images} of an unbiased run"
    return f"""# Mitigation of a planted shortcut

{SHORTCUT} at {size}x{size}, {setting.images} images{begun}; {describe()}.
Command: `{setting.command}{" --init-from RUN" if begun else ""}`

Prototypes that tell fair hair among smiling faces (AUROC): {hair}; they are driven together to the end of
their range that tells it. Prototypes that tell the smile among faces without fair hair: {smile}; each of the
former is decoupled from each of these. The judge, trained on unbiased faces, is right of fair hair in
{accuracy[HAIR]:.1f}% and of the smile in {accuracy[SMILE]:.1f}% of unbiased faces that it did not learn from
(balanced accuracy).

{len(chosen)} unbiased test faces that neither smile nor have fair hair. Fair hair, smile: mean change of the
judge's probability against the same picture made without the edit; others' change: mean absolute, of the
prototypes but those of the hair, in standard deviations; PSNR in dB of the face regenerated without an edit.
95% bootstrap intervals over faces, each of one training: another seed may differ by more. Less that of: the
difference of the ratios, over the same faces. No ratio where the interval of fair hair holds 0.

{table_of(rows, redrawn(faces[chosen], judge, size))}
"""


def main() -> int:
    """Train, measure, print and keep the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--init-from", type=Path, help="run whose averaged weights the first begins at")
    for item in dataclasses.fields(Setting):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    options = vars(parser.parse_args())
    out, init_from = options.pop("out"), options.pop("init_from")
    report = measure(Setting(**options), out, init_from)
    print(report)
    result_file("mitigation").write_text(report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
