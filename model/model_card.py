"""What a hub's page says of a bundle: a model card of its manifest, and a picture of its prototypes."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from model.bundle import MANIFEST, Bundle, Pictures, listed_files
from model.bundle_address import HubAddress
from model.transforms import to_picture

CARD = "README.md"
SHEET = "prototypes.png"
TAGS = ("patronus", "prototypes", "interpretability", "diffusion", "image-editing", "onnx")
MEASURED = {
    "probe": "linear probe on s",
    "tad": "TAD",
    "reconstruction": "reconstruction",
    "samples": "samples",
    "prototypes": "prototypes",
}
"""Sections of a manifest's metrics that a table shows, and how they are called there."""
METRICS = {
    "accuracy": "accuracy",
    "auroc": "roc_auc",
    "_mse": "mse",
    "_ssim": "ssim",
    "_psnr": "psnr",
    "_lpips": "lpips",
    "fid": "fid",
}
"""The hub's names of metrics, by how the names here begin, or by a part of them with its underscore."""
PRIVATE = ("folder",)
"""Data sets that are nobody else's: their name would mean another's on the hub."""
COLUMNS, SIDE, GAP, LABEL = 10, 64, 8, 14

_DATASET = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What the hub can call a data set; a relative path can look like that too."""


def model_card(bundle: Bundle, address: HubAddress, *, license: str | None = None) -> str:
    """Markdown with YAML front matter, for the README.md of the repository at `address`."""
    parts = [
        _front_matter(bundle, license),
        f"# {bundle.name}",
        _what(bundle),
        *(
            [f"![Where each prototype is most present in the training images]({SHEET})"]
            if bundle.pictures
            else []
        ),
        "## Serving it",
        _serving(address),
        "## Measured",
        _measured(bundle),
        "## Prototypes",
        _prototypes(bundle),
        "## Limits",
        _limits(bundle),
        "## Where it comes from",
        _provenance(bundle),
    ]
    return "\n\n".join(parts) + "\n"


def prototype_sheet(pictures: Pictures) -> bytes:
    """A PNG of the training image that each prototype is nearest to, its patch framed, its index below."""
    m = len(pictures.exemplar_images)
    num_rows = math.ceil(m / COLUMNS)
    columns = min(m, COLUMNS)
    size = (GAP + columns * (SIDE + GAP), GAP + num_rows * (SIDE + LABEL + GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for j, (pixels, box) in enumerate(zip(pictures.exemplar_images, pictures.exemplar_boxes, strict=True)):
        row, column = divmod(j, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + LABEL + GAP)
        picture = to_picture(pixels).convert("RGB")
        scale = SIDE / max(picture.size)
        width, height = round(picture.width * scale), round(picture.height * scale)
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        x0, y0, x1, y1 = (round(edge * scale) for edge in box.tolist())
        draw.rectangle((left + x0, top + y0, left + x1 - 1, top + y1 - 1), outline=(214, 40, 40))
        draw.text((left, top + SIDE + 1), str(j), fill=(20, 20, 20), font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _front_matter(bundle: Bundle, license: str | None) -> str:
    """YAML; JSON's strings and lists are YAML too."""
    fields: dict[str, Any] = {} if license is None else {"license": license}
    fields |= {"library_name": "patronus-server", "pipeline_tag": "unconditional-image-generation"}
    fields["tags"] = list(TAGS)
    dataset = str(bundle.provenance.get("dataset", "")).removeprefix("hf:").partition(":")[0]
    if dataset not in PRIVATE and _DATASET.fullmatch(dataset) and not Path(dataset).exists():
        fields["datasets"] = [dataset]
    names = {name for _, name, _, _ in _rows(bundle)}
    metrics = [
        hub
        for part, hub in METRICS.items()
        if any(name.startswith(part) or (part[0] == "_" and part in name) for name in names)
    ]
    if metrics:
        fields["metrics"] = metrics
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(("---", *lines, "---"))


