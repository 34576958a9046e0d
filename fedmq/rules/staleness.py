"""How much less an update is worth the more model versions have come out since the one it started from."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from fedmq.rules.settings import require

Decay: TypeAlias = Literal["polynomial", "exponential", "hinge"]


def require_decay(kind: str, decay: Decay, a: float, b: float) -> None:
    """Raise ConfigError unless the fields describe one of the curves."""
    require(
        decay in {"polynomial", "exponential", "hinge"},
        f"{kind} has decay {decay!r}, wants polynomial, exponential or hinge",
    )
    require(0.0 < a < math.inf, f"{kind} has a {a}, wants a positive finite number")
    require(0.0 <= b < math.inf, f"{kind} has b {b}, wants a finite number of at least 0")


def worth(staleness: int, decay: Decay, a: float, b: float) -> float:
    """Return ``(1 + s)^-a``, ``e^(-a s)`` or, above `b`, ``1 / (a (s - b) + 1)``: one for a fresh update, then less.

    Xie, Koyejo and Gupta 2019, "Asynchronous Federated Optimization", section 5.2 (their functions of ``t - tau``).
    """
    if decay == "polynomial":
        return float((1.0 + staleness) ** -a)
    if decay == "exponential":
        return math.exp(-a * staleness)
    return 1.0 if staleness <= b else 1.0 / (a * (staleness - b) + 1.0)


def spelt(decay: Decay, a: float, b: float) -> str:
    """Return the curve in a few characters."""
    if decay == "polynomial":
        return f"(1+s)^-{a:g}"
    return f"e^-{a:g}s" if decay == "exponential" else f"1/({a:g}(s-{b:g})+1)"
