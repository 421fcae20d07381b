"""Edits of an activation vector: what each operation does, and where it is held back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model.bundle import Bundle, Prototype
from service.pipeline.editing import plan_edit
from service.pipeline.edits import (
    LARGEST_ACTIVATION,
    Clamping,
    Edit,
    EditLoop,
    Operation,
    Target,
    apply_edits,
    attribute_target,
    prototype_index,
)
from service.pipeline.errors import PipelineError, UnknownAttributeError, UnknownPrototypeError

Float32 = npt.NDArray[np.float32]

J = 3


def entry(j: int, m: int) -> Target:
    """Entry j of m, in units of its own."""
    one = np.eye(m)[j]
    return Target(j, None, one, 0.0, one, 0.0, LARGEST_ACTIVATION, 1.0, (j,))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The shipped bundle, with quantiles that are easy to reckon with and one name."""
    shipped = Bundle.load(Path(__file__).parents[2] / "bundles" / "fashion-mnist")
    quantiles = np.tile(np.linspace(1.0, 5.0, 99), (shipped.config.num_prototypes, 1))
    prototypes = [Prototype() for _ in shipped.prototypes]
    prototypes[J] = Prototype(name="sleeve")
    assert shipped.statistics is not None
    return dataclasses.replace(
        shipped,
        statistics=dataclasses.replace(shipped.statistics, quantiles=quantiles),
        prototypes=tuple(prototypes),
    )


@pytest.fixture
def s(bundle: Bundle) -> Float32:
    return np.full(bundle.config.num_prototypes, 2.0, np.float32)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit(J, "set", 4.5), 4.5),
        (Edit(J, "add", 1.5), 3.5),
        (Edit(J, "add", -0.5), 1.5),
        (Edit(J, "scale", 2.0), 4.0),
        (Edit(J, "max"), 5.0),
        (Edit(J, "min"), 1.0),
        (Edit("sleeve", "set", 3.0), 3.0),
    ],
)
def test_edit_changes_its_prototype_and_no_other(
    bundle: Bundle, s: Float32, edit: Edit, expected: float
) -> None:
    edited, clamped = apply_edits(bundle, s, [edit], extrapolate=False)
    assert edited[J] == pytest.approx(expected)
    np.testing.assert_array_equal(np.delete(edited, J), np.delete(s, J))
    assert clamped == []


def test_given_activations_are_left_as_they_were(bundle: Bundle, s: Float32) -> None:
    before = s.copy()
    apply_edits(bundle, s, [Edit(J, "set", 4.0)], extrapolate=False)
    np.testing.assert_array_equal(s, before)


def test_edits_apply_in_order(bundle: Bundle, s: Float32) -> None:
    edits = [Edit(J, "set", 1.5), Edit(J, "scale", 2.0), Edit(J, "add", 1.0)]
    edited, _ = apply_edits(bundle, s, edits, extrapolate=False)
    assert edited[J] == pytest.approx(4.0)


def test_each_sample_is_edited_from_its_own_activation(bundle: Bundle, s: Float32) -> None:
    both = np.stack([s, s * 1.5])
    edited, _ = apply_edits(bundle, both, [Edit(J, "add", 0.5)], extrapolate=False)
    np.testing.assert_allclose(edited[:, J], [2.5, 3.5])


@pytest.mark.parametrize(
    ("edit", "clamping"),
    [
        (Edit(J, "set", 50.0), Clamping(J, 50.0, 5.0, 1.0, 5.0)),
        (Edit(J, "set", 0.0), Clamping(J, 0.0, 1.0, 1.0, 5.0)),
        (Edit(J, "add", 10.0), Clamping(J, 12.0, 5.0, 1.0, 5.0)),
        (Edit(J, "scale", -1.0), Clamping(J, -2.0, 1.0, 1.0, 5.0)),
    ],
)
def test_edit_beyond_the_quantiles_is_clamped_and_reported(
    bundle: Bundle, s: Float32, edit: Edit, clamping: Clamping
) -> None:
    edited, clamped = apply_edits(bundle, s, [edit], extrapolate=False)
    assert edited[J] == clamping.used
    assert clamped == [clamping]


def test_of_several_samples_the_one_that_was_clamped_most_is_reported(bundle: Bundle, s: Float32) -> None:
    both = np.stack([s, s * 2.0])
    edited, clamped = apply_edits(bundle, both, [Edit(J, "add", 2.5)], extrapolate=False)
    np.testing.assert_allclose(edited[:, J], [4.5, 5.0])
    assert clamped == [Clamping(J, 6.5, 5.0, 1.0, 5.0)]


