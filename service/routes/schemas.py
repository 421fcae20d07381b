"""The JSON bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.samplers import Sampler
from service.pipeline.edits import Operation

EXAMPLE_IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNkEIAAJgGKGACOGAQAwSeVywAAAABJRU5ErkJggg=="
)
"""An 8x8 PNG, for the API's description."""

Base64 = Annotated[
    str,
    Field(description="a PNG, JPEG or WebP file in base64, or as a data: URL", examples=[EXAMPLE_IMAGE]),
]
ImageId = Annotated[
    str,
    Field(pattern="^[0-9a-f]{64}$", description="image_id from an earlier /encode"),
]
Activations = Annotated[
    list[Annotated[float, Field(ge=-1e6, le=1e6)]],
    Field(description="s, one number for each of the m prototypes"),
]
Seed = Annotated[
    int, Field(ge=0, lt=2**32, description="image i uses seed + i; the same seed, the same image")
]
Steps = Annotated[int, Field(ge=1, le=100_000, description="denoise steps; the server sets a limit")]


PreviewEvery = Annotated[
    int,
    Field(
        ge=0,
        le=100_000,
        description="for streamed answers: the least steps between two pictures of x_0_hat, 0 for none",
    ),
]


class RequestModel(BaseModel):
    """A request body: every field is known, of the right type and finite, or the request is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class EditModel(RequestModel):
    """`set`, `add` and `scale` need a value; `max` and `min` take the prototype's 0.99 and 0.01 quantile.

    A bundle without statistics has no quantiles: `max` and `min` are refused there.
    """

    prototype: Annotated[int | str, Field(description="index or name")]
    op: Operation
    value: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None


Edits = Annotated[list[EditModel], Field(max_length=1000)]


class ModelRequest(RequestModel):
    """A request to one of the models that are served (`GET /models`)."""

    model: Annotated[str | None, Field(max_length=200, description="its name; default: the first")] = None


class SourceModel(ModelRequest):
    """At most one of the two; as multipart/form-data, a file named `image` instead."""

    image: Base64 | None = None
    image_id: ImageId | None = None


class EncodeRequest(SourceModel):
    """One image, or several in `images`."""

    images: Annotated[list[Base64] | None, Field(min_length=1)] = None
    maps: Annotated[bool, Field(description="add similarity_maps [m][h][w]")] = False


class SampleRequest(SourceModel):
    """With no image, image_id or activations, s is sampled from the bundle's latent prior, without a prior
    resampled from training statistics, and without those refused with 422."""

    activations: Activations | None = None
    edits: Edits = []
    extrapolate: Annotated[bool, Field(description="let edits leave the data's 0.01 to 0.99 quantiles")] = (
        False
    )
    num_images: Annotated[int, Field(ge=1, le=4096)] = 1
    steps: Steps = 20
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0.0, le=1.0, description="ddim only: 0 deterministic, 1 ancestral")] = 0.0
    seed: Seed = 0
    x_T: Annotated[
        Literal["random", "inverted"],
        Field(description="inverted: the given image's own x_T, by DDIM inversion"),
    ] = "random"
    preview_every: PreviewEvery = 0


class GenerateRequestModel(SampleRequest):
    trace: Annotated[bool, Field(description="add what /trace answers, without previews")] = False


class TraceRequest(SampleRequest):
    num_previews: Annotated[
        int,
        Field(ge=0, le=100, description="pictures of x_0_hat for each image, evenly spaced over the steps"),
    ] = 8


class EditRequest(SourceModel):
    """`rounds`: how often the edit may be corrected towards what was asked; 1 generates it once."""

    edits: Annotated[list[EditModel], Field(min_length=1, max_length=1000)]
    extrapolate: bool = False
    steps: Steps = 20
    rounds: Annotated[int, Field(ge=1, le=8)] = 4
    preview_every: PreviewEvery = 0


class VisualizeRequest(ModelRequest):
    """Sources are `images` (or files named `image`), else `num_samples` test images that the bundle keeps."""

    prototypes: Annotated[
        list[int | str],
        Field(
            min_length=1,
            max_length=1000,
            description="indices or names, each prototype once",
            json_schema_extra={"uniqueItems": True},
        ),
    ]
    images: Annotated[list[Base64] | None, Field(min_length=1)] = None
    num_samples: Annotated[int | None, Field(ge=1, le=4096, description="default 20")] = None
    steps: Steps = 20
    seed: Seed = 0
    preview_every: PreviewEvery = 0


class ModelInfo(BaseModel):
    """Which weights answered."""

    name: str
    digest: str


class ServedModel(ModelInfo):
    """`image_shape`: [channels, height, width]; `metrics` and `provenance`: as in the bundle's manifest."""

    is_default: bool
    image_shape: tuple[int, int, int]
    num_prototypes: int
    has_prior: bool
    metrics: dict[str, Any]
    provenance: dict[str, Any]


class ModelsResponse(BaseModel):
    models: list[ServedModel]


