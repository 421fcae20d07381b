"""The pieces of the benchmark of a planted shortcut, on data and models that take seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ground_truth.judge import train_judge
from benchmarks.mitigation import (
    CASES,
    HAIR,
    SHORTCUT,
    SMILE,
    UNBIASED,
    WAYS,
    Case,
    Outcome,
    Row,
    Setting,
    Telling,
    continued,
    difference_of,
    drawn,
    drive,
    mean_of,
    ratio_of,
    recipe,
    redrawn,
    table_of,
    telling,
)
from model.bundle import Bundle
from model.config import ModelConfig
from model.patronus import Patronus
from service.pipeline.edits import apply_edits, attribute_target
from training.exemplars import encode_all
from training.export import write_bundle
from training.remeasure import load_bundle_weights

SIZE = 16


def test_every_fair_haired_face_of_the_shortcut_smiles_and_few_others_do() -> None:
    labels = drawn(SHORTCUT, "train", 2000, SIZE)[0].attributes
    fair = labels[:, HAIR] == 1
    assert (labels[fair, SMILE] == 1).all()
    assert 0.25 < (labels[~fair, SMILE] == 1).mean() < 0.42


def test_prototypes_are_told_apart_although_the_labels_go_together() -> None:
    labels = drawn(SHORTCUT, "train", 2000, SIZE)[0].attributes
    rng = np.random.default_rng(0)
    s = rng.standard_normal((2000, 9)).astype(np.float32)
    for j, k, sign in (
        (1, HAIR, 1),
        (4, HAIR, -1),
        (7, HAIR, 1),
        (2, SMILE, 1),
        (3, SMILE, -1),
        (8, SMILE, 1),
    ):
        s[:, j] += (2.0 + 0.1 * j) * sign * labels[:, k]
    hair, smile = telling(s, labels)
    assert sorted(hair.prototypes) == [1, 4, 7]
    assert sorted(smile.prototypes) == [2, 3, 8]
    assert {(edit.prototype, edit.op) for edit in hair.edits()} == {(1, "max"), (4, "min"), (7, "max")}


def test_a_judge_of_unbiased_faces_sees_hair_change_and_no_smile() -> None:
    judge = train_judge(SIZE, num_faces=2000, num_steps=150)
    _, faces = drawn(UNBIASED, "test", 200, SIZE)
    chosen = np.flatnonzero(~faces.has("fair_hair") & ~faces.has("smile"))
    outcome = redrawn(faces[chosen], judge, SIZE)
    assert outcome.hair.mean() > 0.5
    assert abs(outcome.smile.mean()) < 0.2 * outcome.hair.mean()


def test_intervals_hold_the_mean_and_shrink_with_more_faces() -> None:
    rng = np.random.default_rng(0)
    few, many = (rng.normal(0.5, 0.2, count) for count in (20, 2000))
    widths = []
    for values in (few, many):
        found = mean_of(values)
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < 0.3 * widths[0]
    ratio = ratio_of(0.25 * many, many)
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((0.25, 0.25, 0.25))
    assert ratio_of(many, many - many.mean()) is None  # of nothing there is no share


def test_two_ways_are_held_against_each_other_face_by_face() -> None:
    """Faces differ by far more than the two ways do: only as pairs do they tell them apart."""
    rng = np.random.default_rng(0)
    hair, none = np.full(40, 0.8), np.zeros(40)
    of_face = rng.normal(0.4, 0.3, 40)
    plain = Outcome(hair, of_face, none, None)
    mended = Outcome(hair, of_face - 0.08 + rng.normal(0, 0.02, 40), none, None)
    found = difference_of(mended, plain)
    assert found is not None
    assert found.low < -0.1 < found.high < 0.0
    apart = [ratio_of(outcome.smile, outcome.hair) for outcome in (mended, plain)]
    assert apart[0] is not None
    assert apart[1] is not None
    assert apart[0].high > apart[1].low
    assert difference_of(Outcome(of_face - of_face.mean(), of_face, none, None), plain) is None


def test_every_case_is_held_against_one_that_comes_before_it() -> None:
    names = [case.name for case in CASES]
    for i, case in enumerate(CASES):
        assert (case.against is None) == (i == 0)
        assert case.against is None or case.against in names[:i]


def test_the_continued_run_and_its_control_differ_by_the_term_only() -> None:
    base = recipe(32, 4000)
    control, decoupled = (continued(base, pairs, 0.2) for pairs in ([], [(0, 1)]))
    assert control.num_images == 1000
    assert control.optimizer.learning_rate < base.optimizer.learning_rate
    assert decoupled.loss.decoupled_pairs == ((0, 1),)
    assert dataclasses.replace(decoupled, loss=control.loss) == control
    assert control.model == base.model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of an untrained network of the benchmark's kind, narrow."""
    model = recipe(SIZE, 64).model
    narrow = dataclasses.replace(
        model.denoiser,
        base_channels=8,
        channel_multipliers=(1,),
        attention_levels=(False,),
        embedding_multiplier=1,
    )
    encoder = dataclasses.replace(model.encoder, num_prototypes=4, channels=(8, 8, 8))
    config: ModelConfig = dataclasses.replace(model, denoiser=narrow, encoder=encoder)
    torch.manual_seed(0)
    dataset, _ = drawn(SHORTCUT, "train", 64, SIZE)
    out: Path = tmp_path_factory.mktemp("bundles") / "narrow"
    return write_bundle(
        Patronus(config),
        out=out,
        name="narrow",
        measure_on=(dataset, dataset),
        metrics={},
        provenance={},
        emergence_samples=0,
        effect_samples=4,
    )


