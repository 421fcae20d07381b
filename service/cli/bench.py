"""`patronus bench`"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import click
import numpy as np

from service.cli.load import GOOD_WITHIN, Load, Outcome, Summary, run_load, solo_seconds
from service.cli.output import to_json, to_table
from service.cli.progress import ProgressLine
from service.cli.target import Target, with_target
from service.client import calls
from service.client.calls import Call

TIMEOUT_S = 30.0
"""Less than who asks once would wait: a load is over when its last request is."""


@click.command()
@click.option("--endpoint", type=click.Choice(["encode", "generate"]), default="generate", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="of generate")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="for encode: always this one, which the cache will know  [default: noise, each time another]",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True, help="per second"
)
@click.option(
    "--duration", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="seconds"
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of the arrivals")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@partial(with_target, timeout_s=TIMEOUT_S)
def bench(
    target: Target,
    endpoint: str,
    steps: int,
    image: Path | None,
    rate: float,
    duration: float,
    seed: int,
    as_json: bool,
) -> None:
    """Load a service, or a model here, and say how it answers.

    Requests arrive at random moments (a Poisson process) whatever became of those before, as those of many
    people do; a latency counts from the moment a request was due, and none is tried again. Goodput counts
    those answered within three times what one takes alone, which is measured first.

    \b
    patronus bench --url http://127.0.0.1:8000 --rate 20 --duration 30
    patronus bench --bundle bundles/mine --endpoint encode
    """
    if image is not None and endpoint != "encode":
        raise click.UsageError("--image is for --endpoint encode")
    file = None if image is None else image.read_bytes()

    def call(i: int) -> Call[object]:
        if endpoint == "generate":
            return calls.generate(steps=steps, seed=i)
        noise = np.random.default_rng((seed, i)).integers(0, 256, (64, 64), dtype=np.uint8)
        return calls.encode(noise if file is None else file)

    async def measure() -> tuple[float, list[Outcome]]:
        async with target.open_for_load() as client:
            solo_s = await solo_seconds(client, call)
            with ProgressLine(quiet=target.quiet) as line:
                load = Load(rate=rate, duration_s=duration, seed=seed)
                return solo_s, await run_load(client, call, load, lambda n, of: line.show("bench", n, of))

    solo_s, outcomes = asyncio.run(measure())
    summary = Summary.of(outcomes, solo_s=solo_s, duration_s=duration)
    if as_json:
        click.echo(to_json(vars(summary)))
        return
    milliseconds = [
        ("alone", summary.solo_s), ("p50", summary.p50_s), ("p95", summary.p95_s), ("p99", summary.p99_s)
    ]  # fmt: skip
    rows: list[list[object]] = [
        ["requests", f"{summary.num_requests} in {duration:g} s"],
        ["answered", summary.num_ok],
        ["refused", summary.num_rejected],
        ["failed", summary.num_failed],
    ]
    rows += [[name, "-" if value is None else f"{value * 1000:.1f} ms"] for name, value in milliseconds]
    rows.append([f"goodput (within {GOOD_WITHIN:g} x alone)", f"{summary.goodput:.2f}/s"])
    click.echo(to_table([endpoint, "value"], rows))
