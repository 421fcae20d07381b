"""The JSON bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.couplings import LEAST_SAMPLES
from model.samplers import Sampler
from service.pipeline.diagnosis import Explanation, Finding
from service.pipeline.edits import Operation
from service.pipeline.round_trip import Inversion

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
Timestep = Annotated[int, Field(ge=0, le=100_000)]


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
    """A change of a prototype, or where the model knows labels, of an attribute: one of the two.

    `set`, `add` and `scale` need a value: an activation, or log-odds of the attribute. `max` and `min` take
    its 0.99 and 0.01 quantile; a bundle without statistics has no quantiles, and these are refused there. An
    attribute moves prototypes together, as they vary together in the data. Edits are applied in order: that
    of an attribute leaves prototypes that were edited before it, and as far as it can attributes that were.
    """

    prototype: Annotated[int | str | None, Field(description="index or name")] = None
    attribute: Annotated[
        str | None, Field(max_length=200, description="one of those that `GET /prototypes` lists")
    ] = None
    op: Operation
    value: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None


Edits = Annotated[list[EditModel], Field(max_length=1000)]


Prototypes = Annotated[
    list[int | str],
    Field(
        min_length=1,
        max_length=1000,
        description="indices or names, each prototype once",
        json_schema_extra={"uniqueItems": True},
    ),
]


AttributeNames = Annotated[
    list[Annotated[str, Field(max_length=200)]],
    Field(
        min_length=1,
        max_length=1000,
        description="of those that `GET /prototypes` lists, each once",
        json_schema_extra={"uniqueItems": True},
    ),
]


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


Decouple = Annotated[
    bool,
    Field(
        description="drive other entries of s against the effects that the edited prototypes have on them, "
        "as measured for the bundle, so that less else changes; takes no more network calls"
    ),
]


class SampleRequest(SourceModel):
    """With no image, image_id or activations, s is sampled from the bundle's latent prior, without a prior
    resampled from training statistics, and without those refused with 422.

    An image and activations together, with `x_T` inverted: the image's noise under other activations. Those
    that /edit has `driven`, with its `steps`, `inversion` and `start_timestep`, give its picture again.
    """

    activations: Activations | None = None
    edits: Edits = []
    extrapolate: Annotated[bool, Field(description="let edits leave the data's 0.01 to 0.99 quantiles")] = (
        False
    )
    decouple: Decouple = False
    num_images: Annotated[int, Field(ge=1, le=4096)] = 1
    steps: Steps = 20
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0.0, le=1.0, description="ddim only: 0 deterministic, 1 ancestral")] = 0.0
    seed: Seed = 0
    x_T: Annotated[
        Literal["random", "inverted"],
        Field(description="inverted: the given image's own x_T, by `inversion`"),
    ] = "random"
    start: Annotated[
        Literal["full"] | Timestep,
        Field(
            description="with x_T inverted, sampler ddim and eta 0: the timestep that the image is "
            "taken back to, as in /edit"
        ),
    ] = "full"
    inversion: Annotated[
        Inversion, Field(description="bdia: with x_T inverted, sampler ddim and eta 0, as in /edit")
    ] = "ddim"
    preview_every: PreviewEvery = 0


class GenerateRequestModel(SampleRequest):
    trace: Annotated[bool, Field(description="add what /trace answers, without previews")] = False


class TraceRequest(SampleRequest):
    num_previews: Annotated[
        int,
        Field(ge=0, le=100, description="pictures of x_0_hat for each image, evenly spaced over the steps"),
    ] = 8


class EditRequest(SourceModel):
    """`rounds`: how often the edit may be generated, each time corrected towards what was asked.

    The round that reached most is returned; with `preserve` or `preserve_attributes`, it is weighed
    against what of these has changed.
    """

    edits: Annotated[list[EditModel], Field(min_length=1, max_length=1000)]
    extrapolate: bool = False
    preserve: Annotated[
        Literal["others"] | list[int | str],
        Field(
            max_length=1000,
            description="prototypes (indices or names) whose activations the corrections hold where they are "
            "in the image; others: all that are not edited; needs rounds of 2 or more",
        ),
    ] = []
    preserve_attributes: Annotated[
        list[Annotated[str, Field(max_length=200)]],
        Field(
            max_length=1000,
            description="names of attributes, each once, whose log-odds are held where they are in the "
            "image, in what an edit of an attribute asks and by the corrections; needs rounds of 2 or more",
        ),
    ] = []
    decouple: Decouple = False
    start: Annotated[
        Literal["full", "auto"] | Timestep,
        Field(
            description="the timestep that the image is taken back to, and regenerated from: full is T - 1, "
            "a number is the next of the `steps` levels at or below it, auto is where the edited prototypes "
            "emerge; a lower one changes less of the image, and takes fewer network calls"
        ),
    ] = "full"
    steps: Steps = 20
    inversion: Annotated[
        Inversion,
        Field(
            description="ddim, or bdia: exact, so that only what is edited changes; needs steps of 2 or more"
        ),
    ] = "ddim"
    rounds: Annotated[int, Field(ge=1, le=8)] = 4
    preview_every: PreviewEvery = 0


class VisualizeRequest(ModelRequest):
    """Of `prototypes` (default: all); sources are `images` (or files named `image`), else `num_samples` test
    images that the bundle keeps."""

    prototypes: Prototypes | None = None
    images: Annotated[list[Base64] | None, Field(min_length=1)] = None
    num_samples: Annotated[int | None, Field(ge=1, le=4096, description="default 20")] = None
    steps: Steps = 20
    seed: Seed = 0
    samples: Annotated[bool, Field(description="add the pictures of all sources")] = False
    preview_every: PreviewEvery = 0


class LocateRequest(SourceModel):
    """One image; prototypes: by default the 8 whose activations are most unusual over the training data, or,
    of a model that came without data, the 8 that are most active."""

    prototypes: Prototypes | None = None
    maps: Annotated[bool, Field(description="add the similarity map [H][W] of each prototype")] = False


class ExtrapolateRequest(SourceModel):
    """In one image, or without one in the sample that /generate draws with that seed."""

    prototype: Annotated[int | str, Field(description="index or name")]
    values: Annotated[
        list[Annotated[float, Field(ge=-1e6, le=1e6)]] | None,
        Field(
            min_length=1,
            max_length=4096,
            description="activations that it is given, each in a picture, 0 to 9.21; default: 7 from 0 to 3",
        ),
    ] = None
    steps: Steps = 20
    seed: Seed = 0
    preview_every: PreviewEvery = 0


class InterpolateRequest(ModelRequest):
    """Two images: in `images`, in `image_ids`, or as multipart/form-data two files named `image`."""

    images: Annotated[list[Base64] | None, Field(min_length=2, max_length=2)] = None
    image_ids: Annotated[list[ImageId] | None, Field(min_length=2, max_length=2)] = None
    num_images: Annotated[int, Field(ge=2, le=4096, description="pictures, both ends among them")] = 7
    steps: Steps = 20
    preview_every: PreviewEvery = 0


class NameRequest(ModelRequest):
    """What a prototype is called from now on; null: what the bundle calls it, which may be nothing."""

    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=100,
            description="printable characters, not a number, without a /, as no other prototype is named",
            examples=["smile"],
        ),
    ]


class ModelInfo(BaseModel):
    """Which weights answered."""

    name: str
    digest: str


class ServedModel(ModelInfo):
    """`image_shape`: [channels, height, width]; `metrics` and `provenance`: as in the bundle's manifest;
    `source`: the address hf://organisation/name@commit of a model of the Hugging Face hub."""

    is_default: bool
    image_shape: tuple[int, int, int]
    num_prototypes: int
    has_prior: bool
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    source: str | None


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
    statistics, what an activation can be at all. The log-odds of an attribute can also fall short of the
    range, where activations that make them are at their bounds.
    """

    prototype: int | None
    attribute: str | None = None
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


class EditedAttribute(BaseModel):
    """Log-odds of an attribute, by the model's linear probe: in the image, asked for, in the edited one."""

    name: str
    before: float
    asked: float
    achieved: float
    reconstruction: float