def test_extrapolating_reaches_beyond_the_quantiles(bundle: Bundle, s: Float32) -> None:
    edited, clamped = apply_edits(bundle, s, [Edit(J, "set", 8.0)], extrapolate=True)
    assert edited[J] == 8.0
    assert clamped == []


@pytest.mark.parametrize(("asked", "used"), [(50.0, LARGEST_ACTIVATION), (-1.0, 0.0)])
def test_extrapolating_ends_where_activations_end(
    bundle: Bundle, s: Float32, asked: float, used: float
) -> None:
    edited, clamped = apply_edits(bundle, s, [Edit(J, "set", asked)], extrapolate=True)
    assert edited[J] == pytest.approx(used)
    assert clamped == [Clamping(J, asked, used, 0.0, LARGEST_ACTIVATION)]


@pytest.mark.parametrize(("op", "quantile"), [("max", 5.0), ("min", 1.0)])
def test_max_and_min_mean_the_quantiles_also_when_extrapolating(
    bundle: Bundle, s: Float32, op: Operation, quantile: float
) -> None:
    edited, clamped = apply_edits(bundle, s, [Edit(J, op)], extrapolate=True)
    assert edited[J] == quantile
    assert clamped == []


def test_activation_outside_the_quantiles_stays_where_no_edit_touches_it(bundle: Bundle, s: Float32) -> None:
    s[J + 1] = 0.25
    edited, _ = apply_edits(bundle, s, [Edit(J, "set", 3.0)], extrapolate=False)
    assert edited[J + 1] == 0.25


@pytest.mark.parametrize("prototype", [-1, 30, 10**30, "cuff", "", "3"])
def test_unknown_prototype_is_refused(bundle: Bundle, s: Float32, prototype: int | str) -> None:
    with pytest.raises(UnknownPrototypeError, match="there is no prototype"):
        apply_edits(bundle, s, [Edit(prototype, "set", 1.0)], extrapolate=False)


def test_prototype_is_found_by_index_and_by_name(bundle: Bundle) -> None:
    assert prototype_index(bundle, 0) == 0
    assert prototype_index(bundle, "sleeve") == J


@pytest.mark.parametrize("op", ["set", "add", "scale"])
def test_operation_without_its_value_is_refused(op: Operation) -> None:
    with pytest.raises(PipelineError, match="needs a value"):
        Edit(0, op)


@pytest.mark.parametrize("op", ["max", "min"])
def test_value_for_an_operation_that_takes_none_is_refused(op: Operation) -> None:
    with pytest.raises(PipelineError, match="takes no value"):
        Edit(0, op, 1.0)


def test_without_statistics_edits_reach_as_far_as_activations_do(bundle: Bundle, s: Float32) -> None:
    imported = dataclasses.replace(bundle, statistics=None, pictures=None)
    edits = [Edit(J, "set", 8.0), Edit(J + 1, "add", 50.0)]
    edited, clamped = apply_edits(imported, s, edits, extrapolate=False)
    assert edited[J] == 8.0
    assert edited[J + 1] == pytest.approx(LARGEST_ACTIVATION)
    assert clamped == [Clamping(J + 1, 52.0, LARGEST_ACTIVATION, 0.0, LARGEST_ACTIVATION)]


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("extrapolate", [False, True])
def test_max_and_min_without_statistics_say_how_to_get_them(
    bundle: Bundle, s: Float32, op: Operation, extrapolate: bool
) -> None:
    imported = dataclasses.replace(bundle, statistics=None, pictures=None)
    with pytest.raises(PipelineError, match=f"edit op '{op}' needs .*--dataset and --data"):
        apply_edits(imported, s, [Edit(J, op)], extrapolate=extrapolate)


def test_edit_loop_drives_a_sluggish_system_to_what_was_asked() -> None:
    before = np.array([1.0, 2.0, 3.0], np.float32)
    asked = np.array([1.0, 4.0, 3.0], np.float32)
    loop = EditLoop(asked, [entry(1, 3)])
    achieved, again, rounds = before, True, 0
    while again and rounds < 20:
        achieved = before + 0.5 * (loop.driven - before)  # follows half of every change
        again = loop.observe(achieved)
        rounds += 1
    assert not again
    assert abs(achieved[1] - 4.0) <= 0.1
    assert loop.best_round == rounds - 1
    np.testing.assert_array_equal(loop.driven[[0, 2]], before[[0, 2]])


