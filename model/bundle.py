"""The bundle: one directory that hands a trained model to serving, checked at both ends.

manifest.json         what the model is, its statistics, what labels say of them, when each prototype
                      emerges, its effects on the others, metrics, provenance, sha256 of each file
encoder.onnx          x_0 -> activations, similarity_maps
denoiser.onnx         one denoise step (see `model.patronus.DenoiseStep`)
weights.safetensors   the same weights, for torch
prior.onnx            one denoise step of s (see `model.prior.PriorStep`)
pictures.safetensors  each prototype's exemplar image and patches, and reference images

Statistics and pictures are measured on a data set, and the prior is trained on one; a model that came
without has none of them, and the prior is optional besides. So are attributes (a data set may have no
labels), emergence and more than one patch, which bundles of format 1 have none of, and measured effects of
prototypes on one another, which some of format 2 lack too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from model.attributes import Attributes, AttributesError
from model.config import ConfigError, ModelConfig, PriorConfig, config_from_dict, config_to_dict
from model.effects import EffectsError, MeasuredEffects
from model.samplers import NUM_COEFFICIENTS
from model.statistics import ActivationStatistics, StatisticsError
from model.transforms import Pixels

T = TypeVar("T")

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
DENOISER = "denoiser.onnx"
WEIGHTS = "weights.safetensors"
PICTURES = "pictures.safetensors"
PRIOR = "prior.onnx"
REQUIRED_FILES = (ENCODER, DENOISER, WEIGHTS)
OPTIONAL_FILES = (PICTURES, PRIOR)


class BundleError(Exception):
    """A bundle cannot be used; the message says which file or field is wrong, and how."""


@dataclass(frozen=True)
class Patches:
    """The k training patches nearest to each of m prototypes, nearest first, no two of one image.

    pixels: [m][k], each uint8 (C, h, w); boxes: (m, k, 4) int64, where they were cut, as (x0, y0, x1, y1),
    ends exclusive; similarities: (m, k) float32; image_indices: (m, k) int64, in the training split.
    """

    pixels: tuple[tuple[Pixels, ...], ...]
    boxes: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float32]
    image_indices: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """Real images that a bundle keeps, all uint8 (n, C, H, W).

    exemplar_images: (m, C, H, W), the training image whose patch is nearest to each prototype;
    exemplar_boxes: (m, 4) int64, that patch as (x0, y0, x1, y1), ends exclusive;
    exemplar_similarities: (m,) float32; reference_images: (n, C, H, W), test images to look at;
    patches: the exemplar's patch and the next nearest ones, or None in a bundle of format 1.
    """

    exemplar_images: Pixels
    exemplar_boxes: npt.NDArray[np.int64]
    exemplar_similarities: npt.NDArray[np.float32]
    reference_images: Pixels
    patches: Patches | None = None


@dataclass(frozen=True)
class Prototype:
    """What a manifest says of one prototype beside its statistics.

    Over the images that were generated to see when it emerges (`model.emergence`): emergence_timestep, the
    median; emergence_quartiles, (low, high); emergence_share, the share of images in which it emerges.
    All are None where that was not measured, the first two also where it emerges in none.
    """

    name: str | None = None
    emergence_timestep: int | None = None
    emergence_quartiles: tuple[float, float] | None = None
    emergence_share: float | None = None

    def __post_init__(self) -> None:
        quartiles, share = self.emergence_quartiles, self.emergence_share
        if quartiles is not None and (
            len(quartiles) != 2 or not 0.0 <= quartiles[0] <= quartiles[1] < np.inf
        ):
            raise ConfigError(f"emergence_quartiles must be two ascending timesteps, not {list(quartiles)}")
        if share is not None and not 0.0 <= share <= 1.0:
            raise ConfigError(f"emergence_share must be 0 to 1, not {share}")

    @property
    def emergence_spread(self) -> float | None:
        """Timesteps between the quartiles."""
        return (
            None
            if self.emergence_quartiles is None
            else self.emergence_quartiles[1] - self.emergence_quartiles[0]
        )


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle. `digest` is the sha256 of its manifest, which names every file's.

    `statistics` and `pictures` are both None where the model was never shown a data set, `attributes` where
    it had no labels, `effects` where they were not measured; `prior` is None where there is no latent prior.
    `source` is the address, with its commit, of a bundle that came from a hub.
    """

    directory: Path
    name: str
    digest: str
    config: ModelConfig
    statistics: ActivationStatistics | None
    prototypes: tuple[Prototype, ...]
    pictures: Pictures | None
    prior: PriorConfig | None
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    attributes: Attributes | None = None
    effects: MeasuredEffects | None = None
    source: str | None = None

    def path(self, file: str) -> Path:
        return self.directory / file

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Read and verify a bundle. Raises BundleError."""
        raw, manifest = _read_manifest(directory)
        version = manifest.get("format_version")
        if type(version) is not int or version not in READABLE_VERSIONS:
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise BundleError(
                f"{directory}: bundle format version is {version!r}, this program reads {readable}"
            )
        _verify_files(directory, _listed(directory, manifest))
        try:
            config = config_from_dict(ModelConfig, manifest["config"])
            statistics = _statistics(manifest["statistics"])
            attributes = _attributes(manifest.get("attributes"))
            effects = _effects(manifest.get("effects"))
            prior = _prior(manifest.get("prior"))
            prototypes = tuple(
                config_from_dict(Prototype, entry, where=f"prototypes[{j}]")
                for j, entry in enumerate(manifest["prototypes"])
            )
            name = _of_type(str, manifest, "name")
            metrics = _of_type(dict, manifest, "metrics")
            provenance = _of_type(dict, manifest, "provenance")
        except (ConfigError, StatisticsError, AttributesError, EffectsError, KeyError, TypeError) as error:
            raise BundleError(f"{directory / MANIFEST}: {_reason(error)}") from error
        m = config.num_prototypes
        counts = {"prototypes": len(prototypes)}
        if statistics is not None:
            counts["statistics"] = statistics.num_prototypes
        if attributes is not None:
            counts["attributes"] = attributes.num_prototypes
        if effects is not None:
            counts["effects"] = effects.num_prototypes
        for what, count in counts.items():
            if count != m:
                raise BundleError(
                    f"{directory / MANIFEST}: {what} describe {count} prototypes, the model has {m}"
                )
        has_pictures = PICTURES in manifest["files"]
        if has_pictures and statistics is None:
            raise BundleError(f"{directory / MANIFEST}: statistics is null, but files lists {PICTURES}")
        if statistics is not None and not has_pictures:
            raise BundleError(
                f"{directory / MANIFEST}: files does not list {PICTURES}, which belongs to statistics"
            )
        if attributes is not None and statistics is None:
            raise BundleError(f"{directory / MANIFEST}: attributes need statistics, which are null")
        if effects is not None and statistics is None:
            raise BundleError(f"{directory / MANIFEST}: effects need statistics, which are null")
        _check_prior(directory, prior, statistics, config, has_file=PRIOR in manifest["files"])
        return cls(
            directory=directory,
            name=name,
            digest=hashlib.sha256(raw).hexdigest(),
            config=config,
            statistics=statistics,
            prototypes=prototypes,
            pictures=_read_pictures(directory / PICTURES, config) if has_pictures else None,
            prior=prior,
            metrics=metrics,
            provenance=provenance,
            attributes=attributes,
            effects=effects,
        )


def write_manifest(
    directory: Path,
    *,
    name: str,
    config: ModelConfig,
    statistics: ActivationStatistics | None,
    prototypes: tuple[Prototype, ...],
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    prior: PriorConfig | None = None,
    attributes: Attributes | None = None,
    effects: MeasuredEffects | None = None,
) -> None:
    """Write manifest.json over the files already in `directory`; every required file must be there.

    `statistics` is None for a model without a data set, which has no pictures, attributes or effects.
    """
    files = {}
    for file in (*REQUIRED_FILES, *OPTIONAL_FILES):
        path = directory / file
        if file in OPTIONAL_FILES and not path.exists():
            continue
        if not path.is_file():
            raise BundleError(f"{path} is missing: write it before the manifest")
        files[file] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "config": config_to_dict(config),
        "prior": None if prior is None else config_to_dict(prior),
        "files": files,
        "prototypes": [config_to_dict(prototype) for prototype in prototypes],
        "metrics": dict(metrics),
        "provenance": dict(provenance),
        "attributes": None if attributes is None else attributes.to_dict(),
        "effects": None if effects is None else effects.to_dict(),
        "statistics": None if statistics is None else statistics.to_dict(),
    }
    text = json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def write_pictures(directory: Path, pictures: Pictures) -> None:
    """Write pictures.safetensors."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "exemplar_images": pictures.exemplar_images,
        "exemplar_boxes": pictures.exemplar_boxes,
        "exemplar_similarities": pictures.exemplar_similarities,
        "reference_images": pictures.reference_images,
    }
    patches = pictures.patches
    if patches is not None:  # crops differ in size at the image's border: their pixels go one after another
        arrays |= {
            "patch_boxes": patches.boxes,
            "patch_similarities": patches.similarities,
            "patch_image_indices": patches.image_indices,
            "patch_pixels": np.concatenate([patch.ravel() for row in patches.pixels for patch in row]),
        }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    (directory / PICTURES).write_bytes(save_safetensors(contiguous))


