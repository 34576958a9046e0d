"""The aggregator's halves with every part of rules, and what they leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from fedmq.algorithms import ALGORITHMS, Algorithm, FedDyn, FedNova, Plain, Scaffold
from fedmq.errors import ConfigError, Refused
from fedmq.rules import (
    GUARDS,
    HYBRIDS,
    PRESETS,
    REDUCERS,
    STEPS,
    WEIGHERS,
    Adam,
    AnyRule,
    Blend,
    ByExamples,
    Claim,
    Fold,
    Memory,
    Momentum,
    NormClip,
    Replace,
    Rule,
    preset,
)
from fedmq.rules.hybrids import ByLayer, BySchedule, Part, Stage
from fedmq.vectors import Layout, Variable, Vector

PLAIN = Layout(
    (
        Variable("dense/kernel", (3, 2)),
        Variable("norm/mean", (2,), "statistic"),
        Variable("head/bias", (4,)),
        Variable("own", (7,), scope="personal"),
    )
)
MASK = np.array([True] * 6 + [False] * 2 + [True] * 4)
METRICS = {"accuracy": 0.5, "loss": 1.0, "variance": 2.0}
ALL = [kind() for kind in ALGORITHMS.values()]


def deltas(layout: Layout, count: int, seed: int = 0) -> Iterator[tuple[Vector, Claim]]:
    chance = np.random.default_rng(seed)
    for number in range(count):
        yield (
            chance.normal(loc=0.2, scale=0.1, size=layout.size).astype(np.float32),  # all much the same way
            Claim(10 + number, 1 + number % 4, METRICS),
        )


def filled(rule: AnyRule, layout: Layout, count: int = 6, seed: int = 0) -> Fold:
    fold = rule.zero(layout)
    for delta, claim in deltas(layout, count, seed):
        rule.absorb(fold, delta, claim)
    return fold


def rules() -> Iterator[tuple[str, AnyRule]]:
    for name in PRESETS:
        yield name, preset(name)
    yield from ((f"guard {kind}", Rule(guards=(part(),))) for kind, part in GUARDS.items())
    yield from ((f"weigher {kind}", Rule(weigh=part())) for kind, part in WEIGHERS.items())
    yield from ((f"reducer {kind}", Rule(reduce=part())) for kind, part in REDUCERS.items())
    yield from ((f"step {kind}", Rule(step=part())) for kind, part in STEPS.items())
    yield "by layer", ByLayer((Part(("head/*",), Rule(step=Momentum())),), Rule(weigh=ByExamples()))
    yield "by schedule", BySchedule((Stage(Rule(step=Momentum()), rounds=1), Stage(Rule())))


@pytest.mark.parametrize(
    ("name", "rule"), list(rules()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("algorithm", ALL, ids=str)
def test_governs_every_part_of_rules(algorithm: Algorithm, name: str, rule: AnyRule) -> None:
    """Two rounds; and a fold in two parts, one of them through bytes, is the fold of all."""
    layout, governed = algorithm.extend(PLAIN), algorithm.govern(rule, 9)
    model = np.ones(layout.size, np.float32)
    memory: Memory = {}
    for number in range(2):
        fold = governed.zero(layout, memory)
        halves = [governed.zero(layout, memory) for _ in range(2)]
        for index, (delta, claim) in enumerate(deltas(layout, 8, number)):
            governed.absorb(fold, delta, claim)
            governed.absorb(halves[index % 2], delta, claim)
        halves[0] = governed.load(governed.dump(halves[0]), layout, memory)
        assert governed.dump(governed.merge(*halves)) == governed.dump(fold)
        outcome = governed.finish(fold, model)
        assert outcome.model.shape == (layout.size,)
        assert np.isfinite(outcome.model).all()
        assert governed.serving(outcome.model, outcome.memory, layout).shape == (layout.size,)
        model, memory = outcome.model, outcome.memory
    assert str(rule)[:6] in str(governed)


@pytest.mark.parametrize("algorithm", [FedNova(), Scaffold(), FedDyn()], ids=str)
def test_an_outer_rule_without_slots_is_refused(algorithm: Algorithm) -> None:
    class Odd:
        pass

    with pytest.raises(ConfigError, match="Odd"):
        algorithm.govern(Odd())  # type: ignore[arg-type]


def test_plain_changes_nothing() -> None:
    rule = Rule()
    assert Plain().govern(rule) is rule
    assert Plain().extend(PLAIN) is PLAIN
    assert Plain().pull(np.ones(3, np.float32), PLAIN, {}) is None
    assert Plain().learn(np.ones(3, np.float32), PLAIN) == {}


# --- SCAFFOLD


def test_control_variates_stand_behind_the_model_one_for_each_trainable_number() -> None:
    layout = Scaffold().extend(PLAIN)
    assert layout.variables[: len(PLAIN.variables)] == PLAIN.variables
    assert layout.sizes == (6, 2, 4, 6, 4)
    assert [v.kind for v in layout.shared[3:]] == ["statistic"] * 2
    assert np.array_equal(layout.trainable, np.append(MASK, [False] * 10))


@pytest.mark.parametrize("step", [Replace(0.5), Adam(), Momentum()])
def test_control_moves_by_the_share_of_the_fleet_whatever_the_step(step: object) -> None:
    layout = Scaffold().extend(PLAIN)
    rule = Rule(step=step)  # type: ignore[arg-type]
    plain = rule.finish(filled(rule, layout, 2), np.zeros(layout.size, np.float32)).model
    governed = Scaffold().govern(rule, 8)
    moved = governed.finish(filled(governed, layout, 2), np.zeros(layout.size, np.float32)).model
    assert np.array_equal(moved[: PLAIN.size], plain[: PLAIN.size])
    np.testing.assert_allclose(moved[PLAIN.size :], plain[PLAIN.size :] / 4, rtol=1e-6)


def test_a_models_own_variables_are_never_taken_for_control() -> None:
    own = Layout((Variable("control/kernel", (2,)), Variable("control/mean", (1,), "statistic")))
    layout, governed = Scaffold().extend(own), Scaffold().govern(Rule(), 4)
    fold = governed.zero(layout)
    governed.absorb(fold, np.ones(5, np.float32), Claim(1))
    assert governed.finish(fold, np.zeros(5, np.float32)).model.tolist() == [1, 1, 1, 0.25, 0.25]


def test_the_fleet_is_what_was_told_or_the_most_that_were_there() -> None:
    layout = Scaffold().extend(PLAIN)
    control, model = slice(PLAIN.size, None), np.zeros(layout.size, np.float32)

    def share(algorithm: Scaffold, present: int, memory: object = None) -> tuple[float, object]:
        governed = algorithm.govern(Rule(), present)
        fold = governed.zero(layout, memory or {})  # type: ignore[arg-type]
        for delta, claim in deltas(layout, 3):
            governed.absorb(fold, delta, claim)
        whole = Rule().finish(filled(Rule(), layout, 3), model).model[control]
        outcome = governed.finish(fold, model)
        return float(np.mean(outcome.model[control] / whole)), outcome.memory

    first, memory = share(Scaffold(), 12)
    assert first == pytest.approx(3 / 12)
    later, memory = share(Scaffold(), 6, memory)
    assert later == pytest.approx(3 / 12)  # some sleep
    more, _ = share(Scaffold(), 30, memory)
    assert more == pytest.approx(3 / 30)
    assert share(Scaffold(), 0)[0] == pytest.approx(1)  # never below those that reported
    assert share(Scaffold(fleet=24), 30, memory)[0] == pytest.approx(3 / 24)
    assert share(Scaffold(fleet=2), 30)[0] == pytest.approx(1)


def test_devices_without_a_length_of_step_decline() -> None:
    layout = Scaffold().extend(PLAIN)
    model = np.zeros(layout.size, np.float32)
    for reach in (None, 0.0):
        with pytest.raises(Refused, match="SGD"):
            Scaffold().answer(model, model[: PLAIN.size], reach, PLAIN)


def test_a_control_variate_of_another_length_counts_as_none() -> None:
    model = np.ones(Scaffold().extend(PLAIN).size, np.float32)
    kept = {"scaffold.control": np.ones(3, np.float32)}
    pull = Scaffold().pull(model, PLAIN, kept)
    assert pull.linear is not None
    assert np.array_equal(pull.linear, MASK.astype(np.float32))


# --- FedDyn


def test_drift_leaves_statistics_alone() -> None:
    rule, governed = Rule(), FedDyn(0.5).govern(Rule(), 12)
    model = np.zeros(PLAIN.size, np.float32)
    plain, moved = (each.finish(filled(each, PLAIN), model).model for each in (rule, governed))
    assert np.array_equal(moved[~MASK], plain[~MASK])
    np.testing.assert_allclose(moved[MASK], 1.5 * plain[MASK], rtol=1e-6)  # 6 of 12, h = -alpha / 2 * mean


def test_drift_outlives_a_change_of_rules() -> None:
    """The devices' gradients go on, so must their sum."""
    stages = BySchedule((Stage(Rule(step=Momentum()), rounds=1), Stage(Rule(step=Replace(0.5)))))
    governed, drift = FedDyn().govern(stages, 6), np.zeros(10)
    memory: Memory = {}
    model = np.zeros(PLAIN.size, np.float32)
    for _ in range(2):
        fold = governed.zero(PLAIN, memory)
        for delta, claim in deltas(PLAIN, 6):
            governed.absorb(fold, delta, claim)
        outcome = governed.finish(fold, model)
        (drift,) = (
            array.astype(np.float64) for name, array in outcome.memory.items() if name.endswith("drift")
        )
        model, memory = outcome.model, outcome.memory
    mean = Rule().finish(filled(Rule(), PLAIN), np.zeros(PLAIN.size, np.float32)).model[MASK]
    np.testing.assert_allclose(drift, -0.02 * mean, rtol=1e-5)


