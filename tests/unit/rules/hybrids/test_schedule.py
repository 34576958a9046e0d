"""By schedule: whose turn it is, what the next one takes over, and that a restart changes nothing."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmq.errors import ConfigError, DecodeError, MisuseError
from fedmq.rules import (
    Adam,
    AnyRule,
    Blend,
    ByExamples,
    ByLayer,
    BySchedule,
    Claim,
    Finite,
    Fold,
    Memory,
    Momentum,
    NormClip,
    Part,
    Plateau,
    Replace,
    Rule,
    Stage,
)
from fedmq.rules.hybrids.carry import alike, carried
from fedmq.rules.hybrids.plateau import Readings
from fedmq.rules.memory import as_figure
from fedmq.rules.steps import ModelAverage
from fedmq.vectors import Layout, Variable

LAYOUT = Layout((Variable("w", (2,)),))
ONES = np.ones(2, np.float32)
FULL, HALF, TENTH = Rule(), Rule(step=Replace(0.5)), Rule(step=Replace(0.1))
TURNS = BySchedule((Stage(FULL, rounds=2), Stage(HALF, rounds=1), Stage(TENTH)))


def run(rule: AnyRule, accuracies: list[float | None]) -> list[float]:
    """How far each round moves a model by deltas of one, where devices report these figures."""
    model, moves = np.zeros(2, np.float32), []
    memory: Memory = {}
    for accuracy in accuracies:
        fold = rule.zero(LAYOUT, memory)
        rule.absorb(fold, ONES, Claim(1, metrics={} if accuracy is None else {"accuracy": accuracy}))
        fold = rule.load(rule.dump(fold), LAYOUT, memory)  # a restart in the middle of every round
        outcome = rule.finish(fold, model)
        moves.append(round(float(outcome.model[0] - model[0]), 3))
        model, memory = outcome.model, outcome.memory
    return moves


def test_stages_take_turns_by_rounds() -> None:
    assert run(TURNS, [None] * 5) == [1, 1, 0.5, 0.1, 0.1]


def test_a_plateau_ends_a_stage() -> None:
    rule = BySchedule((Stage(FULL, plateau=Plateau(patience=2, min_delta=0.05)), Stage(HALF)))
    assert run(rule, [0.1, 0.2, 0.24, 0.2, 0.9]) == [1, 1, 1, 1, 0.5]
    assert run(rule, [0.1, 0.2, 0.24, 0.26, 0.3, 0.3, 0.3]) == [1, 1, 1, 1, 1, 1, 0.5]


def test_rounds_without_reports_count_neither_way() -> None:
    rule = BySchedule((Stage(FULL, plateau=Plateau(patience=1)), Stage(HALF)))
    assert run(rule, [0.5, None, math.nan, None, 0.5, 0.5]) == [1, 1, 1, 1, 1, 0.5]


def test_rounds_and_a_plateau_whichever_is_first() -> None:
    stage = Stage(FULL, rounds=3, plateau=Plateau(patience=1))
    rule = BySchedule((stage, Stage(HALF)))
    assert run(rule, [0.1, 0.2, 0.3, 0.4]) == [1, 1, 1, 0.5]
    assert run(rule, [0.1, 0.1, 0.3, 0.4]) == [1, 1, 0.5, 0.5]


def test_a_loss_is_better_when_it_is_lower() -> None:
    plateau = Plateau("loss", lower_is_better=True)
    assert plateau.better(0.1, 0.2)
    assert not plateau.better(0.2, 0.1)


def test_the_stage_is_told_and_the_clock_remembered() -> None:
    fold = TURNS.zero(LAYOUT)
    TURNS.absorb(fold, ONES, Claim(1))
    outcome = TURNS.finish(fold, np.zeros(2, np.float32))
    assert outcome.measurements["stage"] == 1.0
    assert {name: float(array[0]) for name, array in outcome.memory.items()} == {
        "stage": 0.0,
        "rounds": 1.0,
        "waited": 0.0,
    }


def test_a_schedule_that_was_made_shorter_goes_on_with_its_last_stage() -> None:
    memory = {"stage": as_figure(7.0)}
    rule = BySchedule((Stage(FULL, rounds=1), Stage(HALF)))
    fold = rule.zero(LAYOUT, memory)
    rule.absorb(fold, ONES, Claim(1))
    np.testing.assert_array_equal(rule.finish(fold, np.zeros(2, np.float32)).model, 0.5)


def remembered() -> Memory:
    return {"guards.0.level": as_figure(3.0), "guards.1.level": as_figure(4.0), "step.velocity": ONES}


def test_a_velocity_outlives_a_change_of_rate_and_of_nothing_else() -> None:
    old = Rule((NormClip(), Finite()), step=Momentum())
    memory = remembered()
    assert set(carried(memory, old, Rule((NormClip(3.0), NormClip()), step=Momentum(0.1)))) == {
        "guards.0.level",
        "step.velocity",
    }
    assert set(carried(memory, old, Rule((Finite(),), step=Adam()))) == set()
    assert set(carried(memory, old, Rule(()))) == set()


def test_a_reducer_s_memory_goes_to_one_of_its_kind_with_as_many_lanes() -> None:
    memory = {"reduce.0.center": ONES}
    assert carried(memory, FULL, Rule(weigh=ByExamples())) == memory
    assert carried(memory, FULL, Rule(weigh=Blend())) == {}


def test_rules_made_of_rules_take_over_all_or_nothing() -> None:
    one, two = ByLayer((Part(("w",), FULL),)), ByLayer((Part(("w",), HALF),))
    memory = {"parts.0.step.velocity": ONES}
    assert carried(memory, one, one) == memory
    assert carried(memory, one, two) == {}
    assert carried(memory, FULL, one) == {}


def test_parts_are_alike_all_the_way_down() -> None:
    assert alike(Rule(step=Momentum()), Rule(step=Momentum(0.5)))
    assert not alike(Rule(step=Momentum()), Rule(step=Adam()))
    assert not alike((Finite(),), (Finite(), Finite()))
    assert not alike((Finite(),), Finite())
    assert alike(3, 4.5)


def test_the_model_to_serve_is_the_next_stage_s_word() -> None:
    kept = {"rule.step.average": 3 * ONES, "rule.step.rounds": as_figure(1.0)}
    averaged = BySchedule((Stage(Rule(step=ModelAverage()), rounds=1), Stage(FULL)))
    np.testing.assert_array_equal(averaged.serving(ONES, kept, LAYOUT), 3)
    np.testing.assert_array_equal(averaged.serving(ONES, {**kept, "stage": as_figure(1.0)}, LAYOUT), 1)


def test_equal_stages_are_one_rule() -> None:
    momentum = Rule(step=Momentum())
    rule = BySchedule((Stage(momentum, rounds=1), Stage(momentum, rounds=2), Stage(momentum)))
    assert run(rule, [None] * 6) == run(momentum, [None] * 6)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BySchedule(()), "no stages"),
        (lambda: BySchedule((Stage(FULL), Stage(HALF))), "stage 1 never ends"),
        (lambda: BySchedule((Stage(FULL, rounds=1),)), "the last stage has an end"),
        (lambda: Stage(FULL, rounds=-1), "rounds -1"),
        (lambda: Plateau(patience=0), "patience 0"),
        (lambda: Plateau(min_delta=math.nan), "min_delta nan"),
    ],
)
def test_schedules_that_cannot_be_are_refused(make: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()  # type: ignore[operator]


def begun(stage: int) -> Fold:
    fold = TURNS.zero(LAYOUT, {"stage": as_figure(float(stage))})
    TURNS.absorb(fold, ONES, Claim(1))
    return fold


def test_a_fold_belongs_to_its_stage() -> None:
    with pytest.raises(MisuseError, match="different stages"):
        TURNS.merge(begun(0), begun(1))
    with pytest.raises(DecodeError, match="another rule"):
        TURNS.load(TURNS.dump(begun(0)), LAYOUT, begun(1).memory)


def test_damaged_bytes_are_refused() -> None:
    data = TURNS.dump(begun(0))
    with pytest.raises(DecodeError, match="3 lanes, 2 are wanted"):
        TURNS.load(data + bytes(8), LAYOUT)
    with pytest.raises(DecodeError, match=r"counts Tally\(count=2"):
        TURNS.load(data[:8] + b"\2" + data[9:], LAYOUT)


@pytest.mark.parametrize(
    "data", [b"x", Readings([(0.1, 1.0), (0.2, 1.0)]).dump(), b"\xff" * 16, Readings([(0.1, 0.0)]).dump()]
)
def test_damaged_reports_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="reports"):
        Readings.load(data, 1)


def test_reports_out_of_order_are_refused() -> None:
    data = Readings([(0.1, 1.0), (0.2, 1.0)]).dump()
    with pytest.raises(DecodeError, match="out of order"):
        Readings.load(data[16:] + data[:16], 2)


reports = st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0.5, 100)), min_size=1)


@given(reports, st.data())
def test_the_median_has_half_of_the_weight_on_each_side(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    shuffled = Readings(data.draw(st.permutations(pairs)))
    found = Readings(pairs).median()
    assert found is not None
    assert shuffled.median() == found
    assert shuffled.dump() == Readings(pairs).dump()
    half = math.fsum(weight for _, weight in pairs) / 2
    assert math.fsum(w for v, w in pairs if v < found) <= half * (1 + 1e-12)
    assert math.fsum(w for v, w in pairs if v > found) <= half * (1 + 1e-12)


def test_half_of_the_weight_cannot_move_the_median_out_of_the_others() -> None:
    honest = [(0.5, 1.0), (0.6, 1.0), (0.7, 1.0)]
    assert Readings([*honest, (1e300, 1.0), (1e300, 1.0)]).median() == 0.7
    assert Readings().median() is None


def test_it_prints_on_one_line() -> None:
    assert re.fullmatch(
        r"by schedule: \(.*\) 2 rounds, then \(.*\) 1 rounds, then \(.*\) for good", str(TURNS)
    )
    both = Stage(FULL, rounds=3, plateau=Plateau("loss", 4, lower_is_better=True))
    assert str(both).endswith("3 rounds or until loss stands still for 4 rounds")
