"""Steps against their papers' formulas, written out number by number in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fedmq.errors import ConfigError
from fedmq.rules import Adagrad, Adam, Memory, Momentum, Replace, Step, Yogi
from fedmq.rules.memory import EMPTY
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("kernel", (3,)), Variable("mean", (2,), kind="statistic")))
RNG = np.random.default_rng(3)
MODEL = RNG.standard_normal(5).astype(np.float32)
DELTAS = [(0.1 * RNG.standard_normal(5)).astype(np.float32) for _ in range(5)]


def path(step: Step) -> list[Vector]:
    model: Vector = MODEL
    memory: Memory = {}
    models = []
    for delta in DELTAS:
        model, memory = step.apply(model, delta, memory, LAYOUT)
        models.append(model)
    return models


def statistics() -> list[float]:
    return [float(MODEL[k]) + sum(float(delta[k]) for delta in DELTAS) for k in (3, 4)]


def fedavgm(rate: float, beta: float) -> list[float]:
    """Hsu et al. 2019, section 3: v <- beta v + delta; w <- w - v, here with their delta's sign turned."""
    numbers = []
    for k in range(3):
        w, v = float(MODEL[k]), 0.0
        for delta in DELTAS:
            v = beta * v + float(delta[k])
            w = w + rate * v
        numbers.append(w)
    return numbers + statistics()


def fedadam(eta: float, beta1: float, beta2: float, tau: float) -> list[float]:
    """Reddi et al. 2021, algorithm 2, with v_{-1} = tau^2."""
    numbers = []
    for k in range(3):
        x, m, v = float(MODEL[k]), 0.0, tau**2
        for delta in DELTAS:
            d = float(delta[k])
            m = beta1 * m + (1 - beta1) * d
            v = beta2 * v + (1 - beta2) * d * d
            x = x + eta * m / (math.sqrt(v) + tau)
        numbers.append(x)
    return numbers + statistics()


def nesterov(rate: float, beta: float) -> list[float]:
    """Sutskever et al. 2013, equations 3 and 4: the model here is their look-ahead point."""
    numbers = []
    for k in range(3):
        position, v = float(MODEL[k]), 0.0  # theta; the model is theta + beta v
        for delta in DELTAS:
            v_next = beta * v + rate * float(delta[k])
            position, v = position + v_next, v_next
        numbers.append(position + beta * v)
    return numbers + statistics()


def fedyogi(eta: float, beta1: float, beta2: float, tau: float) -> list[float]:
    """Reddi et al. 2021, algorithm 2, with v_{-1} = tau^2."""
    numbers = []
    for k in range(3):
        x, m, v = float(MODEL[k]), 0.0, tau**2
        for delta in DELTAS:
            d = float(delta[k])
            m = beta1 * m + (1 - beta1) * d
            v = v - (1 - beta2) * d * d * (1 if v > d * d else -1)
            x = x + eta * m / (math.sqrt(v) + tau)
        numbers.append(x)
    return numbers + statistics()


def fedadagrad(eta: float, beta1: float, tau: float) -> list[float]:
    """Reddi et al. 2021, algorithm 2, with v_{-1} = tau^2."""
    numbers = []
    for k in range(3):
        x, m, v = float(MODEL[k]), 0.0, tau**2
        for delta in DELTAS:
            d = float(delta[k])
            m = beta1 * m + (1 - beta1) * d
            v = v + d * d
            x = x + eta * m / (math.sqrt(v) + tau)
        numbers.append(x)
    return numbers + statistics()


def test_replace_adds_the_delta() -> None:
    np.testing.assert_array_equal(path(Replace())[0], MODEL + DELTAS[0])


def test_replace_at_a_rate_spares_statistics() -> None:
    moved = path(Replace(rate=0.5))[0]
    np.testing.assert_array_equal(moved[:3], (MODEL + DELTAS[0] / 2)[:3])
    np.testing.assert_array_equal(moved[3:], (MODEL + DELTAS[0])[3:])


@pytest.mark.parametrize(("rate", "beta"), [(1.0, 0.9), (0.3, 0.5), (2.0, 0.0)])
def test_momentum_follows_its_paper(rate: float, beta: float) -> None:
    np.testing.assert_allclose(path(Momentum(rate, beta))[-1], fedavgm(rate, beta), rtol=1e-6)


