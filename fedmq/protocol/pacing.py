"""How long a fleet takes over what all of it would do at once: connect when the broker is back, ask after receipts.

The aggregator knows how many devices there are, and no device does; so it tells them in its beacon how many seconds to
spread over. A dozen devices are back at once, a thousand within some seconds, and the broker's door stays passable.

Where in that time a device's moment lies is drawn by `lot`: from what only this device has, so that a simulation that
is repeated tells the same story.
"""

from __future__ import annotations

import hashlib
from typing import Final

A_SECOND: Final = 60
"""Devices that act in one second, on average: their moments are drawn, so in some seconds half as many more do."""
LONGEST_S: Final = 3600.0
"""Longest time to spread over, whatever a beacon says: some 200,000 devices."""
EARLIER: Final = 0.5
"""Share of a wait by which it may be shorter ("equal jitter": M. Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015). Not all of it ("full jitter"): what did not come is not asked for again at once."""
_TOLD: Final = 0.25
"""Share by which the fleet may have changed before the time is told anew."""


def spread_s(devices: int) -> float:
    """Return the whole seconds over which so many devices spread.

    >>> spread_s(12), spread_s(1000)
    (0.0, 17.0)
    """
    return min(float(round(devices / A_SECOND)), LONGEST_S)


def lot(word: bytes, times: int) -> float:
    """Return a number from 0 to 1 by which those who differ in their `word` differ, and one time from the next."""
    drawn = hashlib.sha256(word + (times % 2**32).to_bytes(4, "big")).digest()[:4]
    return int.from_bytes(drawn, "big") / (2**32 - 1)


def wait_s(longest: float, spread: float, drawn: float) -> float:
    """Return the wait of one of a fleet: `longest` seconds, or up to half of that earlier, by its lot.

    Where the fleet is to `spread` over more than that half, it may be so much later as well.

    >>> wait_s(30.0, 0.0, 0.5), wait_s(30.0, 167.0, 0.5)
    (22.5, 98.5)
    """
    least = longest * (1.0 - EARLIER)
    return least + max(longest - least, spread) * drawn


def is_outdated(told: float, wanted: float) -> bool:
    """Tell whether the time that was told is to be told anew."""
    return abs(wanted - told) > max(1.0, _TOLD * told)
