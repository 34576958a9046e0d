"""Whether a rule can work with what a codec leaves of single updates; and what to think of where it barely can."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.errors import ConfigError
from fedmq.rules import Adagrad, Adam, Momentum, Rule, Scheduled, Yogi, strictest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.aggregator.settings import Federation
    from fedmq.algorithms import Algorithm
    from fedmq.codecs import Codec
    from fedmq.rules import AnyRule, Needs

SUITS_ALL: Final = "safe"
"""The codec to suggest where another does not suit: small errors, no state, nothing to set."""

SUITS_MOST: Final = "lean"
"""The one to suggest where a moderate error will do: the fewest bytes that a robust rule can work with."""

MOST_NOISE: Final = 2.4
"""Errors of a mean, in lengths of one update, that a model bears: averages with `extreme` and 20 devices a round, 2.1,
lost nothing; with `stateless` and five, 2.5, a third of a point to one; with `extreme` and five, 4.1, two to nine.
`python -m benchmarks.encodings` measures it."""

_ADAPTIVE: Final = 1.8
"""How many times as much noise a step brings that divides by what it remembers: `adam` bore 1.25, and not 2.1."""

_SAMPLE: Final = 1 << 14
"""Numbers that a codec is tried on."""


def needs(rule: AnyRule, algorithm: Algorithm) -> Needs:
    """Return what a rule under an algorithm asks of the updates' codec. Raises ConfigError where they do not fit."""
    return strictest((algorithm.govern(rule).needs, algorithm.needs))


def suiting(wanted: Needs) -> str:
    """Return the codec to suggest to a part with these needs, of the fewest bytes."""
    return SUITS_MOST if wanted.allow("moderate") else SUITS_ALL


def require_pair(rule: AnyRule, algorithm: Algorithm, codec: Codec) -> None:
    """Raise ConfigError where updates in this codec are too far from what devices computed."""
    wanted = needs(rule, algorithm)
    if not wanted.allow(codec.per_update_error):
        raise ConfigError(
            f"{wanted.part} cannot work with updates as `{codec}`, each of which has a {codec.per_update_error} error: "
            f"{wanted.reason}; take `{suiting(wanted)}`, or a rule that averages"
        )


def advice(federation: Federation) -> Iterator[str]:
    """Yield a sentence for each thing that works, and probably not well."""
    codec, policy = federation.encoding.up, federation.policy
    if codec.per_update_error != "large":
        return
    together = policy.buffer or math.ceil(policy.fraction * policy.min_devices)
    if not codec.unbiased and codec.feedback is None:
        yield (
            f"updates as `{codec}` lose the same numbers again and again: write `feedback | {codec}`, "
            "which has devices send later what they could not send before"
        )
    elif codec.unbiased:
        yield from _of_noise(noise(codec), codec, together, federation.rule)


def _of_noise(single: float, codec: Codec, together: int, rule: AnyRule) -> Iterator[str]:
    """Yield a sentence where a mean of so many updates still has too much of one update's error."""
    left, carried = single / math.sqrt(together), _carried(rule)
    found = (
        f"updates as `{codec}` have errors {single:.1f} times as long as themselves, and a mean of {together}, "
        f"all that a round may have, one of {left:.1f}"
    )
    if left > MOST_NOISE:
        yield f"{found}: take `{SUITS_ALL}`, or wait for more devices"
    elif left * carried > MOST_NOISE:
        yield (
            f"{found}, which the rule's step makes {carried:.1f} times as much from round to round: "
            f"take `{SUITS_MOST}`, or wait for more devices"
        )


def _carried(rule: AnyRule) -> float:
    """Return how many times as much noise is in the model's steps as in single means."""
    step = rule.step if isinstance(rule, Rule) else None
    while isinstance(step, Scheduled):
        step = step.step
    if isinstance(step, Momentum):
        return 1 / math.sqrt(
            1 - step.beta**2
        )  # the length of a sum whose terms fade by beta, and know no other
    return _ADAPTIVE if isinstance(step, Adam | Yogi | Adagrad) else 1.0


@lru_cache(maxsize=16)
def noise(codec: Codec) -> float:
    """Return how long an update's error is, in lengths of the update: tried on numbers drawn at random."""
    vector = np.random.default_rng(0).standard_normal(_SAMPLE).astype(np.float32)
    decoded = codec.decode(codec.encode(vector, (_SAMPLE,), seed=1), (_SAMPLE,), seed=1)
    return float(np.linalg.norm(decoded - vector) / np.linalg.norm(vector))
