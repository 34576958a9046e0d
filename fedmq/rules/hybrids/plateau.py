"""When a figure that devices report has stopped getting better."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from fedmq.errors import DecodeError
from fedmq.rules.settings import require

_READING: Final = struct.Struct("<dd")


@dataclass(frozen=True, slots=True)
class Plateau:
    """A reported figure that has not got better by `min_delta` for `patience` rounds.

    A round's figure is the devices' median, each counted by its update's weight: what a device reports is its own word,
    and no value can be told from a lie by its size. A mean would follow the largest, a median follows nobody until
    half of the weight lies. Updates without the figure, or with one that is not finite, have no voice in it; a round
    where nobody reports it counts neither way.
    """

    metric: str = "accuracy"
    patience: int = 5
    min_delta: float = 0.0
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        require(self.metric.isprintable(), f"plateau has metric {self.metric!r}, wants a printable name")
        require(self.patience >= 1, f"plateau has patience {self.patience}, wants at least 1 round")
        require(
            0.0 <= self.min_delta < math.inf,
            f"plateau has min_delta {self.min_delta}, wants a finite number that is not negative",
        )

    def better(self, value: float, best: float) -> bool:
        """Tell whether `value` is better than `best` by more than `min_delta`."""
        gain = best - value if self.lower_is_better else value - best
        return gain > self.min_delta

    def __str__(self) -> str:
        return f"{self.metric} stands still for {self.patience} rounds"


@dataclass(slots=True, eq=False)
class Readings:
    """What one round's updates reported of a figure, each with its update's weight."""

    pairs: list[tuple[float, float]] = field(default_factory=list)

    def note(self, value: float | None, weight: float) -> None:
        """Take one report, unless there is none that can be compared."""
        if value is not None and math.isfinite(value):
            self.pairs.append((value, weight))

    def joined(self, other: Readings) -> Readings:
        """Return the reports of both."""
        return Readings(self.pairs + other.pairs)

    def median(self) -> float | None:
        """Return the least value that half of the weight does not exceed; None where nothing was reported."""
        ordered = sorted(self.pairs)
        half = math.fsum(weight for _, weight in ordered) / 2
        running = accumulate(weight for _, weight in ordered)
        reached = (value for (value, _), sum_ in zip(ordered, running, strict=True) if sum_ >= half)
        return next(reached, None)

    def dump(self) -> bytes:
        """Return value and weight (float64 each, little-endian) of every report, in order of value."""
        return b"".join(_READING.pack(*pair) for pair in sorted(self.pairs))

    @classmethod
    def load(cls, data: bytes, most: int) -> Readings:
        """Return what `dump` wrote; raise DecodeError where `most` updates cannot have given it."""
        if len(data) % _READING.size or len(data) > most * _READING.size:
            raise DecodeError(f"fold has {len(data)} bytes of reports from {most} updates: was it damaged?")
        pairs = list(_READING.iter_unpack(data))
        if pairs != sorted(pairs) or not all(math.isfinite(v) and 0.0 < w < math.inf for v, w in pairs):
            raise DecodeError("fold has reports that are out of order or range: was it damaged on its way?")
        return cls(pairs)