def test_momentum_without_beta_replaces() -> None:
    np.testing.assert_array_equal(path(Momentum(beta=0.0)), path(Replace()))


@pytest.mark.parametrize("settings", [(0.01, 0.9, 0.99, 1e-3), (0.3, 0.0, 0.5, 0.1)])
def test_adam_follows_its_paper(settings: tuple[float, float, float, float]) -> None:
    np.testing.assert_allclose(path(Adam(*settings))[-1], fedadam(*settings), rtol=1e-6)


@pytest.mark.parametrize(("rate", "beta"), [(1.0, 0.9), (0.3, 0.5), (2.0, 0.0)])
def test_nesterovs_momentum_follows_its_paper(rate: float, beta: float) -> None:
    found = path(Momentum(rate, beta, nesterov=True))[-1]
    np.testing.assert_allclose(found, nesterov(rate, beta), rtol=1e-6)


@pytest.mark.parametrize("settings", [(0.01, 0.9, 0.99, 1e-3), (0.3, 0.0, 0.5, 0.1)])
def test_yogi_follows_its_paper(settings: tuple[float, float, float, float]) -> None:
    np.testing.assert_allclose(path(Yogi(*settings))[-1], fedyogi(*settings), rtol=1e-6)


@pytest.mark.parametrize("settings", [(0.1, 0.0, 1e-3), (0.3, 0.9, 0.1)])
def test_adagrad_follows_its_paper(settings: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(path(Adagrad(*settings))[-1], fedadagrad(*settings), rtol=1e-6)


def test_adagrad_remembers_a_mean_only_where_it_has_one() -> None:
    for beta, names in ((0.0, {"square"}), (0.5, {"mean", "square"})):
        assert set(Adagrad(beta1=beta).apply(MODEL, DELTAS[0], {}, LAYOUT)[1]) == names


def test_yogi_forgets_a_burst_more_slowly_than_adam() -> None:
    """After one large delta and many small ones, Adam's steps have grown again; Yogi's hardly."""
    lengths = []
    for step in (Adam(), Yogi()):
        model, memory = np.zeros(5, np.float32), EMPTY
        before = model
        for size in (1.0, *[0.01] * 100):
            before = model
            model, memory = step.apply(model, np.full(5, size, np.float32), memory, LAYOUT)
        lengths.append((model - before)[0])
    assert lengths[0] > 1.5 * lengths[1]


def test_a_step_out_of_float32_shows_as_infinite() -> None:
    model = np.full(5, 3e38, np.float32)
    moved, _ = Replace().apply(model, model, {}, LAYOUT)
    assert np.isinf(moved).all()


@pytest.mark.parametrize("part", [Replace, Momentum, Adam, Yogi, Adagrad])
@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_is_positive(part: type[Replace | Momentum | Adam | Yogi | Adagrad], rate: float) -> None:
    with pytest.raises(ConfigError, match="positive finite"):
        part(rate=rate)


@pytest.mark.parametrize("fields", [{"beta1": 1.0}, {"beta2": -0.1}, {"beta1": math.nan}, {"tau": 0.0}])
def test_adams_settings_are_bounded(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="adam has"):
        Adam(**fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Yogi(beta1=1.0),
        lambda: Yogi(tau=0.0),
        lambda: Adagrad(beta1=-1.0),
        lambda: Adagrad(tau=math.inf),
    ],
)
def test_the_others_settings_are_bounded(make: Callable[[], Step]) -> None:
    with pytest.raises(ConfigError, match=r"(yogi|adagrad) has"):
        make()


def test_momentums_beta_is_below_one() -> None:
    with pytest.raises(ConfigError, match=r"beta 1\.0"):
        Momentum(beta=1.0)


def test_steps_print_their_settings() -> None:
    steps = (
        Replace(),
        Replace(0.5),
        Momentum(),
        Momentum(0.5, 0.8),
        Momentum(nesterov=True),
        Adam(),
        Yogi(),
        Adagrad(),
    )
    assert [str(step) for step in steps] == [
        "replace",
        "replace(0.5)",
        "momentum(0.9)",
        "momentum(0.8, rate 0.5)",
        "nesterov(0.9)",
        "adam(0.01)",
        "yogi(0.01)",
        "adagrad(0.1)",
    ]
