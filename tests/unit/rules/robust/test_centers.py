"""Geometric median, centred clipping and norm-filtered mean against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, MisuseError, Refused
from fedmq.rules import ByExamples, Memory, Reducer, Rule, Traits
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian, NormFiltered, weiszfeld
from fedmq.vectors import Layout, Variable

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Wide = np.ndarray[Any, np.dtype[np.float64]]
LAYOUT = Layout(
    (Variable("kernel", (3,)), Variable("variance", (1,), kind="statistic"), Variable("bias", (2,)))
)
TRAINABLE = LAYOUT.trainable


def reduced(
    reducer: Reducer[Any], rows: Matrix, weights: list[float] | None = None, memory: Memory | None = None
) -> np.ndarray[Any, np.dtype[np.float64]]:
    state = reducer.zero(LAYOUT)
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        reducer.add(state, row, weight)
    return reducer.result(state, memory or {})


def crowd(seed: int, n: int = 9) -> Matrix:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, LAYOUT.size)) * rng.uniform(0.5, 4, (n, 1))).astype(np.float32)


# Geometric median


@pytest.mark.parametrize("seed", range(20))
def test_no_point_nearby_has_a_lesser_sum_of_distances(seed: int) -> None:
    rng, rows, weights = np.random.default_rng(seed), crowd(seed), [1.0, 2, 3, 1, 2, 3, 1, 2, 3]
    wide = rows[:, TRAINABLE].astype(np.float64)

    def cost(point: Wide) -> float:
        return float(np.linalg.norm(wide - point, axis=1) @ weights)

    found = reduced(GeometricMedian(), rows, weights)[TRAINABLE]
    for scale in (1e-4, 1e-2, 1):
        for _ in range(20):
            assert cost(found) <= cost(found + scale * rng.standard_normal(found.size)) + 1e-9


def test_a_majority_at_one_point_has_its_way() -> None:
    rows = crowd(1)
    rows[:5] = rows[0]
    np.testing.assert_allclose(reduced(GeometricMedian(), rows), rows[0], atol=2e-5)
    alike = np.repeat(rows[:1], 3, axis=0)
    np.testing.assert_allclose(reduced(GeometricMedian(), alike), rows[0], rtol=1e-12)


def test_a_weight_counts_as_copies() -> None:
    rows = crowd(2)
    once = reduced(GeometricMedian(), rows, [3.0, *[1.0] * 8])
    np.testing.assert_allclose(once, reduced(GeometricMedian(), rows[[0, 0, *range(9)]]), atol=1e-6)


def test_far_rows_hardly_move_it() -> None:
    rows = crowd(3, 20)
    before = reduced(GeometricMedian(), rows)
    rows[:4] *= np.float32(1e8)
    after = reduced(GeometricMedian(), rows)
    assert np.linalg.norm((after - before)[TRAINABLE]) < 3


def test_statistics_have_no_say_and_come_along() -> None:
    rows = crowd(4)
    rows[:, 3] = 0.0
    before = reduced(GeometricMedian(), rows)
    rows[:, 3] = 1e6
    after = reduced(GeometricMedian(), rows)
    np.testing.assert_allclose(after[TRAINABLE], before[TRAINABLE], rtol=1e-12)
    assert after[3] == pytest.approx(1e6)


def test_steps_are_weiszfelds_from_the_mean() -> None:
    rows = crowd(5)[:, TRAINABLE].astype(np.float64)
    squares = ((rows[:, None] - rows) ** 2).sum(axis=2)
    point, weights = rows.mean(axis=0), np.full(9, 1 / 9)
    for steps in range(1, 4):
        pulls = weights / np.linalg.norm(rows - point, axis=1)
        point = pulls @ rows / pulls.sum()
        np.testing.assert_allclose(weiszfeld(squares, weights, 1e-6, steps) @ rows, point, rtol=1e-9)


def test_smoothing_bounds_the_pull_of_a_near_row() -> None:
    squares = np.array([[0.0, 1, 4], [1, 0, 1], [4, 1, 0]])  # three on a line: the middle one is the median
    sharp, smooth = (weiszfeld(squares, np.full(3, 1 / 3), smoothing, 1000) for smoothing in (1e-6, 0.5))
    np.testing.assert_allclose(sharp, [0, 1, 0], atol=1e-5)
    np.testing.assert_allclose(smooth, [0.25, 0.5, 0.25], rtol=1e-9)


# Centred clipping


def clipped(rows: Matrix, centre: Wide, radius: float, weights: Wide) -> Wide:
    away = rows[:, TRAINABLE] - centre
    factors = np.minimum(1, radius / np.linalg.norm(away, axis=1))
    return np.asarray(centre + (weights * factors) @ away / weights.sum())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("radius", [0.3, 3.0, 100.0])
def test_updates_move_the_centre_no_further_than_the_radius(radius: float, steps: int) -> None:
    rows, weights = crowd(6), np.arange(1.0, 10)
    centre = np.zeros(5)
    for _ in range(steps):
        centre = clipped(rows, centre, radius, weights)
    found = reduced(CentredClipping(radius, steps), rows, weights.tolist())
    np.testing.assert_allclose(found[TRAINABLE], centre, rtol=1e-9)
    assert found[3] == np.median(rows[:, 3])


def test_the_last_result_is_the_next_centre() -> None:
    rule, first, second = CentredClipping(0.5), crowd(7), crowd(8)
    memory = rule.learn(reduced(rule, first))
    assert memory["centre"].dtype == np.float32
    expected = clipped(second, memory["centre"][TRAINABLE].astype(np.float64), 0.5, np.ones(9))
    np.testing.assert_allclose(reduced(rule, second, memory=memory)[TRAINABLE], expected, rtol=1e-9)


def test_a_centre_of_another_model_is_misuse() -> None:
    with pytest.raises(MisuseError, match=r"centre of shape \(7,\), the model wants \(6,\)"):
        reduced(CentredClipping(), crowd(9), memory={"centre": np.zeros(7, np.float32)})


def test_a_model_without_statistics_has_none_to_replace() -> None:
    rule, layout = CentredClipping(1.0), Layout((Variable("w", (2,)),))
    state = rule.zero(layout)
    rule.add(state, np.array([3.0, 4.0], np.float32), 1.0)
    np.testing.assert_allclose(rule.result(state), [0.6, 0.8])


def test_only_the_geometric_median_knows_all_traits() -> None:
    assert GeometricMedian().traits == Traits()
    assert NormFiltered().traits == Traits(shifts=False)
    assert CentredClipping().traits == Traits(between=False, shifts=False, scales=False)


def test_half_of_the_updates_can_be_outvoted_in_one_round_but_by_clipping() -> None:
    assert CentredClipping().withstands(9) == 0
    assert GeometricMedian().withstands(9) == GeometricMedian().withstands(10) == 4


# Norm-filtered mean


@pytest.mark.parametrize("seed", range(10))
def test_the_longest_are_left_out(seed: int) -> None:
    rows = crowd(seed)
    rows[:, 3] = 1000 * np.arange(9)
    kept = np.argsort(np.linalg.norm(rows[:, TRAINABLE].astype(np.float64), axis=1))[:6]
    found = reduced(NormFiltered(attackers=3), rows)
    np.testing.assert_allclose(found, rows[kept].mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_too_few_to_leave_out_are_refused() -> None:
    rule = NormFiltered(attackers=2)
    assert (rule.withstands(4), rule.withstands(5)) == (1, 2)
    reduced(rule, crowd(1, 5))
    with pytest.raises(Refused, match="norm_filtered needs 5 updates to outvote 2 bad ones, the round has 4"):
        reduced(rule, crowd(1, 4))
    with pytest.raises(ConfigError, match="it drops a number of updates"):
        Rule(weigh=ByExamples(), reduce=rule)


def test_what_cannot_be_is_an_error() -> None:
    for smoothing in (0.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="geometric_median has smoothing"):
            GeometricMedian(smoothing=smoothing)
    with pytest.raises(ConfigError, match="geometric_median has steps 0"):
        GeometricMedian(steps=0)
    for radius in (0.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="centred_clipping has radius"):
            CentredClipping(radius=radius)
    with pytest.raises(ConfigError, match="centred_clipping has steps 0"):
        CentredClipping(steps=0)
    with pytest.raises(ConfigError, match="norm_filtered has attackers"):
        NormFiltered(attackers=0.5)


def test_they_print_what_they_are_told() -> None:
    printed = [str(rule) for rule in (GeometricMedian(), CentredClipping(2.5), NormFiltered(3))]
    assert printed == ["geometric median", "centred clipping(2.5)", "norm-filtered mean(f=3)"]
