"""Weighers by freshness, by variance, by several at once, and by a function."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import (
    Blend,
    ByExamples,
    ByFreshness,
    ByMetric,
    Claim,
    CustomWeigher,
    InverseVariance,
    Product,
    QFair,
    Rule,
    Uniform,
    Weighed,
)
from fedmq.vectors import Layout, Variable

HERE = "tests.unit.rules.weighers.test_more_weighers"
LAYOUT = Layout((Variable("w", (2,)),))


def tenth(claim: Claim) -> float:
    return claim.examples / 10


def never(claim: Claim) -> float:
    raise Refused("not today")


def test_freshness_weighs_by_the_curve() -> None:
    claim = Claim(1, staleness=8)
    weights = [ByFreshness(decay, a=0.5).weigh(claim)[0] for decay in ("polynomial", "exponential", "hinge")]
    assert weights == pytest.approx([1 / 3, math.exp(-4), 1 / 3])
    assert str(ByFreshness("hinge")) == "by freshness 1/(0.5(s-4)+1)"


def test_what_weighs_next_to_nothing_is_refused_in_words() -> None:
    with pytest.raises(Refused, match="started 900 models ago"):
        ByFreshness("exponential").weigh(Claim(1, staleness=900))


def test_a_thousand_poolings_have_the_least_variance() -> None:
    """Against the pooled estimate of fixed-effect meta-analysis, with its variance 1 / sum(1 / v)."""
    rng = np.random.default_rng(9)
    for _ in range(1000):
        devices = int(rng.integers(1, 6))
        variances, deltas = (
            rng.uniform(0.01, 9, devices),
            rng.standard_normal((devices, 2)).astype(np.float32),
        )
        rule = Rule(weigh=InverseVariance())
        fold = rule.zero(LAYOUT)
        for delta, variance in zip(deltas, variances, strict=True):
            rule.absorb(fold, delta, Claim(1, metrics={"variance": float(variance)}))
        pooled = (1 / variances) @ deltas.astype(float) / np.sum(1 / variances)
        outcome = rule.finish(fold, np.zeros(2, np.float32))
        np.testing.assert_allclose(outcome.model, pooled, rtol=1e-5, atol=1e-7)


def test_inverse_variance_is_bounded() -> None:
    weigher = InverseVariance("spread", low=0.5, high=4.0)
    assert weigher.weigh(Claim(1, metrics={"spread": 0.0})) == (2.0,)
    with pytest.raises(Refused, match="spread 5"):
        weigher.weigh(Claim(1, metrics={"spread": 5}))
    assert str(weigher) == "by inverse spread"


@pytest.mark.parametrize("fields", [{"low": 0.0}, {"low": 5.0, "high": 4.0}, {"low": 1e-12}, {"high": 1e12}])
def test_inverse_variance_wants_bounds_that_give_weights(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="inverse_variance"):
        InverseVariance(**fields)  # type: ignore[arg-type]


def test_a_product_multiplies_weights_and_scales() -> None:
    fair = QFair(q=1.0, learning_rate=0.5)
    claim = Claim(10, metrics={"loss": 2.0}, staleness=3)
    product = Product((ByExamples(), fair, ByFreshness()))
    assert product.weigh(claim) == (10.0,)
    assert product.weighed(claim, 1.0) == (Weighed(10 * 4 * 0.5, 0.5),)
    assert str(product) == "(by examples * q-fair(1) * by freshness (1+s)^-0.5)"


def test_a_product_with_a_blend_has_every_combination_of_lanes() -> None:
    claim = Claim(10, metrics={"accuracy": 0.5})
    blend = Blend((Uniform(), ByExamples()), (0.25, 0.75))
    product = Product((blend, ByMetric()))
    assert product.lanes == (0.25, 0.75)
    assert product.weigh(claim) == (0.5, 5.0)
    square = Product((blend, blend))
    assert square.lanes == (0.0625, 0.1875, 0.1875, 0.5625)
    assert square.weigh(claim) == (1.0, 10.0, 10.0, 100.0)


def test_a_blend_passes_scales_on() -> None:
    claim = Claim(10, metrics={"loss": 2.0})
    blend = Blend((Uniform(), QFair(q=1.0, learning_rate=0.5)), (0.5, 0.5))
    assert blend.weighed(claim, 1.0) == (Weighed(1.0), Weighed(4.0, 0.5))


def test_each_lane_gets_the_delta_at_its_own_scale() -> None:
    rule = Rule(weigh=Blend((Uniform(), QFair(q=1.0, learning_rate=0.5)), (0.5, 0.5)))
    fold = rule.zero(LAYOUT)
    rule.absorb(fold, np.array([0.6, 0.8], np.float32), Claim(1, metrics={"loss": 2.0}))
    moved = rule.finish(fold, np.zeros(2, np.float32)).model
    np.testing.assert_allclose(moved, [0.45, 0.6], rtol=1e-6)  # half whole, half at one half


def test_a_product_of_uniforms_is_uniform() -> None:
    assert Product((Uniform(), Uniform())).uniform
    assert not Product((Uniform(), ByExamples())).uniform


def test_a_product_of_nothing_is_none() -> None:
    with pytest.raises(ConfigError, match="no parts"):
        Product(())


def test_a_function_weighs() -> None:
    weigher = CustomWeigher(f"{HERE}:tenth")
    assert weigher.weigh(Claim(35)) == (3.5,)
    assert weigher == CustomWeigher(f"{HERE}:tenth")
    assert str(weigher) == f"by {HERE}:tenth"
    assert CustomWeigher().weigh(Claim(-3)) == (1.0,)


def test_a_function_may_refuse() -> None:
    with pytest.raises(Refused, match="not today"):
        CustomWeigher(f"{HERE}:never").weigh(Claim(1))


def test_a_name_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="custom weigher has name"):
        CustomWeigher("by_root")
