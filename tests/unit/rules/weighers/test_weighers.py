from __future__ import annotations

import math
from typing import Any

import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import Blend, ByExamples, ByMetric, Claim, Transform, Uniform


def test_uniform_weighs_all_alike() -> None:
    assert Uniform().weigh(Claim(examples=-3)) == (1.0,)


def test_by_examples_weighs_by_the_claim() -> None:
    assert ByExamples().weigh(Claim(examples=250)) == (250.0,)


def test_a_cap_bounds_the_claim() -> None:
    assert ByExamples(cap=100).weigh(Claim(examples=250)) == (100.0,)
    assert ByExamples(cap=100).weigh(Claim(examples=99)) == (99.0,)


def test_by_examples_refuses_what_is_not_positive() -> None:
    with pytest.raises(Refused, match="claims 0 examples"):
        ByExamples().weigh(Claim(examples=0))


def test_a_cap_is_positive() -> None:
    with pytest.raises(ConfigError, match="cap 0"):
        ByExamples(cap=0)


def weight(weigher: ByMetric, **metrics: float) -> float:
    return weigher.weigh(Claim(examples=1, metrics=metrics))[0]


def test_the_three_transforms() -> None:
    assert weight(ByMetric(), accuracy=0.8) == 0.8
    assert weight(ByMetric("loss", "inverse", high=10.0), loss=4.0) == 0.25
    softmax = ByMetric(transform="softmax", temperature=0.5)
    ratio = weight(softmax, accuracy=0.9) / weight(softmax, accuracy=0.4)
    assert ratio == pytest.approx(math.e)


@pytest.mark.parametrize("transform", ["value", "inverse", "softmax"])
def test_a_metric_below_low_counts_as_low(transform: Transform) -> None:
    weigher = ByMetric(transform=transform, low=0.2, high=2.0, temperature=1.0)
    assert weight(weigher, accuracy=0.0) == weight(weigher, accuracy=0.2) > 0.0


def test_a_missing_metric_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"no accuracy \(it has held_out, loss\)"):
        weight(ByMetric(), loss=1.0, held_out=3.0)
    with pytest.raises(Refused, match=r"it has none"):
        weight(ByMetric())


@pytest.mark.parametrize("value", [-0.01, 1.01, 1e12, math.nan, math.inf, -math.inf])
def test_an_unbelievable_metric_is_refused(value: float) -> None:
    with pytest.raises(Refused, match="between 0 and 1 is believed"):
        weight(ByMetric(), accuracy=value)


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 0.0},
        {"low": 1.0},
        {"low": math.nan},
        {"high": math.inf},
        {"temperature": 0.0},
        {"transform": "cube"},
        {"transform": "softmax", "temperature": 0.01},
        {"high": 1e9},
        {"transform": "inverse", "low": 1e-9},
    ],
    ids=str,
)
def test_settings_that_give_no_weights_are_config_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="by_metric"):
        ByMetric(**fields)


def test_a_blend_has_its_parts_lanes_in_order() -> None:
    inner = Blend((Uniform(), ByMetric()), (0.25, 0.75))
    outer = Blend((ByExamples(), inner), (0.5, 0.5))
    assert outer.lanes == (0.5, 0.125, 0.375)
    assert outer.weigh(Claim(examples=7, metrics={"accuracy": 0.5})) == (7.0, 1.0, 0.5)


def test_a_blend_refuses_what_one_part_refuses() -> None:
    with pytest.raises(Refused, match="no accuracy"):
        Blend((Uniform(), ByMetric()), (0.5, 0.5)).weigh(Claim(examples=7))


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ((1.0,), "2 parts and 1 shares"),
        ((0.5, 0.4), "add up to 0.9"),
        ((1.5, -0.5), "positive"),
        ((math.nan, 1.0), "positive"),
        ((0.0, 1.0), "positive"),
        ((math.inf, 1.0), "add up to inf"),
    ],
)
def test_a_blends_shares_are_convex(shares: tuple[float, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Blend((Uniform(), ByExamples()), shares)


def test_a_blend_of_nothing_is_no_blend() -> None:
    with pytest.raises(ConfigError, match="0 parts"):
        Blend((), ())


def test_weighers_print_their_settings() -> None:
    weighers = (
        Uniform(),
        ByExamples(),
        ByExamples(cap=9),
        ByMetric(),
        ByMetric("loss", "inverse"),
        ByMetric(transform="softmax"),
        Blend(),
    )
    assert [str(weigher) for weigher in weighers] == [
        "uniform",
        "by examples",
        "by examples(9 at most)",
        "by accuracy",
        "by inverse loss",
        "by accuracy softmax(0.1)",
        "(0.5 uniform + 0.5 by examples)",
    ]