# --- FedNova


def test_equal_steps_change_nothing() -> None:
    """All took three steps: what is divided is multiplied again."""
    chance = np.random.default_rng(3)
    rule, governed = Rule(weigh=ByExamples()), FedNova().govern(Rule(weigh=ByExamples()))
    folds = rule.zero(PLAIN), governed.zero(PLAIN)
    for number in range(4):
        delta = chance.normal(size=PLAIN.size).astype(np.float32)
        for each, fold in zip((rule, governed), folds, strict=True):
            each.absorb(fold, delta, Claim(1 + number, 3))
    ones = np.ones(PLAIN.size, np.float32)
    plain, moved = (each.finish(fold, ones) for each, fold in zip((rule, governed), folds, strict=True))
    np.testing.assert_allclose(moved.model, plain.model, rtol=1e-5, atol=1e-6)
    assert np.array_equal(moved.model[~MASK], plain.model[~MASK])
    assert moved.measurements["steps"] == 3


def test_a_blend_has_a_mean_of_steps_for_each_lane() -> None:
    """The two shares are those of the deltas: by hand."""
    blend = Blend((Rule().weigh, ByExamples()), (0.5, 0.5))
    governed = FedNova().govern(Rule(guards=(), weigh=blend))
    layout = Layout((Variable("w", (1,)),))
    fold = governed.zero(layout)
    for value, examples, steps in ((6.0, 1, 2), (8.0, 3, 4)):
        governed.absorb(fold, np.array([value], np.float32), Claim(examples, steps))
    outcome = governed.finish(fold, np.zeros(1, np.float32))
    tau = 0.5 * 3 + 0.5 * (2 + 3 * 4) / 4
    each = 0.5 * (3 + 2) / 2 + 0.5 * (3 + 3 * 2) / 4
    assert outcome.model[0] == pytest.approx(tau * each)
    assert outcome.measurements["steps"] == pytest.approx(tau)


