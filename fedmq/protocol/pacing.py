"""How long a fleet takes over what all of it would do at once: connect when the broker is back, ask after receipts.

The aggregator knows how many devices there are, and no device does; so it tells them in its beacon how many seconds to
spread over. A dozen devices are back at once, a thousand within some seconds, and the broker's door stays passable.
"""

from __future__ import annotations

from typing import Final

A_SECOND: Final = 60
"""Devices that act in one second, on average: their moments are drawn, so in some seconds half as many more do."""
LONGEST_S: Final = 3600.0
"""Longest time to spread over, whatever a beacon says: some 200,000 devices."""
_TOLD: Final = 0.25
"""Share by which the fleet may have changed before the time is told anew."""


def spread_s(devices: int) -> float:
    """Return the whole seconds over which so many devices spread.

    >>> spread_s(12), spread_s(1000)
    (0.0, 17.0)
    """
    return min(float(round(devices / A_SECOND)), LONGEST_S)


def is_outdated(told: float, wanted: float) -> bool:
    """Tell whether the time that was told is to be told anew."""
    return abs(wanted - told) > max(1.0, _TOLD * told)
