"""How long to wait before connecting again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from random import Random

LEAST_BASE_S: Final = 0.3
"""Shortest time over which first attempts are spread: a few dozen devices need no more."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: uniform(0, window) at first, uniform(window / 2, window) from the second attempt on.

    The window is `base_s`, doubled with each failure, up to `cap_s`. Full jitter spreads a crowd that lost its broker
    at one moment evenly over the whole of it, so `base_s` is also how a fleet is kept from stampeding: n devices come
    back at n / `base_s` connections a second at first. Those that found nobody, or were refused, wait until that wave
    is over ("equal jitter"): they come after it, not on top of it. A connection that lasted
    `steady_s` seconds starts the count anew. Where the broker *refused* us (wrong password, …), trying often helps
    nobody: then the wait is uniform(cap_s / 2, cap_s).

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base_s: float = 1.0
    cap_s: float = 45.0
    steady_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0.0 < self.base_s <= self.cap_s or self.steady_s < 0.0:
            raise MisuseError(f"{self} does not hold: 0 < base_s <= cap_s, and steady_s at least 0")

    def over(self, spread_s: float) -> Backoff:
        """Return the back-off of one of a fleet that spreads its first attempts over so many seconds."""
        base = max(spread_s, LEAST_BASE_S)
        return replace(self, base_s=base, cap_s=max(self.cap_s, 2.0 * base))

    def delay(self, attempt: int, random: Random) -> float:
        """Return the seconds to wait after failure number `attempt`, counted from 0."""
        # Doubling stops to matter long before 2**60 overflows a float.
        window = min(self.cap_s, self.base_s * 2.0 ** min(attempt, 60))
        return random.uniform(window / 2.0 if attempt else 0.0, window)

    def refused(self, random: Random) -> float:
        """Return the seconds to wait after the broker said no."""
        return random.uniform(self.cap_s / 2.0, self.cap_s)
