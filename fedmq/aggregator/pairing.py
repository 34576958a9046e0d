"""Whether a rule can work with what a codec leaves of single updates; and what to think of where it barely can."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fedmq.errors import ConfigError
from fedmq.rules import strictest

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

FEW: Final = 5
"""Updates in one mean below which an error as large as an update itself is felt."""


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
    elif codec.unbiased and together < FEW:
        yield (
            f"updates as `{codec}` have errors as large as themselves, which go away in means of many, and a round "
            f"may have {together} of them: take `{SUITS_ALL}`, or wait for more devices"
        )