def test_edit_loop_keeps_the_nearest_round_and_stays_within_what_is_possible() -> None:
    loop = EditLoop(np.array([9.0], np.float32), [entry(0, 1)])
    assert loop.observe(np.array([3.0], np.float32))
    assert loop.driven[0] == pytest.approx(LARGEST_ACTIVATION)
    assert loop.observe(np.array([2.0], np.float32))
    assert loop.best_round == 0


def test_edit_loop_takes_back_what_a_coupled_system_changes_along_where_it_is_held() -> None:
    before = np.array([3.0, 2.0, 3.0], np.float32)
    asked = np.array([3.0, 4.0, 3.0], np.float32)
    coupling = np.array([[0.5, 0.3, 0.0], [0.0, 0.5, 0.0], [0.0, 0.3, 0.5]], np.float32)

    def outcome(held: list[int]) -> Float32:
        loop, again = EditLoop(asked, [entry(1, 3)], held), True
        tries: list[Float32] = []
        while again and len(tries) < 40:
            tries.append(before + coupling @ (loop.driven - before))
            again = loop.observe(tries[-1])
        return tries[loop.best_round]

    free, held = outcome([]), outcome([0])
    drift = 0.3 / 0.5 * 2.0  # along with an edit by 2
    np.testing.assert_allclose(free[[0, 2]] - before[[0, 2]], drift, atol=0.1)
    assert abs(held[0] - before[0]) <= 0.1
    assert held[2] - before[2] == pytest.approx(drift, abs=0.1)  # which nobody held
    assert abs(held[1] - asked[1]) <= 0.1


def test_edit_loop_prefers_less_drift_only_where_the_edit_reaches_as_far() -> None:
    asked = np.array([5.0, 2.0], np.float32)
    for second, best in (((4.0, 2.0), 1), ((3.0, 2.0), 0)):
        loop = EditLoop(asked, [entry(0, 2)], [1])
        assert loop.observe(np.array([4.0, 2.5], np.float32))
        assert loop.observe(np.array(second, np.float32))
        assert loop.best_round == best


def test_edit_loop_counts_in_each_entrys_own_spread() -> None:
    asked = np.array([5.0, 2.0], np.float32)
    loop = EditLoop(asked, [entry(0, 2)], [1], np.array([1.0, 0.1], np.float32))
    assert loop.observe(np.array([4.0, 2.5], np.float32))  # 1 + 5 spreads
    assert loop.observe(np.array([3.0, 2.2], np.float32))  # 2 + 2
    assert loop.best_round == 1


def test_edit_loop_goes_on_while_a_held_entry_has_drifted() -> None:
    asked = np.array([5.0, 2.0], np.float32)
    achieved = np.array([5.0, 2.5], np.float32)
    assert EditLoop(asked, [entry(0, 2)], [1]).observe(achieved)
    assert not EditLoop(asked, [entry(0, 2)]).observe(achieved)


@pytest.fixture(scope="module")
def faces() -> Bundle:
    """The shipped bundle that knows attributes."""
    return Bundle.load(Path(__file__).parents[2] / "bundles" / "cartoon-faces")


@pytest.fixture
def usual(faces: Bundle) -> Float32:
    """What activations usually are there."""
    assert faces.statistics is not None
    return faces.statistics.mean.astype(np.float32)


def log_odds(bundle: Bundle, s: Float32, name: str) -> float:
    assert bundle.attributes is not None
    assert bundle.statistics is not None
    k = bundle.attributes.names.index(name)
    return float(bundle.attributes.probe_logits(s[None], bundle.statistics)[0, k])


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit(None, "set", 1.5, "glasses"), lambda before, target: 1.5),
        (Edit(None, "add", 0.5, "glasses"), lambda before, target: before + 0.5),
        (Edit(None, "scale", 0.5, "glasses"), lambda before, target: 0.5 * before),
        (Edit(None, "min", None, "glasses"), lambda before, target: target.low),
        (Edit(None, "max", None, "glasses"), lambda before, target: target.high),
    ],
)
def test_an_edit_of_an_attribute_sets_what_its_probe_says(
    faces: Bundle, usual: Float32, edit: Edit, expected: Callable[[float, Target], float]
) -> None:
    target = attribute_target(faces, "glasses")
    before = log_odds(faces, usual, "glasses")
    edited, clamped = apply_edits(faces, usual, [edit], extrapolate=False)
    wanted = expected(before, target)
    assert log_odds(faces, edited, "glasses") == pytest.approx(wanted, abs=0.11 * target.unit)
    assert clamped == []
    assert np.count_nonzero(edited != usual) > 1


