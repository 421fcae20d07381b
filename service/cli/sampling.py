"""The options that `patronus generate` and `patronus trace` share: what to sample, and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from service.cli.edits import EDITS_HELP, EditType
from service.client.calls import SampleOptions, Sampler

F = TypeVar("F", bound=Callable[..., Any])


def with_sampling(command: F) -> F:
    """Add the options; `sample_options` makes a call's options of them."""
    for option in reversed(
        (
            click.option("-n", "--num-images", type=click.IntRange(min=1), default=1, show_default=True),
            click.option(
                "--image",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="sample under this picture's activations (default: the latent prior's)",
            ),
            click.option(
                "--activations",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="sample under the activations in this JSON file: a list of numbers; "
                "with --x-t inverted, in place of the picture's",
            ),
            click.option("-e", "--edit", "edits", type=EditType(), multiple=True, help=EDITS_HELP),
            click.option("--extrapolate", is_flag=True, help="let edits leave the data's quantiles"),
            click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True),
            click.option(
                "--sampler", type=click.Choice(get_args(Sampler)), default="ddim", show_default=True
            ),
            click.option("--eta", type=click.FloatRange(0, 1), default=0.0, help="ddim only: 1 is ancestral"),
            click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
            click.option(
                "--x-t",
                "x_T",
                type=click.Choice(["random", "inverted"]),
                default="random",
                show_default=True,
                help="inverted: start from the given picture's own noise",
            ),
            click.option(
                "--start",
                default="full",
                show_default=True,
                help="with --x-t inverted: full, or a timestep to go back to, as of an edit",
            ),
            click.option(
                "--inversion",
                type=click.Choice(["ddim", "bdia"]),
                default="ddim",
                show_default=True,
                help="with --x-t inverted: as of an edit",
            ),
            click.option("--model", help="which of the models (see `patronus models`)"),
        )
    ):
        command = option(command)
    return command


def sample_options(
    *,
    image: Path | None,
    activations: Path | None,
    edits: tuple[Any, ...],
    start: str,
    inversion: str,
    **options: Any,
) -> SampleOptions:
    """Raises click.BadParameter for a file of activations that cannot be read."""
    chosen: dict[str, Any] = {**options, "edits": list(edits)}
    if start != "full":
        chosen["start"] = start_of(start)
    if inversion != "ddim":
        chosen["inversion"] = inversion
    if image is not None:
        chosen["image"] = image
    if activations is not None:
        try:
            chosen["activations"] = json.loads(activations.read_text(), parse_constant=_refuse)
        except ValueError as error:
            raise click.BadParameter(
                f"{activations} is no JSON: {error}", param_hint="--activations"
            ) from error
    sample: SampleOptions = chosen  # type: ignore[assignment]
    return sample


def start_of(text: str) -> Any:
    """A timestep as a number, or the word that stands for one."""
    return int(text) if text.isdecimal() else text


def _refuse(constant: str) -> float:
    """NaN and Infinity, which Python writes and JSON does not have."""
    raise ValueError(f"it has no {constant}")
