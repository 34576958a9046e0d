"""Minimum-diameter averaging against its definition, where several choices are equal, and where there are too many."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByExamples, MinimumDiameter, Rule
from fedmq.vectors import Layout, Variable

Matrix = np.ndarray[Any, np.dtype[np.float32]]
Wide = np.ndarray[Any, np.dtype[np.float64]]
LAYOUT = Layout(
    (Variable("kernel", (2,)), Variable("variance", (1,), kind="statistic"), Variable("bias", (1,)))
)


def reduced(rule: MinimumDiameter, rows: Matrix) -> Wide:
    state = rule.zero(LAYOUT)
    for row in rows:
        rule.add(state, row, 1.0)
    return rule.result(state)


def crowd(seed: int, n: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal((n, LAYOUT.size)).astype(np.float32)


def by_definition(rows: Matrix, bad: int) -> Wide:
    wide = rows[:, LAYOUT.trainable].astype(np.float64)
    squares = ((wide[:, None] - wide) ** 2).sum(axis=2)

    def spread(kept: tuple[int, ...]) -> tuple[float, float]:
        among = squares[np.ix_(kept, kept)]
        return float(among.max()), float(among.sum())

    tightest = min(combinations(range(len(rows)), len(rows) - bad), key=spread)
    return np.asarray(rows[list(tightest)].mean(axis=0, dtype=np.float64))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("n", "bad"), [(3, 1), (7, 2), (9, 4), (5, 0)])
def test_what_lies_closest_together_is_averaged(seed: int, n: int, bad: int) -> None:
    rows = crowd(seed, n)
    rows[:, 2] *= 1000  # statistics have no say in the choice, and come with it
    found = reduced(MinimumDiameter(attackers=bad), rows)
    np.testing.assert_allclose(found, by_definition(rows, bad), rtol=1e-9)


def on_a_line(*places: float) -> Matrix:
    rows = np.zeros((len(places), LAYOUT.size), np.float32)
    rows[:, 0] = places
    return rows


def test_of_equal_diameters_the_least_sum_is_taken() -> None:
    for sign in (1, -1):
        found = reduced(MinimumDiameter(attackers=1), sign * on_a_line(0, 2, 3, 3, 5))
        assert found[0] == pytest.approx(sign * 3.25)  # without the 0; without the 5, it is 3 wide too


def test_choices_that_are_equal_in_all_are_averaged() -> None:
    assert reduced(MinimumDiameter(attackers=1), on_a_line(0, 1, 2))[0] == pytest.approx(1.0)
    assert reduced(MinimumDiameter(attackers=1), on_a_line(7, 7, 7))[0] == pytest.approx(7.0)


def test_too_few_and_too_many_are_refused() -> None:
    rule = MinimumDiameter(attackers=2)
    assert [rule.withstands(n) for n in (4, 5, 200, 201)] == [1, 2, 2, 0]
    with pytest.raises(
        Refused, match="minimum_diameter needs 5 updates to outvote 2 bad ones, the round has 4"
    ):
        reduced(rule, crowd(0, 4))
    with pytest.raises(
        Refused, match="20100 ways to leave 2 of 201 updates out, minimum_diameter tries 20000: put"
    ):
        reduced(rule, crowd(0, 201))


def test_weights_have_no_meaning_and_shares_a_bound() -> None:
    with pytest.raises(ConfigError, match="each has one voice"):
        Rule(weigh=ByExamples(), reduce=MinimumDiameter())
    with pytest.raises(ConfigError, match="minimum_diameter has attackers"):
        MinimumDiameter(attackers=0.5)
    assert str(MinimumDiameter(2)) == "minimum diameter(f=2)"
