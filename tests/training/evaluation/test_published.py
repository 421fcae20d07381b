from __future__ import annotations

from typing import Any

import pytest

from training.evaluation.published import markdown_tables


def metrics(dataset: str, **sections: Any) -> dict[str, Any]:
    return {
        "measured": {
            "dataset": dataset,
            "weights_sha256": "0123456789abcdef",
            "steps": [10, 50],
            "seed": 0,
            "device": "cpu",
        },
        "num_test_images": 100,
        "probe": {},
        "reconstruction": {"num_images": 4},
        "samples": {"num_images": 30},
        "not_measured": {},
    } | sections


def test_ours_stand_beside_the_published_figures() -> None:
    table = markdown_tables(
        metrics("fashion-mnist", probe={"accuracy_test": 0.8163, "accuracy_5_fold": 0.82})
    )
    assert "| | ours | published |" in table
    assert "| accuracy of a linear probe, test | 0.816 | 0.82 (Diffusion Autoencoders 0.84) |" in table
    assert "| the same, 5-fold | 0.820 | — |" in table


def test_what_was_published_and_not_measured_is_left_open_with_the_reason() -> None:
    table = markdown_tables(
        metrics("celeba", not_measured={"samples.fid": "no Inception weights were given"})
    )
    assert "| TAD | — | 0.43 (9 captured) |" in table
    assert "| AUROC of a linear probe, test | — | 0.87 |" in table
    assert "| FID, s of test images | — | 4.8 |" in table
    assert "| FID, unconditional (latent prior) | — | 14.6 |" in table
    assert "- samples.fid: no Inception weights were given" in table
    assert "FD-classifier" not in table


def test_the_distance_on_our_classifier_never_stands_beside_a_published_fid() -> None:
    samples = {
        "num_images": 30,
        "fd_classifier_real_train_images": 1.0,
        "fd_classifier_ddim_10_steps_learned_s": 3.0,
        "fd_classifier_ddim_50_steps_learned_s": 2.0,
        "fd_classifier_dpmpp_2m_10_steps_learned_s": 2.5,
        "fd_classifier_dpmpp_2m_50_steps_learned_s": 2.25,
        "fd_classifier_dpmpp_2m_20_steps_prior_s": 9.0,
    }
    lines = markdown_tables(metrics("cifar10", samples=samples)).splitlines()
    assert "| FD-classifier, s of test images | 2.00 (ddim, 50 steps, 30 images) | — |" in lines
    assert (
        "| FD-classifier, unconditional (latent prior) | 9.00 (dpmpp_2m, 20 steps, 30 images) | — |" in lines
    )
    assert "| FID, s of test images | — | 8.0 (source of s not stated) |" in lines
    start = lines.index("| steps | ddim | dpmpp_2m |")
    assert lines[start + 2 : start + 4] == ["| 10 | 3.00 | 2.50 |", "| 50 | 2.00 | 2.25 |"]


def test_fid_and_tad_are_shown_where_they_were_measured() -> None:
    tad = {"tad": 0.5, "num_captured": 3, "num_attributes": 40, "of": "attributes", "num_prototypes": 100}
    samples = {
        "num_images": 30,
        "fid_real_train_images": 1.0,
        "fid_ddim_10_steps_learned_s": 4.0,
        "fid_dpmpp_2m_20_steps_resampled_s": 20.0,
        "fid_dpmpp_2m_20_steps_prior_s": 10.0,
    }
    table = markdown_tables(metrics("celeba", tad=tad, samples=samples))
    assert "| TAD | 0.50 (3 captured of 40 attributes, m = 100) | 0.43 (9 captured) |" in table
    assert "| FID, s of test images | 4.00 (ddim, 10 steps, 30 images) | 4.8 |" in table
    assert "| FID, unconditional (latent prior) | 10.00 (dpmpp_2m, 20 steps, 30 images) | 14.6 |" in table
    assert "| FID, unconditional (s resampled) | 20.00 (dpmpp_2m, 20 steps, 30 images) | — |" in table


@pytest.mark.parametrize("dataset", ["my-own", "unnamed"])
def test_a_data_set_of_which_nothing_is_published_has_our_column_alone(dataset: str) -> None:
    table = markdown_tables(metrics(dataset, reconstruction={"num_images": 4, "ddim_ssim": 0.9123456}))
    assert "published" not in table.lower()
    assert "| reconstruction, ddim ssim | 0.9123 |" in table