def test_an_attribute_moves_those_prototypes_most_that_carry_it_the_first_most(
    faces: Bundle, usual: Float32
) -> None:
    assert faces.statistics is not None
    target = attribute_target(faces, "moustache")
    edited, _ = apply_edits(faces, usual, [Edit(None, "add", 5.0, "moustache")], extrapolate=False)
    change = np.abs(edited - usual) / faces.statistics.std
    assert np.argsort(-change)[: len(target.prototypes)].tolist() == list(target.prototypes)


def test_an_attribute_stays_within_the_data_and_says_so(faces: Bundle, usual: Float32) -> None:
    assert faces.statistics is not None
    target = attribute_target(faces, "glasses")
    edited, (clamping,) = apply_edits(faces, usual, [Edit(None, "set", 1e6, "glasses")], extrapolate=False)
    assert (clamping.prototype, clamping.attribute, clamping.requested) == (None, "glasses", 1e6)
    assert (clamping.low, clamping.high) == (target.low, target.high)
    assert clamping.used == pytest.approx(log_odds(faces, edited, "glasses"), abs=1e-3)
    assert clamping.used <= target.high + 0.11 * target.unit
    assert (edited <= faces.statistics.high + 1e-5).all()
    assert (edited >= faces.statistics.low - 1e-5).all()


def test_extrapolated_attributes_are_bounded_by_what_activations_can_be(
    faces: Bundle, usual: Float32
) -> None:
    within, _ = apply_edits(faces, usual, [Edit(None, "max", None, "glasses")], extrapolate=False)
    beyond, (clamping,) = apply_edits(faces, usual, [Edit(None, "set", 1e6, "glasses")], extrapolate=True)
    assert log_odds(faces, beyond, "glasses") > log_odds(faces, within, "glasses")
    assert clamping.used == pytest.approx(log_odds(faces, beyond, "glasses"), rel=1e-3)
    assert (beyond >= 0.0).all()
    assert (beyond <= LARGEST_ACTIVATION + 1e-5).all()


def test_several_images_are_each_moved_to_the_same_log_odds(faces: Bundle, usual: Float32) -> None:
    assert faces.statistics is not None
    images = np.stack([usual, usual + 0.3 * faces.statistics.std]).astype(np.float32)
    edited, _ = apply_edits(faces, images, [Edit(None, "set", 0.0, "hat")], extrapolate=True)
    unit = attribute_target(faces, "hat").unit
    for s in edited:
        assert log_odds(faces, s, "hat") == pytest.approx(0.0, abs=0.11 * unit)


def test_an_edit_names_a_prototype_or_an_attribute() -> None:
    for prototype, attribute in ((None, None), (3, "hat")):
        with pytest.raises(PipelineError, match="of a prototype or of an attribute"):
            Edit(prototype, "max", attribute=attribute)


def test_unknown_attributes_are_told_with_those_that_there_are(faces: Bundle, usual: Float32) -> None:
    with pytest.raises(UnknownAttributeError, match="no attribute 'beard': this model knows black_hair"):
        apply_edits(faces, usual, [Edit(None, "max", attribute="beard")], extrapolate=False)


def test_a_model_without_labels_has_no_attributes_to_edit(faces: Bundle, usual: Float32) -> None:
    unlabelled = dataclasses.replace(faces, attributes=None)
    with pytest.raises(PipelineError, match="needs labels"):
        apply_edits(unlabelled, usual, [Edit(None, "max", attribute="hat")], extrapolate=False)


def test_an_edit_of_an_attribute_leaves_those_that_are_held(faces: Bundle, usual: Float32) -> None:
    edits = [Edit(None, "max", attribute="smile")]
    skin = ("light_skin", "tan_skin", "dark_skin")
    before = {name: log_odds(faces, usual, name) for name in skin}
    shifts = []
    for held in ((), skin):
        edited, _ = apply_edits(faces, usual, edits, extrapolate=False, held_attributes=held)
        assert log_odds(faces, edited, "smile") == pytest.approx(
            attribute_target(faces, "smile").high, abs=0.1
        )
        shifts.append(sum(abs(log_odds(faces, edited, name) - before[name]) for name in skin))
    assert shifts[1] < 0.2 * shifts[0]


