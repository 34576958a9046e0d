from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import ByFreshness, Claim, Rule, StalenessBound, StalenessDiscount
from fedmq.rules.staleness import Decay
from fedmq.vectors import Layout, Variable

LAYOUT = Layout((Variable("w", (2,)), Variable("variance", (1,), kind="statistic")))
DELTA = np.array([3.0, -5.0, 9.0], np.float32)
CURVES: dict[str, Callable[[int, float, float], float]] = {
    "polynomial": lambda s, a, b: (s + 1) ** (-a),
    "exponential": lambda s, a, b: math.e ** (-a * s),
    "hinge": lambda s, a, b: 1 if s <= b else 1 / (a * (s - b) + 1),
}


@pytest.mark.parametrize("decay", CURVES)
def test_a_thousand_updates_shrink_as_xie_et_al_have_it(decay: Decay) -> None:
    rng = np.random.default_rng(4)
    for _ in range(1000):
        staleness, a, b = int(rng.integers(0, 30)), rng.uniform(0.01, 3), float(rng.integers(0, 10))
        worth = CURVES[decay](staleness, a, b)
        found = StalenessDiscount(decay, a, b).check(DELTA, Claim(1, staleness=staleness), LAYOUT)
        np.testing.assert_allclose(found, [3 * worth, -5 * worth, 9], rtol=1e-6)


def test_a_fresh_update_passes_itself() -> None:
    for guard in (StalenessDiscount(), StalenessDiscount("exponential"), StalenessDiscount("hinge")):
        assert guard.check(DELTA, Claim(1), LAYOUT) is DELTA


def test_a_discount_holds_where_all_are_as_stale_and_a_weight_does_not() -> None:
    """FedBuff's step: the mean of the scaled deltas, not divided by the scales."""
    moves = []
    for rule in (Rule((StalenessDiscount(),)), Rule(weigh=ByFreshness())):
        fold = rule.zero(LAYOUT)
        for _ in range(3):
            rule.absorb(fold, DELTA, Claim(1, staleness=3))
        moves.append(rule.finish(fold, np.zeros(3, np.float32)).model[0])
    assert moves == [1.5, 3.0]


def test_the_bound_passes_what_it_names_and_refuses_one_more() -> None:
    assert StalenessBound(2).check(DELTA, Claim(1, staleness=2), LAYOUT) is DELTA
    with pytest.raises(Refused, match="started 3 models ago, at most 2"):
        StalenessBound(2).check(DELTA, Claim(1, staleness=3), LAYOUT)


@pytest.mark.parametrize("part", [StalenessDiscount, ByFreshness])
@pytest.mark.parametrize(
    "fields", [{"decay": "step"}, {"a": 0.0}, {"a": math.inf}, {"b": -1.0}, {"b": math.nan}]
)
def test_settings_are_bounded(part: type[StalenessDiscount | ByFreshness], fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"(staleness_discount|by_freshness) has"):
        part(**fields)


def test_the_bound_is_not_negative() -> None:
    with pytest.raises(ConfigError, match="most -1"):
        StalenessBound(-1)


def test_they_print_their_settings() -> None:
    parts = (
        StalenessDiscount(),
        StalenessDiscount("exponential"),
        StalenessDiscount("hinge"),
        StalenessBound(3),
    )
    assert [str(part) for part in parts] == [
        "stale (1+s)^-0.5",
        "stale e^-0.5s",
        "stale 1/(0.5(s-4)+1)",
        "staleness(at most 3)",
    ]
