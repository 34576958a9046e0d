"""Laws of every rule, over rules made of every part of every table; those of reducers are in test_rules_reducers.py.

A new part inherits them by its row in a table. It must be made without arguments to be tried here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmq.errors import Refused
from fedmq.rules import (
    GUARDS,
    PRESETS,
    REDUCERS,
    STEPS,
    WEIGHERS,
    AnyRule,
    ByCluster,
    ByLayer,
    BySchedule,
    Claim,
    Fold,
    Guard,
    NormBound,
    Part,
    Plateau,
    RelativeNormBound,
    Replace,
    Rule,
    Similarity,
    Stage,
    preset,
)
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


OPEN: dict[type[Guard], Guard] = {
    NormBound: NormBound(1e9),
    RelativeNormBound: RelativeNormBound(1e9),
    Similarity: Similarity(-1.0),
}
WIDE = [OPEN.get(cls) or cls() for cls in GUARDS.values()]
"""Every guard; none refuses what these laws draw."""

METRICS = ("accuracy", "loss", "variance")
"""What devices report here: enough for every weigher."""


def combined() -> Iterator[Rule]:
    """Every part of every table: each weigher with the mean, each reducer with equal weights, and in turn with others.

    All products would be thousands. Weighers and reducers meet in weights alone, guards and steps do not meet at all.
    """
    guards, steps = itertools.cycle(WIDE), itertools.cycle(STEPS.values())
    unequal = itertools.cycle(weigher for weigher in WEIGHERS.values() if not weigher().uniform)
    for weigher, reducer in itertools.chain(
        zip(WEIGHERS.values(), itertools.repeat(REDUCERS["mean"]), strict=False),
        zip(itertools.repeat(WEIGHERS["uniform"]), REDUCERS.values(), strict=False),
        zip(unequal, (cls for cls in REDUCERS.values() if not cls().unweighted), strict=False),
    ):
        yield Rule((next(guards),), weigher(), reducer(), next(steps)())


def nested() -> Iterator[AnyRule]:
    """Rules made of rules, and these of such again."""
    parts = Part(("kernel",), preset("fedadam")), Part(("variance",), preset("average"))
    layers = ByLayer(parts, preset("hybrid"))
    yield layers
    schedule = BySchedule((Stage(layers, plateau=Plateau(patience=1)), Stage(preset("fedavgm"))))
    yield schedule
    yield ByLayer((Part(("bias", "variance"), schedule_of_averages()),))
    yield ByCluster(schedule, models=1)


def schedule_of_averages() -> AnyRule:
    return BySchedule((Stage(preset("average"), rounds=1), Stage(preset("fedavg"))))


RULES = list(dict.fromkeys([*combined(), *PRESETS.values(), *nested()]))

# Each rule law runs for each of dozens of rules, so a few examples of each make hundreds.
few = settings(max_examples=6, deadline=None)

every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


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


claims = st.builds(
    Claim,
    examples=st.integers(1, 1_000_000),
    metrics=st.fixed_dictionaries(dict.fromkeys(METRICS, st.floats(0.0, 1.0))),
    staleness=st.integers(0, 3),
)
updates = st.lists(st.builds(Update, vectors(1e3), claims), min_size=1, max_size=6)


def absorbed(rule: AnyRule, items: Sequence[Update]) -> Fold:
    fold = rule.zero(LAYOUT)
    for update in items:
        rule.absorb(fold, update.delta, update.claim)
    return fold


@every_rule
@few
@given(items=updates, data=st.data())
def test_order_and_grouping_change_no_bit_of_the_outcome(
    rule: AnyRule, items: list[Update], data: st.DataObject
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
def test_a_rules_fold_goes_on_from_its_bytes(rule: AnyRule, items: list[Update]) -> None:
    fold = absorbed(rule, items)
    again = rule.load(rule.dump(fold), LAYOUT)
    rule.absorb(fold, items[0].delta, items[0].claim)
    rule.absorb(again, items[0].delta, items[0].claim)
    assert rule.dump(again) == rule.dump(fold)
    assert again.tally == fold.tally


@every_rule
@few
@given(update=st.builds(Update, grid_vectors(500), claims), devices=st.integers(1, 7))
def test_one_model_from_every_device_averages_to_itself(rule: AnyRule, update: Update, devices: int) -> None:
    if not isinstance(rule, Rule) or rule.step != Replace() or not rule.reduce.traits.between:
        return
    model = np.linspace(-1, 1, SIZE, dtype=np.float32)
    outcome = rule.finish(absorbed(rule, [update] * devices), model)
    if outcome.measurements["changed_share"]:
        return
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
def test_a_bad_vector_is_refused_and_leaves_no_trace(rule: AnyRule, name: str) -> None:
    claim = Claim(examples=5, metrics=dict.fromkeys(METRICS, 0.5))
    fold = absorbed(rule, [Update(np.ones(SIZE, np.float32), claim)])
    before = rule.dump(fold)
    with pytest.raises(Refused):
        rule.absorb(fold, bad_vectors()[name], claim)
    assert rule.dump(fold) == before
    assert fold.count == 1


BAD_CLAIMS = [
    *(Claim(examples=count, metrics=dict.fromkeys(METRICS, 0.5)) for count in (0, -7, 10**12)),
    Claim(examples=5),
    *(
        Claim(examples=5, metrics=dict.fromkeys(METRICS, value))
        for value in (np.nan, np.inf, -np.inf, -0.1, 1e12)
    ),
]


@every_rule
@pytest.mark.parametrize("claim", BAD_CLAIMS, ids=str)
def test_a_bad_claim_leaves_no_trace_where_it_is_refused_and_no_harm_where_not(
    rule: AnyRule, claim: Claim
) -> None:
    ones = np.ones(SIZE, np.float32)
    fold = absorbed(rule, [Update(ones, Claim(examples=5, metrics=dict.fromkeys(METRICS, 0.5)))])
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
def test_nothing_that_comes_in_is_changed(rule: AnyRule, items: list[Update]) -> None:
    model = np.linspace(-1, 1, SIZE, dtype=np.float32)
    memory = rule.finish(absorbed(rule, items), model).memory
    frozen = [model, *memory.values(), *(update.delta for update in items)]
    for vector in frozen:
        vector.flags.writeable = False
    fold = rule.zero(LAYOUT, memory)
    for update in items:
        rule.absorb(fold, update.delta, update.claim)
    rule.finish(fold, model)
