"""Read request bodies: JSON or multipart/form-data, into one validated model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from model.transforms import Pixels
from service.images import QUICK_BYTES, ImageError, decode_base64, decode_image, is_quick
from service.pipeline.pipeline import Pipeline
from service.problems import ProblemError
from service.routes.schemas import RequestModel
from service.settings import Settings

M = TypeVar("M", bound=RequestModel)

MAX_QUICK_IMAGES = 4

MAX_ON_THE_LOOP_BYTES = 2**18
"""JSON that the event loop reads by itself; more of it would hold others up."""


async def read_body(request: Request, model: type[M], *, max_files: int) -> tuple[M, list[bytes]]:
    """The body as `model`, and the files named `image` that came with it. Raises ProblemError.

    In a form every other field holds its value in JSON (`edits=[{"prototype": 3, "op": "max"}]`);
    text that is not JSON stands for itself (`sampler=ddim`).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        values, files = await _read_form(request, max_files)
    else:
        body = await request.body()
        if body and kind != "application/json" and not kind.endswith("+json"):
            raise ProblemError(415, "send application/json or multipart/form-data")
        request.state.body_read.set()  # see `service.routes.answering`
        if len(body) > MAX_ON_THE_LOOP_BYTES:
            return await asyncio.to_thread(parse_body, body, model), []
        return parse_body(body, model), []
    request.state.body_read.set()
    return _validated(values, model), files


def parse_body(body: bytes, model: type[M]) -> M:
    """JSON as `model`; nothing at all is an empty object. Raises ProblemError."""
    return _validated(_parse_json(body) if body else {}, model)


def _validated(values: Any, model: type[M]) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ProblemError(422, _explain(error)) from error


async def read_images(
    texts: Sequence[str], files: Sequence[bytes], pipeline: Pipeline, settings: Settings
) -> list[Pixels]:
    """Decode base64 texts and files, off the event loop, in order. Raises ImageError or ProblemError."""
    count = len(texts) + len(files)
    if count > settings.max_images:
        raise ProblemError(
            422, f"{count} images are more than the {settings.max_images} allowed in a request"
        )
    config = pipeline.bundle.config.image
    sources: list[str | bytes] = [*texts, *files]

    def decode() -> list[Pixels]:
        pictures: list[Pixels] = []
        for i, source in enumerate(sources):
            try:
                data = decode_base64(source) if isinstance(source, str) else source
                pictures.append(decode_image(data, config, max_pixels=settings.max_pixels))
            except ImageError as error:
                if count == 1:
                    raise
                raise type(error)(f"image {i}: {error}") from error
        return pictures

    if count <= MAX_QUICK_IMAGES and all(_is_quick(source) for source in sources):
        return decode()
    return await asyncio.to_thread(decode)


def _is_quick(source: str | bytes) -> bool:
    """Whether an image is decoded sooner than it is handed to another thread."""
    if isinstance(source, bytes):
        return is_quick(source)
    if len(source) > 2 * QUICK_BYTES:
        return False
    try:
        return is_quick(decode_base64(source))
    except ImageError:
        return True  # so that it is refused at once


async def read_source(
    image: str | None,
    image_id: str | None,
    files: Sequence[bytes],
    pipeline: Pipeline,
    settings: Settings,
) -> Pixels | None:
    """The one image that a request is about, however it was given; None where it was not."""
    if (image is not None) + (image_id is not None) + len(files) > 1:
        raise ProblemError(422, "give one image: as file, base64 or image_id")
    if image_id is not None:
        return await pipeline.recall(image_id)
    pictures = await read_images([] if image is None else [image], files, pipeline, settings)
    return pictures[0] if pictures else None


def check_limits(settings: Settings, *, steps: int, num_images: int = 1) -> None:
    """Raises ProblemError where a request asks for more than the settings allow."""
    if steps > settings.max_steps:
        raise ProblemError(422, f"steps must be 1 to {settings.max_steps}, not {steps}")
    if num_images > settings.max_images:
        raise ProblemError(422, f"num_images must be 1 to {settings.max_images}, not {num_images}")


async def _read_form(request: Request, max_files: int) -> tuple[dict[str, Any], list[bytes]]:
    values: dict[str, Any] = {}
    files: list[bytes] = []
    try:
        form = await request.form(max_files=max_files + 1, max_fields=50, max_part_size=2**20)
    except (KeyError, ValueError, UnicodeDecodeError, AssertionError) as error:
        raise ProblemError(400, "the form is malformed") from error
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "image":
                    raise ProblemError(422, f"unexpected file {name[:100]!r}: files are named image")
                files.append(await value.read())
            elif name in values:
                raise ProblemError(422, f"field {name[:100]!r} is given twice")
            else:
                values[name] = _form_value(value)
    finally:
        await form.close()
    return values, files


def _form_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"the body is not valid JSON: {str(error)[:200]}") from error


def _explain(error: ValidationError) -> str:
    """Up to five faults, each with its place; inputs themselves are not repeated."""
    faults = [
        f"{'.'.join(str(part)[:100] for part in fault['loc']) or 'body'}: {fault['msg'][:300]}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    ]
    return "; ".join(faults)
