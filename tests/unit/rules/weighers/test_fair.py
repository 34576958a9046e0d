"""q-fair averaging against algorithm 2 of Li et al. 2020, written out device by device."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByExamples, Claim, Product, QFair, Rule, Uniform
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("w", (3,)), Variable("variance", (1,), kind="statistic")))
ONES = np.ones(4, np.float32)


def algorithm_2(
    deltas: list[Vector], losses: list[float], q: float, lipschitz: float, shares: list[int]
) -> list[float]:
    """The move of the trainable numbers; `shares` are the p_k of their objective."""
    above, below = np.zeros(3), 0.0
    for delta, loss, share in zip(deltas, losses, shares, strict=True):
        gradient = -lipschitz * delta[:3].astype(float)  # their L * (w - w_k)
        above += share * loss**q * gradient
        below += share * (q * loss ** (q - 1) * float(gradient @ gradient) + lipschitz * loss**q)
    move: list[float] = (-above / below).tolist()
    return move


@pytest.mark.parametrize("by_examples", [False, True])
def test_a_thousand_federations_move_as_the_algorithm_does(by_examples: bool) -> None:  # noqa: FBT001
    rng = np.random.default_rng(8)
    for _ in range(1000):
        devices, q, rate = int(rng.integers(1, 6)), rng.uniform(0, 3), rng.uniform(0.05, 2)
        deltas = list((rng.standard_normal((devices, 4)) * 10 ** rng.uniform(-2, 0)).astype(np.float32))
        losses = rng.uniform(0.05, 5, devices).tolist()
        examples = rng.integers(1, 50, devices).tolist()
        fair = QFair(q, rate)
        rule = Rule(weigh=Product((ByExamples(), fair)) if by_examples else fair)
        fold = rule.zero(LAYOUT)
        for delta, loss, count in zip(deltas, losses, examples, strict=True):
            rule.absorb(fold, delta, Claim(count, metrics={"loss": loss}))
        shares = examples if by_examples else [1] * devices
        moved = rule.finish(fold, np.zeros(4, np.float32)).model
        np.testing.assert_allclose(
            moved[:3], algorithm_2(deltas, losses, q, 1 / rate, shares), rtol=1e-5, atol=1e-8
        )


def test_q_zero_is_uniform() -> None:
    rules = Rule(weigh=QFair(0.0)), Rule(weigh=Uniform())
    models = []
    for rule in rules:
        fold = rule.zero(LAYOUT)
        for scale, loss in ((1, 0.2), (3, 5.0), (-7, 0.4)):
            rule.absorb(fold, scale * ONES, Claim(1, metrics={"loss": loss}))
        models.append(rule.finish(fold, ONES).model)
    np.testing.assert_array_equal(models[0], models[1])


def test_statistics_are_averaged_and_not_shortened() -> None:
    rule = Rule(weigh=QFair(1.0, learning_rate=0.01))
    fold = rule.zero(LAYOUT)
    for _ in range(2):
        assert rule.absorb(fold, ONES, Claim(1, metrics={"loss": 1.0})).changed
    moved = rule.finish(fold, np.zeros(4, np.float32)).model
    assert moved[0] < 0.01
    assert moved[3] == 1.0


def test_the_device_that_fares_worst_is_heard_most() -> None:
    weights = [QFair(2.0).weigh(Claim(1, metrics={"loss": loss}))[0] for loss in (0.5, 1.0, 2.0)]
    assert weights == [0.25, 1.0, 4.0]


def test_losses_below_low_count_as_low_and_those_above_high_are_refused() -> None:
    fair = QFair(1.0, low=0.1, high=10.0)
    assert fair.weigh(Claim(1, metrics={"loss": 0.0})) == (0.1,)
    with pytest.raises(Refused, match="loss 11, between 0 and 10"):
        fair.weigh(Claim(1, metrics={"loss": 11}))
    with pytest.raises(Refused, match="no loss"):
        fair.weighed(Claim(1), 1.0)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_an_update_without_a_norm_has_no_weight(norm: float) -> None:
    with pytest.raises(Refused, match="norm is not finite"):
        QFair().weighed(Claim(1, metrics={"loss": 1.0}), norm)


def test_an_update_too_long_for_the_fold_is_refused_and_leaves_no_trace() -> None:
    rule = Rule(weigh=QFair())
    fold = rule.zero(LAYOUT)
    before = rule.dump(fold)
    with pytest.raises(Refused, match="a weight must lie between"):
        rule.absorb(fold, 1e6 * ONES, Claim(1, metrics={"loss": 1.0}))
    assert rule.dump(fold) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"q": -0.1},
        {"q": math.nan},
        {"q": math.inf},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"low": 0.0},
        {"high": 0.001},
        {"q": 5.0},
        {"q": 1000.0},
        {"q": 1000.0, "low": 0.9999, "high": 1e10},
    ],
    ids=str,
)
def test_settings_that_give_no_weights_are_config_errors(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="q_fair"):
        QFair(**fields)  # type: ignore[arg-type]


def test_it_prints_its_settings() -> None:
    assert str(QFair(0.5)) == "q-fair(0.5)"
