"""What the calls give: the service's answers, field by field, with pictures and arrays in place of text.

Arrays are float32, with NaN where the service knows no number; m is the number of prototypes. Boxes are
pixels (x0, y0, x1, y1), ends exclusive. Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.client.images import ImageId, Picture

Array = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Model:
    """Which weights answered."""

    name: str
    digest: str


@dataclass(frozen=True)
class Timings:
    queue_s: float
    inference_s: float
    total_s: float


@dataclass(frozen=True)
class Clamping:
    """An edit that asked for `requested`, and got `used`, within low … high."""

    prototype: int | None
    attribute: str | None
    requested: float
    used: float
    low: float
    high: float


@dataclass(frozen=True)
class Patch:
    """Where a prototype is most present in an image."""

    prototype: int
    similarity: float
    box: Box


@dataclass(frozen=True, eq=False)
class Encoding:
    """activations (m,); similarity_maps (m, h, w) where `maps` asked for them; patches: one a prototype.

    image_id: stands for the image in later calls, as long as the service remembers it.
    """

    image_id: ImageId
    activations: Array
    patches: tuple[Patch, ...]
    cached: bool
    similarity_maps: Array | None = None


@dataclass(frozen=True, eq=False)
class Encodings:
    model: Model
    images: tuple[Encoding, ...]

    def __getitem__(self, i: int) -> Encoding:
        return self.images[i]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class GeneratedImage:
    """achieved (m,): re-encoded from the picture."""

    image: Picture
    seed: int
    achieved: Array


@dataclass(frozen=True, eq=False)
class Preview:
    """x̂₀ after `step` steps, the last of them at `timestep`."""

    step: int
    timestep: int
    image: Picture


@dataclass(frozen=True, eq=False)
class TracedImage:
    """activations (k, m) of x̂₀ after each of k steps; emergence (m,) as timesteps, NaN for never."""

    seed: int
    activations: Array
    emergence: Array
    previews: tuple[Preview, ...]


@dataclass(frozen=True, eq=False)
class Emergence:
    """timesteps (k,); activations (k, m), mean over the images; emergence, emergence_spread (m,): median and
    between the quartiles, over the num_emerged images where a prototype appears at all."""

    timesteps: tuple[int, ...]
    activations: Array
    emergence: Array
    emergence_spread: Array
    num_emerged: tuple[int, ...]
    images: tuple[TracedImage, ...]


@dataclass(frozen=True, eq=False)
class Generation:
    """activations (n, m): asked for, edits included; trace: where it was asked for, without previews."""

    model: Model
    images: tuple[GeneratedImage, ...]
    activations: Array
    activations_from: str
    clamped: tuple[Clamping, ...]
    timings: Timings
    trace: Emergence | None = None


@dataclass(frozen=True, eq=False)
class Trace(Emergence):
    """When each prototype appears; asked (n, m) as `Generation.activations`."""

    model: Model
    asked: Array
    activations_from: str
    clamped: tuple[Clamping, ...]
    timings: Timings


@dataclass(frozen=True, eq=False)
class EditActivations:
    """Each (m,); driven: what the denoiser was given so that `achieved` comes near to `asked`."""

    before: Array
    asked: Array
    driven: Array
    achieved: Array
    reconstruction: Array


@dataclass(frozen=True)
class EditedAttribute:
    """Log-odds of an attribute that was edited."""

    name: str
    before: float
    asked: float
    achieved: float
    reconstruction: float


@dataclass(frozen=True)
class OtherAttribute(EditedAttribute):
    """Of one that no edit names: asked is what the request itself carries of it.

    change: from before to achieved, asked_change: from before to asked, both in standard deviations of the
    log-odds; is_notable: it changed by half of one or more, and does not without an edit.
    """

    change: float
    asked_change: float
    is_notable: bool


@dataclass(frozen=True, eq=False)
class Edited:
    """leakage: mean change beyond what was asked of prototypes that no edit names, in standard deviations.

    other_attributes: those that no edit names, the most changed first; None for a model without labels, or
    from an older service. preserved, preserved_attributes: which were held.
    """

    model: Model
    image_id: ImageId
    image: Picture
    reconstruction: Picture
    activations: EditActivations
    attributes: tuple[EditedAttribute, ...]
    preserved: tuple[int, ...]
    leakage: float | None
    rounds: int
    start_timestep: int
    network_calls: int
    clamped: tuple[Clamping, ...]
    timings: Timings
    other_attributes: tuple[OtherAttribute, ...] | None = None
    preserved_attributes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EnhancedSource:
    """The source of that index with the prototype enhanced."""

    source: int
    image: Picture
    activation_before: float
    activation_after: float


@dataclass(frozen=True, eq=False)
class Visualization:
    """What one prototype stands for: the image in which it rose most, `source_index` of num_sources.

    raised: in how many of them it rose, where 0 says that the image is the one in which it fell least;
    samples: all of them, where that was asked for.
    """

    prototype: int
    name: str | None
    target: float
    source: Picture
    enhanced: Picture
    patch: Picture
    box: Box
    activation_before: float
    activation_after: float
    source_index: int
    num_sources: int
    raised: int
    mean_before: float
    mean_after: float
    samples: tuple[EnhancedSource, ...] | None

    @property
    def rise(self) -> float:
        return self.activation_after - self.activation_before


@dataclass(frozen=True, eq=False)
class Visualizations:
    model: Model
    prototypes: tuple[Visualization, ...]


@dataclass(frozen=True, eq=False)
class Location:
    """Where a prototype is most present; z: how unusual, in standard deviations; overlay: the map as heat
    over the enlarged picture; map (H, W), where `maps` asked for it."""

    prototype: int
    name: str | None
    activation: float
    z: float | None
    box: Box
    centre: tuple[int, int]
    overlay: Picture
    map: Array | None = None


@dataclass(frozen=True, eq=False)
class Locations:
    model: Model
    image_id: ImageId
    prototypes: tuple[Location, ...]


@dataclass(frozen=True, eq=False)
class ExtrapolatedImage:
    """asked, achieved: the prototype's activation; activations (m,): all; is_outside: of the data's range."""

    asked: float
    achieved: float
    is_outside: bool | None
    image: Picture
    activations: Array


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """One prototype swept over values; before: its activation as it was; low, high: the data's range."""

    model: Model
    image_id: ImageId | None
    prototype: int
    name: str | None
    activations_from: str
    before: float
    low: float | None
    high: float | None
    images: tuple[ExtrapolatedImage, ...]
    total_s: float


