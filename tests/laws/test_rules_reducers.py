"""Laws of every reducer, over the table: folds whose bytes hang on nothing but what went in, and what results do.

A new reducer inherits them by its row in the table. What not all results do (lie between the extremes, move with a
shift, outvote some updates) is asked of the reducer itself: `Reducer.traits`, `Reducer.withstands`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedmq.errors import Refused
from fedmq.rules import REDUCERS, CoordinateMedian, Reducer
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout(
    (
        Variable("kernel", (2, 2)),
        Variable("variance", (2,), kind="statistic"),
        Variable("mine", (5,), scope="personal"),
        Variable("bias", (3,)),
    )
)
SIZE = LAYOUT.size
State = TypeVar("State")
Pair = tuple[Vector, float]
Some = list[Pair]

many = settings(max_examples=30, deadline=None)
EVERY: list[Reducer[Any]] = [*(cls() for cls in REDUCERS.values()), CoordinateMedian("lower")]
"""One of each kind as it is by default, and those whose other settings change what their results do."""

every_reducer = pytest.mark.parametrize("reducer", EVERY, ids=str)


def that(trait: str) -> pytest.MarkDecorator:
    """Every reducer that says its result does this."""
    return pytest.mark.parametrize(
        "reducer", [each for each in EVERY if getattr(each.traits, trait)], ids=str
    )


def vectors(most: float = 1e9) -> st.SearchStrategy[Vector]:
    """Numbers of all sizes, some of them below what the mean resolves."""
    return arrays(np.float32, SIZE, elements=st.floats(-most, most, width=32))


def in_1024ths(numbers: NDArray[np.int32]) -> Vector:
    return (numbers / 1024).astype(np.float32)


def grid_vectors(most: int = 2**15) -> st.SearchStrategy[Vector]:
    """Multiples of 1/1024, whose sums, differences and squared distances are exact."""
    return arrays(np.int32, SIZE, elements=st.integers(-most, most)).map(in_1024ths)


weights = st.floats(2.0**-20, 2.0**28)
weighted = st.lists(st.tuples(vectors(), weights), min_size=1, max_size=8)
on_grid = st.lists(st.tuples(grid_vectors(), st.integers(1, 10_000)), min_size=1, max_size=8)


def folded(reducer: Reducer[State], pairs: Sequence[Pair]) -> State:
    size = pairs[0][0].size
    state = reducer.zero(LAYOUT if size == SIZE else Layout((Variable("w", (size,)),)))
    for delta, weight in pairs:
        reducer.add(state, delta, weight)
    return state


def result(reducer: Reducer[Any], pairs: Sequence[Pair]) -> NDArray[np.float64]:
    return reducer.result(folded(reducer, pairs))


def slack(pairs: Sequence[Pair]) -> Any:  # noqa: ANN401 # one number for each of the model's
    """What float64 may lose of a column, and the mean of what lies below its last unit."""
    magnitudes = np.abs([delta for delta, _ in pairs]).max(axis=0).astype(np.float64)
    return 2.0**-79 / min(weight for _, weight in pairs) + 2.0**-48 * magnitudes


# Folds


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_order_changes_no_bit(reducer: Reducer[Any], pairs: Some, data: st.DataObject) -> None:
    state, shuffled = folded(reducer, pairs), folded(reducer, data.draw(st.permutations(pairs)))
    assert reducer.result(state).tobytes() == reducer.result(shuffled).tobytes()
    assert reducer.dump(state) == reducer.dump(shuffled)
    assert reducer.total(state) == reducer.total(shuffled)


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_grouping_changes_no_bit(reducer: Reducer[Any], pairs: Some, data: st.DataObject) -> None:
    groups = [folded(reducer, [pair]) for pair in pairs]
    while len(groups) > 1:
        right = groups.pop(data.draw(st.integers(0, len(groups) - 1)))
        left = groups.pop(data.draw(st.integers(0, len(groups) - 1)))
        groups.append(reducer.merge(left, right))
    whole = folded(reducer, pairs)
    assert reducer.result(groups[0]).tobytes() == reducer.result(whole).tobytes()
    assert reducer.dump(groups[0]) == reducer.dump(whole)


@every_reducer
@many
@given(pairs=weighted)
def test_merging_with_nothing_changes_nothing(reducer: Reducer[Any], pairs: Some) -> None:
    state = folded(reducer, pairs)
    for merged in (reducer.merge(state, reducer.zero(LAYOUT)), reducer.merge(reducer.zero(LAYOUT), state)):
        assert reducer.dump(merged) == reducer.dump(state)


@every_reducer
@many
@given(pairs=weighted, more=weighted)
def test_merging_leaves_both_sides_as_they_were(reducer: Reducer[Any], pairs: Some, more: Some) -> None:
    left, right = folded(reducer, pairs), folded(reducer, more)
    before = reducer.dump(left), reducer.dump(right)
    merged = reducer.merge(left, right)
    reducer.add(merged, *pairs[0])
    assert (reducer.dump(left), reducer.dump(right)) == before
    reducer.add(left, *more[0])
    assert reducer.dump(merged) == reducer.dump(folded(reducer, [*pairs, *more, pairs[0]]))


@every_reducer
@many
@given(pairs=weighted, more=weighted)
def test_a_fold_goes_on_from_its_bytes(reducer: Reducer[Any], pairs: Some, more: Some) -> None:
    state = folded(reducer, pairs)
    resumed = reducer.load(reducer.dump(state), LAYOUT)
    for delta, weight in more:
        reducer.add(state, delta, weight)
        reducer.add(resumed, delta, weight)
    assert reducer.dump(resumed) == reducer.dump(state)
    assert reducer.total(resumed) == reducer.total(state)
    assert reducer.result(resumed).tobytes() == reducer.result(state).tobytes()


@every_reducer
@many
@given(pairs=weighted)
def test_asking_for_the_result_changes_nothing(reducer: Reducer[Any], pairs: Some) -> None:
    state = folded(reducer, pairs)
    first = reducer.result(state)
    reducer.add(state, *pairs[0])
    assert reducer.dump(state) == reducer.dump(folded(reducer, [*pairs, pairs[0]]))
    assert first.tobytes() == result(reducer, pairs).tobytes()


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_what_is_refused_leaves_no_trace(reducer: Reducer[Any], pairs: Some, data: st.DataObject) -> None:
    state = folded(reducer, pairs)
    before = reducer.dump(state)
    bad, good = pairs[0][0].copy(), pairs[0][0]
    bad[data.draw(st.integers(0, SIZE - 1))] = data.draw(
        st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30])
    )
    tries = [(bad, 1.0), *((good, weight) for weight in (0.0, -1.0, 1e12, np.nan, np.inf))]
    for delta, weight in tries:
        for way in (reducer.check, reducer.add):
            with pytest.raises(Refused):
                way(state, delta, weight)
    assert reducer.dump(state) == before


# Results


@that("between")
@many
@given(pairs=weighted)
def test_the_result_lies_between_the_extremes(reducer: Reducer[Any], pairs: Some) -> None:
    deltas = np.array([delta for delta, _ in pairs], np.float64)
    found = result(reducer, pairs)
    assert np.all(found >= deltas.min(axis=0) - slack(pairs))
    assert np.all(found <= deltas.max(axis=0) + slack(pairs))


@that("between")
@many
@given(delta=vectors(), weight=weights, devices=st.integers(1, 9))
def test_equal_deltas_reduce_to_themselves(
    reducer: Reducer[Any], delta: Vector, weight: float, devices: int
) -> None:
    delta[np.abs(delta) * weight < 2.0**-32] = 0.0  # below, the mean may round
    found = result(reducer, [(delta, min(weight * (1 + k / 10), 2.0**28)) for k in range(devices)])
    np.testing.assert_array_equal(found.astype(np.float32), delta)


@that("shifts")
@many
@given(pairs=on_grid, shift=grid_vectors())
def test_the_result_moves_with_a_shift(reducer: Reducer[Any], pairs: Some, shift: Vector) -> None:
    moved = result(reducer, [(delta + shift, weight) for delta, weight in pairs])
    np.testing.assert_allclose(moved, result(reducer, pairs) + shift, rtol=0, atol=2.0**-38)


@that("scales")
@many
@given(pairs=on_grid, power=st.integers(-8, 8))
def test_the_result_scales_with_the_deltas(reducer: Reducer[Any], pairs: Some, power: int) -> None:
    scale = np.float32(2.0**power)
    scaled = result(reducer, [(delta * scale, weight) for delta, weight in pairs])
    np.testing.assert_allclose(scaled, result(reducer, pairs) * scale, rtol=0, atol=2.0 ** (power - 38))


@that("mirrors")
@many
@given(pairs=weighted)
def test_the_result_changes_sign_with_the_deltas(reducer: Reducer[Any], pairs: Some) -> None:
    negated = result(reducer, [(-delta, weight) for delta, weight in pairs])
    assert np.all(np.abs(negated + result(reducer, pairs)) <= slack(pairs))


@every_reducer
@many
@given(data=st.data(), n=st.integers(1, 12))
def test_updates_that_can_be_outvoted_do_not_carry_the_result_away(
    reducer: Reducer[Any], data: st.DataObject, n: int
) -> None:
    """Each bad update is as far out as a fold takes, together or apart; the others are at most 1."""
    bad = reducer.withstands(n)
    fine = data.draw(st.lists(vectors(1.0), min_size=n - bad, max_size=n - bad))
    far = arrays(np.float32, SIZE, elements=st.sampled_from([-(2.0**30), 2.0**30]))
    wild = data.draw(st.lists(far, min_size=bad, max_size=bad))
    found = result(reducer, [(delta, 1.0) for delta in data.draw(st.permutations([*fine, *wild]))])
    assert np.all(np.abs(found) <= 100.0)


@pytest.mark.slow
@every_reducer
def test_a_thousand_devices_over_several_blocks(reducer: Reducer[Any]) -> None:
    """Large and small blocks side by side, forwards and in two backward halves."""
    size = 2_005
    rng = np.random.default_rng(7)
    scales = np.repeat([1e-6, 1e8, 0.0], [1_000, 1_000, 5])
    stock = [(rng.standard_normal(size) * scales).astype(np.float32) for _ in range(10)]
    pairs = [(stock[k % 10], float(1 + k)) for k in range(1000)]
    whole = folded(reducer, pairs)
    halves = reducer.merge(folded(reducer, pairs[:499:-1]), folded(reducer, pairs[499::-1]))
    assert reducer.dump(whole) == reducer.dump(halves)
    try:
        found = reducer.result(whole)
    except Refused:  # too many to choose among, which is said beforehand
        assert reducer.withstands(1000) == 0
        return
    assert found.tobytes() == reducer.result(halves).tobytes()
    assert np.all(np.isfinite(found))
    if reducer.traits.between:
        assert np.all(np.abs(found) <= np.abs(stock).max(axis=0).astype(np.float64) * (1 + 1e-9))
