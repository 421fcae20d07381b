"""The tables on cartoon faces: what each figure means, on cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ground_truth import shortcuts, stability, when, where
from benchmarks.ground_truth.judge import ATTRIBUTES, NAMES, others_of
from benchmarks.ground_truth.shortcuts import Pair, detection
from benchmarks.ground_truth.small_models import small_config
from model.config import paper_config
from model.emergence import NEVER
from model.pixel_map import cell_centre
from training.data.cartoon_faces import couplings
from training.data.cartoon_faces.attributes import value_named
from training.presets import PRESETS


def test_values_of_one_attribute_are_not_leakage_of_each_other() -> None:
    others = [NAMES[k] for k in others_of("fair_hair")]
    assert {"smile", "long_hair"} <= set(others)
    assert not {"fair_hair", "black_hair", "brown_hair", "red_hair"} & set(others)
    assert len(NAMES) == len(ATTRIBUTES) == 25


def test_a_hit_is_a_strongest_cell_whose_centre_is_on_the_target() -> None:
    config = paper_config(size=32)
    maps = np.zeros((2, *config.grid_shape), np.float32)
    maps[:, 2, 7] = 1.0
    x, y = (round(centre) for centre in cell_centre(2 * config.grid_shape[1] + 7, config))
    targets = np.zeros((2, 32, 32), bool)
    targets[0, y, x] = True
    targets[1] = True
    targets[1, y, x] = False
    assert where.hits(maps, targets, config) == 0.5


def test_intersection_over_union_counts_pixels() -> None:
    found, true = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    found[0, 0, :3], true[0, 0, 1:] = True, True
    np.testing.assert_allclose(where.iou(found, true), [2 / 4, 0.0])


def test_shuffled_prototypes_are_recovered_whatever_their_order_and_sign() -> None:
    rng = np.random.default_rng(0)
    s = rng.standard_normal((500, 6)).astype(np.float32)
    order = rng.permutation(6)
    found = stability.match(s, -2.0 * s[:, order] + 1.0)
    assert found.recovered(0.99) == 1.0
    np.testing.assert_array_equal(order[found.partners], np.arange(6))
    assert (found.correlation < 0.0).all()


def test_unrelated_prototypes_are_not_recovered() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 2000, 6)).astype(np.float32)
    assert stability.match(first, second).recovered(0.5) == 0.0
    assert stability.predictability(first, second) < 0.05


def test_a_mixture_of_prototypes_is_shared_but_not_recovered() -> None:
    rng = np.random.default_rng(0)
    s = rng.standard_normal((1000, 4)).astype(np.float32)
    mixed = s @ np.linalg.qr(rng.standard_normal((4, 4)))[0].astype(np.float32)
    assert stability.predictability(s, mixed) > 0.99
    assert stability.match(s, mixed).recovered(0.99) < 1.0


def test_noise_keeps_pixels_what_they_are() -> None:
    pixels = np.full((2, 3, 8, 8), 128, np.uint8)
    moved = stability.noisy(pixels, 4.0)
    assert moved.dtype == np.uint8
    assert (moved.astype(float) - 128).std() == pytest.approx(4.0, rel=0.2)


def test_the_same_order_agrees_and_the_reverse_disagrees() -> None:
    emergence = np.tile(np.array([900, 700, 500, 300]), (5, 1))
    assert when.agreement(emergence, emergence) == pytest.approx(1.0)
    assert when.agreement(emergence, emergence[:, ::-1]) == pytest.approx(-1.0)


def test_what_never_emerges_has_no_place_in_the_order() -> None:
    emergence = np.tile(np.array([900, 700, 500, NEVER]), (5, 1))
    assert when.agreement(emergence, emergence) == pytest.approx(1.0)


def test_hair_is_coarser_than_earrings() -> None:
    areas = {name: when.changed_area(value_named(name), 16) for name in ("long_hair", "earrings", "smile")}
    assert areas["long_hair"] > areas["smile"] > 0.0
    assert areas["long_hair"] > areas["earrings"] > 0.0


def _pair(strength: float, change: float) -> Pair:
    return Pair("fair_hair", "smile", strength, 0.9, 0.5, change, change, change)


def test_detection_is_certain_where_real_couplings_change_more_in_either_direction() -> None:
    pairs = [_pair(0.0, 0.1), _pair(0.0, -0.2), _pair(0.5, -0.7), _pair(1.0, 0.9)]
    assert detection(pairs, "by_probe") == (1.0, 1.0)


def test_detection_allows_one_false_alarm() -> None:
    pairs = [_pair(0.0, 0.1), _pair(0.0, 0.2), _pair(0.0, 0.95), _pair(0.5, 0.5), _pair(1.0, 0.9)]
    auc, found = detection(pairs, "by_probe")
    assert auc == pytest.approx(4 / 6)
    assert found == 1.0


def test_weak_couplings_can_be_left_out() -> None:
    pairs = [_pair(0.0, 0.1), _pair(0.0, 0.2), _pair(0.25, 0.0), _pair(1.0, 0.9)]
    assert detection(pairs, "by_probe", 0.25)[0] == 1.0
    assert detection(pairs, "by_probe")[0] < 1.0


def test_every_strength_can_be_planted_in_every_pair() -> None:
    for pairs in shortcuts.PAIRS:
        for strength in set(shortcuts.STRENGTHS):
            couplings.parse_couplings("+".join(f"{names}@{strength:g}" for names in pairs))
    assert sum(map(len, shortcuts.PAIRS)) == len(shortcuts.STRENGTHS) == 20


def test_the_small_models_learn_as_the_shipped_one_did() -> None:
    config = small_config("cartoon-faces", num_images=1000)
    preset = PRESETS["small-cartoon-faces"]
    assert config.loss == preset.loss
    assert replace(config.model, image=preset.model.image).num_prototypes == preset.model.num_prototypes
