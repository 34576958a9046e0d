"""Virtual time: what is to happen, in order; from one thing to the next it takes no time at all."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = TypeVarTuple("Arguments")


@dataclass(slots=True, order=True)
class Timer:
    """Something that is to happen at `time`; of two things at one time, what was asked for first."""

    time: float
    place: int
    action: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Have it not happen."""
        self.action = None


class Clock:
    """A heap of timers, and `now`, in seconds."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.now = 0.0
        self._timers: list[Timer] = []
        self._places = count()

    def at(self, time: float, action: Callable[[*Arguments], None], *arguments: *Arguments) -> Timer:
        """Do this at `time`, or now where that is past; never where it is infinite."""
        timer = Timer(max(time, self.now), next(self._places), lambda: action(*arguments))
        if timer.time < math.inf:
            heapq.heappush(self._timers, timer)
        return timer

    def step(self, until: float = math.inf) -> bool:
        """Go on to the next thing and do it; False where there is none, or none before `until`."""
        while self._timers and self._timers[0].time <= until:
            timer = heapq.heappop(self._timers)
            if timer.action is not None:
                self.now = timer.time
                timer.action()
                return True
        return False