def test_guards_see_what_devices_sent() -> None:
    """A clip at five clips a delta of ten, although one of its hundred steps is no longer than a tenth."""
    governed = FedNova().govern(Rule(guards=(NormClip(5.0),)))
    layout = Layout((Variable("w", (1,)),))
    fold = governed.zero(layout)
    governed.absorb(fold, np.array([10], np.float32), Claim(1, 100))
    assert governed.finish(fold, np.zeros(1, np.float32)).model[0] == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("steps", [0, -3, 101, 10**12])
def test_claims_of_steps_are_bounded(steps: int) -> None:
    governed = FedNova(most_steps=100).govern(Rule())
    fold = governed.zero(PLAIN)
    before = governed.dump(fold)
    with pytest.raises(Refused, match="local steps"):
        governed.absorb(fold, np.ones(PLAIN.size, np.float32), Claim(1, steps))
    assert governed.dump(fold) == before


@pytest.mark.parametrize(
    "delta",
    [np.ones(PLAIN.size + 1), np.ones((1, PLAIN.size)), np.ones(1), np.array(1.0), np.ones((PLAIN.size, 1))],
)
def test_fednova_refuses_other_shapes(delta: np.ndarray) -> None:
    governed = FedNova().govern(Rule())
    with pytest.raises(Refused, match="shape"):
        governed.absorb(governed.zero(PLAIN), delta.astype(np.float32), Claim(1, 1))
    with pytest.raises(Refused, match="float64"):
        governed.absorb(governed.zero(PLAIN), np.ones(PLAIN.size), Claim(1, 1))  # type: ignore[arg-type]


# --- by layer


@pytest.mark.parametrize("algorithm", ALL, ids=str)
def test_layers_governed_each_are_the_whole_governed(algorithm: Algorithm) -> None:
    """Where all parts have one rule, cutting the model in parts changes nothing."""
    layout = algorithm.extend(PLAIN)
    whole = algorithm.govern(Rule(), 9)
    parts = algorithm.govern(ByLayer((Part(("head/*",), Rule()),), Rule()), 9)
    ones = np.ones(layout.size, np.float32)
    one, other = (rule.finish(filled(rule, layout), ones).model for rule in (whole, parts))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_hybrids_that_govern_knows_are_all_there_are() -> None:
    """A new hybrid has to be looked at: are its rules in fields that `governed` finds?"""
    assert {"by_layer", "by_schedule"} <= set(HYBRIDS)


def test_govern_leaves_the_rule_as_it_was() -> None:
    rule = ByLayer((Part(("head/*",), Rule()),), Rule())
    copy = replace(rule)
    FedNova().govern(rule)
    assert rule == copy
