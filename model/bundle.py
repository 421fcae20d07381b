"""The bundle: one directory that hands a trained model to serving, checked at both ends.

manifest.json         what the model is, its statistics, metrics, provenance, sha256 of each file
encoder.onnx          x_0 -> activations, similarity_maps
denoiser.onnx         one denoise step (see `model.patronus.DenoiseStep`)
weights.safetensors   the same weights, for torch
prior.onnx            one denoise step of s (see `model.prior.PriorStep`)
pictures.safetensors  each prototype's exemplar image and patch, and reference images

Statistics and pictures are measured on a data set, and the prior is trained on one; a model that came
without has none of them, and the prior is optional besides.
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

from model.config import ConfigError, ModelConfig, PriorConfig, config_from_dict, config_to_dict
from model.samplers import NUM_COEFFICIENTS
from model.statistics import ActivationStatistics, StatisticsError
from model.transforms import Pixels

T = TypeVar("T")

FORMAT_VERSION = 1
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
class Pictures:
    """Real images that a bundle keeps, all uint8 (n, C, H, W).

    exemplar_images: (m, C, H, W), the training image whose patch is nearest to each prototype;
    exemplar_boxes: (m, 4) int64, that patch as (x0, y0, x1, y1), ends exclusive;
    exemplar_similarities: (m,) float32; reference_images: (n, C, H, W), test images to look at.
    """

    exemplar_images: Pixels
    exemplar_boxes: npt.NDArray[np.int64]
    exemplar_similarities: npt.NDArray[np.float32]
    reference_images: Pixels


@dataclass(frozen=True)
class Prototype:
    """What a manifest says of one prototype beside its statistics."""

    name: str | None = None
    emergence_timestep: int | None = None


@dataclass(frozen=True)
class Bundle:
    """A loaded and verified bundle. `digest` is the sha256 of its manifest, which names every file's.

    `statistics` and `pictures` are both None where the model was never shown a data set; `prior` is None
    where there is no latent prior.
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

    def path(self, file: str) -> Path:
        return self.directory / file

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Read and verify a bundle. Raises BundleError."""
        raw, manifest = _read_manifest(directory)
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{directory}: bundle format version is {version!r}, this program reads {FORMAT_VERSION}"
            )
        _verify_files(directory, manifest)
        try:
            config = config_from_dict(ModelConfig, manifest["config"])
            statistics = _statistics(manifest["statistics"])
            prior = _prior(manifest.get("prior"))
            prototypes = tuple(
                config_from_dict(Prototype, entry, where=f"prototypes[{j}]")
                for j, entry in enumerate(manifest["prototypes"])
            )
            name = _of_type(str, manifest, "name")
            metrics = _of_type(dict, manifest, "metrics")
            provenance = _of_type(dict, manifest, "provenance")
        except (ConfigError, StatisticsError, KeyError, TypeError) as error:
            raise BundleError(f"{directory / MANIFEST}: {_reason(error)}") from error
        m = config.num_prototypes
        counts = {"prototypes": len(prototypes)}
        if statistics is not None:
            counts["statistics"] = statistics.num_prototypes
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
) -> None:
    """Write manifest.json over the files already in `directory`; every required file must be there.

    `statistics` is None for a model without a data set, which has no pictures either.
    """
    files = {}
    for file in (*REQUIRED_FILES, *OPTIONAL_FILES):
        path = directory / file
        if file in OPTIONAL_FILES and not path.exists():
            continue
        if not path.is_file():
            raise BundleError(f"{path} is missing: write it before the manifest")
        files[file] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "config": config_to_dict(config),
        "prior": None if prior is None else config_to_dict(prior),
        "files": files,
        "prototypes": [config_to_dict(prototype) for prototype in prototypes],
        "metrics": dict(metrics),
        "provenance": dict(provenance),
        "statistics": None if statistics is None else statistics.to_dict(),
    }
    text = json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def write_pictures(directory: Path, pictures: Pictures) -> None:
    """Write pictures.safetensors."""
    arrays = {name: np.ascontiguousarray(value) for name, value in vars(pictures).items()}
    (directory / PICTURES).write_bytes(save_safetensors(arrays))


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


def _verify_files(directory: Path, manifest: Mapping[str, Any]) -> None:
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleError(f"{directory / MANIFEST}: files must be an object")
    missing = [file for file in REQUIRED_FILES if file not in files]
    if missing:
        raise BundleError(f"{directory / MANIFEST}: files does not list {', '.join(missing)}")
    for file, entry in files.items():
        if Path(file).name != file or file in ("", ".."):
            raise BundleError(f"{directory / MANIFEST}: {file!r} is not a plain file name")
        path = directory / file
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        expected = entry.get("sha256") if isinstance(entry, dict) else None
        found = _sha256(path)
        if found != expected:
            raise BundleError(f"{path} has sha256 {found}, the manifest says {expected}")


def _statistics(values: Any) -> ActivationStatistics | None:
    return None if values is None else ActivationStatistics.from_dict(values)


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


def _read_pictures(path: Path, config: ModelConfig) -> Pictures:
    try:
        arrays = load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    image, m = config.image.shape, config.num_prototypes
    expected: dict[str, tuple[tuple[int, ...] | None, Any]] = {
        "exemplar_images": ((m, *image), np.uint8),
        "exemplar_boxes": ((m, 4), np.int64),
        "exemplar_similarities": ((m,), np.float32),
        "reference_images": (None, np.uint8),
    }
    for name, (shape, dtype) in expected.items():
        array = arrays.get(name)
        if array is None:
            raise BundleError(f"{path} lacks {name}")
        if array.dtype != dtype or (shape is not None and array.shape != shape):
            raise BundleError(f"{path}: {name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    if arrays["reference_images"].shape[1:] != image:
        found = arrays["reference_images"].shape
        raise BundleError(f"{path}: reference_images is {found}, not (n, {image})")
    return Pictures(**{name: arrays[name] for name in expected})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
