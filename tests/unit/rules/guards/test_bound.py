from __future__ import annotations

import math

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import Claim, NormBound, RelativeNormBound, Rule
from fedmq.rules.memory import EMPTY, Memory, as_figure, figure
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout((Variable("w", (2,)), Variable("variance", (1,), kind="statistic")))
CLAIM = Claim(examples=5)
NAN_OR_INFINITE = [math.nan, math.inf, -math.inf]


def along(length: float) -> Vector:
    return np.array([0.6 * length, 0.8 * length, 1000.0], np.float32)


def typical(norm: float) -> Memory:
    return {"typical": as_figure(norm)}


def test_norm_bound_passes_up_to_the_limit_and_refuses_beyond() -> None:
    delta = along(5.0)
    assert NormBound(5.0001).check(delta, CLAIM, LAYOUT) is delta
    with pytest.raises(Refused, match=r"norm 5, at most 4\.9 is taken"):
        NormBound(4.9).check(delta, CLAIM, LAYOUT)


@pytest.mark.parametrize("value", NAN_OR_INFINITE)
@pytest.mark.parametrize("guard", [NormBound(), RelativeNormBound()])
def test_an_update_without_a_norm_is_refused(guard: NormBound | RelativeNormBound, value: float) -> None:
    delta = along(1.0)
    delta[0] = value
    with pytest.raises(Refused, match=r"norm (nan|inf)"):
        guard.check(delta, CLAIM, LAYOUT)


def test_the_relative_bound_is_a_multiple_of_what_is_typical() -> None:
    guard, delta = RelativeNormBound(factor=3.0), along(5.0)
    assert guard.check(delta, CLAIM, LAYOUT) is delta
    assert guard.check(delta, CLAIM, LAYOUT, typical(1.7)) is delta
    with pytest.raises(Refused, match=r"norm 5, others have about 1\.6 and at most 3 times"):
        guard.check(delta, CLAIM, LAYOUT, typical(1.6))


def rounds(guard: RelativeNormBound, norms: list[list[float]]) -> list[float]:
    """What is typical after each round; refused updates are left out."""
    rule, memory, found = Rule((guard,)), EMPTY, []
    for each in norms:
        fold = rule.zero(LAYOUT, memory)
        for length in each:
            try:
                rule.absorb(fold, along(length), CLAIM)
            except Refused:
                continue
        memory = rule.finish(fold, np.zeros(3, np.float32)).memory
        found.append(figure(memory, "guards.0.typical", 0.0))
    return found


def test_a_thousand_first_rounds_teach_the_mean_norm_and_second_ones_follow_the_median() -> None:
    rng = np.random.default_rng(5)
    for _ in range(1000):
        first, second = (rng.uniform(1, 4, rng.integers(1, 7)).tolist() for _ in range(2))
        mean = float(np.mean(first))
        below = float(np.mean([length <= mean for length in second]))
        found = rounds(RelativeNormBound(rate=0.5), [first, second])
        np.testing.assert_allclose(found, [mean, mean * math.exp(-0.5 * (below - 0.5))], rtol=1e-5)


def test_a_third_of_attackers_cannot_move_it_far() -> None:
    honest = np.random.default_rng(6).uniform(0.8, 1.2, 14).tolist()
    settled = rounds(RelativeNormBound(), [[*honest, *[1000.0] * 6]] + [[*honest, *[1e9] * 6]] * 60)[-1]
    assert 0.7 < settled < 1.4


def test_a_first_round_without_movement_teaches_nothing() -> None:
    assert rounds(RelativeNormBound(), [[0.0, 0.0], [3.0]]) == [0.0, pytest.approx(3.0)]


def test_the_longest_norm_still_counts() -> None:
    guard = RelativeNormBound()
    assert guard.count(along(3e38), LAYOUT, {}) == 2**43 - 1
    assert guard.count(along(math.inf), LAYOUT, {}) == 0


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_norm_bound_wants_a_positive_limit(limit: float) -> None:
    with pytest.raises(ConfigError, match="norm_bound has limit"):
        NormBound(limit)


@pytest.mark.parametrize("fields", [{"factor": 1.0}, {"factor": math.inf}, {"rate": 0.0}, {"rate": math.nan}])
def test_the_relative_bounds_settings_are_bounded(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="relative_norm_bound has"):
        RelativeNormBound(**fields)


def test_bounds_print_their_settings() -> None:
    assert str(NormBound(3.0)) == "norm(at most 3)"
    assert str(RelativeNormBound(3.0)) == "norm(at most 3 times the median)"
