"""Distances against differences in long double, where cancellation, far rows and copies would spoil them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmq.rules.robust import distances
from fedmq.rules.robust import view as view_module
from fedmq.rules.robust.distances import distances_to, least, lengths, squared_distances
from fedmq.rules.robust.rows import Rows
from fedmq.rules.robust.view import View
from fedmq.vectors import Layout, Variable

Matrix = np.ndarray[Any, np.dtype[np.float32]]

LAYOUT = Layout(
    (
        Variable("a", (300,)),
        Variable("moments", (40,), kind="statistic"),
        Variable("b", (2100,)),
    )
)
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "_BUDGET", 1)


def viewed(rows: Matrix) -> View:
    """Rows in the order given."""
    state = Rows.empty(LAYOUT, None)
    for row in rows:
        state.append(row, 1 << 43)
    return state.view(in_any_order=True)


def exact(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = rows[:, LAYOUT.trainable].astype(np.longdouble)
    return np.array([[((a - b) ** 2).sum() for b in wide] for a in wide])


def normal(count: int, scale: float = 1.0) -> Matrix:
    return (scale * RNG.standard_normal((count, LAYOUT.size))).astype(np.float32)


def near_each_other(count: int, apart: float) -> Matrix:
    return (normal(1) + normal(count, apart)).astype(np.float32)


def with_copies() -> Matrix:
    rows = near_each_other(8, 1e-3)
    return np.concatenate([rows, rows[3:6], normal(2), rows[:1]])


def two_clusters_and_a_far_row() -> Matrix:
    return np.concatenate([near_each_other(4, 1e-2), normal(1, 1e9), near_each_other(4, 1e-4), normal(2)])


def nested() -> Matrix:
    """Each row much nearer to the one before than that is to its own."""
    rows = list(normal(1))
    for level in range(1, 4):
        rows.append((rows[-1] + normal(1, 2.0 ** (-7 * level))[0]).astype(np.float32))
    return np.array(rows)


def chain() -> Matrix:
    """The second row is close to the first and to the third, and these are not close to each other."""
    return np.concatenate([far := normal(1), far * np.float32(1.035), far * np.float32(1.07)])


CASES = {
    "unlike": lambda: normal(7),
    "one": lambda: normal(1),
    "zeros": lambda: np.zeros((3, LAYOUT.size), np.float32),
    "near": lambda: near_each_other(7, 1e-3),
    "very near": lambda: near_each_other(7, 1e-6),
    "copies": with_copies,
    "clusters": two_clusters_and_a_far_row,
    "nested": nested,
    "chain": chain,
}


@pytest.mark.parametrize("name", CASES)
def test_distances_are_those_of_differences(name: str) -> None:
    rows = CASES[name]()
    found, expected = squared_distances(viewed(rows)), exact(rows)
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=2.0**-39, atol=0)
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_array_equal(found, found.T)


def test_unlike_rows_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(distances, "_grams", never)
    squared_distances(viewed(normal(7)))


def test_reading_again_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "PASSES", 1)
    rows = nested()
    found, expected = squared_distances(viewed(rows)), exact(rows).astype(np.float64)
    sums = np.add.outer(*(2 * [(rows[:, LAYOUT.trainable].astype(np.float64) ** 2).sum(axis=1)]))
    assert np.all(np.abs(found - expected) <= 2.0**-39 * expected + 2.0**-59 * sums)
    assert not np.allclose(found, expected, rtol=2.0**-39, atol=0)


def test_what_rounding_leaves_of_copies_is_not_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "PASSES", 0)
    products = np.array([[1.0, 1.0 + 2.0**-52], [1.0 + 2.0**-52, 1.0]])
    view: Any = SimpleNamespace(n=2, gram=lambda: products)
    np.testing.assert_array_equal(squared_distances(view), np.zeros((2, 2)))


def test_mixed_rows_have_the_distances_of_their_mixes() -> None:
    rows = near_each_other(6, 1e-3)
    matrix = RNG.random((4, 6))
    matrix /= matrix.sum(axis=1, keepdims=True)
    found = squared_distances(viewed(rows).mixed(matrix, np.ones(4)))
    np.testing.assert_allclose(found, exact(matrix @ rows).astype(np.float64), rtol=1e-9)


def test_lengths_are_those_of_the_trainable_numbers() -> None:
    rows, centre = normal(5, 1e15), RNG.standard_normal(LAYOUT.size)
    trainable = rows[:, LAYOUT.trainable].astype(np.float64)
    np.testing.assert_allclose(lengths(viewed(rows)), np.linalg.norm(trainable, axis=1), rtol=1e-12)
    away = np.linalg.norm(trainable - centre[LAYOUT.trainable], axis=1)
    np.testing.assert_allclose(distances_to(viewed(rows), centre), away, rtol=1e-12)


def test_the_least_have_equal_shares() -> None:
    assert least(np.array([3.0, 1.0, 2.0, 9.0]), 2).tolist() == [0.0, 0.5, 0.5, 0.0]
    assert least(np.array([3.0, 1.0, 2.0, 9.0]), 4).tolist() == [0.25] * 4
    assert least(np.array([[3.0, 1.0], [0.0, 2.0]]), 1).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_equals_share_the_places_that_are_left() -> None:
    assert least(np.array([2.0, 1.0, 2.0, 2.0, 9.0]), 3).tolist() == pytest.approx(
        [2 / 9, 1 / 3, 2 / 9, 2 / 9, 0.0]
    )
    assert least(np.zeros(4), 1).tolist() == [0.25] * 4


def test_what_differs_by_rounding_alone_is_equal() -> None:
    assert least(np.array([1.0, 1.0 + 2.0**-40, 1.0 + 2.0**-30]), 1).tolist() == [0.5, 0.5, 0.0]
    assert least(np.array([1.0 + 2.0**-40, 1.0, 0.0]), 2).tolist() == [0.25, 0.25, 0.5]