def test_edits_are_judged_both_ways_and_end_in_the_table(bundle: Bundle) -> None:
    dataset, faces = drawn(UNBIASED, "train", 300, SIZE)
    judge = train_judge(SIZE, num_faces=100, num_steps=2)
    rows = []
    for way in WAYS:
        for case in [case for case in CASES if way in case.ways]:
            outcome = drive(
                bundle,
                dataset.pixels[:6],
                case.edits(Telling((0, 1), (0.8, 0.3)), bundle, dataset.pixels[:6]),
                (0, 1),
                judge,
                way,
                decouple=case.decouples,
                held=case.held,
                steps=3,
                rounds=2,
            )
            assert outcome.hair.shape == outcome.smile.shape == outcome.others.shape == (6,)
            assert np.isfinite(outcome.others).all()
            assert (outcome.psnr is not None) == (way == "edit")
            rows.append(Row(case.name, way, outcome, case.against))
    reference = redrawn(faces[np.arange(6)], judge, SIZE)
    table = table_of(rows, reference).splitlines()
    assert len(table) == 2 + 1 + len(rows)
    assert {line.count("|") for line in table} == {9}


def test_a_smile_that_is_set_is_asked_to_be_what_it_is_in_the_face(bundle: Bundle) -> None:
    dataset, _ = drawn(UNBIASED, "train", 4, SIZE)
    case = Case("shortcut", "set", None, by="attribute", smile="set")
    smile = attribute_target(bundle, "smile")
    s, _ = encode_all(load_bundle_weights(bundle), dataset.pixels)
    asked = [
        apply_edits(bundle, s[i], edits, extrapolate=True)[0]
        for i, edits in enumerate(case.edits(Telling((), ()), bundle, dataset.pixels))
    ]
    np.testing.assert_allclose(smile.value(np.stack(asked)), smile.value(s), atol=0.05 * smile.unit)


def test_the_table_says_what_was_measured() -> None:
    hair = np.array([0.4, 0.6])
    found = Row("plain", "edit", Outcome(hair, hair / 2, np.array([0.1, 0.3]), np.array([30.0, 32.0])))
    other = Row("other", "edit", found.outcome, against="plain")
    line, last = table_of([found, other], found.outcome).splitlines()[-2:]
    assert "| plain: 0.000 (0.000 … 0.000) |" in last
    for text in (
        "| edit | plain | 0.500 (",
        "| 0.250 (",
        "| 0.500 (0.500 … 0.500)",
        "| 0.200 (",
        "| 31.00 |",
    ):
        assert text in line


def test_the_command_names_every_option() -> None:
    command = Setting(size=16, images=4000, weight=0.25).command
    assert command.endswith(
        "--size 16 --images 4000 --faces 20000 --tested 100 --steps 20 --rounds 4 "
        "--effect-samples 32 --weight 0.25"
    )
