"""Draw the pictures of the site's explanations from the shipped models: `python docs/draw_explanations.py`.

prototypes.png, what_s_holds.png, where.png, when.png and effects.png are answers of the service, which runs
in this process; batching.png is the engine itself at work on a runner without weights.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

sys.path.insert(0, str(Path(__file__).parents[1]))
from model.bundle import Bundle
from model.config import small_config
from model.samplers import sampler_table
from model.schedule import NoiseSchedule
from model.transforms import to_picture
from service.app import create_app
from service.cli.in_process import in_process
from service.client import Client
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.settings import SHIPPED_BUNDLES, Settings

DOCS = Path(__file__).parent
EXAMPLE = DOCS / "example.png"
GREY, COLOUR = (Bundle.load(directory) for directory in SHIPPED_BUNDLES)
STEPS = 50

Job = tuple[str, int, int, int]
"""Its name, the tick at which it comes, its samples, and its steps."""
JOBS: tuple[Job, ...] = (
    ("A", 0, 2, 18),
    ("B", 2, 1, 6),
    ("C", 3, 2, 8),
    ("D", 7, 1, 5),
    ("E", 11, 2, 6),
    ("F", 13, 1, 9),
)
ROWS = 4


def main() -> None:
    with tempfile.TemporaryDirectory() as state:
        settings = dataclasses.replace(
            Settings(), state_dir=Path(state), tune_batch="off", request_timeout_s=600
        )
        with (
            in_process(create_app(settings)) as transport,
            Client(transport=transport, timeout_s=600) as client,
        ):
            draw_prototypes(client)
            draw_what_s_holds(client)
            draw_where(client)
            draw_when(client)
            draw_effects(client)
    draw_batching()


def draw_prototypes(client: Client) -> None:
    """Each prototype's nearest training patch."""
    figure, grids = plt.subplots(2, 1, figsize=(9, 5.6), height_ratios=(3, 4), layout="constrained")
    for grid, bundle, columns in zip(grids, (GREY, COLOUR), (12, 12), strict=True):
        grid.axis("off")
        grid.set_title(bundle.name, fontsize=10, loc="left")
        prototypes = client.prototypes(model=bundle.name)
        rows = -(-len(prototypes) // columns)
        for j, prototype in enumerate(prototypes.prototypes):
            place = grid.inset_axes(
                ((j % columns) / columns, 1 - (j // columns + 1) / rows, 0.9 / columns, 0.74 / rows)
            )
            assert prototype.picture is not None  # shipped models have been measured
            _show(place, prototype.picture.to_numpy(), str(j))
    _save(figure, "prototypes.png")


def draw_what_s_holds(client: Client) -> None:
    """One image under its own s: from its own x_T, and from random ones; then s of the prior."""
    own = client.generate(image=EXAMPLE, x_T="inverted", steps=STEPS)
    random = client.generate(image=EXAMPLE, num_images=5, steps=STEPS, seed=1)
    prior = client.generate(num_images=7, steps=STEPS, seed=1)
    figure, axes = plt.subplots(2, 7, figsize=(9, 3), layout="constrained")
    _show(axes[0, 0], plt.imread(EXAMPLE), "given")
    _show(axes[0, 1], own.images[0].image.to_numpy(), "its s, its x_T")
    for axis, image in zip(axes[0, 2:], random.images, strict=True):
        _show(axis, image.image.to_numpy(), "its s, random x_T")
    for axis, image in zip(axes[1], prior.images, strict=True):
        _show(axis, image.image.to_numpy(), "s of the prior")
    _save(figure, "what_s_holds.png")


def draw_where(client: Client) -> None:
    """The most unusual prototypes of a picture of each model, with maps and boxes."""
    figure, axes = plt.subplots(2, 6, figsize=(9, 3.4), layout="constrained")
    for row, bundle, image in zip(axes, (GREY, COLOUR), (plt.imread(EXAMPLE), _face()), strict=True):
        picture = EXAMPLE if bundle is GREY else image
        _show(row[0], image, bundle.name)
        found = client.locate(picture, model=bundle.name).prototypes
        for axis, location in zip(row[1:], found[: len(row) - 1], strict=True):
            _show(axis, location.overlay.to_numpy(), f"{location.prototype}: z = {location.z:+.1f}")
    _save(figure, "where.png")


def draw_when(client: Client) -> None:
    """x̂₀ on its way from noise to an image, and the activations that it has meanwhile."""
    trace = client.trace(image=EXAMPLE, num_images=1, steps=STEPS, num_previews=8, seed=3)
    (image,) = trace.images
    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    parts = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 2)), dtype=object)
    above, below = parts
    for axis, preview in zip(
        above.subplots(1, len(image.previews), squeeze=False)[0], image.previews, strict=True
    ):
        _show(axis, preview.image.to_numpy(), f"t = {preview.timestep}")
    axis = below.subplots()
    change = np.abs(image.activations[-1] - image.activations[0])
    for j in np.argsort(-change)[:6]:
        (line,) = axis.plot(trace.timesteps, image.activations[:, j], linewidth=1.4, label=f"prototype {j}")
        if not np.isnan(image.emergence[j]):
            at = trace.timesteps.index(int(image.emergence[j]))
            axis.plot(
                trace.timesteps[at], image.activations[at, j], "o", color=line.get_color(), markersize=5
            )
    axis.invert_xaxis()
    axis.set_xlabel("timestep, from noise to image")
    axis.set_ylabel("activation of x̂₀")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.grid(alpha=0.3)
    _save(figure, "when.png")