class OtherAttribute(EditedAttribute):
    """The same of an attribute that no edit names; `asked` is what s as it was asked for has of it.

    change: from before to achieved, asked_change: of it, what the request itself carries (before to asked),
    both in standard deviations of the log-odds over the training data; what goes beyond is the edit's side
    effect. is_notable: achieved is at least 0.5 of them away from before, and from the reconstruction, in
    which nothing was edited.
    """

    change: float
    asked_change: float
    is_notable: bool


class EditResponse(BaseModel):
    """`start_timestep`: the noisiest level that the image was taken back to.

    network_calls: denoise steps of one image each, of the inversion (also where it was known from an earlier
    request), the reconstruction, and every round. preserved: indices of the prototypes that were held;
    preserved_attributes: names of the attributes that were.
    leakage: mean |achieved - asked| over the prototypes that no edit names, in standard deviations of each
    over the training data; null where all are edited, or the model came without data. Where no attribute is
    edited, what is asked of these is what was before. attributes: the log-odds of those that were edited.
    other_attributes: of all others, the most changed first; null for a model without labels.
    """

    model: ModelInfo
    image_id: str
    image: str
    reconstruction: str
    activations: EditActivations
    attributes: list[EditedAttribute]
    other_attributes: list[OtherAttribute] | None
    preserved: list[int]
    preserved_attributes: list[str]
    leakage: float | None
    rounds: int
    start_timestep: int
    network_calls: int
    clamped: list[ClampingModel]
    timings: Timings


