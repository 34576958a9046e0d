from __future__ import annotations

import math

import numpy as np
import pytest

from fedmq.errors import ConfigError, Refused
from fedmq.rules import AdaptiveClip, Claim, NormClip, Rule
from fedmq.rules.measure import norm
from fedmq.rules.memory import EMPTY, as_figure, figure
from fedmq.vectors import Layout, Variable, Vector

LAYOUT = Layout(
    (
        Variable("kernel", (2,)),
        Variable("variance", (2,), kind="statistic"),
        Variable("mine", (9,), scope="personal"),
        Variable("bias", (1,)),
        Variable("empty", (0,)),
    )
)
CLAIM = Claim(examples=5)
LARGEST = float(np.finfo(np.float32).max)


def vector(*numbers: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(numbers, np.float32)


def test_clip_scales_trainable_numbers_only() -> None:
    delta = vector(20, 30, 1000, -1000, 60)
    clipped = NormClip(7.0).check(delta, CLAIM, LAYOUT)
    np.testing.assert_array_equal(clipped, vector(2, 3, 1000, -1000, 6))
    np.testing.assert_array_equal(delta, vector(20, 30, 1000, -1000, 60))


def test_clip_passes_what_is_short_enough() -> None:
    delta = vector(2, 3, 1000, -1000, 6)
    assert NormClip(7.0).check(delta, CLAIM, LAYOUT) is delta


def test_clip_takes_the_longest_vector_there_is() -> None:
    delta = np.full(5, LARGEST, np.float32)
    assert norm(NormClip(1.0).check(delta, CLAIM, LAYOUT), LAYOUT) == pytest.approx(1.0)


def test_clip_refuses_what_has_no_norm() -> None:
    with pytest.raises(Refused, match="norm is not finite"):
        NormClip(7.0).check(vector(np.inf, 0, 0, 0, 0), CLAIM, LAYOUT)


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf])
def test_clip_wants_a_positive_limit(limit: float) -> None:
    with pytest.raises(ConfigError, match="positive finite"):
        NormClip(limit)


ONE = Layout((Variable("w", (1,)),))


def number(value: float) -> Vector:
    return np.array([value], np.float32)


def andrew(rounds: list[list[float]], quantile: float, rate: float, limit: float) -> list[float]:
    """Andrew et al. 2021, algorithm 1, without noise, device by device; the model, and the limits after each round."""
    model, limits = 0.0, []
    for norms in rounds:
        clipped = [x * min(1.0, limit / abs(x)) for x in norms]
        bits = [1 if abs(x) <= limit else 0 for x in norms]
        model += sum(clipped) / len(clipped)
        limit *= math.exp(-rate * (sum(bits) / len(bits) - quantile))
        limits.append(limit)
    return [model, *limits]


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_federation_clips_as_the_algorithm_does(count: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(count):
        quantile, rate, first = rng.uniform(0, 1), rng.uniform(0.05, 2), 10 ** rng.uniform(-2, 2)
        rounds = [rng.lognormal(0, 1, rng.integers(1, 6)).astype(np.float32).tolist() for _ in range(3)]
        rule = Rule((AdaptiveClip(quantile, rate, first),))
        model, memory, limits = np.zeros(1, np.float32), EMPTY, []
        for norms in rounds:
            fold = rule.zero(ONE, memory)
            for value in norms:
                rule.absorb(fold, number(value), CLAIM)
            outcome = rule.finish(fold, model)
            model, memory = outcome.model, outcome.memory
            limits.append(figure(memory, "guards.0.limit", 0.0))
        np.testing.assert_allclose([model[0], *limits], andrew(rounds, quantile, rate, first), rtol=1e-6)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_limit_settles_at_the_quantile_from_either_side(quantile: float) -> None:
    norms = np.random.default_rng(2).lognormal(0, 1, 60).astype(np.float32)
    for first in (0.05, 20.0):
        guard = AdaptiveClip(quantile, rate=1.0, first=first)
        memory = EMPTY
        for _ in range(80):
            share = sum(guard.count(number(value), ONE, memory) for value in norms) / norms.size
            memory = guard.learn(number(0), share, ONE, memory)
        assert np.mean(norms <= memory["limit"]) == pytest.approx(quantile, abs=0.05)


def test_a_noisy_share_moves_the_limit_as_far_as_it_says() -> None:
    """Where noise on the count goes, for privacy: between the fold and `learn`."""
    guard = AdaptiveClip(quantile=0.5, rate=0.2, first=1.0)
    for share in (-0.3, 1.4):
        learned = guard.learn(number(0), share, ONE, {})
        assert learned["limit"][0] == pytest.approx(math.exp(-0.2 * (share - 0.5)))


def test_the_limit_stays_a_number_whatever_comes() -> None:
    guard = AdaptiveClip(quantile=1.0, rate=4.0)
    memory = EMPTY
    for share, end in ((0.0, 2.0**64), (2.0, 2.0**-64)):
        for _ in range(100):
            memory = guard.learn(number(0), share, ONE, memory)
        assert memory["limit"][0] == end


def test_an_update_without_a_norm_is_not_below_the_limit_and_not_taken() -> None:
    memory = {"limit": as_figure(2.0)}
    assert AdaptiveClip().count(number(math.nan), ONE, memory) == 0
    with pytest.raises(Refused, match="norm is not finite"):
        AdaptiveClip().check(number(math.nan), CLAIM, ONE, memory)


@pytest.mark.parametrize(
    "fields",
    [
        {"quantile": 1.1},
        {"quantile": math.nan},
        {"rate": 0.0},
        {"rate": 5.0},
        {"first": 0.0},
        {"first": 1e30},
    ],
)
def test_adaptive_clips_settings_are_bounded(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="adaptive_clip has"):
        AdaptiveClip(**fields)


def test_clips_print_their_settings() -> None:
    assert [str(NormClip(2.5)), str(AdaptiveClip())] == ["clip(2.5)", "clip(quantile 0.5)"]