def draw_effects(client: Client) -> None:
    """What each prototype drags along when it is driven, beside how the two vary together in the data."""
    found = client.diagnose(num_samples=24, steps=10)
    effects, data = found.effects.effect.copy(), found.effects.data_correlation
    scale = np.abs(np.diag(effects)).max()
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    titles = ("change of the other, standard deviations", "correlation in the training data")
    for axis, values, limit, title in zip(axes, (effects, data), (scale, 1.0), titles, strict=True):
        mesh = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("prototype that changes", fontsize=8)
        axis.set_ylabel("prototype that is driven", fontsize=8)
        axis.tick_params(labelsize=7)
        figure.colorbar(mesh, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
    _save(figure, "effects.png")


def draw_batching() -> None:
    """Who has which row at each tick: of our engine, and of a server that batches whole requests."""
    plans = (
        ("steps of all requests, batched (this engine)", by_steps()),
        ("whole requests, batched", by_requests()),
    )
    ticks = max(len(plan) for _, plan in plans)
    colours = dict(zip((name for name, *_ in JOBS), plt.colormaps["Set2"].colors, strict=False))  # type: ignore[attr-defined]
    figure, axes = plt.subplots(2, 1, figsize=(9, 3.8), sharex=True, layout="constrained")
    for axis, (title, plan) in zip(axes, plans, strict=True):
        for tick, names in enumerate(plan):
            for row, name in enumerate(names):
                colour = to_rgba(colours[name.upper()], 1.0 if name.isupper() else 0.25)
                axis.add_patch(Rectangle((tick, row), 1, 1, facecolor=colour, edgecolor="white"))
                axis.text(tick + 0.5, row + 0.5, name, ha="center", va="center", fontsize=7)
        for name, arrival, *_ in JOBS:
            axis.plot(arrival, -0.35, "^", color=colours[name], markersize=7, clip_on=False)
        axis.set(xlim=(0, ticks), ylim=(-0.7, ROWS), yticks=())
        axis.set_title(
            f"{title}: mean wait for an answer {_mean_latency(plan):.1f} steps", fontsize=9, loc="left"
        )
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[1].set_xlabel(
        "network calls; triangle: a request comes; square: a row of a call; pale: done, waits for the batch",
        fontsize=8,
    )
    _save(figure, "batching.png")


def by_steps() -> list[list[str]]:
    """Names of the jobs whose samples had the rows at each tick of `EngineCore`."""
    config = small_config()
    stepped: list[str] = []
    core = EngineCore(FakeRunner(config, max_batch=ROWS), max_queue=64, observer=SilentObserver())
    schedule = NoiseSchedule.from_config(config.schedule)
    plan: list[list[str]] = []
    while core.has_work or len(plan) <= max(arrival for _, arrival, *_ in JOBS):
        for name, arrival, samples, steps in JOBS:
            if arrival == len(plan):
                job = DenoiseJob(
                    x=np.zeros((samples, *config.image.shape), np.float32),
                    activations=np.zeros((samples, config.num_prototypes), np.float32),
                    table=sampler_table("ddim", schedule, steps),
                    noise_seeds=tuple(range(samples)),
                    on_step=lambda *_, name=name: stepped.append(name),
                )
                core.submit_denoise(job, Ticket[DenoiseResult](lambda _: None), now=0.0)
        stepped.clear()
        core.tick(lambda: 0.0)
        plan.append(sorted(stepped))
    return plan


def by_requests() -> list[list[str]]:
    """The same where a batch is made of what waits, and answers once its longest request is done.

    In small letters: a sample that is done, and waits for its batch.
    """
    plan: list[list[str]] = []
    waiting, to_come = list[Job](), list(JOBS)
    while waiting or to_come:
        waiting += [job for job in to_come if job[1] <= len(plan)]
        to_come = [job for job in to_come if job[1] > len(plan)]
        batch: list[Job] = []
        while waiting and sum(samples for *_, samples, _ in (*batch, waiting[0])) <= ROWS:
            batch.append(waiting.pop(0))
        for step in range(max((steps for *_, steps in batch), default=1)):
            names = [(name if step < steps else name.lower(), n) for name, _, n, steps in batch]
            plan.append([name for name, n in names for _ in range(n)])
    return plan


def _mean_latency(plan: Sequence[Sequence[str]]) -> float:
    """Network calls from a request's arrival to its answer."""
    ends = {name.upper(): i + 1 for i, names in enumerate(plan) for name in names}
    return float(np.mean([ends[name] - arrival for name, arrival, *_ in JOBS]))


def _face() -> npt.NDArray[np.uint8]:
    assert COLOUR.pictures is not None
    return np.asarray(to_picture(COLOUR.pictures.reference_images[0]))


def _show(axis: Axes, picture: npt.NDArray[np.uint8], title: str) -> None:
    axis.imshow(picture, cmap="gray", interpolation="nearest")
    axis.set_title(title, fontsize=7, pad=2)
    axis.axis("off")


def _save(figure: Figure, name: str) -> None:
    figure.savefig(DOCS / name, dpi=110, pil_kwargs={"optimize": True})
    plt.close(figure)
    print(DOCS / name)


if __name__ == "__main__":
    main()
