"""Our figures beside the published ones (Weng et al. 2026), as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.evaluation.samples import (
    LEARNED_S,
    LEARNED_SAMPLERS,
    PRIOR_S,
    RESAMPLED_S,
    UNCONDITIONAL_SAMPLER,
    UNCONDITIONAL_STEPS,
    Drawing,
)

PUBLISHED: dict[str, dict[str, str]] = {
    "celeba": {
        "tad": "0.43 (9 captured)",
        "auroc": "0.87",
        "fid_unconditional": "14.6",
        "fid_learned": "4.8",
    },
    "fashion-mnist": {"accuracy": "0.82 (Diffusion Autoencoders 0.84)", "fid": "2.6"},
    "cifar10": {"accuracy": "0.54", "fid": "8.0"},
    "ffhq": {"auroc": "0.92 (labels binarised)", "fid": "24.1"},
}
"""By the data set's name. A "fid" is one of which the source of s is not stated."""

NONE = "—"
DISTANCES = {"fid": "FID", "fd_classifier": "FD-classifier"}


def markdown_tables(metrics: Mapping[str, Any]) -> str:
    """What `evaluate` measured: "ours | published" where there is something published, FD against steps."""
    measured = metrics["measured"]
    published = PUBLISHED.get(measured["dataset"], {})
    lines = [
        f"# Evaluation: {measured['dataset']}",
        "",
        f"Weights {measured['weights_sha256'][:12]}, {metrics['num_test_images']} test images, "
        f"seed {measured['seed']}, {measured['device']}.",
        "",
    ]
    rows = list(_rows(metrics, published))
    if published:
        lines += ["| | ours | published |", "|---|---|---|"]
        lines += [f"| {name} | {ours} | {theirs} |" for name, ours, theirs in rows]
        lines += ["", "Published FIDs are of images saved as JPEG; ours are of exact uint8 images."]
    else:
        lines += ["| | ours |", "|---|---|"]
        lines += [f"| {name} | {ours} |" for name, ours, _ in rows]
    for distance in DISTANCES:
        lines += _against_steps(metrics, distance)
    if metrics["not_measured"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in metrics["not_measured"].items()]
    return "\n".join(lines) + "\n"


def _rows(metrics: Mapping[str, Any], published: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(name, ours, published) of what was measured or published."""
    probe, tad = metrics["probe"], metrics.get("tad", {})
    captured = (
        f"{tad['tad']:.2f} ({tad['num_captured']} captured of {tad['num_attributes']} {tad['of']}, "
        f"m = {tad['num_prototypes']})"
        if tad
        else NONE
    )
    rows = [
        ("TAD", captured, published.get("tad", NONE)),
        ("AUROC of a linear probe, test", _figure(probe, "auroc_test"), published.get("auroc", NONE)),
        ("the same, 5-fold", _figure(probe, "auroc_5_fold"), NONE),
        (
            "accuracy of a linear probe, test",
            _figure(probe, "accuracy_test"),
            published.get("accuracy", NONE),
        ),
        ("the same, 5-fold", _figure(probe, "accuracy_5_fold"), NONE),
    ]
    for distance, name in DISTANCES.items():
        beside = published if distance == "fid" else {}
        unstated = f"{beside['fid']} (source of s not stated)" if "fid" in beside else NONE
        rows += [
            (f"{name}, s of test images", _learned(metrics, distance), beside.get("fid_learned", unstated)),
            *(
                (f"{name}, {source}", ours, beside.get(published_name, NONE))
                for source, published_name, ours in _unconditional(metrics, distance)
            ),
        ]
    reconstruction = metrics["reconstruction"]
    for key, value in reconstruction.items():
        if isinstance(value, float):
            rows.append((f"reconstruction, {key.replace('_', ' ')}", f"{value:.4g}", NONE))
    for name, ours, theirs in rows:
        if ours != NONE or theirs != NONE:
            yield name, ours, theirs


def _figure(figures: Mapping[str, Any], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else NONE


def _learned(metrics: Mapping[str, Any], distance: str) -> str:
    """The distance with the most steps of DDIM from the test images' own s."""
    for steps in sorted(metrics["measured"]["steps"], reverse=True):
        text = _distance(metrics, distance, Drawing("ddim", steps, LEARNED_S))
        if text != NONE:
            return text
    return NONE


def _unconditional(metrics: Mapping[str, Any], distance: str) -> Iterator[tuple[str, str, str]]:
    """(name, the published figure's name, ours); the published ones come from a latent prior."""
    for source, name, published_name in (
        (PRIOR_S, "unconditional (latent prior)", "fid_unconditional"),
        (RESAMPLED_S, "unconditional (s resampled)", ""),
    ):
        drawing = Drawing(UNCONDITIONAL_SAMPLER, UNCONDITIONAL_STEPS, source)
        yield name, published_name, _distance(metrics, distance, drawing)


def _distance(metrics: Mapping[str, Any], distance: str, drawing: Drawing) -> str:
    value = metrics["samples"].get(f"{distance}_{drawing}")
    if value is None:
        return NONE
    count = metrics["samples"]["num_images"]
    return f"{value:.2f} ({drawing.sampler}, {drawing.steps} steps, {count} images)"


def _against_steps(metrics: Mapping[str, Any], distance: str) -> list[str]:
    """A table of the distance by sampler and number of steps; nothing where it was not measured."""
    samples = metrics["samples"]
    rows = []
    for steps in metrics["measured"]["steps"]:
        names = [f"{distance}_{Drawing(sampler, steps, LEARNED_S)}" for sampler in LEARNED_SAMPLERS]
        if all(name in samples for name in names):
            rows.append(f"| {steps} | " + " | ".join(f"{samples[name]:.2f}" for name in names) + " |")
    if not rows:
        return []
    real = samples[f"{distance}_real_train_images"]
    return [
        "",
        f"{DISTANCES[distance]} of {samples['num_images']} images from the test images' own s, by steps "
        f"(as many real training images: {real:.2f}):",
        "",
        "| steps | " + " | ".join(LEARNED_SAMPLERS) + " |",
        "|---|" + "---|" * len(LEARNED_SAMPLERS),
        *rows,
    ]
