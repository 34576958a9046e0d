"""One device's timers by name: each rings once, and one that is set again has not been set before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.simulate.virtual.clock import Clock, Timer


class Alarms:
    """Timers on a clock."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._timers: dict[str, Timer] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._timers

    def set(self, name: str, time: float, action: Callable[[], None]) -> None:
        """Do this at `time`, and not what was to be done under this name."""
        self.cancel(name)
        self._timers[name] = self._clock.at(time, partial(self._ring, name, action))

    def cancel(self, *names: str) -> None:
        """Have these not ring."""
        for name in names:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    def cancel_all(self) -> None:
        """Have none ring."""
        self.cancel(*list(self._timers))

    def _ring(self, name: str, action: Callable[[], None]) -> None:
        del self._timers[name]
        action()
