"""Laws of every fold: over all reducers, and over rules made of every part of every table.

A new part inherits them by its row in a table. It must be made without arguments to be tried here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmq.errors import Refused
from fedmq.rules import GUARDS, PRESETS, REDUCERS, STEPS, WEIGHERS, Claim, Fold, Reducer, Replace, Rule
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


def combined() -> Iterator[Rule]:
    """Every weigher with every reducer that takes its weights; guards and steps in turn, so that all come up."""
    guards, steps = itertools.cycle(GUARDS.values()), itertools.cycle(STEPS.values())
    for weigher, reducer in itertools.product(WEIGHERS.values(), REDUCERS.values()):
        if weigher().uniform or not reducer().unweighted:
            yield Rule((next(guards)(),), weigher(), reducer(), next(steps)())


RULES = list(dict.fromkeys([*combined(), *PRESETS.values()]))

# Each rule law runs for each of dozens of rules, so a few examples of each make hundreds.
few = settings(max_examples=6, deadline=None)
many = settings(max_examples=60, deadline=None)

every_rule = pytest.mark.parametrize("rule", RULES, ids=str)
every_reducer = pytest.mark.parametrize("reducer", [cls() for cls in REDUCERS.values()], ids=str)


@dataclass(frozen=True)
class Update:
    delta: Vector
    claim: Claim


def vectors(most: float = 1e9) -> st.SearchStrategy[Vector]:
    """Numbers of all sizes, some of them below what the fold resolves."""
    return arrays(np.float32, SIZE, elements=st.floats(-most, most, width=32))


def in_1024ths(numbers: np.ndarray[Any, np.dtype[np.int32]]) -> Vector:
    return (numbers / 1024).astype(np.float32)


def grid_vectors(most: int = 2**15) -> st.SearchStrategy[Vector]:
    """Multiples of 1/1024, whose sums and differences are exact in float32."""
    return arrays(np.int32, SIZE, elements=st.integers(-most, most)).map(in_1024ths)


weights = st.floats(2.0**-20, 2.0**28)
counts = st.integers(1, 10_000)
weighted = st.lists(st.tuples(vectors(), weights), min_size=1, max_size=8)
claims = st.builds(
    Claim,
    examples=st.integers(1, 1_000_000),
    metrics=st.fixed_dictionaries({"accuracy": st.floats(0.0, 1.0)}),
    staleness=st.integers(0, 3),
)
updates = st.lists(st.builds(Update, vectors(1e6), claims), min_size=1, max_size=6)


def folded(reducer: Reducer[State], pairs: Sequence[tuple[Vector, float]]) -> State:
    size = pairs[0][0].size
    state = reducer.zero(LAYOUT if size == SIZE else Layout((Variable("w", (size,)),)))
    for delta, weight in pairs:
        reducer.add(state, delta, weight)
    return state


def result(
    reducer: Reducer[Any], pairs: Sequence[tuple[Vector, float]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    return reducer.result(folded(reducer, pairs))


def absorbed(rule: Rule, items: Sequence[Update]) -> Fold:
    fold = rule.zero(LAYOUT)
    for update in items:
        rule.absorb(fold, update.delta, update.claim)
    return fold


# Reducers


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_order_changes_no_bit(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], data: st.DataObject
) -> None:
    state, shuffled = folded(reducer, pairs), folded(reducer, data.draw(st.permutations(pairs)))
    assert reducer.dump(state) == reducer.dump(shuffled)
    assert reducer.result(state).tobytes() == reducer.result(shuffled).tobytes()


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_grouping_changes_no_bit(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], data: st.DataObject
) -> None:
    groups = [folded(reducer, [pair]) for pair in pairs]
    while len(groups) > 1:
        right = groups.pop(data.draw(st.integers(0, len(groups) - 1)))
        left = groups.pop(data.draw(st.integers(0, len(groups) - 1)))
        groups.append(reducer.merge(left, right))
    assert reducer.dump(groups[0]) == reducer.dump(folded(reducer, pairs))


@every_reducer
@many
@given(pairs=weighted)
def test_merging_with_nothing_changes_nothing(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]]
) -> None:
    state = folded(reducer, pairs)
    for merged in (reducer.merge(state, reducer.zero(LAYOUT)), reducer.merge(reducer.zero(LAYOUT), state)):
        assert reducer.dump(merged) == reducer.dump(state)


@every_reducer
@many
@given(pairs=weighted, more=weighted)
def test_merging_leaves_both_sides_as_they_were(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], more: list[tuple[Vector, float]]
) -> None:
    left, right = folded(reducer, pairs), folded(reducer, more)
    before = reducer.dump(left), reducer.dump(right)
    merged = reducer.merge(left, right)
    reducer.add(merged, *pairs[0])
    assert (reducer.dump(left), reducer.dump(right)) == before


@every_reducer
@many
@given(pairs=weighted, more=weighted)
def test_a_fold_goes_on_from_its_bytes(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], more: list[tuple[Vector, float]]
) -> None:
    state = folded(reducer, pairs)
    resumed = reducer.load(reducer.dump(state), LAYOUT)
    for delta, weight in more:
        reducer.add(state, delta, weight)
        reducer.add(resumed, delta, weight)
    assert reducer.dump(resumed) == reducer.dump(state)
    assert reducer.total(resumed) == reducer.total(state)


@every_reducer
@many
@given(pairs=weighted)
def test_asking_for_the_result_changes_nothing(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]]
) -> None:
    state = folded(reducer, pairs)
    first = reducer.result(state)
    reducer.add(state, *pairs[0])
    assert reducer.dump(state) == reducer.dump(folded(reducer, [*pairs, pairs[0]]))
    assert first.tobytes() == result(reducer, pairs).tobytes()


@every_reducer
@many
@given(pairs=weighted)
def test_the_result_lies_between_the_extremes(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]]
) -> None:
    deltas = np.array([delta for delta, _ in pairs], np.float64)
    weakest = min(weight for _, weight in pairs)
    slack = 2.0**-79 / weakest + 2.0**-50 * np.abs(deltas).max(
        axis=0
    )  # the last unit, and float64's rounding
    found = result(reducer, pairs)
    assert np.all(found >= deltas.min(axis=0) - slack)
    assert np.all(found <= deltas.max(axis=0) + slack)


@every_reducer
@many
@given(pairs=st.lists(st.tuples(grid_vectors(), counts), min_size=1, max_size=8), shift=grid_vectors())
def test_the_result_moves_with_a_shift(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], shift: Vector
) -> None:
    moved = result(reducer, [(delta + shift, weight) for delta, weight in pairs])
    np.testing.assert_allclose(moved, result(reducer, pairs) + shift, rtol=0, atol=2.0**-44)


@every_reducer
@many
@given(pairs=st.lists(st.tuples(grid_vectors(), counts), min_size=1, max_size=8), power=st.integers(-8, 8))
def test_the_result_scales_by_powers_of_two_to_the_bit(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], power: int
) -> None:
    scale = np.float32(2.0**power)
    scaled = result(reducer, [(delta * scale, weight) for delta, weight in pairs])
    assert scaled.tobytes() == (result(reducer, pairs) * scale).tobytes()


@every_reducer
@many
@given(pairs=weighted)
def test_the_result_changes_sign_with_the_deltas(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]]
) -> None:
    negated = result(reducer, [(-delta, weight) for delta, weight in pairs])
    np.testing.assert_array_equal(negated.astype(np.float32), -result(reducer, pairs).astype(np.float32))


@every_reducer
@many
@given(delta=vectors(), weight=weights, devices=st.integers(1, 9))
def test_equal_deltas_reduce_to_themselves(
    reducer: Reducer[Any], delta: Vector, weight: float, devices: int
) -> None:
    delta[np.abs(delta) * weight < 2.0**-32] = 0.0  # below, the fold may round
    found = result(reducer, [(delta, min(weight * (1 + k / 10), 2.0**28)) for k in range(devices)])
    np.testing.assert_array_equal(found.astype(np.float32), delta)


@every_reducer
@many
@given(pairs=weighted, data=st.data())
def test_what_is_refused_leaves_no_trace(
    reducer: Reducer[Any], pairs: list[tuple[Vector, float]], data: st.DataObject
) -> None:
    state = folded(reducer, pairs)
    before = reducer.dump(state)
    bad = pairs[0][0].copy()
    bad[data.draw(st.integers(0, SIZE - 1))] = data.draw(
        st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30])
    )
    good = pairs[0][0]
    for delta, weight in (
        (bad, 1.0),
        (good, 0.0),
        (good, -1.0),
        (good, 1e12),
        (good, np.nan),
        (good, np.inf),
    ):
        with pytest.raises(Refused):
            reducer.add(state, delta, weight)
    assert reducer.dump(state) == before


@every_reducer
def test_a_thousand_devices_over_several_blocks(reducer: Reducer[Any]) -> None:
    """Large and small blocks side by side, forwards and in two backward halves."""
    size = 2 * 16_384 + 5
    rng = np.random.default_rng(7)
    scales = np.repeat([1e-6, 1e8, 0.0], [16_384, 16_384, 5])
    stock = [(rng.standard_normal(size) * scales).astype(np.float32) for _ in range(10)]
    pairs = [(stock[k % 10], float(1 + k)) for k in range(1000)]
    whole = folded(reducer, pairs)
    halves = reducer.merge(folded(reducer, pairs[:499:-1]), folded(reducer, pairs[499::-1]))
    assert reducer.dump(whole) == reducer.dump(halves)
    expected = np.average(
        np.array(stock, np.float64), axis=0, weights=[sum(range(k + 1, 1001, 10)) for k in range(10)]
    )
    np.testing.assert_allclose(reducer.result(whole), expected, rtol=1e-9, atol=1e-20)


# Rules


@every_rule
@few
@given(items=updates, data=st.data())
def test_order_and_grouping_change_no_bit_of_the_outcome(
    rule: Rule, items: list[Update], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(items))
    cut = data.draw(st.integers(0, len(items)))
    whole = absorbed(rule, items)
    parts = rule.merge(absorbed(rule, shuffled[:cut]), absorbed(rule, shuffled[cut:]))
    assert rule.dump(whole) == rule.dump(parts)
    model = np.linspace(-1, 1, SIZE, dtype=np.float32)
    left, right = rule.finish(whole, model), rule.finish(parts, model)
    assert left.model.tobytes() == right.model.tobytes()
    assert left.measurements == right.measurements
    assert {name: vector.tobytes() for name, vector in left.memory.items()} == {
        name: vector.tobytes() for name, vector in right.memory.items()
    }


@every_rule
@few
@given(items=updates)
def test_a_rules_fold_goes_on_from_its_bytes(rule: Rule, items: list[Update]) -> None:
    fold = absorbed(rule, items)
    again = rule.load(rule.dump(fold), LAYOUT)
    rule.absorb(fold, items[0].delta, items[0].claim)
    rule.absorb(again, items[0].delta, items[0].claim)
    assert rule.dump(again) == rule.dump(fold)
    assert again.tally == fold.tally


@every_rule
@few
@given(update=st.builds(Update, grid_vectors(500), claims), devices=st.integers(1, 7))
def test_one_model_from_every_device_averages_to_itself(rule: Rule, update: Update, devices: int) -> None:
    if not isinstance(rule.step, Replace):
        return
    model = np.linspace(-1, 1, SIZE, dtype=np.float32)
    outcome = rule.finish(absorbed(rule, [update] * devices), model)
    np.testing.assert_array_equal(outcome.model, model + update.delta)
    assert outcome.measurements["updates"] == devices


def bad_vectors() -> dict[str, Any]:
    fine = np.ones(SIZE, np.float32)
    spoilt = {name: fine.copy() for name in ("nan", "inf", "minus inf")}
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus inf", -np.inf)):
        spoilt[name][-1] = value
    return {
        "short": fine[:-1],
        "long": np.ones(SIZE + 1, np.float32),
        "one number": np.float32(1.0).reshape(()),
        "one number, broadcastable": fine[:1],
        "a row": fine[None, :],
        "a column": fine[:, None],
        "empty": fine[:0],
        "float64": fine.astype(np.float64),
        "integers": fine.astype(np.int32),
        "other byte order": fine.astype(fine.dtype.newbyteorder()),
        **spoilt,
    }


@every_rule
@pytest.mark.parametrize("name", bad_vectors())
def test_a_bad_vector_is_refused_and_leaves_no_trace(rule: Rule, name: str) -> None:
    claim = Claim(examples=5, metrics={"accuracy": 0.5})
    fold = absorbed(rule, [Update(np.ones(SIZE, np.float32), claim)])
    before = rule.dump(fold)
    with pytest.raises(Refused):
        rule.absorb(fold, bad_vectors()[name], claim)
    assert rule.dump(fold) == before
    assert fold.count == 1


BAD_CLAIMS = [
    Claim(examples=0, metrics={"accuracy": 0.5}),
    Claim(examples=-7, metrics={"accuracy": 0.5}),
    Claim(examples=10**12, metrics={"accuracy": 0.5}),
    Claim(examples=5),
    *(Claim(examples=5, metrics={"accuracy": value}) for value in (np.nan, np.inf, -np.inf, -0.1, 1e12)),
]


@every_rule
@pytest.mark.parametrize("claim", BAD_CLAIMS, ids=str)
def test_a_bad_claim_leaves_no_trace_where_it_is_refused_and_no_harm_where_not(
    rule: Rule, claim: Claim
) -> None:
    ones = np.ones(SIZE, np.float32)
    fold = absorbed(rule, [Update(ones, Claim(examples=5, metrics={"accuracy": 0.5}))])
    before = rule.dump(fold)
    try:
        taken = rule.absorb(fold, -ones, claim)
    except Refused:
        assert rule.dump(fold) == before
    else:
        assert 0 < taken.weight <= 1_000_000


@every_rule
@few
@given(items=updates)
def test_nothing_that_comes_in_is_changed(rule: Rule, items: list[Update]) -> None:
    model = np.linspace(-1, 1, SIZE, dtype=np.float32)
    memory = rule.finish(absorbed(rule, items), model).memory
    frozen = [model, *memory.values(), *(update.delta for update in items)]
    for vector in frozen:
        vector.flags.writeable = False
    fold = rule.zero(LAYOUT, memory)
    for update in items:
        rule.absorb(fold, update.delta, update.claim)
    rule.finish(fold, model)