def _what(bundle: Bundle) -> str:
    channels, height, width = bundle.config.image.shape
    kind = "gray" if channels == 1 else "colour"
    prior = (
        "A latent prior draws s for images out of nothing."
        if bundle.prior is not None
        else "There is no latent prior: images are made from the s of a given image."
    )
    return (
        f"An interpretable diffusion model for {kind} images of {width} x {height} pixels, after Patronus "
        "([arXiv 2503.22782](https://arxiv.org/abs/2503.22782), ICLR 2026). An encoder tells how much of "
        f"each of {bundle.config.num_prototypes} learned visual prototypes an image shows, and where; the "
        "denoiser makes images under these activations s, so that an image can be read, edited and "
        f"explained by its prototypes. {prior}"
    )


def _serving(address: HubAddress) -> str:
    return (
        "With Patronus Server and its `hub` extra installed:\n\n"
        "```sh\n"
        f"patronus serve --bundle {address}\n"
        f"patronus generate --bundle {address} -n 4\n"
        f"patronus pull {address}\n"
        "```\n\n"
        "`encoder.onnx`, `denoiser.onnx` and `prior.onnx` run with ONNX Runtime alone; "
        "`weights.safetensors` are the same weights. No file is a pickle."
    )


def _measured(bundle: Bundle) -> str:
    rows = [
        f"| {section} | {name} | {images} | {value:.4g} |" for section, name, images, value in _rows(bundle)
    ]
    missing = bundle.metrics.get("not_measured")
    lines = ["| of | measured | images | value |", "|---|---|---|---|", *rows] if rows else ["Nothing was."]
    if isinstance(missing, Mapping) and missing:
        told = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        lines += ["", f"Not measured: {told}."]
    return "\n".join(lines)


def _rows(bundle: Bundle) -> Iterator[tuple[str, str, str, float]]:
    """Section, name, number of images and value of each figure in the manifest's metrics."""
    for section, title in MEASURED.items():
        figures = bundle.metrics.get(section)
        if not isinstance(figures, Mapping):
            continue
        images = figures.get("num_images") or (
            bundle.metrics.get("num_test_images") if section in ("probe", "tad") else None
        )
        for name, value in figures.items():
            if name != "num_images" and isinstance(value, int | float) and not isinstance(value, bool):
                yield title, name, "-" if images is None else str(images), float(value)


def _prototypes(bundle: Bundle) -> str:
    named = [f"{j}: {prototype.name}" for j, prototype in enumerate(bundle.prototypes) if prototype.name]
    text = f"{len(bundle.prototypes)} prototypes, "
    text += f"{len(named)} of them named by people ({', '.join(named)})." if named else "none of them named."
    if bundle.attributes is not None:
        text += " Labels of the data set tell which attributes each one goes with: see `GET /prototypes`."
    return text


def _limits(bundle: Bundle) -> str:
    dataset = bundle.provenance.get("dataset")
    lines = [
        f"- It knows images like those it was trained on{f' ({dataset})' if dataset else ''}; others are "
        "resized, and read as if they were such images.",
        "- A prototype is a patch of pixels that helps the denoiser, no concept of people: what it stands "
        "for is to be looked at, and one may carry several things.",
        "- Changing one prototype can change others with it. `patronus diagnose` measures that.",
        "- Not meant for decisions about people.",
    ]
    if bundle.statistics is None:
        lines.append("- It came without a data set: no statistics of activations, so edits are not clamped.")
    if bundle.effects is None:
        lines.append("- The effects of prototypes on one another were not measured.")
    return "\n".join(lines)


def _provenance(bundle: Bundle) -> str:
    facts = {name: value for name, value in bundle.provenance.items() if isinstance(value, str | int | float)}
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    lines.append(f"- bundle digest (sha256 of {MANIFEST}): {bundle.digest}")
    lines += ["", "| file | bytes | sha256 |", "|---|---|---|"]
    lines += [
        f"| {file} | {bundle.path(file).stat().st_size} | {sha256} |"
        for file, sha256 in listed_files(bundle.directory).items()
    ]
    return "\n".join(lines)
