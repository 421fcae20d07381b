"""`patronus encode`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from service.cli.output import OutType, number, text_writer, to_csv, to_json, to_table, write
from service.cli.progress import ProgressLine
from service.cli.sources import ImageType, image_files
from service.cli.target import Session, Target, with_target
from service.client import BadRequestError, calls

AT_ONCE = 16
"""Images in one request."""


@click.command()
@click.argument("images", nargs=-1, required=True, type=ImageType())
@click.option("--model", help="which of the models (see `patronus models`)")
@click.option("--maps", is_flag=True, help="add similarity_maps to the JSON")
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="prototypes in the table"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option(
    "--csv", "as_csv", is_flag=True, help="print CSV: a line for each image, a column for each prototype"
)
@click.option("-o", "--out", type=OutType(".json", ".csv"), help="write to this .json or .csv file instead")
@with_target
def encode(
    target: Target,
    images: tuple[str, ...],
    model: str | None,
    maps: bool,
    top: int,
    as_json: bool,
    as_csv: bool,
    out: Path | None,
) -> int:
    """Say which prototypes are in images, and where.

    IMAGES are files, folders (with all below them) and quoted globs. Those that cannot be used are named on
    stderr, the others are still encoded, and the exit status is 1.

    \b
    patronus encode shirt.png
    patronus encode photos/ --csv > activations.csv
    patronus encode 'photos/**/*.jpg' --url http://127.0.0.1:8000 -o activations.json
    """
    files = image_files(images)
    with target.open() as session:
        model_info, found = None, []
        for info, file, image in _encoded(session, files, model, maps=maps):
            model_info = info
            found.append({"file": str(file), **image})

    def json_text() -> str:
        return to_json({"model": model_info, "images": found})

    def csv_text() -> str:
        num_prototypes = len(found[0]["activations"]) if found else 0
        header = ["file", "image_id", *(f"s_{j}" for j in range(num_prototypes))]
        return to_csv(header, ([image["file"], image["image_id"], *image["activations"]] for image in found))

    if out is not None:
        write(out, {".json": text_writer(json_text), ".csv": text_writer(csv_text)})
    elif as_json or as_csv:
        click.echo(json_text() if as_json else csv_text())
    elif found:
        click.echo(to_table(["file", "prototype", "similarity", "box"], _table(found, top)))
    return 0 if len(found) == len(files) else 1


def _encoded(
    session: Session, files: Sequence[Path], model: str | None, *, maps: bool
) -> Iterator[tuple[dict[str, Any], Path, dict[str, Any]]]:
    """The model and each file's answer; a request that is refused is tried image by image."""
    options: calls.Common = {} if model is None else {"model": model}
    with ProgressLine(quiet=session.quiet) as line:
        for start in range(0, len(files), AT_ONCE):
            some = list(files[start : start + AT_ONCE])
            try:
                answer, _ = session.send(calls.encode(*some, maps=maps, **options))
                for file, image in zip(some, answer["images"], strict=True):
                    yield answer["model"], file, image
            except (BadRequestError, OSError):
                yield from _one_by_one(session, some, options, maps=maps)
            line.show("encode", start + len(some), len(files))


def _one_by_one(
    session: Session, files: Sequence[Path], options: calls.Common, *, maps: bool
) -> Iterator[tuple[dict[str, Any], Path, dict[str, Any]]]:
    for file in files:
        try:
            answer, _ = session.send(calls.encode(file, maps=maps, **options))
            yield answer["model"], file, answer["images"][0]
        except (BadRequestError, OSError) as error:
            click.echo(f"patronus: {file}: {error}", err=True)


def _table(found: Sequence[dict[str, Any]], top: int) -> Iterator[Sequence[object]]:
    for image in found:
        best = sorted(image["patches"], key=lambda patch: -patch["similarity"])[:top]
        for patch in best:
            box = ",".join(map(str, patch["box"]))
            yield image["file"], patch["prototype"], number(patch["similarity"]), box
