"""Steps around steps: schedules and averages of models; and the step that is a function."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fedmq.errors import ConfigError, MisuseError
from fedmq.rules import Adam, Claim, CustomStep, ModelAverage, Momentum, Replace, Rule, Scheduled, Step
from fedmq.rules.memory import EMPTY, as_figure
from fedmq.rules.steps import Averaging, Curve
from fedmq.vectors import Layout, Variable, Vector

HERE = "tests.unit.rules.steps.test_wrapping_steps"
LAYOUT = Layout((Variable("w", (2,)), Variable("variance", (1,), kind="statistic")))
RNG = np.random.default_rng(11)
MODEL = RNG.standard_normal(3).astype(np.float32)
DELTAS = RNG.standard_normal((6, 3)).astype(np.float32)


def path(step: Step) -> tuple[list[Vector], list[Vector]]:
    """The models that devices train, and those that are served."""
    model, memory, fast, served = MODEL, EMPTY, [], []
    for delta in DELTAS:
        model, memory = step.apply(model, delta, memory, LAYOUT)
        fast.append(model)
        served.append(step.serving(model, memory, LAYOUT))
    return fast, served


CURVES: dict[str, Callable[[int, int, float, float], float]] = {
    "constant": lambda t, n, p, g: 1.0,
    "staircase": lambda t, n, p, g: g ** (t // n),
    "cosine": lambda t, n, p, g: 0.5 * (1 + math.cos(math.pi * t / n)) if t < n else 0.0,
    "polynomial": lambda t, n, p, g: (1 - t / n) ** p if t < n else 0.0,
    "inverse": lambda t, n, p, g: 1 / (1 + t / n) ** p,
}


@pytest.mark.parametrize("curve", CURVES)
def test_a_thousand_factors_lie_on_the_curve(curve: Curve) -> None:
    rng = np.random.default_rng(12)
    for _ in range(1000):
        t, n, warmup = int(rng.integers(0, 60)), int(rng.integers(1, 40)), int(rng.integers(0, 9))
        power, gamma = rng.uniform(0.1, 3), rng.uniform(0.1, 1)
        step = Scheduled(curve=curve, rounds=n, warmup=warmup, power=power, gamma=gamma, least=1e-6)
        assert step.factor(warmup + t) == pytest.approx(max(1e-6, CURVES[curve](t, n, power, gamma)))
        if warmup:
            assert step.factor(t % warmup) == (t % warmup + 1) / warmup


@pytest.mark.parametrize("inner", [Replace(0.5), Momentum(), Adam()])
def test_a_scheduled_step_is_the_step_at_each_rounds_rate(inner: Replace | Momentum | Adam) -> None:
    schedule = Scheduled(inner, "cosine", rounds=5, warmup=2)
    model, memory = MODEL, EMPTY
    for number, delta in enumerate(DELTAS):
        rate = inner.rate * schedule.factor(number)
        fields = {field: getattr(inner, field) for field in inner.__slots__} | {"rate": rate}
        model, memory = type(inner)(**fields).apply(model, delta, memory, LAYOUT)
        np.testing.assert_array_equal(path(schedule)[0][number], model)


def test_a_constant_schedule_is_the_step_itself() -> None:
    np.testing.assert_array_equal(path(Scheduled(Momentum(), "constant")), path(Momentum()))


def test_a_schedule_serves_what_its_step_does() -> None:
    fast, served = path(Scheduled())
    np.testing.assert_array_equal(fast, served)


def test_a_step_without_a_rate_has_no_schedule() -> None:
    with pytest.raises(ConfigError, match="has no rate: schedule the step inside"):
        Scheduled(ModelAverage())


@pytest.mark.parametrize(
    "fields",
    [
        {"curve": "line"},
        {"rounds": 0},
        {"warmup": -1},
        {"power": 0.0},
        {"gamma": 0.0},
        {"gamma": 1.1},
        {"least": 0.0},
    ],
    ids=str,
)
def test_a_schedules_settings_are_bounded(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="scheduled has"):
        Scheduled(**fields)  # type: ignore[arg-type]


def test_exponential_averages_follow_their_formula() -> None:
    fast, served = path(ModelAverage(Momentum(), decay=0.8))
    np.testing.assert_array_equal(fast, path(Momentum())[0])
    average = fast[0].astype(float)
    for model, found in zip(fast, served, strict=True):
        average = 0.8 * average + 0.2 * model if model is not fast[0] else average
        np.testing.assert_allclose(found, average, rtol=1e-6)


def test_equal_averages_are_the_mean_of_the_models() -> None:
    fast, served = path(ModelAverage(averaging="equal"))
    for number, found in enumerate(served, start=1):
        np.testing.assert_allclose(found, np.mean(fast[:number], axis=0, dtype=float), rtol=1e-5)


@pytest.mark.parametrize("averaging", ["equal", "exponential"])
def test_before_the_start_the_model_itself_is_served(averaging: Averaging) -> None:
    fast, served = path(ModelAverage(averaging=averaging, start=3))
    np.testing.assert_array_equal(served[:4], fast[:4])
    assert not np.array_equal(served[4], fast[4])


def test_the_average_is_no_view_of_the_model() -> None:
    model, memory = ModelAverage().apply(MODEL, DELTAS[0], EMPTY, LAYOUT)
    assert not np.shares_memory(model, memory["average"])


def test_a_rule_serves_the_average_and_goes_on_from_the_model() -> None:
    rule = Rule(step=ModelAverage(Scheduled(Replace(), "constant"), "equal"))
    model, memory = np.zeros(3, np.float32), EMPTY
    for _ in range(3):
        fold = rule.zero(LAYOUT, memory)
        rule.absorb(fold, np.ones(3, np.float32), Claim(1))
        outcome = rule.finish(fold, model)
        model, memory = outcome.model, outcome.memory
    assert set(memory) == {"step.rounds", "step.average", "step.step.rounds"}
    np.testing.assert_array_equal(model, np.full(3, 3))
    np.testing.assert_array_equal(rule.serving(model, memory, LAYOUT), np.full(3, 2))
    np.testing.assert_array_equal(rule.serving(model, EMPTY, LAYOUT), model)


def test_a_round_number_of_another_step_is_misuse() -> None:
    with pytest.raises(MisuseError, match="rounds"):
        ModelAverage().apply(MODEL, DELTAS[0], {"rounds": np.ones(2)}, LAYOUT)
    ModelAverage().apply(MODEL, DELTAS[0], {"rounds": as_figure(0)}, LAYOUT)


@pytest.mark.parametrize("fields", [{"averaging": "none"}, {"decay": 1.0}, {"start": -1}], ids=str)
def test_an_averages_settings_are_bounded(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="model_average has"):
        ModelAverage(**fields)  # type: ignore[arg-type]


def test_wrapping_steps_print_their_settings() -> None:
    steps = (
        Scheduled(Adam(), "cosine", rounds=50, warmup=5),
        Scheduled(curve="constant"),
        ModelAverage(),
        ModelAverage(Scheduled(), "equal", start=9),
    )
    assert [str(step) for step in steps] == [
        "adam(0.01), 5 rounds of warm-up, cosine over 50",
        "replace, constant",
        "replace, averaged(0.9)",
        "replace, cosine over 100, averaged(equal from 9)",
    ]


def double(model: Vector, delta: Vector) -> Vector:
    return model + 2 * delta


def short(model: Vector, delta: Vector) -> Vector:
    return model[:1]


def whole(model: Vector, delta: Vector) -> object:
    return model.astype(np.int64)


def scribble(model: Vector, delta: Vector) -> Vector:
    model += delta
    return model


def test_a_function_moves_the_trainable_numbers() -> None:
    moved, memory = CustomStep(f"{HERE}:double").apply(MODEL, DELTAS[0], EMPTY, LAYOUT)
    np.testing.assert_array_equal(moved, (MODEL + DELTAS[0] * np.array([2, 2, 1], np.float32)))
    assert not memory


@pytest.mark.parametrize(
    ("name", "says"), [("short", r"float32 of shape \(1,\)"), ("whole", "returned int64")]
)
def test_what_is_no_model_is_misuse(name: str, says: str) -> None:
    with pytest.raises(MisuseError, match=says):
        CustomStep(f"{HERE}:{name}").apply(MODEL, DELTAS[0], EMPTY, LAYOUT)


def test_the_function_cannot_write_to_the_model() -> None:
    with pytest.raises(ValueError, match="read-only"):
        CustomStep(f"{HERE}:scribble").apply(MODEL, DELTAS[0], EMPTY, LAYOUT)


def test_a_custom_step_prints_its_name() -> None:
    assert str(CustomStep()) == "custom fedmq.rules.samples:half_way"