class Timings(BaseModel):
    """Seconds: waiting for a row, running, and the whole request."""

    queue_s: float
    inference_s: float
    total_s: float


class ClampingModel(BaseModel):
    """One edit that was clamped to low … high; of several images, the one that it changed most.

    The range is that of the data's 0.01 to 0.99 quantiles, or with `extrapolate`, and for a bundle without
    statistics, what an activation can be at all.
    """

    prototype: int
    requested: float
    used: float
    low: float
    high: float


class Patch(BaseModel):
    """Where a prototype is most present: pixel box [x0, y0, x1, y1], ends exclusive."""

    prototype: int
    similarity: float
    box: tuple[int, int, int, int]


class EncodedImage(BaseModel):
    image_id: str
    activations: list[float]
    patches: list[Patch]
    cached: bool
    similarity_maps: list[list[list[float]]] | None = None


class EncodeResponse(BaseModel):
    model: ModelInfo
    images: list[EncodedImage]


class GeneratedImageModel(BaseModel):
    """`achieved`: activations re-encoded from the picture that is returned."""

    image: str
    seed: int
    achieved: list[float]


class PreviewModel(BaseModel):
    """x_0_hat after `step` steps, the last of them at `timestep`."""

    step: int
    timestep: int
    image: str


class TracedImage(BaseModel):
    """activations [k][m] of x_0_hat after each step; emergence [m] as timesteps, null for never."""

    seed: int
    activations: list[list[float]]
    emergence: list[int | None]
    previews: list[PreviewModel]


class TraceModel(BaseModel):
    """When each prototype appears, over the k steps at `timesteps`.

    activations [k][m]: mean over the images; emergence [m]: the timestep from which a prototype stays beyond
    half of its change from the first x_0_hat to the last, median over the images where it changes at all,
    else null; emergence_spread [m]: between the quartiles; num_emerged [m]: in how many images.
    """

    timesteps: list[int]
    activations: list[list[float]]
    emergence: list[float | None]
    emergence_spread: list[float | None]
    num_emerged: list[int]
    images: list[TracedImage]


class GenerateResponse(BaseModel):
    """`activations`: what was asked for, one list for each image, edits included."""

    model: ModelInfo
    images: list[GeneratedImageModel]
    activations: list[list[float]]
    activations_from: Literal["image", "request", "prior", "resampled_from_training_statistics"]
    clamped: list[ClampingModel]
    trace: TraceModel | None = None
    timings: Timings


class TraceResponse(TraceModel):
    model: ModelInfo
    asked: list[list[float]]
    activations_from: Literal["image", "request", "prior", "resampled_from_training_statistics"]
    clamped: list[ClampingModel]
    timings: Timings


class EditActivations(BaseModel):
    """`driven`: what the denoiser was given so that `achieved` comes near to `asked`."""

    before: list[float]
    asked: list[float]
    driven: list[float]
    achieved: list[float]
    reconstruction: list[float]


class EditResponse(BaseModel):
    model: ModelInfo
    image_id: str
    image: str
    reconstruction: str
    activations: EditActivations
    rounds: int
    clamped: list[ClampingModel]
    timings: Timings


class VisualizedPrototype(BaseModel):
    """`target`: the activation that was set; before and after: the prototype's own activation."""

    prototype: int
    name: str | None
    target: float
    source: str
    enhanced: str
    patch: str
    box: tuple[int, int, int, int]
    activation_before: float
    activation_after: float


class VisualizeResponse(BaseModel):
    model: ModelInfo
    prototypes: list[VisualizedPrototype]


class PrototypeStatistics(BaseModel):
    """Over the training data."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: dict[str, float]


class PrototypeModel(BaseModel):
    """`picture`: the training patch nearest to the prototype; `exemplar_box` is where it was cut.

    Statistics, picture, box and similarity are null for a model that was imported without its data set.
    """

    index: int
    name: str | None
    statistics: PrototypeStatistics | None
    emergence_timestep: int | None
    picture: str | None
    exemplar_box: tuple[int, int, int, int] | None
    exemplar_similarity: float | None


class PrototypesResponse(BaseModel):
    model: ModelInfo
    prototypes: list[PrototypeModel]


class PrototypeResponse(BaseModel):
    model: ModelInfo
    prototype: PrototypeModel
    exemplar_image: str | None


class ProgressEvent(BaseModel):
    """The data of a `progress` event: `step` of `steps` of a stage are done for one image of the request.

    stage: `invert` (the image's own x_T is sought), `generate`, `correct` (another round of /edit); image:
    index, for /edit 0 the edited and 1 the reconstruction; prototype: of /visualize; preview: x_0_hat, as PNG
    in base64. Who reads slowly misses some, never the last of an image.
    """

    stage: Literal["invert", "generate", "correct"]
    image: int
    step: int
    steps: int
    prototype: int | None = None
    preview: str | None = None


class ProblemModel(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str


REQUEST_MODELS: tuple[type[RequestModel], ...] = (
    EncodeRequest,
    GenerateRequestModel,
    TraceRequest,
    EditRequest,
    VisualizeRequest,
)