@dataclass(frozen=True, eq=False)
class InterpolatedImage:
    """weight: of the second image; asked, achieved (m,)."""

    weight: float
    image: Picture
    asked: Array
    achieved: Array


@dataclass(frozen=True, eq=False)
class Interpolation:
    model: Model
    image_ids: tuple[ImageId, ImageId]
    images: tuple[InterpolatedImage, ...]
    total_s: float


@dataclass(frozen=True)
class Intervention:
    """A row of the effects, of a prototype or of an attribute; edit: None where it went from its 0.01 to its
    0.99 quantile; effect: how far it moved itself, of what was asked (None from an older service)."""

    prototype: int | None
    name: str | None
    edit: dict[str, Any] | None
    effect: float
    low: float
    high: float
    responds: bool
    attribute: str | None = None
    asked: float | None = None


@dataclass(frozen=True, eq=False)
class Effects:
    """(J, K), of J interventions on K prototypes or attributes, in standard deviations; low … high: 95%
    bootstrap interval, of each by itself; p: corrected for all pairs of the table, NaN for what is changed
    itself; leakage: over the change of that itself, NaN where it does not respond; asked: what the effect
    would be if the picture showed just what was asked for, or of an attribute and a prototype that is
    changed, what the probe reads in its own change, NaN of two prototypes; beyond: how far prototypes go
    outside of it, which p and leakage are of. The last two are None from an older service."""

    effect: Array
    low: Array
    high: Array
    p: Array
    leakage: Array
    data_correlation: Array
    asked: Array | None = None
    beyond: Array | None = None


@dataclass(frozen=True, eq=False)
class Coupling:
    """One effect of changing `prototype` or `attribute`, with the sample where it is the median, before and
    after.

    finding: "established", "within_asked" or "chance"; explained_by: what was seen beside the effect, which
    is no proof of its cause.
    """

    intervention: int
    prototype: int | None
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
    explained_by: tuple[str, ...]
    sample: int
    before: Picture
    after: Picture
    box: Box | None
    affected_box: Box | None
    attribute: str | None = None
    asked: float | None = None
    beyond: float | None = None
    beyond_low: float | None = None
    beyond_high: float | None = None
    finding: str | None = None


