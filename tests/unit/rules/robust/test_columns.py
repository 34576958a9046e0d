"""What is made of columns, against NumPy and plain Python; against other people's code in test_golden.py."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmq.rules.robust import columns
from fedmq.rules.robust.columns import Middle
from fedmq.rules.robust.view import Numbers

Column = list[float]
Way = Callable[[Numbers], Numbers]

numbers = st.one_of(st.integers(-4, 4).map(float), st.floats(-(2.0**30), 2.0**30, width=32))
filled = st.lists(numbers, min_size=1, max_size=12)
on_grid = st.lists(
    st.one_of(st.integers(-4, 4), st.integers(-(2**23), 2**23)).map(lambda number: number / 1024),
    min_size=1,
    max_size=12,
)
"""Numbers of which float64 knows whether two are equally far from a third."""
many = settings(max_examples=100, deadline=None)


def block(column: Column, dtype: type[np.floating[Any]] = np.float32) -> np.ndarray[Any, Any]:
    return np.array(column, dtype)[:, None]


def around(column: Column, kept: int) -> Fraction:
    """The mean of the kept nearest to the median; of those at the edge, each counts its share of the room."""
    exact = sorted(map(Fraction, column))
    middle = (exact[(len(exact) - 1) // 2] + exact[len(exact) // 2]) / 2
    edge = sorted(abs(number - middle) for number in exact)[kept - 1]
    inside = [number for number in exact if abs(number - middle) < edge]
    below, above = exact.count(middle - edge), exact.count(middle + edge)
    room = kept - len(inside)
    if not edge:
        return middle
    low = Fraction(min(below, room) + max(0, room - above), 2)
    return (sum(inside) + low * (middle - edge) + (room - low) * (middle + edge)) / kept


@many
@given(filled)
def test_the_median_is_numpys(column: Column) -> None:
    expected = np.median(np.array(column, np.float64))
    assert columns.median(block(column))[0] == expected
    assert columns.median(block(column, np.float64))[0] == expected
    assert columns.weighted_median(block(column), np.full(len(column), 0.3))[0] == expected


@many
@given(filled, st.data())
def test_whole_weights_are_copies(column: Column, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 5), min_size=len(column), max_size=len(column)))
    scale = data.draw(st.sampled_from([1.0, 2.0**-20, 2.0**25]))
    weights = np.array(counts) * scale
    copies = sorted(np.repeat(np.array(column, np.float32), counts))
    lower, upper = float(copies[(len(copies) - 1) // 2]), float(copies[len(copies) // 2])
    found = {
        middle: columns.weighted_median(block(column), weights, middle)[0]
        for middle in ("mid", "lower", "upper")
    }
    assert found == {"mid": (lower + upper) / 2, "lower": lower, "upper": upper}


@pytest.mark.parametrize(("middle", "expected"), [("lower", 2.0), ("mid", 2.5), ("upper", 3.0)])
def test_an_even_number_has_three_medians(middle: Middle, expected: float) -> None:
    assert columns.median(block([4, 1, 3, 2]), middle)[0] == expected
    assert columns.weighted_median(block([1, 2, 3]), np.array([1.0, 2.0, 3.0]), middle)[0] == expected


def test_weights_far_apart_are_compared_as_they_are() -> None:
    least, most = 2.0**-20, 2.0**28
    assert columns.weighted_median(block([1, 2]), np.array([least, most]))[0] == 2.0
    assert columns.weighted_median(block([1, 2, 3]), np.array([1.0, 2.0**20 - 1, 2.0**20]))[0] == 2.5
    whole = columns.whole_weights(np.full(4096, most))
    assert len(set(whole)) == 1
    assert 2 * int(whole.sum()) < 2**63


@many
@given(filled, st.data())
def test_the_trimmed_mean_is_that_of_the_middle(column: Column, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, (len(column) - 1) // 2))
    left = sorted(map(Fraction, column))[cut : len(column) - cut]
    found = columns.trimmed_mean(block(column), cut)[0]
    assert found == pytest.approx(float(sum(left) / len(left)), rel=1e-9, abs=1e-15 * max(map(abs, left)))


@many
@given(on_grid, st.data())
def test_the_mean_around_the_median_is_that_of_the_nearest(column: Column, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(column)))
    found = columns.mean_around_median(block(column), kept)[0]
    assert found == pytest.approx(float(around(column, kept)), rel=1e-9, abs=1e-15 * max(map(abs, column)))


@pytest.mark.parametrize(
    ("column", "kept", "expected"),
    [
        ([1, 2], 1, 1.5),
        ([0, 2, 4], 2, 2.0),
        ([0, 1, 4, 5], 3, 2.5),
        ([0, 0, 2, 4, 4], 4, 2.0),
        ([0, 0, 2, 4, 4], 2, 2.0),
        ([0, 1, 2, 9, 9, 9, 9], 2, 9.0),
    ],
)
def test_two_that_are_equally_far_count_half_each(column: Column, kept: int, expected: float) -> None:
    assert columns.mean_around_median(block(column), kept)[0] == expected


def test_a_far_number_takes_nothing_off_the_others() -> None:
    column = [1e-6, 2e-6, 3e-6, 2.0**30, -(2.0**30)]
    assert columns.trimmed_mean(block(column), 1)[0] == pytest.approx(2e-6, rel=1e-6)
    assert columns.mean_around_median(block(column), 3)[0] == pytest.approx(2e-6, rel=1e-6)


@many
@given(filled)
def test_votes_are_by_sign(column: Column) -> None:
    assert columns.votes(block(column))[0] == sum((x > 0) - (x < 0) for x in column)


WAYS: dict[str, Way] = {
    "median": columns.median,
    "lower": lambda rows: columns.median(rows, "lower"),
    "weighted": lambda rows: columns.weighted_median(rows, np.ones(len(rows))),
    "trimmed": lambda rows: columns.trimmed_mean(rows, 1),
    "around": lambda rows: columns.mean_around_median(rows, 2),
    "votes": columns.votes,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@every_way
def test_the_sign_of_zeros_does_not_come_through(way: Way) -> None:
    found = {way(block(list(order))).tobytes() for order in permutations([0.0, -0.0, -0.0, 0.0])}
    assert found == {np.zeros(1).tobytes()}


@every_way
def test_blocks_of_several_tiles_are_columns_side_by_side_and_stay_as_they_were(way: Way) -> None:
    rows = np.random.default_rng(3).standard_normal((7, 2 * 1024 + 3)).astype(np.float32)
    rows.flags.writeable = False
    found = way(rows)
    assert found.dtype == np.float64
    assert found.shape == (rows.shape[1],)
    for column in (0, 1023, 1024, 2048, 2050):
        assert found[column] == way(rows[:, [column]])[0]
