from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fedmq.errors import ConfigError, DecodeError, MisuseError, Refused
from fedmq.rules import (
    PRESETS,
    Absorbed,
    Blend,
    ByExamples,
    Claim,
    Fold,
    Guard,
    Memory,
    Momentum,
    NormClip,
    Replace,
    Rule,
    Step,
    Uniform,
    preset,
)
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("kernel", (2,)), Variable("variance", (1,), kind="statistic")))
MODEL = np.array([1.0, 2.0, 3.0], np.float32)


def vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def absorbed(rule: Rule, *updates: tuple[tuple[float, ...], int]) -> Fold:
    fold = rule.zero(LAYOUT)
    for numbers, examples in updates:
        rule.absorb(fold, vector(*numbers), Claim(examples))
    return fold


def test_a_round_of_the_weighted_average() -> None:
    rule = preset("weighted")
    fold = absorbed(rule, ((4, 0, 8), 1), ((0, 4, 0), 3))
    outcome = rule.finish(fold, MODEL)
    np.testing.assert_array_equal(outcome.model, vector(2, 5, 5))
    assert outcome.memory == {}
    assert outcome.measurements == {
        "updates": 2.0,
        "weight": 4.0,
        "norm_mean": 4.0,
        "norm_max": 4.0,
        "changed_share": 0.0,
        "delta_norm": pytest.approx(math.sqrt(10)),
        "step_norm": pytest.approx(math.sqrt(10)),
    }


def test_what_a_guard_changes_is_counted() -> None:
    rule = Rule(guards=(NormClip(5.0),))
    fold = rule.zero(LAYOUT)
    assert rule.absorb(fold, vector(3, 4, 100), Claim(1)) == Absorbed(weight=1.0, norm=5.0, changed=False)
    assert rule.absorb(fold, vector(30, 40, 100), Claim(1)) == Absorbed(weight=1.0, norm=5.0, changed=True)
    assert rule.absorb(fold, vector(0, 1, 0), Claim(1)).changed is False
    measured = rule.finish(fold, MODEL).measurements
    assert measured["changed_share"] == pytest.approx(1 / 3)
    assert measured["norm_mean"] == pytest.approx(11 / 3, abs=1e-9)
    assert measured["norm_max"] == 5.0


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_a_blend_is_the_convex_combination_of_its_parts_means(share: float) -> None:
    blend = Rule(weigh=Blend((Uniform(), ByExamples()), (share, 1 - share)))
    updates = (((4, -1, 8), 1), ((0.3, 4, 0), 3), ((-7, 0.01, 2), 50))
    outcome = blend.finish(absorbed(blend, *updates), np.zeros(3, np.float32))
    deltas, counts = np.array([numbers for numbers, _ in updates], np.float32), [1, 3, 50]
    uniform, weighted = (np.average(deltas.astype(np.float64), axis=0, weights=w) for w in (None, counts))
    np.testing.assert_allclose(outcome.model, share * uniform + (1 - share) * weighted, rtol=2.0**-24)
    assert outcome.measurements["weight"] == pytest.approx(share * 3 + (1 - share) * 54)


def test_under_a_blend_a_weight_is_the_lanes_by_their_shares() -> None:
    rule = Rule(weigh=Blend())
    assert rule.absorb(rule.zero(LAYOUT), MODEL, Claim(9)).weight == 5.0


def test_one_lane_without_room_leaves_the_others_as_they_were() -> None:
    rule = Rule(guards=(), weigh=Blend())
    fold = absorbed(rule, ((1, 1, 1), 1))
    before = rule.dump(fold)
    with pytest.raises(Refused, match="update weighs"):
        rule.absorb(fold, MODEL, Claim(10**12))
    assert rule.dump(fold) == before


@pytest.mark.parametrize(
    ("delta", "says"),
    [
        (np.ones(2, np.float32), "holds 2 values, the model has 3: was the device built for another model"),
        (np.ones((1, 3), np.float32), r"shape \(1, 3\), one dimension of 3"),
        (np.ones(3, np.float64), "float64 numbers, float32 is wanted"),
    ],
)
def test_shape_and_dtype_are_checked_before_the_guards(delta: Vector, says: str) -> None:
    class Tripwire(Guard):
        def check(self, *_: object) -> Vector:
            raise AssertionError("a guard saw a vector that nothing had checked")

    rule = Rule(guards=(Tripwire(),))
    with pytest.raises(Refused, match=says):
        rule.absorb(rule.zero(LAYOUT), delta, Claim(1))


def test_an_empty_fold_cannot_be_finished() -> None:
    with pytest.raises(MisuseError, match="abandon the round"):
        Rule().finish(Rule().zero(LAYOUT), MODEL)