class EnhancedSource(BaseModel):
    """The source of that index with the prototype enhanced, whose own activation is before and after."""

    source: int
    image: str
    activation_before: float
    activation_after: float


class VisualizedPrototype(BaseModel):
    """`target`: the activation that was set; before and after: the prototype's own activation, re-encoded.

    source, enhanced, patch and box are of the source in which it rose most, by `rise`: `source_index` of
    num_sources. How consistent it is: raised, in how many of these it rose; means over all of them. Where
    raised is 0, rise is 0 or less, and what is shown is the source in which it fell least. samples: one for
    each source, where they were asked for.
    """

    prototype: int
    name: str | None
    target: float
    source: str
    enhanced: str
    patch: str
    box: tuple[int, int, int, int]
    activation_before: float
    activation_after: float
    rise: float
    source_index: int
    num_sources: int
    raised: int
    mean_before: float
    mean_after: float
    samples: list[EnhancedSource] | None


class VisualizeResponse(BaseModel):
    """`sources`: their pictures, where samples were asked for."""

    model: ModelInfo
    sources: list[str] | None
    prototypes: list[VisualizedPrototype]


class LocatedPrototype(BaseModel):
    """Where a prototype is most present: pixel box [x0, y0, x1, y1], ends exclusive, and its centre [x, y].

    z: the activation in standard deviations from its mean over the training data, null for a model that came
    without data. overlay: the picture enlarged, the box, and the map as heat in colours that span the map's
    own range (they compare places, not prototypes). map: similarities [H][W], where they were asked for.
    """

    prototype: int
    name: str | None
    activation: float
    z: float | None
    box: tuple[int, int, int, int]
    centre: tuple[int, int]
    overlay: str
    map: list[list[float]] | None


class LocateResponse(BaseModel):
    model: ModelInfo
    image_id: str
    prototypes: list[LocatedPrototype]


class ExtrapolatedImage(BaseModel):
    """asked, achieved: the prototype's activation; is_outside: of the training data's 0.01 to 0.99 quantiles,
    null for a model that came without data; activations [m]: all, re-encoded from the picture."""

    asked: float
    achieved: float
    is_outside: bool | None
    image: str
    activations: list[float]


class ExtrapolateResponse(BaseModel):
    """before: the prototype's activation in the image, or as it was drawn; low, high: its 0.01 and 0.99
    quantile over the training data; image_id: of the image that was given."""

    model: ModelInfo
    image_id: str | None
    prototype: int
    name: str | None
    activations_from: Literal["image", "request", "prior", "resampled_from_training_statistics"]
    before: float
    low: float | None
    high: float | None
    images: list[ExtrapolatedImage]
    total_s: float


class InterpolatedImage(BaseModel):
    """weight: of the second image; asked [m]: between both images' activations; achieved [m]: re-encoded."""

    weight: float
    image: str
    asked: list[float]
    achieved: list[float]


class InterpolateResponse(BaseModel):
    model: ModelInfo
    image_ids: tuple[str, str]
    images: list[InterpolatedImage]
    total_s: float


