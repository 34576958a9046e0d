"""By layer: who gets what, all or nothing, each part with a memory of its own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from fedmq.errors import ConfigError, DecodeError, MisuseError, Refused
from fedmq.rules import (
    ByLayer,
    BySchedule,
    Claim,
    Fold,
    Momentum,
    NormClip,
    Part,
    Replace,
    Rule,
    Stage,
    preset,
)
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout(
    (
        Variable("conv/kernel", (2,)),
        Variable("norm/mean", (2,), kind="statistic"),
        Variable("conv/bias", (1,)),
        Variable("mine/kernel", (7,), scope="personal"),
        Variable("head/kernel", (2,)),
        Variable("head/bias", (1,)),
    )
)
CONV, NORM, HEAD = [0, 1, 4], [2, 3], [5, 6, 7]
MODEL = np.arange(8, dtype=np.float32)
HALF, SAME = Rule(step=Replace(0.5)), Rule()
RULE = ByLayer((Part(("conv/*",), HALF), Part(("head/*",), Rule(step=Momentum()))), SAME)


def absorbed(rule: ByLayer, *deltas: Vector, fold: Fold | None = None) -> Fold:
    fold = fold or rule.zero(LAYOUT)
    for delta in deltas:
        rule.absorb(fold, delta, Claim(3))
    return fold


def ones() -> Vector:
    return np.ones(8, np.float32)


def test_each_part_moves_by_its_own_rule() -> None:
    outcome = RULE.finish(absorbed(RULE, ones(), 3 * ones()), MODEL)
    moved = outcome.model - MODEL
    np.testing.assert_array_equal(moved[CONV], 1)
    np.testing.assert_array_equal(moved[NORM], 2)
    np.testing.assert_array_equal(moved[HEAD], 2)


def test_each_part_remembers_for_itself() -> None:
    first = RULE.finish(absorbed(RULE, ones()), MODEL)
    assert {name: array.shape for name, array in first.memory.items()} == {"parts.1.step.velocity": (3,)}
    second = RULE.finish(absorbed(RULE, ones(), fold=RULE.zero(LAYOUT, first.memory)), first.model)
    np.testing.assert_allclose((second.model - first.model)[HEAD], 1.9, rtol=1e-6)


def test_the_figures_are_the_whole_s_and_each_part_s() -> None:
    found = RULE.finish(absorbed(RULE, ones(), 3 * ones()), MODEL).measurements
    assert found["updates"] == found["weight"] == 2.0
    assert found["norm_mean"] == pytest.approx(2 * 6**0.5)
    assert found["norm_max"] == pytest.approx(3 * 6**0.5)
    assert found["delta_norm"] == pytest.approx(2 * 6**0.5)
    assert found["step_norm"] == pytest.approx((3 * 1 + 3 * 4) ** 0.5)
    assert found["parts.0.step_norm"] == pytest.approx(3**0.5)
    assert found["default.updates"] == 2.0


def test_a_part_s_guard_measures_its_part_alone() -> None:
    rule = replace(RULE, parts=(Part(("conv/*",), Rule((NormClip(1.0),))), RULE.parts[1]))
    fold = rule.zero(LAYOUT)
    taken = rule.absorb(fold, ones(), Claim(3))
    assert taken.changed
    assert taken.norm == pytest.approx(2.0)
    outcome = rule.finish(fold, MODEL)
    np.testing.assert_allclose((outcome.model - MODEL)[CONV], 3**-0.5, rtol=1e-6)
    np.testing.assert_array_equal((outcome.model - MODEL)[HEAD], 1)
    assert outcome.measurements["changed_share"] == 1.0


@pytest.mark.parametrize(("place", "name"), [(0, "conv/*"), (2, "others"), (7, "head/*")])
def test_one_part_refuses_for_all(place: int, name: str) -> None:
    fold = absorbed(RULE, ones())
    before = RULE.dump(fold)
    bad = ones()
    bad[place] = np.nan
    with pytest.raises(Refused, match=f"layers {re.escape(name)}: update holds 1 of"):
        RULE.absorb(fold, bad, Claim(3))
    assert RULE.dump(fold) == before


def test_a_step_that_diverges_is_refused_with_its_part() -> None:
    rule = replace(RULE, parts=(RULE.parts[0], Part(("head/*",), Rule(step=Replace(1e30)))))
    with pytest.raises(Refused, match=r"layers head/\*: step would leave"):
        rule.finish(absorbed(rule, np.full(8, 2.0**30, np.float32)), MODEL)


def test_the_first_part_that_matches_takes_a_variable() -> None:
    rule = ByLayer((Part(("conv/bias", "*/mean"), HALF), Part(("*",), SAME)))
    moved = rule.finish(absorbed(rule, ones()), MODEL).model - MODEL
    np.testing.assert_array_equal(moved, [1, 1, 1, 1, 0.5, 1, 1, 1])  # a statistic is averaged under any rate


@pytest.mark.parametrize(
    ("match", "sentence"),
    [
        (("haed/kernel",), "matches no variable of the model: did you mean 'head/kernel'?"),
        (("xyz",), "the model has conv/kernel, norm/mean, conv/bias, head/kernel, head/bias"),
        (("mine/*",), "matches no variable"),
        (("conv/bias",), "parts before it have taken: put the narrower part first"),
    ],
)
def test_patterns_that_take_nothing_are_named(match: tuple[str, ...], sentence: str) -> None:
    rule = ByLayer((Part(("conv/*",), HALF), Part(match, SAME)))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        rule.zero(LAYOUT)


def test_a_rule_without_parts_or_patterns_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="no parts"):
        ByLayer(())
    with pytest.raises(ConfigError, match="no pattern"):
        Part((), SAME)


def test_variables_without_numbers_are_left_out() -> None:
    layout = Layout((Variable("none", (0,)), Variable("w", (2,))))
    rule = ByLayer((Part(("w",), SAME),), preset("fedadam"))
    fold = rule.zero(layout)
    rule.absorb(fold, np.ones(2, np.float32), Claim(1))
    np.testing.assert_array_equal(rule.finish(fold, np.zeros(2, np.float32)).model, 1)


def test_the_model_to_serve_is_put_together() -> None:
    np.testing.assert_array_equal(RULE.serving(MODEL, {}, LAYOUT), MODEL)


def test_folds_and_models_of_another_layout_are_refused() -> None:
    other = Layout((*LAYOUT.variables, Variable("head/more", (1,))))
    with pytest.raises(MisuseError, match="different models"):
        RULE.merge(RULE.zero(LAYOUT), RULE.zero(other))
    with pytest.raises(MisuseError, match="model is float32 of shape"):
        RULE.finish(absorbed(RULE, ones()), MODEL[:-1])
    for wrong in (ones()[:-1], np.ones(9, np.float32)):
        with pytest.raises(Refused, match="was the device built for another model"):
            RULE.absorb(RULE.zero(LAYOUT), wrong, Claim(3))


def test_bytes_of_other_parts_or_damaged_ones_are_refused() -> None:
    data = RULE.dump(absorbed(RULE, ones()))
    other = ByLayer((Part(("conv/*",), HALF),), SAME)
    with pytest.raises(DecodeError, match="another rule"):
        other.load(data, LAYOUT)
    more = RULE.dump(absorbed(RULE, ones(), ones()))
    head = 8 + 32
    with pytest.raises(DecodeError, match="do not hold 2 updates each"):
        RULE.load(more[:head] + data[head:], LAYOUT)
    with pytest.raises(DecodeError):
        RULE.load(data[:head], LAYOUT)
    with pytest.raises(DecodeError, match="do not hold"):
        RULE.load(data + bytes(8), LAYOUT)


def test_it_prints_on_one_line() -> None:
    assert str(ByLayer((Part(("a*", "b"), SAME),), BySchedule((Stage(SAME),)))) == (
        f"by layer: a*, b: ({SAME}); others: (by schedule: ({SAME}) for good)"
    )
