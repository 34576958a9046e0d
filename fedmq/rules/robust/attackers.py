"""How many of a round's updates may be bad: what the rules that outvote attackers are told."""

from __future__ import annotations

import math
from typing import Final

from fedmq.errors import Refused
from fedmq.rules.settings import require

_ROUNDING: Final = 1e-9
"""A share of 0.29 means 29 of 100, although their product is a little less in float64."""


def require_attackers(kind: str, attackers: float) -> None:
    """Raise ConfigError unless `attackers` is a share below one half, or a whole count."""
    share, count = 0.0 <= attackers < 0.5, attackers >= 1.0 and float(attackers).is_integer()  # noqa: PLR2004
    require(
        share or count,
        f"{kind} has attackers {attackers}, wants a share of the updates below 0.5, or a whole number of them",
    )


def most_bad(attackers: float, n: int) -> int:
    """Return how many of `n` updates may be bad: a count is as given, a share is of all, rounded down.

    So a share promises nothing in a round too small to hold one bad update within it: 0.2 of four is none.
    """
    return int(attackers) if attackers >= 1.0 else math.floor(attackers * n + _ROUNDING)


def outvoted(kind: str, attackers: float, n: int, *, each: int, spare: int) -> int:
    """Return how many of `n` updates may be bad, where the rule needs ``each`` updates for each of them, and `spare`.

    Raises Refused where these are more than the rule can outvote: a round without the promised protection is worse
    than none. Nothing is refused where there is no attacker to outvote.
    """
    bad = most_bad(attackers, n)
    if bad and n < each * bad + spare:
        raise Refused(
            f"{kind} needs {each * bad + spare} updates to outvote {bad} bad ones, the round has {n}: "
            "wait for more devices, or set a lower number of attackers"
        )
    return bad


def shown(attackers: float) -> str:
    """Return `attackers` as parts print it: ``0.2`` for a share, ``f=3`` for a count."""
    return f"{attackers:g}" if attackers < 1.0 else f"f={attackers:g}"
