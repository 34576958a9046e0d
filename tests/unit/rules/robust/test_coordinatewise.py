"""The classes around what is made of columns: settings, weights, refusals; laws over all reducers are in tests/laws."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByExamples, Reducer, Rule, Traits
from fedmq.rules.robust.coordinatewise import CoordinateMedian, MeanAroundMedian, SignMajority, TrimmedMean
from fedmq.vectors import Layout, Variable

LAYOUT = Layout((Variable("w", (2,)), Variable("variance", (1,), kind="statistic")))


def reduced(
    reducer: Reducer[Any], rows: list[list[float]], weights: list[float] | None = None
) -> list[float]:
    state = reducer.zero(LAYOUT)
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        reducer.add(state, np.array(row, np.float32), weight)
    return list(reducer.result(state))


ROWS: list[list[float]] = [[1, -2, 1], [2, 0, 2], [3, 5, 4], [100, -7, 900]]


def test_a_median_takes_weights() -> None:
    assert reduced(CoordinateMedian(), ROWS) == [2.5, -1, 3]
    assert reduced(CoordinateMedian(), ROWS, [1, 1, 1, 3]) == [51.5, -4.5, 452]
    assert reduced(CoordinateMedian("lower"), ROWS) == [2, -2, 2]
    assert reduced(CoordinateMedian("upper"), ROWS, [1, 1, 1, 3]) == [100, -2, 900]


def test_shares_and_counts_say_how_many_are_left_out() -> None:
    assert (
        reduced(TrimmedMean(attackers=1), ROWS) == reduced(TrimmedMean(attackers=0.25), ROWS) == [2.5, -1, 3]
    )
    assert reduced(TrimmedMean(attackers=0.2), ROWS) == [26.5, -1, 226.75]
    assert reduced(MeanAroundMedian(attackers=1), ROWS)[0] == 2.0
    assert reduced(MeanAroundMedian(attackers=0.2), ROWS) == [26.5, -1, 226.75]


@pytest.mark.parametrize("reducer", [TrimmedMean(attackers=2), MeanAroundMedian(attackers=2)], ids=str)
def test_more_attackers_than_can_be_outvoted_are_refused(reducer: Reducer[Any]) -> None:
    with pytest.raises(Refused, match="needs 5 updates to outvote 2 bad ones, the round has 4"):
        reduced(reducer, ROWS)
    assert len(reduced(reducer, [*ROWS, ROWS[0]])) == 3


def test_a_vote_moves_by_a_fixed_step_and_leaves_statistics_to_the_median() -> None:
    assert reduced(SignMajority(step=0.5), ROWS) == [0.5, -0.5, 3.0]
    assert reduced(SignMajority(), [[1, 0, 1], [-1, 0, 1], [0, 1e-30, 1]]) == [0.0, 0.001, 1.0]


@pytest.mark.parametrize(
    ("reducer", "n", "bad"),
    [
        (CoordinateMedian(), 4, 1),
        (CoordinateMedian(), 5, 2),
        (TrimmedMean(), 4, 0),
        (TrimmedMean(0.2), 10, 2),
        (TrimmedMean(3), 10, 3),
        (MeanAroundMedian(0.29), 100, 29),
        (SignMajority(), 5, 2),
    ],
    ids=str,
)
def test_a_reducer_says_how_many_it_withstands(reducer: Reducer[Any], n: int, bad: int) -> None:
    assert reducer.withstands(n) == bad


def test_what_results_are_known_to_do() -> None:
    """The laws hold reducers to what they say; that no more is said than is true of these, and no less, is here."""
    assert CoordinateMedian().traits == TrimmedMean().traits == MeanAroundMedian().traits == Traits()
    assert CoordinateMedian("lower").traits == CoordinateMedian("upper").traits == Traits(mirrors=False)
    assert SignMajority().traits == Traits(between=False, shifts=False, scales=False)


@pytest.mark.parametrize("reducer", [TrimmedMean(), MeanAroundMedian(), SignMajority()], ids=str)
def test_heads_are_not_weighed(reducer: Reducer[Any]) -> None:
    sentence = re.escape(f"{reducer} cannot weigh updates by examples: it counts devices by heads")
    with pytest.raises(ConfigError, match=sentence):
        Rule(weigh=ByExamples(), reduce=reducer)
    assert str(Rule(weigh=ByExamples(), reduce=CoordinateMedian())).count("median") == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CoordinateMedian("middle"), "median has middle 'middle', wants mid, lower or upper"),  # type: ignore[arg-type]
        (lambda: TrimmedMean(0.5), "trimmed_mean has attackers 0.5"),
        (lambda: MeanAroundMedian(-1), "mean_around_median has attackers -1"),
        (lambda: SignMajority(0.0), "sign_majority has step 0.0, wants a positive finite number"),
        (lambda: SignMajority(np.nan), "sign_majority has step nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_they_print_as_a_few_words() -> None:
    printed = [
        str(part) for part in (CoordinateMedian(), CoordinateMedian("upper"), TrimmedMean(), TrimmedMean(3))
    ]
    assert printed == ["median", "upper median", "trimmed mean(0.2)", "trimmed mean(f=3)"]
    assert str(MeanAroundMedian()) == "mean around median(0.2)"
    assert str(SignMajority()) == "sign majority(0.001)"
