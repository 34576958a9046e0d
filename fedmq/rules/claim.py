"""What a device says about its update, as far as rules care; the aggregator makes one from the message's facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Claim:
    """A device's own words about one update: nothing in it is proven, so guards and weighers bound what it can do.

    `examples` trained on, `steps` of the optimizer taken, `metrics` by name. `staleness` is not the device's word but
    the aggregator's: how many model versions have come out since the one that the update started from.
    """

    examples: int
    steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    staleness: int = 0