@pytest.mark.parametrize("model", [MODEL[:2], MODEL[None, :], MODEL.astype(np.float64)])
def test_a_model_of_another_layout_is_misuse(model: Vector) -> None:
    rule = Rule()
    with pytest.raises(MisuseError, match="the fold is for float32"):
        rule.finish(absorbed(rule, ((1, 1, 1), 1)), model)


def test_a_result_that_is_not_finite_is_refused_and_the_model_kept() -> None:
    rule = Rule(step=Replace(rate=1e30))
    fold, model = absorbed(rule, ((1e9, 0, 0), 1)), MODEL.copy()
    with pytest.raises(Refused, match="1 numbers of the model not finite"):
        rule.finish(fold, model)
    np.testing.assert_array_equal(model, MODEL)


class Spoiling(Step):
    """A step that moves nothing and remembers infinity."""

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        return model, {"velocity": np.full_like(model, np.inf)}


def test_a_memory_that_is_not_finite_is_refused() -> None:
    rule = Rule(step=Spoiling())
    fold = absorbed(rule, ((1, 1, 1), 1))
    with pytest.raises(Refused, match=r"3 numbers of the step\.velocity not finite"):
        rule.finish(fold, MODEL)


def test_folds_of_two_gateways_merge_into_the_whole_fleets() -> None:
    rule = preset("weighted")
    north, south = absorbed(rule, ((4, 0, 8), 1)), absorbed(rule, ((0, 4, 0), 3))
    merged = rule.merge(north, rule.load(rule.dump(south), LAYOUT))
    assert merged.count == 2
    np.testing.assert_array_equal(rule.finish(merged, MODEL).model, vector(2, 5, 5))


def test_folds_of_other_models_or_rules_do_not_merge() -> None:
    rule, other = Rule(), Layout((Variable("kernel", (3,)),))
    with pytest.raises(MisuseError, match="cannot be merged"):
        rule.merge(rule.zero(LAYOUT), rule.zero(other))
    with pytest.raises(MisuseError, match="cannot be merged"):
        rule.merge(rule.zero(LAYOUT), Rule(weigh=Blend()).zero(LAYOUT))


def test_a_fold_loads_under_another_step() -> None:
    rule = preset("fedavg")
    fold = absorbed(rule, ((1, 2, 3), 4))
    loaded = preset("fedavgm").load(rule.dump(fold), LAYOUT)
    assert loaded.tally == fold.tally
    assert loaded.count == 1


def test_a_fold_does_not_load_under_other_weights_or_another_layout() -> None:
    rule = preset("fedavg")
    data = rule.dump(absorbed(rule, ((1, 2, 3), 4)))
    other = Layout((Variable("kernel", (3,)),))
    for stranger, layout in ((preset("average"), LAYOUT), (replace(rule, guards=()), LAYOUT), (rule, other)):
        with pytest.raises(DecodeError, match="another rule or for another model"):
            stranger.load(data, layout)


def test_no_part_of_a_fold_loads() -> None:
    rule = Rule(weigh=Blend())
    data = rule.dump(absorbed(rule, ((1, 2, 3), 4)))
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            rule.load(data[:length], LAYOUT)
    with pytest.raises(DecodeError):
        rule.load(data + bytes(1), LAYOUT)
    with pytest.raises(DecodeError, match="a lane of 92 bytes, 91 are left"):
        rule.load(data[:-1], LAYOUT)
    with pytest.raises(DecodeError, match="3 lanes, the rule 2"):
        rule.load(data + bytes(8), LAYOUT)
    assert rule.dump(rule.load(data, LAYOUT)) == data


def test_a_forged_tally_does_not_load() -> None:
    rule = Rule()
    data = rule.dump(absorbed(rule, ((1, 2, 3), 4)))
    forgeries = {
        "changed": data[:12] + (2).to_bytes(4, "little") + data[16:],
        "longest": data[:32] + np.float64(np.nan).tobytes() + data[40:],
        "count": data[:8] + bytes(4) + data[12:],
    }
    for forgery in forgeries.values():
        with pytest.raises(DecodeError, match="damaged"):
            rule.load(forgery, LAYOUT)


def test_rules_are_values() -> None:
    assert Rule() == Rule()
    assert hash(Rule()) == hash(Rule())
    assert Rule() != Rule(step=Momentum())


def test_a_rule_prints_on_one_line() -> None:
    rule = Rule((NormClip(10),), ByExamples(), step=Momentum())
    assert str(rule) == "clip(10) | by examples | mean | momentum(0.9)"
    assert str(Rule(guards=())) == "no guards | uniform | mean | replace"


def test_presets_by_name() -> None:
    assert preset("fedavgm") is PRESETS["fedavgm"]
    assert {"average", "weighted", "quality", "fedavg", "fedavgm", "fedadam", "hybrid", "robust"} <= set(
        PRESETS
    )


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fedadam'"):
        preset("fed-adam")
    with pytest.raises(ConfigError, match="known are average, weighted"):
        preset("zzz")
