"""Krum, multi-Krum and Bulyan against their definitions, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByExamples, Reducer, Rule
from fedmq.rules.robust.mixing import Bucketing
from fedmq.rules.robust.selection import Bulyan, Krum, MultiKrum
from fedmq.vectors import Layout, Variable

Matrix = np.ndarray[Any, np.dtype[np.float32]]
LAYOUT = Layout(
    (Variable("kernel", (3,)), Variable("variance", (1,), kind="statistic"), Variable("bias", (2,)))
)
EVERY: list[Reducer[Any]] = [Krum(), MultiKrum(), Bulyan()]


def reduced(reducer: Reducer[Any], rows: Matrix) -> np.ndarray[Any, np.dtype[np.float64]]:
    state = reducer.zero(LAYOUT)
    for row in rows:
        reducer.add(state, row, 1.0)
    return reducer.result(state)


def crowd(seed: int, n: int, bad: int) -> Matrix:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, LAYOUT.size))
    rows[:bad] = rng.standard_normal((bad, LAYOUT.size)) * 3 + 1
    return rows.astype(np.float32)


def scores(rows: Matrix, neighbours: int) -> list[float]:
    wide = rows[:, LAYOUT.trainable].astype(np.float64)
    squares = [[((a - b) ** 2).sum() for b in wide] for a in wide]
    return [sum(sorted(row[:k] + row[k + 1 :])[:neighbours]) for k, row in enumerate(squares)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("margin", [1, 2])
def test_krum_is_the_update_with_the_least_sum(seed: int, margin: int) -> None:
    rows = crowd(seed, 11, 3)
    rows[:, 3] = 1000 * np.arange(11)  # statistics have no say in the choice, and come with it
    expected = rows[np.argmin(scores(rows, 11 - 3 - margin))]
    np.testing.assert_array_equal(reduced(Krum(attackers=3, margin=margin), rows), expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("keep", [None, 1, 5])
@pytest.mark.parametrize("margin", [1, 2])
def test_multi_krum_is_the_mean_of_the_least(seed: int, keep: int | None, margin: int) -> None:
    rows, rule = crowd(seed, 11, 3), MultiKrum(attackers=3, keep=keep, margin=margin)
    chosen = np.argsort(scores(rows, 11 - 3 - margin))[: 8 if keep is None else keep]
    np.testing.assert_allclose(reduced(rule, rows), rows[chosen].mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_multi_krum_cannot_keep_more_than_there_are() -> None:
    rows = crowd(0, 4, 0)
    np.testing.assert_allclose(reduced(MultiKrum(keep=9), rows), rows.mean(axis=0, dtype=np.float64))


def by_the_paper(rows: Matrix, bad: int) -> np.ndarray[Any, Any]:
    """Bulyan over Krum; among equal sums, the row nearest to all of the rows goes first."""
    left, chosen, far = list(range(len(rows))), list[int](), scores(rows, len(rows))
    while len(chosen) < len(rows) - 2 * bad:
        sums = scores(rows[left], max(1, len(left) - bad - 2))
        level = [row for row, figure in zip(left, sums, strict=True) if figure <= min(sums) * (1 + 1e-12)]
        chosen.append(min(level, key=far.__getitem__))
        left.remove(chosen[-1])
    picked = rows[chosen].astype(np.float64)
    away = np.abs(picked - np.median(picked, axis=0))
    nearest = np.argsort(away, axis=0)[: len(chosen) - 2 * bad]
    return np.asarray(np.take_along_axis(picked, nearest, axis=0).mean(axis=0))


@pytest.mark.parametrize("seed", [*range(20), 279])  # in 279, the last choice needs its one neighbour
@pytest.mark.parametrize(("n", "bad"), [(7, 1), (11, 2), (16, 3), (15, 1), (15, 3)])
def test_bulyan_is_what_the_paper_says(seed: int, n: int, bad: int) -> None:
    rows = crowd(seed, n, bad)
    np.testing.assert_allclose(reduced(Bulyan(attackers=bad), rows), by_the_paper(rows, bad), rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_bulyan_counts_copies_as_neighbours_but_no_row_as_its_own(seed: int) -> None:
    rows = crowd(seed, 17, 3)
    rows[15:17], rows[12] = rows[3], rows[4]
    np.testing.assert_allclose(reduced(Bulyan(attackers=3), rows), by_the_paper(rows, 3), rtol=1e-9)


def test_bulyan_without_attackers_is_the_mean() -> None:
    rows = crowd(4, 6, 0)
    np.testing.assert_allclose(reduced(Bulyan(), rows), rows.mean(axis=0, dtype=np.float64), rtol=1e-12)


def test_bulyan_chooses_among_mixed_rows_too() -> None:
    rows = crowd(5, 11, 2)
    np.testing.assert_allclose(
        reduced(Bucketing(1, Bulyan(attackers=2)), rows), reduced(Bulyan(attackers=2), rows)
    )


@pytest.mark.parametrize("reducer", [Krum(1), MultiKrum(1, keep=1)], ids=str)
def test_the_two_nearest_of_three_left_are_averaged(reducer: Reducer[Any]) -> None:
    rows = np.zeros((5, LAYOUT.size), np.float32)
    rows[:, 0] = [0.0, 1.0, 1.5, 2.5, 900.0]
    np.testing.assert_array_equal(reduced(reducer, rows)[:2], [1.25, 0.0])


@pytest.mark.parametrize("reducer", EVERY, ids=str)
@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_updates_are_averaged(reducer: Reducer[Any], n: int) -> None:
    rows = crowd(6, n, 0)
    np.testing.assert_allclose(reduced(reducer, rows), rows.mean(axis=0, dtype=np.float64))


@pytest.mark.parametrize(
    ("reducer", "needed"),
    [(Krum(2), 7), (Krum(2, margin=1), 6), (MultiKrum(2), 7), (MultiKrum(2, margin=1), 6), (Bulyan(2), 11)],
    ids=repr,
)
def test_too_few_updates_for_the_attackers_are_refused(reducer: Reducer[Any], needed: int) -> None:
    assert reducer.withstands(needed) == 2
    assert reducer.withstands(needed - 1) == 1
    reduced(reducer, crowd(7, needed, 2))
    with pytest.raises(
        Refused, match=f"needs {needed} updates to outvote 2 bad ones, the round has {needed - 1}"
    ):
        reduced(reducer, crowd(7, needed - 1, 2))


@pytest.mark.parametrize("reducer", EVERY, ids=str)
def test_weights_have_no_meaning(reducer: Reducer[Any]) -> None:
    assert reducer.withstands(1) == 0
    with pytest.raises(ConfigError, match="each has one voice"):
        Rule(weigh=ByExamples(), reduce=reducer)


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ConfigError, match="krum has margin 3, wants 2"):
        Krum(margin=3)
    with pytest.raises(ConfigError, match="multi_krum has margin 0, wants 2"):
        MultiKrum(margin=0)
    with pytest.raises(ConfigError, match="multi_krum has keep 0, wants 1"):
        MultiKrum(keep=0)
    for kind in (Krum, MultiKrum, Bulyan):
        with pytest.raises(ConfigError, match=r"has attackers 0\.5, wants a share"):
            kind(attackers=0.5)


def test_they_print_what_they_are_told() -> None:
    assert [str(reducer) for reducer in (Krum(), Krum(3), MultiKrum(keep=4), MultiKrum(0.1), Bulyan(2))] == [
        "krum(0.2)",
        "krum(f=3)",
        "multi-krum(0.2, keep 4)",
        "multi-krum(0.1)",
        "bulyan(f=2)",
    ]