def graph_signature(file: str, config: ModelConfig) -> dict[str, tuple[int | None, ...]]:
    """Inputs that an exported graph must take, by name, batch axis None.

    What a runner checks before it serves `file` (ENCODER, DENOISER or PRIOR) of a bundle with `config`.
    """
    image = (None, *config.image.shape)
    if file == ENCODER:
        return {"x_0": image}
    if file == PRIOR:
        scores = (None, config.num_prototypes)
        return {
            "x_t": scores,
            "timesteps": (None,),
            "memory": scores,
            "noise": scores,
            "coefficients": (None, NUM_COEFFICIENTS),
        }
    return {
        "x_t": image,
        "timesteps": (None,),
        "activations": (None, config.num_prototypes),
        "memory": image,
        "noise": image,
        "coefficients": (None, NUM_COEFFICIENTS),
    }


def listed_files(directory: Path) -> dict[str, str]:
    """The sha256 of each file that the manifest in `directory` lists, whether it is there or not.

    Raises BundleError for a manifest that cannot be read, that lacks a required file, or that names another
    than a bundle has: whoever fetches them brings nothing else, and nothing to another place.
    """
    _, manifest = _read_manifest(directory)
    return _listed(directory, manifest)


def sha256_of(path: Path) -> str:
    """Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(directory: Path) -> tuple[bytes, dict[str, Any]]:
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
        manifest = json.loads(raw)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise BundleError(f"{path} must hold an object, not {type(manifest).__name__}")
    return raw, manifest


def _listed(directory: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{directory / MANIFEST}: files must be an object")
    missing = [file for file in REQUIRED_FILES if file not in files]
    if missing:
        raise BundleError(f"{directory / MANIFEST}: files does not list {', '.join(missing)}")
    others = [file for file in files if file not in (*REQUIRED_FILES, *OPTIONAL_FILES)]
    if others:
        raise BundleError(f"{directory / MANIFEST}: files lists {others[0]!r}, which no bundle has")
    return {
        file: str(entry.get("sha256")) if isinstance(entry, dict) else "None" for file, entry in files.items()
    }


def _verify_files(directory: Path, files: Mapping[str, str]) -> None:
    for file, expected in files.items():
        path = directory / file
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(f"{path} has sha256 {found}, the manifest says {expected}")


def _statistics(values: Any) -> ActivationStatistics | None:
    return None if values is None else ActivationStatistics.from_dict(values)


def _attributes(values: Any) -> Attributes | None:
    return None if values is None else Attributes.from_dict(values)


def _effects(values: Any) -> MeasuredEffects | None:
    return None if values is None else MeasuredEffects.from_dict(values)


def _prior(values: Any) -> PriorConfig | None:
    return None if values is None else config_from_dict(PriorConfig, values, where="prior")


def _check_prior(
    directory: Path,
    prior: PriorConfig | None,
    statistics: ActivationStatistics | None,
    config: ModelConfig,
    *,
    has_file: bool,
) -> None:
    if has_file != (prior is not None):
        raise BundleError(f"{directory / MANIFEST}: prior and {PRIOR} in files go together")
    if prior is None:
        return
    if statistics is None:
        raise BundleError(f"{directory / MANIFEST}: a prior needs statistics, which are null")
    if prior.num_prototypes != config.num_prototypes:
        raise BundleError(
            f"{directory / MANIFEST}: the prior is of {prior.num_prototypes} prototypes, "
            f"the model has {config.num_prototypes}"
        )


def _of_type(kind: type[T], manifest: Mapping[str, Any], name: str) -> T:
    value = manifest[name]
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
    return value


Expected = Mapping[str, tuple[tuple[int | None, ...], type[np.generic]]]
"""Shape and dtype of arrays by name; None is any number."""


def _read_pictures(path: Path, config: ModelConfig) -> Pictures:
    try:
        arrays = load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    image, m = config.image.shape, config.num_prototypes
    expected: Expected = {
        "exemplar_images": ((m, *image), np.uint8),
        "exemplar_boxes": ((m, 4), np.int64),
        "exemplar_similarities": ((m,), np.float32),
        "reference_images": ((None, *image), np.uint8),
    }
    _check_arrays(path, arrays, expected)
    has_patches = any(name.startswith("patch_") for name in arrays)
    patches = _patches(path, arrays, config) if has_patches else None
    return Pictures(**{name: arrays[name] for name in expected}, patches=patches)


def _patches(path: Path, arrays: Mapping[str, npt.NDArray[Any]], config: ModelConfig) -> Patches:
    m = config.num_prototypes
    _check_arrays(path, arrays, {"patch_boxes": ((m, None, 4), np.int64)})
    boxes = arrays["patch_boxes"]
    k = boxes.shape[1]
    if not k:
        raise BundleError(f"{path}: patch_boxes holds no patch")
    others: Expected = {
        "patch_similarities": ((m, k), np.float32),
        "patch_image_indices": ((m, k), np.int64),
        "patch_pixels": ((None,), np.uint8),
    }
    _check_arrays(path, arrays, others)
    channels, height, width = config.image.shape
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)  # (m, k) each
    if not ((x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)).all():
        raise BundleError(f"{path}: patch_boxes leave the {width}x{height} image, or are empty")
    ends = (channels * (y1 - y0) * (x1 - x0)).cumsum()  # over all m k patches
    flat = arrays["patch_pixels"]
    if len(flat) != ends[-1]:
        raise BundleError(f"{path}: patch_pixels has {len(flat)} values, the boxes need {ends[-1]}")
    sides = zip((y1 - y0).ravel().tolist(), (x1 - x0).ravel().tolist(), strict=True)
    crops = [
        part.reshape(channels, *side) for part, side in zip(np.split(flat, ends[:-1]), sides, strict=True)
    ]
    return Patches(
        pixels=tuple(tuple(crops[j * k : (j + 1) * k]) for j in range(m)),
        boxes=boxes,
        similarities=arrays["patch_similarities"],
        image_indices=arrays["patch_image_indices"],
    )


def _check_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], expected: Expected) -> None:
    for name, (shape, dtype) in expected.items():
        array = arrays.get(name)
        if array is None:
            raise BundleError(f"{path} lacks {name}")
        fits = array.ndim == len(shape) and all(
            side is None or found == side for found, side in zip(array.shape, shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            sides = ", ".join("n" if side is None else str(side) for side in shape)
            raise BundleError(
                f"{path}: {name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} ({sides})"
            )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
