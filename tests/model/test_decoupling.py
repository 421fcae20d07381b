"""Decoupled edits of a linear world, where they must be exact, and of ones that are not so well known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import lsq_linear

from model.decoupling import Decoupling, box_quadratic
from model.effects import MeasuredEffects

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

M = 6
LARGEST = 9.21
SPREAD = np.array([0.5, 1.0, 2.0, 0.7, 1.3, 0.9])


def world(seed: int = 0) -> Float64:
    """Effects [j, k]: each prototype follows by 0.7, and moves others along."""
    coupling = np.random.default_rng(seed).normal(0.0, 0.15, (M, M)) * SPREAD / SPREAD[:, None]
    np.fill_diagonal(coupling, 0.7)
    return np.asarray(coupling)


def decoupling(
    effects: Float64, edited: list[int], held: list[int] | None = None, *, spread: float = 0.0
) -> Decoupling:
    others = [k for k in range(M) if k not in edited]
    measured = MeasuredEffects(effects, np.full((M, M), spread), num_samples=16)
    return Decoupling(measured, SPREAD, edited, others if held is None else held)


def s_and_asked(change: dict[int, float], count: int = 1) -> tuple[Float32, Float32]:
    before = np.random.default_rng(1).uniform(3.5, 5.0, (count, M)).astype(np.float32)
    asked = before.copy()
    for j, value in change.items():
        asked[:, j] += value
    return before, asked


@pytest.mark.parametrize("change", [{0: 1.0}, {2: -1.5}, {1: 0.8, 4: -0.6}])
def test_a_linear_world_changes_exactly_as_asked(change: dict[int, float]) -> None:
    effects = world()
    before, asked = s_and_asked(change, 3)
    driven = decoupling(effects, sorted(change)).driven(before, asked, largest=LARGEST)
    achieved = before + (driven - before) @ effects
    np.testing.assert_allclose(achieved, asked, atol=1e-5)
    plain = before + (asked - before) @ effects
    assert np.abs(plain - asked).max() > 0.1


def test_only_what_is_edited_or_held_is_driven_and_stays_as_asked() -> None:
    effects = world()
    before, asked = s_and_asked({0: 1.0})
    driven = decoupling(effects, [0], [3, 5]).driven(before, asked, largest=LARGEST)
    achieved = before + (driven - before) @ effects
    np.testing.assert_array_equal(driven[:, [1, 2, 4]], before[:, [1, 2, 4]])
    np.testing.assert_allclose(achieved[:, [0, 3, 5]], asked[:, [0, 3, 5]], atol=1e-5)


def test_one_vector_and_many_are_driven_alike() -> None:
    before, asked = s_and_asked({0: 1.0}, 4)
    found = decoupling(world(), [0], spread=0.1)
    together = found.driven(before, asked, largest=LARGEST)
    assert together.dtype == np.float32
    for s, wanted, expected in zip(before, asked, together, strict=True):
        np.testing.assert_allclose(found.driven(s, wanted, largest=LARGEST), expected, rtol=1e-6)


def test_the_less_the_effects_are_known_the_less_is_corrected() -> None:
    before, asked = s_and_asked({0: 1.0})
    corrections = []
    for spread in (0.0, 0.1, 0.3, 1.0, 30.0):
        driven = decoupling(world(), [0], spread=spread).driven(before, asked, largest=LARGEST)
        corrections.append(float(np.abs((driven - asked) / SPREAD).sum()))
    assert corrections == sorted(corrections, reverse=True)
    assert corrections[-1] < 0.01


def test_the_ridge_does_best_where_images_differ_as_the_samples_did() -> None:
    """In expectation over worlds whose effects vary, against no ridge and against no correction."""
    mean, spread = world(), 0.2
    before, asked = s_and_asked({0: 1.0})
    rng = np.random.default_rng(3)
    worlds = mean + spread * rng.standard_normal((4000, M, M))

    def miss(driven: Float32) -> float:
        achieved = before + np.einsum("aj,wjk->wak", driven - before, worlds)[:, 0]
        return float((((achieved - asked) / SPREAD) ** 2).sum(axis=1).mean())

    ridge, none = (
        decoupling(mean, [0], spread=value).driven(before, asked, largest=LARGEST) for value in (spread, 0.0)
    )
    assert miss(ridge) < miss(none)
    assert miss(ridge) < miss(asked)


def test_prototypes_without_any_effect_are_driven_as_asked() -> None:
    before, asked = s_and_asked({0: 1.0})
    driven = decoupling(np.zeros((M, M)), [0]).driven(before, asked, largest=LARGEST)
    np.testing.assert_allclose(driven, asked, rtol=1e-6)


def test_what_is_driven_stays_what_an_activation_can_be() -> None:
    before, asked = s_and_asked({0: 4.0, 1: -3.0}, 20)
    before[:, 3] = 0.05
    asked[:, 3] = 0.05
    driven = decoupling(world(2), [0, 1]).driven(before, asked, largest=LARGEST)
    assert (driven >= 0.0).all()
    assert (driven <= LARGEST).all()
    assert (driven == 0.0).any() or (driven == np.float32(LARGEST)).any()


@pytest.mark.parametrize("seed", range(30))
def test_bounded_solutions_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    matrix, target = rng.standard_normal((n + 3, n)), 3.0 * rng.standard_normal(n + 3)
    low, high = -rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 1.0, n)
    low[rng.uniform(size=n) < 0.2] = 0.0  # an entry that cannot go down at all
    found = box_quadratic(matrix.T @ matrix, matrix.T @ target, low, high)
    expected = lsq_linear(matrix, target, bounds=(low, high + 1e-12), tol=1e-12).x
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("seed", [12, 29, 85])  # some in which rounding errors would lead round in a circle
def test_the_search_ends_however_badly_scaled_the_problem_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 48))
    rank = int(rng.integers(1, n + 1))
    decades = rng.uniform(0, 12)
    matrix = rng.standard_normal((rank, n)) * 10.0 ** rng.uniform(-decades, decades, n)
    if seed % 2:
        matrix = np.round(matrix)
    low, high = -rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 1.0, n)
    low[rng.uniform(size=n) < 0.3] = 0.0
    slope = matrix.T @ (rng.standard_normal(rank) * 10.0 ** rng.uniform(-3, 6))
    found = box_quadratic(matrix.T @ matrix + 1e-9 * np.eye(n), slope, low, high)
    assert ((found >= low) & (found <= high)).all()


@pytest.mark.parametrize("seed", range(20))
def test_effects_of_any_size_leave_an_edit_that_can_be_driven(seed: int) -> None:
    """Dead prototypes have a tiny spread, so that effects on them are huge in its units."""
    rng = np.random.default_rng(seed)
    m = 30
    mean = np.outer(rng.standard_normal(m), rng.standard_normal(m)) * 10.0 ** rng.uniform(-3, 3, (m, 1))
    effects = MeasuredEffects(mean, np.zeros((m, m)), 8)
    spread = 10.0 ** rng.uniform(-4, 0, m)
    before = rng.uniform(0.0, 4.0, m).astype(np.float32)
    asked = before.copy()
    asked[3] += 1.0
    driven = Decoupling(effects, spread, [3], [j for j in range(m) if j != 3]).driven(
        before, asked, largest=LARGEST
    )
    assert np.isfinite(driven).all()
    assert ((driven >= 0.0) & (driven <= LARGEST)).all()