class PrototypeStatistics(BaseModel):
    """Over the training data."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: dict[str, float]


class PrototypeAttribute(BaseModel):
    """How surely a prototype's activation alone tells an attribute, or a class from the rest, in test images.

    auroc: 0.5 (not at all) to 1; sign: 1 where images that have the attribute have the higher activation, -1
    where they have the lower.
    """

    name: str
    auroc: float
    sign: Literal[1, -1]


class PrototypeModel(BaseModel):
    """`picture`: the training patch nearest to the prototype; `exemplar_box` is where it was cut.

    emergence_timestep: from which on, of generated images, the prototype stays beyond half of its change from
    the first x_0_hat to the last, median over the images where it changes at all; emergence_spread: between
    the quartiles; emergence_share: the share of such images. attributes: the best few, best first.
    Statistics, picture, box and similarity are null for a model that was imported without its data set, the
    attributes for one without labels, and what was not measured is null too.
    """

    index: int
    name: str | None
    statistics: PrototypeStatistics | None
    emergence_timestep: int | None
    emergence_spread: float | None
    emergence_share: float | None
    attributes: list[PrototypeAttribute] | None
    picture: str | None
    exemplar_box: tuple[int, int, int, int] | None
    exemplar_similarity: float | None


class AttributeModel(BaseModel):
    """A label, told from all activations together by a linear probe whose log-odds can be edited.

    auroc: of the probe, on test images; low, high: 0.01 and 0.99 quantile of its log-odds over the training
    images, the reach of edits without extrapolation; prototypes: those that carry most of such an edit, the
    one that carries most first.
    """

    name: str
    auroc: float
    low: float
    high: float
    prototypes: list[int]


class PrototypesResponse(BaseModel):
    """attributes: null for a model without labels."""

    model: ModelInfo
    prototypes: list[PrototypeModel]
    attributes: list[AttributeModel] | None


class ReferencesResponse(BaseModel):
    """Test images that the bundle keeps, in the model's own size; none in one that came without data."""

    model: ModelInfo
    images: list[str]


class PrototypeEffect(BaseModel):
    """How `prototype` changes, re-encoded, when another one goes from its 0.01 to its 0.99 quantile in the
    same samples: the mean and its standard error, in standard deviations over the training data."""

    prototype: int
    name: str | None
    effect: float
    standard_error: float


class PrototypeResponse(BaseModel):
    """`patches`: the nearest training patches, each of another image, nearest first, with their similarities
    and the images' indices in the training split; null for a bundle that keeps only one. own_effect: of the
    prototype on itself, effects: on those others that it changes most, the most first; null for a bundle in
    which they were not measured."""

    model: ModelInfo
    prototype: PrototypeModel
    own_effect: PrototypeEffect | None
    effects: list[PrototypeEffect] | None
    exemplar_image: str | None
    patches: list[str] | None
    patch_similarities: list[float] | None
    patch_image_indices: list[int] | None


class ProgressEvent(BaseModel):
    """The data of a `progress` event: `step` of `steps` of a stage are done for one image of the request.

    stage: `invert` (the image's own x_T is sought), `generate`, `correct` (another round of /edit),
    `intervene` (of /diagnose, whose steps are interventions); image: index, for /edit 0 the edited and 1 the
    reconstruction; prototype: of /visualize and /diagnose, except while they invert or change an attribute;
    preview: x_0_hat, as PNG in base64. Who reads slowly misses some, never the last of an image.
    """

    stage: Literal["invert", "generate", "correct", "intervene"]
    image: int
    step: int
    steps: int
    prototype: int | None = None
    preview: str | None = None


class DiagnoseRequest(ModelRequest):
    """What is changed: each of `prototypes` and of `attributes` (neither given: all prototypes) from its 0.01
    to its 0.99 quantile, or each of `edits` by itself; in which samples: `images` (or files named `image`),
    all different, else `num_samples` that are generated, as /generate does with seed, seed + 1, …

    An attribute, where the model knows labels, is changed as an edit of it is: all prototypes are asked for
    what goes with it in the data.
    """

    prototypes: Prototypes | None = None
    attributes: AttributeNames | None = None
    edits: Annotated[list[EditModel] | None, Field(min_length=1, max_length=1000)] = None
    extrapolate: bool = False
    images: Annotated[list[Base64] | None, Field(min_length=LEAST_SAMPLES)] = None
    num_samples: Annotated[int | None, Field(ge=LEAST_SAMPLES, le=4096, description="default 32")] = None
    steps: Steps = 10
    seed: Seed = 0
    num_couplings: Annotated[int, Field(ge=0, le=1000, description="how many, the first in rank")] = 20


class InterventionModel(BaseModel):
    """One row of the effects, of a prototype or of an attribute: the other of the two is null. edit: null
    where it went from its 0.01 to its 0.99 quantile.

    effect: the change of the prototype, or of the attribute's log-odds, itself, with its 95% bootstrap
    interval, and asked: what was asked for, in the same unit; without `responds` the effect may be none at
    all.
    """

    prototype: int | None
    attribute: str | None
    name: str | None
    edit: EditModel | None
    effect: float
    low: float
    high: float
    asked: float
    responds: bool