@pytest.mark.parametrize("names", [("dark_skin", "green_collar"), ("black_hair", "fair_hair")])
def test_an_edit_of_an_attribute_leaves_those_that_were_edited_before(
    faces: Bundle, usual: Float32, names: tuple[str, str]
) -> None:
    edits = [Edit(None, "max", attribute=name) for name in names]
    edited, clamped = apply_edits(faces, usual, edits, extrapolate=False)
    for name in names:
        target = attribute_target(faces, name)
        assert log_odds(faces, edited, name) == pytest.approx(target.high, abs=0.1 * target.unit)
    assert clamped == []


def test_edits_of_one_attribute_add_up(faces: Bundle, usual: Float32) -> None:
    edits = [Edit(None, "add", 2.0, name) for name in ("smile", "hat", "smile")]
    edited, _ = apply_edits(faces, usual, edits, extrapolate=False)
    for name, more in (("smile", 4.0), ("hat", 2.0)):
        assert log_odds(faces, edited, name) - log_odds(faces, usual, name) == pytest.approx(more, abs=0.1)


@pytest.mark.parametrize("extrapolate", [False, True])
def test_an_edit_of_an_attribute_leaves_prototypes_that_were_edited_before(
    faces: Bundle, usual: Float32, extrapolate: bool
) -> None:
    target = attribute_target(faces, "smile")
    carrier = target.prototypes[0]
    before = np.stack([usual, usual + np.float32(0.1)])
    edits = [Edit(carrier, "add", 0.25), Edit(None, "max", attribute="smile")]
    edited, _ = apply_edits(faces, before, edits, extrapolate=extrapolate)
    np.testing.assert_allclose(edited[:, carrier], before[:, carrier] + 0.25, rtol=1e-6)
    np.testing.assert_allclose(target.value(edited), target.high, atol=0.1 * target.unit)


def test_attributes_that_are_edited_together_are_corrected_apart(faces: Bundle) -> None:
    names = ("dark_skin", "light_skin")
    plan = plan_edit(faces, [Edit(None, "max", attribute=names[0]), Edit(None, "min", attribute=names[1])])
    assert [target.attribute for target in plan.targets] == list(names)
    raised = [[one.readout @ other.direction for other in plan.targets] for one in plan.targets]
    np.testing.assert_allclose(raised, np.eye(2), atol=1e-6)
    alone = [attribute_target(faces, name) for name in names]
    assert abs(alone[0].readout @ alone[1].direction) > 0.1


def test_a_model_without_labels_has_no_attributes_to_hold(faces: Bundle) -> None:
    unlabelled = dataclasses.replace(faces, attributes=None)
    with pytest.raises(PipelineError, match="preserve_attributes needs labels"):
        plan_edit(unlabelled, [Edit(0, "max")], preserve_attributes=["hat"])


def test_edit_loop_holds_an_attribute_where_it_was() -> None:
    smile = Target(None, "smile", np.array([1.0, 0.0]), 0.0, np.array([1.0, 0.0]), 0.0, 9.0, 1.0, (0,))
    skin = Target(None, "skin", np.array([0.0, 1.0]), 0.0, np.array([0.0, 1.0]), 0.0, 9.0, 1.0, (1,))
    before, asked = np.array([2.0, 2.0], np.float32), np.array([4.0, 2.0], np.float32)
    reached = []
    for held in ((), (skin,)):
        loop, again = EditLoop(asked, [smile], before=before, held_attributes=held), True
        for _ in range(20):
            achieved = loop.driven + np.array([0.0, 1.0], np.float32)  # skin comes along
            again = loop.observe(achieved)
            if not again:
                break
        assert not again
        reached.append(achieved)
    assert reached[0].tolist() == [4.0, 3.0]
    assert reached[1] == pytest.approx([4.0, 2.0], abs=0.1)


def test_edit_loop_drives_an_attribute_along_its_direction_until_it_is_reached() -> None:
    readout, direction = np.array([1.0, 1.0, 0.0]), np.array([0.75, 0.25, 0.5])
    target = Target(None, "smile", readout, -4.0, direction, -9.0, 9.0, 1.0, (0,))
    before = np.array([2.0, 2.0, 2.0], np.float32)
    asked = (before + 2.0 * direction).astype(np.float32)
    loop, again, rounds = EditLoop(asked, [target]), True, 0
    achieved = before
    while again and rounds < 20:
        achieved = before + np.float32(0.5) * (loop.driven - before)
        again = loop.observe(achieved)
        rounds += 1
    assert not again
    assert float(target.value(achieved)) == pytest.approx(2.0, abs=0.1)
    change = loop.driven - before
    np.testing.assert_allclose(change / change[0], direction / direction[0], rtol=1e-5)
