"""Bucketing and nearest-neighbour mixing: what the inner reducer gets, nesting, configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByExamples, Mean, Memory, Reducer, Rule
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian
from fedmq.rules.robust.coordinatewise import CoordinateMedian, SignMajority, TrimmedMean
from fedmq.rules.robust.mixing import Bucketing, NearestMixing
from fedmq.rules.robust.rows import FromRows
from fedmq.rules.robust.selection import Krum
from fedmq.rules.robust.view import View
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Callable

Matrix = np.ndarray[Any, np.dtype[np.float32]]
LAYOUT = Layout(
    (Variable("kernel", (3,)), Variable("variance", (1,), kind="statistic"), Variable("bias", (2,)))
)


def reduced(
    reducer: Reducer[Any], rows: Matrix, weights: list[float] | None = None, memory: Memory | None = None
) -> NDArray[np.float64]:
    state = reducer.zero(LAYOUT)
    for row, weight in zip(rows, weights or [1.0] * len(rows), strict=True):
        reducer.add(state, row, weight)
    return reducer.result(state, memory or {})


@dataclass(frozen=True, slots=True)
class Seen(FromRows):
    """Keeps what it is given last; the mean of it is its result."""

    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> NDArray[np.float64]:
        return np.asarray(self.kept["rows"])

    @property
    def weights(self) -> NDArray[np.float64]:
        return np.asarray(self.kept["weights"])

    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:
        rows = np.hstack([block.copy() for _, block in view.blocks()])
        self.kept.update(rows=rows, weights=view.weights, memory=memory)
        return np.asarray(rows.mean(axis=0))


def crowd(seed: int, n: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal((n, LAYOUT.size)).astype(np.float32)


def test_buckets_are_weighted_means_of_each_update_once() -> None:
    seen, rows, weights = Seen(), np.eye(5, LAYOUT.size, dtype=np.float32), [1.0, 2.0, 3.0, 4.0, 5.0]
    reduced(Bucketing(2, seen), rows, weights)
    assert seen.rows.shape == (3, LAYOUT.size)
    np.testing.assert_allclose(seen.weights @ seen.rows, [1, 2, 3, 4, 5, 0])  # every update, by its weight
    assert sorted(np.count_nonzero(seen.rows, axis=1)) == [1, 2, 2]
    np.testing.assert_allclose(seen.rows.sum(axis=1), 1.0)


def test_buckets_are_drawn_from_the_seed() -> None:
    state, seen, drawn = Seen().zero(LAYOUT), Seen(), set()
    for row in np.eye(6, LAYOUT.size, dtype=np.float32):
        Seen().add(state, row, 1.0)
    seeds = list(range(20))
    while seeds:
        Bucketing(3, seen).combine(replace(state.view(), draw=seeds.pop), {})
        drawn.add(tuple(sorted(map(tuple, seen.rows > 0))))
    assert len(drawn) > 5


def test_buckets_do_not_hang_on_the_order_of_arrival() -> None:
    rows, rule = crowd(1, 7), Bucketing(3, CoordinateMedian())
    assert reduced(rule, rows).tobytes() == reduced(rule, rows[::-1]).tobytes()


def test_buckets_of_one_change_nothing() -> None:
    rows = crowd(2, 7)
    np.testing.assert_allclose(reduced(Bucketing(1, Krum(2)), rows), reduced(Krum(2), rows))


@pytest.mark.parametrize("seed", range(10))
def test_each_update_becomes_the_mean_of_its_nearest(seed: int) -> None:
    seen, rows = Seen(), crowd(seed, 9)
    rows[:, 3] *= 1000  # statistics have no say in what is near, and are mixed with the rest
    reduced(NearestMixing(3, seen), rows, [9.0, *[1.0] * 8])
    wide = rows[:, LAYOUT.trainable].astype(np.float64)
    expected = [
        rows[np.argsort(np.linalg.norm(wide - row, axis=1))[:6]].mean(axis=0, dtype=np.float64)
        for row in wide
    ]
    found, wanted = (sorted(map(tuple, matrix)) for matrix in (seen.rows, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_array_equal(seen.weights, np.ones(9))


def test_updates_as_far_away_share_the_last_place() -> None:
    seen, rows = Seen(), np.zeros((3, LAYOUT.size), np.float32)
    rows[:, 0] = [-1, 0, 1]
    reduced(NearestMixing(1, seen), rows)
    np.testing.assert_allclose(sorted(seen.rows[:, 0]), [-0.5, 0, 0.5])


def test_mixers_nest_and_print() -> None:
    rule = Bucketing(2, NearestMixing(3, TrimmedMean(0.2)))
    assert str(rule) == "bucketing(2) > nnm(f=3) > trimmed mean(0.2)"
    rows = crowd(3, 16)
    buckets, mixes = Seen(), Seen()
    reduced(Bucketing(2, buckets), rows)
    reduced(Bucketing(2, NearestMixing(3, mixes)), rows)
    again = Seen()
    reduced(NearestMixing(3, again), buckets.rows.astype(np.float32))
    np.testing.assert_allclose(np.sort(mixes.rows, axis=0), np.sort(again.rows, axis=0), atol=1e-6)
    expected = np.sort(mixes.rows, axis=0)[1:-1].mean(axis=0)
    np.testing.assert_allclose(reduced(rule, rows), expected, rtol=1e-9)


@pytest.mark.parametrize("wrap", [lambda inner: Bucketing(2, inner), lambda inner: NearestMixing(1, inner)])
def test_the_inner_reducer_keeps_its_memory(
    wrap: Callable[[Reducer[Any]], Reducer[Any]],
) -> None:
    rule, seen = wrap(CentredClipping(1.0)), Seen()
    result = reduced(rule, crowd(4, 6))
    np.testing.assert_array_equal(rule.learn(result)["centre"], result.astype(np.float32))
    memory = {"centre": np.ones(LAYOUT.size, np.float32)}
    reduced(wrap(seen), crowd(4, 6), memory=memory)
    assert seen.kept["memory"] == memory


def test_buckets_take_weights_where_the_inner_reducer_does() -> None:
    Rule(weigh=ByExamples(), reduce=Bucketing(2, GeometricMedian()))
    with pytest.raises(ConfigError, match="each has one voice"):
        Rule(weigh=ByExamples(), reduce=Bucketing(2, Krum()))
    with pytest.raises(ConfigError, match="plain mean of its nearest"):
        Rule(weigh=ByExamples(), reduce=NearestMixing(0.2, GeometricMedian()))


def test_as_many_are_withstood_as_the_inner_reducer_takes() -> None:
    assert Bucketing(2, Krum(2)).withstands(14) == 2
    assert Bucketing(2, Krum(2)).withstands(12) == 1
    assert NearestMixing(3, CoordinateMedian()).withstands(20) == 3
    assert NearestMixing(3, CoordinateMedian()).withstands(6) == 2
    assert NearestMixing(9, Krum(2)).withstands(20) == 2


def test_traits_are_the_inner_reducers_but_for_the_draw() -> None:
    assert NearestMixing(0.2, SignMajority()).traits == SignMajority().traits
    assert not Bucketing(2, SignMajority()).traits.between
    traits = Bucketing(2, CoordinateMedian()).traits
    assert (traits.between, traits.shifts, traits.scales, traits.mirrors) == (True, False, False, False)


def test_too_few_for_the_attackers_are_refused() -> None:
    reduced(NearestMixing(2), crowd(5, 5))
    with pytest.raises(Refused, match="nnm needs 5 updates to outvote 2 bad ones, the round has 4"):
        reduced(NearestMixing(2), crowd(5, 4))
    with pytest.raises(Refused, match="krum needs 7 updates to outvote 2 bad ones, the round has 5"):
        reduced(Bucketing(2, Krum(2)), crowd(5, 9))


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ConfigError, match="bucketing has size 0, wants at least 1"):
        Bucketing(size=0)
    with pytest.raises(ConfigError, match=r"nnm has attackers 0\.7, wants a share"):
        NearestMixing(attackers=0.7)
    for kind in (Bucketing, NearestMixing):
        with pytest.raises(ConfigError, match="cannot mix for mean, which never has all updates at hand"):
            kind(inner=Mean())
