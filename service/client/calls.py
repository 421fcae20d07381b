"""Every call of the API, as a value: what is sent, and what the answer is read as.

`Client` and `AsyncClient` have a method for each; `stream` and `send` of both take one of these. A new
endpoint is a result in `results`, a function here, and a method of two lines in each client.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from service.client import results
from service.client.errors import AnswerError
from service.client.images import ImageId, ImageLike, Source, to_file
from service.client.reading import parse

T = TypeVar("T")
Result = TypeVar("Result", covariant=True)

Priority = Literal["low", "normal", "high"]
Sampler = Literal["ddim", "dpmpp_2m", "ddpm"]
JSON = "application/json"
HTML = "text/html"
ABOUT = ("timeout_s", "priority")
"""Options that go into headers."""


@dataclass(frozen=True)
class Edit:
    """One change of s. op: set, add, scale (with value), max, min.

    prototype: index or name, or None for an edit of an `attribute`, whose value are log-odds.
    """

    prototype: int | str | None
    op: Literal["set", "add", "scale", "max", "min"]
    value: float | None = None
    attribute: str | None = None


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request: `fields` and `files` are its body, `result` the type that the answer is read as.

    is_idempotent: whether it may be sent again when nobody knows if it arrived; read_statuses: whose bodies
    are answers rather than errors.
    """

    method: str
    path: str
    result: type[Result]
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[bytes, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    priority: Priority | None = None
    accept: str = JSON
    is_idempotent: bool = True
    read_statuses: tuple[int, ...] = (200,)

    def request(self, *, accept: str | None = None) -> dict[str, Any]:
        """The arguments that httpx takes."""
        headers = {"Accept": accept or self.accept}
        if self.priority is not None:
            headers["X-Request-Priority"] = self.priority
        arguments: dict[str, Any] = {"method": self.method, "url": self.path, "headers": headers}
        if self.query:
            arguments["params"] = dict(self.query)
        if self.files:
            arguments["files"] = [("image", (f"{i}", file)) for i, file in enumerate(self.files)]
            arguments["data"] = {name: json.dumps(value) for name, value in self.fields.items()}
        elif self.method != "GET":
            arguments["json"] = dict(self.fields)
        return arguments

    def read(self, body: bytes) -> Result:
        """The answer in `body`. Raises AnswerError."""
        try:
            value = json.loads(body) if self.accept == JSON else body.decode()
        except ValueError as error:
            raise self._unreadable(error) from error
        return self.read_value(value)

    def read_value(self, value: Any) -> Result:
        """The same of an answer that is JSON already, as `untyped` gives it. Raises AnswerError."""
        try:
            return parse(self.result, value)
        except ValueError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: ValueError) -> AnswerError:
        return AnswerError(f"the answer of {self.path} cannot be read: {error}")


def untyped(call: Call[Any]) -> Call[dict[str, Any]]:
    """The same call, whose answer stays the JSON that it is."""
    return dataclasses.replace(call, result=dict)


class Common(TypedDict, total=False):
    """model: its name, default the first; timeout_s: in place of the client's; priority: who goes first."""

    model: str
    timeout_s: float
    priority: Priority


class SampleOptions(Common, total=False):
    """image: whose activations to sample under, or `activations` (m,); neither: the prior's.

    start, inversion: of an inverted x_T, as in an edit. With it, image and activations go together.
    """

    image: Source
    activations: Sequence[float] | npt.NDArray[Any]
    edits: Sequence[Edit]
    extrapolate: bool
    decouple: bool
    num_images: int
    steps: int
    sampler: Sampler
    eta: float
    seed: int
    x_T: Literal["random", "inverted"]
    start: Literal["full"] | int
    inversion: Literal["ddim", "bdia"]
    preview_every: int


class GenerateOptions(SampleOptions, total=False):
    trace: bool


class TraceOptions(SampleOptions, total=False):
    num_previews: int


class EditOptions(Common, total=False):
    """preserve: prototypes to hold where they are in the image, "others" all that are not edited;
    preserve_attributes: names of attributes to hold; both need rounds of 2 or more."""

    extrapolate: bool
    decouple: bool
    preserve: Literal["others"] | Sequence[int | str]
    preserve_attributes: Sequence[str]
    start: Literal["full", "auto"] | int
    steps: int
    inversion: Literal["ddim", "bdia"]
    rounds: int
    preview_every: int


class VisualizeOptions(Common, total=False):
    images: Sequence[ImageLike]
    num_samples: int
    samples: bool
    steps: int
    seed: int
    preview_every: int


class LocateOptions(Common, total=False):
    """prototypes: default, the 8 whose activations are most unusual; maps: add similarities (H, W)."""

    prototypes: Sequence[int | str]
    maps: bool


class ExtrapolateOptions(Common, total=False):
    """image: in which; without one a sample drawn by `seed`; values: default, 7 from 0 to 3."""

    image: Source
    values: Sequence[float]
    steps: int
    seed: int
    preview_every: int