class EffectsModel(BaseModel):
    """[J][K], of J interventions on K prototypes or attributes, in standard deviations of the training data.

    effect: mean over the samples, low … high its 95% bootstrap interval, of each effect by itself; p: of no
    effect, corrected for all pairs of this table: without any effect, one of them all is at most 0.05 in one
    diagnosis out of 20; null for what is changed itself; leakage: beyond, over the change of what is changed
    itself, null where that does not respond; data_correlation: of the two over the training data.

    asked: what the effect would be if the picture showed just what was asked for. The change of an attribute
    asks something of every prototype, and they were meant to do anything from none to all of it: beyond is
    how far the effect is outside of that, and what p and leakage are of; asked is null of a prototype and
    another, where beyond is the effect. Of attributes the whole effect counts, as nobody wanted it; where a
    prototype is changed, asked is what an attribute's probe reads in its own change.
    """

    effect: list[list[float]]
    low: list[list[float]]
    high: list[list[float]]
    p: list[list[float | None]]
    leakage: list[list[float | None]]
    data_correlation: list[list[float]]
    asked: list[list[float | None]]
    beyond: list[list[float]]


class CouplingModel(BaseModel):
    """One entry of the effects, and the sample with the median effect in pictures.

    intervention: the row; prototype or attribute: which is changed there, the other null, `box` where the
    prototype is in the sample; affected: what changes with it (the column), `affected_box` where it is;
    overlap: of those boxes, mean intersection over union over the samples; auroc: of the prototype's
    activation alone as a sign of the attribute, null of two of one kind; asked, beyond: as in the effects,
    with a 95% bootstrap interval.

    is_established: p is at most 0.05; finding: `established`, or `within_asked` where a prototype does no
    more than was asked of it, so that p is 1, or else `chance`, from which it could not be told.

    explained_by: what was seen beside the effect, which is no proof of its cause: `data` where the two
    correlate in the training data, by at least 0.3 in the same direction, `overlap` where it is at least 1/3,
    `asked` where at least half of the effect was asked for, but not of a prototype whose established effect
    goes beyond that. `thresholds` of the response has these figures.
    """

    intervention: int
    prototype: int | None
    attribute: str | None
    name: str | None
    affected: int
    affected_name: str | None
    effect: float
    low: float
    high: float
    p: float
    is_established: bool
    leakage: float | None
    leakage_low: float | None
    leakage_high: float | None
    data_correlation: float
    overlap: float | None
    auroc: float | None
    asked: float | None
    beyond: float
    beyond_low: float
    beyond_high: float
    finding: Finding
    explained_by: list[Explanation]
    sample: int
    before: str
    after: str
    box: tuple[int, int, int, int] | None
    affected_box: tuple[int, int, int, int] | None


class AttributesDiagnosis(BaseModel):
    """Effects on labelled attributes: on the log-odds of linear probes on the re-encoded activations.

    Their standard deviations are worked out from the correlations of activations, as if those were normal.
    num_pairs: all that were tested, for which p is corrected; num_established: of those.
    """

    names: list[str]
    effects: EffectsModel
    num_pairs: int
    num_established: int
    couplings: list[CouplingModel]


class ThresholdsModel(BaseModel):
    """From where on something is said of an effect.

    p: at most, for established; leakage: at least, of either sign, for `num_leaking`; data_correlation, in
    the direction of the effect, overlap, and asked, a share of the effect: at least, for `explained_by`.
    """

    p: float
    leakage: float
    data_correlation: float
    overlap: float
    asked: float


class DiagnoseResponse(BaseModel):
    """`couplings` are the first in rank: established ones before others, then by the least effect that the
    interval leaves, beyond what was asked. The effects have a column for each prototype.

    num_pairs: all that were tested, for which p is corrected; num_established: that are no chance;
    num_leaking: of those, whose leakage is at least 0.1, of either sign; agreement_with_data: the
    correlation, over all pairs of prototypes, of leakage and data_correlation, null where there are too few;
    overlap: as in a coupling, null where an attribute is changed; attributes: null where the bundle has no
    labels.
    """

    model: ModelInfo
    num_samples: int
    steps: int
    seed: int
    activations_from: Literal["image", "request", "prior", "resampled_from_training_statistics"]
    interventions: list[InterventionModel]
    effects: EffectsModel
    overlap: list[list[float | None]]
    num_pairs: int
    num_established: int
    num_leaking: int
    agreement_with_data: float | None
    couplings: list[CouplingModel]
    attributes: AttributesDiagnosis | None
    thresholds: ThresholdsModel
    clamped: list[ClampingModel]
    total_s: float


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
    DiagnoseRequest,
    NameRequest,
    LocateRequest,
    ExtrapolateRequest,
    InterpolateRequest,
)
