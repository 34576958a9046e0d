"""Laws of rules made of rules: where their parts are equal, they are the part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmq.rules import (
    REDUCERS,
    AnyRule,
    ByCluster,
    ByLayer,
    BySchedule,
    Claim,
    Mean,
    Memory,
    Momentum,
    Outcome,
    Part,
    Plateau,
    Rule,
    Stage,
    preset,
)
from fedmq.rules.memory import scoped
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
ROUNDS = 3

COORDINATEWISE = [
    Rule((), reduce=REDUCERS[kind]()) for kind in ("mean", "median", "trimmed_mean", "mean_around_median")
]
SLOTTED = [*COORDINATEWISE, preset("fedavgm"), preset("fedadam"), preset("hybrid")]
NAMED = ["fedavg", "fedavgm", "fedyogi", "hybrid", "clipped", "robust", "centred"]

some = settings(max_examples=15, deadline=None)
claims = st.builds(
    Claim,
    examples=st.integers(1, 1_000),
    metrics=st.fixed_dictionaries({"accuracy": st.floats(0.1, 1.0)}),
)
vectors = arrays(np.float32, SIZE, elements=st.floats(-100, 100, width=32))
rounds = st.lists(
    st.lists(st.tuples(vectors, claims), min_size=1, max_size=5), min_size=ROUNDS, max_size=ROUNDS
)
Rounds = Sequence[Sequence[tuple[Vector, Claim]]]


def played(rule: AnyRule, updates: Rounds) -> list[Outcome]:
    """Several rounds, each with what the one before remembered."""
    model, outcomes = np.linspace(-1, 1, SIZE, dtype=np.float32), list[Outcome]()
    memory: Memory = {}
    for updates_of_one in updates:
        fold = rule.zero(LAYOUT, memory)
        for delta, claim in updates_of_one:
            rule.absorb(fold, delta, claim)
        outcomes.append(rule.finish(fold, model))
        model, memory = outcomes[-1].model, outcomes[-1].memory
    return outcomes


def layered(rule: AnyRule) -> ByLayer:
    return ByLayer((Part(("kernel", "variance"), rule), Part(("b*",), rule)), rule)


@pytest.mark.parametrize("rule", SLOTTED, ids=str)
@some
@given(updates=rounds)
def test_layers_of_one_coordinate_wise_rule_are_that_rule(rule: Rule, updates: Rounds) -> None:
    for found, wanted in zip(played(layered(rule), updates), played(rule, updates), strict=True):
        assert found.model.tobytes() == wanted.model.tobytes()
        for name, figure in wanted.measurements.items():
            assert found.measurements[name] == pytest.approx(figure)


@pytest.mark.parametrize("name", NAMED)
@some
@given(updates=rounds)
def test_a_schedule_of_one_rule_is_that_rule_to_the_last_bit(name: str, updates: Rounds) -> None:
    rule = preset(name)
    schedule = BySchedule((Stage(rule, 1), Stage(rule, plateau=Plateau(patience=1)), Stage(rule)))
    for found, wanted in zip(played(schedule, updates), played(rule, updates), strict=True):
        assert found.model.tobytes() == wanted.model.tobytes()
        assert_same(scoped(found.memory, "rule."), wanted.memory)


@pytest.mark.parametrize("name", NAMED)
@some
@given(updates=rounds)
def test_a_cluster_of_all_is_the_rule_to_the_last_bit(name: str, updates: Rounds) -> None:
    rule = preset(name)
    for found, wanted in zip(played(ByCluster(rule, models=1), updates), played(rule, updates), strict=True):
        assert found.model.tobytes() == wanted.model.tobytes()
        assert_same(scoped(found.memory, "models.0."), wanted.memory)


def assert_same(found: Memory, wanted: Memory) -> None:
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }


@some
@given(updates=rounds)
def test_they_nest(updates: Rounds) -> None:
    """A schedule of layers of schedules of one rule is the rule."""
    rule = Rule(reduce=Mean(), step=Momentum())
    inner = layered(BySchedule((Stage(rule, 2), Stage(rule))))
    outer = BySchedule((Stage(inner, 1), Stage(inner)))
    for found, wanted in zip(played(outer, updates), played(rule, updates), strict=True):
        assert found.model.tobytes() == wanted.model.tobytes()


@pytest.mark.parametrize(
    "rule", [layered(preset("fedavgm")), BySchedule((Stage(preset("hybrid")),))], ids=repr
)
@some
@given(updates=rounds)
def test_a_restart_in_the_middle_of_a_round_changes_no_bit(rule: AnyRule, updates: Rounds) -> None:
    *before, last = updates
    memory = played(rule, before)[-1].memory
    whole, resumed = rule.zero(LAYOUT, memory), rule.zero(LAYOUT, memory)
    for delta, claim in last:
        rule.absorb(whole, delta, claim)
        rule.absorb(resumed, delta, claim)
        resumed = rule.load(rule.dump(resumed), LAYOUT, memory)
    model = np.zeros(SIZE, np.float32)
    first, second = rule.finish(whole, model), rule.finish(resumed, model)
    assert first.model.tobytes() == second.model.tobytes()
    assert_same(first.memory, second.memory)
    assert first.measurements == second.measurements