@dataclass(frozen=True, eq=False)
class AttributesDiagnosis:
    names: tuple[str, ...]
    effects: Effects
    num_established: int
    couplings: tuple[Coupling, ...]
    num_pairs: int | None = None


@dataclass(frozen=True)
class Thresholds:
    """From where on something is said of an effect: p at most, all others at least; asked: a share of it."""

    p: float
    leakage: float
    data_correlation: float
    overlap: float
    asked: float


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """couplings: the first in rank; overlap (J, m): how far two prototypes look at the same pixels, NaN where
    an attribute is changed."""

    model: Model
    num_samples: int
    steps: int
    seed: int
    activations_from: str
    interventions: tuple[Intervention, ...]
    effects: Effects
    overlap: Array
    num_pairs: int
    num_established: int
    num_leaking: int
    agreement_with_data: float | None
    couplings: tuple[Coupling, ...]
    attributes: AttributesDiagnosis | None
    clamped: tuple[Clamping, ...]
    total_s: float
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Statistics:
    """Of a prototype's activation over the training data; quantiles by level, such as "0.99"."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: dict[str, float]


@dataclass(frozen=True)
class Attribute:
    """How surely the activation alone tells an attribute, in test images."""

    name: str
    auroc: float
    sign: int


@dataclass(frozen=True, eq=False)
class Prototype:
    """picture: the nearest training patch; what the bundle does not know is None."""

    index: int
    name: str | None
    statistics: Statistics | None
    emergence_timestep: int | None
    emergence_spread: float | None
    emergence_share: float | None
    attributes: tuple[Attribute, ...] | None
    picture: Picture | None
    exemplar_box: Box | None
    exemplar_similarity: float | None


@dataclass(frozen=True, eq=False)
class ProbedAttribute:
    """A label that all activations together tell; low, high: the reach of edits of its log-odds; prototypes:
    those that carry most of such an edit, the strongest first."""

    name: str
    auroc: float
    low: float
    high: float
    prototypes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prototypes:
    """attributes: None for a model without labels."""

    model: Model
    prototypes: tuple[Prototype, ...]
    attributes: tuple[ProbedAttribute, ...] | None

    def __getitem__(self, j: int) -> Prototype:
        return self.prototypes[j]

    def __len__(self) -> int:
        return len(self.prototypes)


@dataclass(frozen=True)
class Effect:
    """How `prototype` changes, in deviations, when another goes from its 0.01 to its 0.99 quantile."""

    prototype: int
    name: str | None
    effect: float
    standard_error: float


@dataclass(frozen=True, eq=False)
class PrototypeDetails:
    """patches: the nearest training patches, nearest first; effects: on others, the strongest first."""

    model: Model
    prototype: Prototype
    exemplar_image: Picture | None
    own_effect: Effect | None
    effects: tuple[Effect, ...] | None
    patches: tuple[Picture, ...] | None
    patch_similarities: Array | None
    patch_image_indices: tuple[int, ...] | None


@dataclass(frozen=True)
class ServedModel(Model):
    """image_shape: (channels, height, width); metrics, provenance: as in the bundle's manifest; source: the
    address, with its commit, of a model of the Hugging Face hub."""

    is_default: bool
    image_shape: tuple[int, int, int]
    num_prototypes: int
    has_prior: bool
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    source: str | None = None


@dataclass(frozen=True)
class References:
    """Test images that the bundle keeps, in the model's own size."""

    model: Model
    images: tuple[Picture, ...]


@dataclass(frozen=True)
class Models:
    models: tuple[ServedModel, ...]


@dataclass(frozen=True)
class Version:
    version: str
    backend: str
    model: ServedModel
    models: tuple[ServedModel, ...]


@dataclass(frozen=True)
class Health:
    """reason: why it is not well; heartbeat_age_s: since the engine's thread last said that it lives."""

    status: str
    reason: str | None
    engine: str
    heartbeat_age_s: float

    @property
    def is_ok(self) -> bool:
        return self.reason is None