class InterpolateOptions(Common, total=False):
    num_images: int
    steps: int
    preview_every: int


class DiagnoseOptions(Common, total=False):
    """prototypes, attributes: what is changed, without either all prototypes; `edits` in place of both."""

    prototypes: Sequence[int | str]
    attributes: Sequence[str]
    edits: Sequence[Edit]
    extrapolate: bool
    images: Sequence[ImageLike]
    num_samples: int
    steps: int
    seed: int
    num_couplings: int


def encode(*images: Source, maps: bool = False, **options: Unpack[Common]) -> Call[results.Encodings]:
    return _post("/encode", results.Encodings, options, images=images, maps=maps or None)


def generate(**options: Unpack[GenerateOptions]) -> Call[results.Generation]:
    return _post("/generate", results.Generation, options)


def trace(**options: Unpack[TraceOptions]) -> Call[results.Trace]:
    return _post("/trace", results.Trace, options)


def edit(image: Source, edits: Sequence[Edit], **options: Unpack[EditOptions]) -> Call[results.Edited]:
    return _post("/edit", results.Edited, options, image=image, edits=edits)


def visualize(*prototypes: int | str, **options: Unpack[VisualizeOptions]) -> Call[results.Visualizations]:
    return _post("/visualize", results.Visualizations, options, prototypes=prototypes or None)


def locate(image: Source, **options: Unpack[LocateOptions]) -> Call[results.Locations]:
    return _post("/locate", results.Locations, options, image=image)


def extrapolate(prototype: int | str, **options: Unpack[ExtrapolateOptions]) -> Call[results.Extrapolation]:
    return _post("/extrapolate", results.Extrapolation, options, prototype=prototype)


def interpolate(
    first: Source, second: Source, **options: Unpack[InterpolateOptions]
) -> Call[results.Interpolation]:
    """Between two images, or between those of two image_ids."""
    if isinstance(first, ImageId) and isinstance(second, ImageId):
        return _post("/interpolate", results.Interpolation, options, image_ids=(first, second))
    return _post("/interpolate", results.Interpolation, options, images=(first, second))


def diagnose(**options: Unpack[DiagnoseOptions]) -> Call[results.Diagnosis]:
    return _post("/diagnose", results.Diagnosis, options)


def diagnosis_page(**options: Unpack[DiagnoseOptions]) -> Call[str]:
    return dataclasses.replace(_post("/diagnose", str, options), accept=HTML)


def prototypes(**options: Unpack[Common]) -> Call[results.Prototypes]:
    return _get("/prototypes", results.Prototypes, options)


def prototype(which: int | str, **options: Unpack[Common]) -> Call[results.PrototypeDetails]:
    return _get(f"/prototypes/{quote(str(which), safe='')}", results.PrototypeDetails, options)


def rename(which: int | str, name: str | None, **options: Unpack[Common]) -> Call[results.PrototypeDetails]:
    """Once a prototype has its new name, nobody is found by the old one: only an index may be sent twice."""
    call = prototype(which, **options)
    is_idempotent = isinstance(which, int)
    return dataclasses.replace(call, method="PUT", fields={"name": name}, is_idempotent=is_idempotent)


def references(**options: Unpack[Common]) -> Call[results.References]:
    return _get("/references", results.References, options)


def models() -> Call[results.Models]:
    return _get("/models", results.Models)


def version() -> Call[results.Version]:
    return _get("/version", results.Version)


def health() -> Call[results.Health]:
    return dataclasses.replace(_get("/healthz", results.Health), read_statuses=(200, 503))


def readiness() -> Call[results.Health]:
    return dataclasses.replace(_get("/readyz", results.Health), read_statuses=(200, 503))


def _get(path: str, result: type[T], options: Mapping[str, Any] | None = None) -> Call[T]:
    about, query = _split(options or {})
    return Call("GET", path, result, query={name: str(value) for name, value in query.items()}, **about)


def _post(path: str, result: type[T], options: Mapping[str, Any], **more: Any) -> Call[T]:
    """A call with a JSON body, or with a form where files go with it."""
    about, fields = _split({**options, **more})
    given = list(fields.pop("images", None) or ())
    if "image" in fields:
        given.append(fields.pop("image"))
    files = tuple(to_file(image) for image in given if not isinstance(image, ImageId))
    for name in (image for image in given if isinstance(image, ImageId)):
        if len(given) > 1:
            raise ValueError(f"the image_id {name[:12]}… stands beside other images: send them all as images")
        fields["image_id"] = str(name)
    body = {name: _jsonable(value) for name, value in fields.items()}
    return Call("POST", path, result, fields=body, files=files, **about)


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is about the request, and what is in it; None is as if it had not been given."""
    given = {name: value for name, value in options.items() if value is not None}
    about: dict[str, Any] = {name: given.pop(name) for name in ABOUT if name in given}
    return about, given


def _jsonable(value: Any) -> Any:
    if isinstance(value, Edit):
        return {name: part for name, part in vars(value).items() if part is not None}
    if isinstance(value, np.ndarray):
        return value.astype(float).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
