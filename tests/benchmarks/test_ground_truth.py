"""The tables on cartoon faces: what each figure means, on cases whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ground_truth import __main__ as ground_truth
from benchmarks.ground_truth import shortcuts, stability, when, where
from benchmarks.ground_truth.judge import ATTRIBUTES, NAMES, load_judge, others_of, train_judge
from benchmarks.ground_truth.shortcuts import Planted, Reading
from benchmarks.ground_truth.small_models import model_of, run_directory, small_config, train_in
from benchmarks.result_file import result_file
from model.bundle import Bundle
from model.config import paper_config
from model.emergence import NEVER
from model.pixel_map import cell_centre
from service.settings import SHIPPED_BUNDLE
from training.config import TrainConfig
from training.data import Dataset
from training.data.cartoon_faces import couplings, render, sample_faces
from training.data.cartoon_faces.attributes import value_named
from training.presets import PRESETS
from training.trainer import CheckpointError, load_averaged_model


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


def _reading(planted: list[Planted], scores: dict[tuple[str, str], float]) -> Reading:
    """Of a model in which pairs score 0.1 but for those given."""
    matrix = np.full((len(NAMES), len(NAMES)), 0.1)
    for (premise, conclusion), score in scores.items():
        matrix[NAMES.index(premise), NAMES.index(conclusion)] = score
    each = np.zeros(len(NAMES))
    none = np.zeros(matrix.shape, bool)
    titles = (*shortcuts.READINGS, *shortcuts.BASELINES)
    return Reading(planted, dict.fromkeys(titles, matrix), none, each.astype(np.int64), *(each,) * 4)


def _planted(premise: str, conclusion: str, strength: float) -> Planted:
    return Planted(NAMES.index(premise), NAMES.index(conclusion), strength)


def test_pairs_that_are_coupled_otherwise_are_neither_real_nor_false_alarms() -> None:
    strengths = _reading([_planted("fair_hair", "smile", 0.5), _planted("hat", "glasses", 0.0)], {}).strengths
    at = {name: NAMES.index(name) for name in NAMES}
    assert strengths[at["fair_hair"], at["smile"]] == 0.5
    for premise, conclusion in (("smile", "fair_hair"), ("red_hair", "smile"), ("red_hair", "fair_hair")):
        assert np.isnan(strengths[at[premise], at[conclusion]])
    for premise, conclusion in (("hat", "glasses"), ("glasses", "hat"), ("fair_hair", "hat")):
        assert strengths[at[premise], at[conclusion]] == 0.0
    assert (strengths > 0.0).sum() == 1


def test_detection_is_certain_where_only_real_couplings_score() -> None:
    planted = [_planted("fair_hair", "smile", 0.5), _planted("hat", "glasses", 1.0)]
    reading = _reading(planted, {("fair_hair", "smile"): 0.7, ("hat", "glasses"): 0.9})
    seen = shortcuts.detection([reading], shortcuts.READINGS[0])
    assert (seen.auc, seen.low, seen.high, seen.found) == pytest.approx((1.0, 1.0, 1.0, 1.0))


def test_weak_couplings_can_be_left_out() -> None:
    planted = [_planted("fair_hair", "smile", 0.25), _planted("hat", "glasses", 1.0)]
    reading = _reading(planted, {("fair_hair", "smile"): 0.0, ("hat", "glasses"): 0.9})
    every, strong = (shortcuts.detection([reading], shortcuts.READINGS[0], least=x) for x in (0.0, 0.25))
    assert strong.auc == 1.0
    assert every.auc == pytest.approx(0.5)
    assert (every.found, strong.found) == (0.5, 1.0)


def test_one_false_alarm_in_twenty_is_allowed() -> None:
    planted = [_planted("fair_hair", "smile", 1.0)]
    reading = _reading(planted, {("fair_hair", "smile"): 0.5})
    order = np.argwhere(reading.strengths == 0.0)
    matrix = reading.scores[shortcuts.READINGS[0]]
    for count, found in ((len(order) // 20, 1.0), (len(order) // 20 + 1, 0.0)):
        matrix[tuple(order[:count].T)] = 0.9
        assert shortcuts.detection([reading], shortcuts.READINGS[0]).found == found


def test_a_planted_pair_is_matched_with_itself_where_it_is_not_planted() -> None:
    """Its labels score high in any model, other ones never: only the matched comparison sees through it."""
    readings = [
        _reading([_planted("fair_hair", "smile", 1.0)], {("fair_hair", "smile"): 0.9}),
        _reading([_planted("hat", "glasses", 0.0)], {("fair_hair", "smile"): 0.9}),
    ]
    every, matched = (shortcuts.detection(readings, shortcuts.READINGS[0], matched=m) for m in (False, True))
    assert every.auc > 0.99
    assert matched.auc == pytest.approx(2.5 / 3)  # one tie, and two others that score less
    assert matched.found == 0.0


def test_without_false_alarms_there_is_no_figure() -> None:
    reading = _reading([_planted("fair_hair", "smile", 1.0)], {})
    assert np.isnan(shortcuts.detection([reading], shortcuts.READINGS[0], matched=True).auc)


def test_each_label_is_stood_for_by_a_prototype_of_its_own() -> None:
    auroc = np.array([[0.95, 0.9], [0.6, 0.2], [0.5, 0.5]])  # prototype 0 tells both labels best
    prototypes, sureness = shortcuts.standing_for(auroc)
    np.testing.assert_array_equal(prototypes, [0, 1])
    np.testing.assert_allclose(sureness, [0.95, 0.8])
    with pytest.raises(ValueError, match="2 labels need as many prototypes, the model has 1"):
        shortcuts.standing_for(auroc[:1])


def test_the_table_has_a_row_for_each_reading_strength_and_pair() -> None:
    readings = [_reading(shortcuts.plan(model), {}) for model in range(2)]
    first, second, third = (
        [line for line in part.splitlines() if line.startswith("|")]
        for part in "\n".join(shortcuts.table_of(readings)).split("\n\n")
        if part.startswith("|")
    )
    assert len(first) == 2 + len(shortcuts.READINGS) + len(shortcuts.BASELINES)
    assert len(second) == 2 + len(shortcuts.STRENGTHS)
    assert len(third) == 2 + 10
    for rows in (first, second, third):
        assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize("model", range(4))
def test_every_model_has_each_strength_once_in_attributes_of_their_own(model: int) -> None:
    planted = shortcuts.plan(model)
    assert sorted(pair.strength for pair in planted) == list(shortcuts.STRENGTHS)
    attributes = [ATTRIBUTES[k] for pair in planted for k in (pair.premise, pair.conclusion)]
    assert len(set(attributes)) == len(attributes)
    for pair in planted:
        for strength in shortcuts.STRENGTHS:
            couplings.parse_couplings(str(replace(pair, strength=strength)))
    couplings.parse_couplings(shortcuts.dataset_of(planted).partition(":")[2])


def test_no_pair_of_attributes_is_planted_in_two_models() -> None:
    pairs = [
        frozenset((ATTRIBUTES[pair.premise], ATTRIBUTES[pair.conclusion]))
        for model in range(len(shortcuts.PAIRS))
        for pair in shortcuts.plan(model)
    ]
    assert len(set(pairs)) == len(pairs) == 20


@pytest.mark.parametrize(("size", "patch"), [(32, 9), (64, 19)])
def test_small_models_learn_as_the_shipped_one_did(size: int, patch: int) -> None:
    config = small_config("cartoon-faces", num_images=10**6, size=size)
    preset = PRESETS["small-cartoon-faces"]
    assert (config.loss, config.optimizer, config.ema_decay) == (
        preset.loss,
        preset.optimizer,
        preset.ema_decay,
    )
    assert config.model.denoiser == preset.model.denoiser
    assert config.model.num_prototypes == preset.model.num_prototypes
    assert config.model.receptive_field.size == patch
    if size == 64:
        assert config.model == preset.model


@pytest.fixture(scope="module")
def faces() -> Dataset:
    drawn = sample_faces(0, 64)
    return Dataset(render(drawn, 32), np.zeros(64, np.int64), (), drawn.labels(), NAMES)


@pytest.fixture(scope="module")
def base(faces: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, Path]:
    """A run of two steps of the recipe with a narrow network."""
    config = small_config("cartoon-faces", num_images=64)
    denoiser = replace(
        config.model.denoiser, base_channels=8, channel_multipliers=(1,), attention_levels=(False,)
    )
    config = replace(config, model=replace(config.model, denoiser=denoiser), batch_size=32)
    run = tmp_path_factory.mktemp("runs") / "base"
    train_in(run, config, faces, device="cpu")
    return config, run


def test_a_finished_run_is_read_again(base: tuple[TrainConfig, Path], faces: Dataset) -> None:
    config, run = base
    before = (run / "metrics.jsonl").read_text(), (run / "checkpoint.pt").stat().st_mtime_ns
    again = train_in(run, config, faces, device="cpu")
    assert ((run / "metrics.jsonl").read_text(), (run / "checkpoint.pt").stat().st_mtime_ns) == before
    assert again.config == config.model


def test_another_configuration_or_beginning_is_another_run(
    base: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, run = base
    kept = run_directory(tmp_path, "x", config)
    assert kept == run_directory(tmp_path, "x", config)
    assert kept != run_directory(tmp_path, "x", replace(config, seed=1))
    assert kept != run_directory(tmp_path, "x", config, run)
    with pytest.raises(CheckpointError, match="is missing"):
        run_directory(tmp_path, "x", config, tmp_path)


def test_a_shortcut_model_begins_where_a_run_ended_in_its_shape(
    base: tuple[TrainConfig, Path], faces: Dataset, tmp_path: Path
) -> None:
    _, run = base
    config = shortcuts.config_of(1, 64, run)
    assert config.model == model_of(run)
    assert config.optimizer.learning_rate < small_config("x", num_images=64).optimizer.learning_rate
    assert config.dataset == shortcuts.dataset_of(shortcuts.plan(1))
    still = replace(config, optimizer=replace(config.optimizer, learning_rate=1e-12))
    started = train_in(tmp_path / "run", still, faces, init_from=run, device="cpu")
    weights = load_averaged_model(run)[0].state_dict()
    torch.testing.assert_close(
        started.encoder.state_dict()["prototypes"], weights["encoder.prototypes"], atol=1e-6, rtol=0.0
    )


def test_the_judge_is_trained_once_and_the_same_every_time(tmp_path: Path) -> None:
    pixels = render(sample_faces(5, 8), 32)
    first, again = (load_judge(32, tmp_path, num_faces=128, num_steps=2) for _ in range(2))
    (kept,) = tmp_path.iterdir()
    trained = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(first.probabilities(pixels), again.probabilities(pixels))
    np.testing.assert_array_equal(first.accuracy, again.accuracy)
    anew = train_judge(32, num_faces=128, num_steps=2)
    np.testing.assert_array_equal(first.probabilities(pixels), anew.probabilities(pixels))
    assert kept.stat().st_mtime_ns == trained
    load_judge(32, tmp_path, num_faces=128, num_steps=3)
    assert len(list(tmp_path.iterdir())) == 2


def test_commands_say_what_was_asked_for_but_not_where() -> None:
    parse = ground_truth._parser().parse_args
    shown = {
        "shortcuts --runs /somewhere --models 2 --init-from /somewhere/run": (
            " --images 48000 --models 2 --init-from RUN"
        ),
        "when --data /somewhere": " --bundle bundles/cartoon-faces --images 128 --data DIRECTORY",
        "seeds": " --images 48000",
    }
    for typed, kept in shown.items():
        assert ground_truth._arguments(parse(typed.split())) == kept


def test_a_table_of_another_bundle_bears_its_name() -> None:
    assert result_file("ground_truth/seeds", usual="cartoon-faces").name == "seeds.md"
    bundle = Bundle.load(SHIPPED_BUNDLE)
    assert result_file("ground_truth/when", bundle, usual="cartoon-faces").name == f"when-{bundle.name}.md"
    assert result_file("inversion", bundle).name == "inversion.md"
