"""When devices are up: sessions that come and go, duty cycles, day and night; or as a trace from a file says.

Time is cut into cycles as long as a device is up and down on average together. In each cycle it is up once. Where and
how long is drawn for that cycle alone, so what a device does in a year can be asked without stepping through the year.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.worlds.chance import Chance, Integers, Reals
from fedmq.worlds.checks import want, want_positive, want_share

Booleans: TypeAlias = NDArray[np.bool_]

HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
_LOOKED_AHEAD: Final = 1000
"""Cycles after which a device that never came up is taken not to come up again."""
_HALF: Final = 0.5
_TOUCH_S: Final = 1e-3
"""Sessions that are no further apart than this are one."""


@dataclass(frozen=True, slots=True)
class Availability:
    """``[world.availability]``: when devices are up.

    up_s, down_s: how long a device is up, and then down, on average; with a `down_s` of 0 it is always up.
    regular: every time as long as the average, and at the same place in the cycle (a duty cycle): else both are drawn.
    night: share of the time that a device is up by night, in place of what `up_s` and `down_s` make by day.
    night_from, night_to: hours of local time, of 24. zones: hours from UTC, each for an equal share of the devices, so
    that one named twice has twice as many.
    forgets: a device that goes down is switched off, and comes up with what is on its disk (the outbox) and nothing
    else; otherwise it only sleeps.
    trace: a CSV file that says when devices are up, in place of all this but `forgets` (see `fedmq.worlds.traces`).
    """

    up_s: float = 3600.0
    down_s: float = 0.0
    regular: bool = False
    night: float | None = None
    night_from: float = 22.0
    night_to: float = 7.0
    zones: tuple[float, ...] = (0.0,)
    forgets: bool = False
    trace: Path | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot be."""
        want_positive("up_s", self.up_s)
        want(0 <= self.down_s < math.inf, f"down_s is {self.down_s}; it must be 0 (always up) or more")
        if self.night is not None:
            want_share("night", self.night)
            want(self.down_s > 0, "night is given of devices that are always up: say down_s too")
        for name in ("night_from", "night_to"):
            hour = getattr(self, name)
            want(0 <= hour <= 24, f"{name} is {hour}; it must be an hour from 0 to 24")  # noqa: PLR2004
        want(bool(self.zones), "zones is empty; one at least was wanted, such as 0")
        for zone in self.zones:
            want(-12 <= zone <= 14, f"zones has {zone}; hours from UTC are from -12 to 14")  # noqa: PLR2004

    @property
    def always(self) -> bool:
        """Whether nobody is ever down."""
        return self.trace is None and self.down_s == 0

    @property
    def day(self) -> float:
        """Share of the time that a device is up by day."""
        return self.up_s / (self.up_s + self.down_s)


class Spell(NamedTuple):
    """A time through which a device is `up`, or not: it ends `until` (seconds, perhaps never)."""

    up: bool
    until: float


class Spells(Protocol):
    """The times at which the devices of one fleet are up. Times are seconds from the beginning, a Monday 0:00 UTC."""

    def up(self, devices: Integers, time: float) -> Booleans:
        """Tell of each of `devices` whether it is up."""

    def spell(self, device: int, time: float) -> Spell:
        """Return what `device` is at this time, and until when."""


class Always:
    """Devices that are never down."""

    def up(self, devices: Integers, time: float) -> Booleans:  # noqa: ARG002 - the interface
        """Return True for each."""
        return np.ones(len(devices), np.bool_)

    def spell(self, device: int, time: float) -> Spell:  # noqa: ARG002 - as above
        """Return up, for ever."""
        return Spell(up=True, until=math.inf)


class Cycles:
    """Devices that are up once in each cycle."""

    def __init__(self, availability: Availability, seed: int) -> None:
        """Draw under `seed`."""
        self._availability = availability
        self._length = availability.up_s + availability.down_s
        self._phases, self._zones = Chance(seed, "phase"), Chance(seed, "zone")
        self._lengths, self._places = Chance(seed, "session length"), Chance(seed, "session place")

    def up(self, devices: Integers, time: float) -> Booleans:
        """Tell of each."""
        phases = self._phases.many(devices)
        cycles = np.floor(time / self._length + phases)
        start = (cycles - phases) * self._length
        share = self._shares(start, self._zones.many(devices))
        if self._availability.regular:
            return np.asarray((start <= time) & (time < start + share * self._length))
        numbers = cycles.astype(np.int64)
        length = self._length * _drawn(share, self._lengths.many(devices, numbers))
        first = start + self._places.many(devices, numbers) * (self._length - length)
        return np.asarray((first <= time) & (time < first + length))

    def spell(self, device: int, time: float) -> Spell:
        """Return the spell; sessions that touch are one."""
        cycle = math.floor(time / self._length + self._phases.one(device)) - 1
        for each in range(cycle, cycle + _LOOKED_AHEAD):
            first, last = self._session(device, each)
            if time < first < last:
                return Spell(up=False, until=first)
            if time < last and first < last:
                return Spell(up=True, until=self._end(device, each, last))
        return Spell(up=False, until=math.inf)

    def _end(self, device: int, cycle: int, last: float) -> float:
        """Return when a device goes down whose session of this cycle ends at `last`."""
        for each in range(cycle + 1, cycle + _LOOKED_AHEAD):
            following = self._session(device, each)
            if following[0] > last + _TOUCH_S or following[0] == following[1]:
                return last
            last = following[1]
        return math.inf

    def _session(self, device: int, cycle: int) -> tuple[float, float]:
        """Return from when to when the device is up in this cycle."""
        start = (cycle - self._phases.one(device)) * self._length
        share = self._share(start, self._zones.one(device))
        if self._availability.regular:
            return start, start + share * self._length
        draw = self._lengths.one(device, cycle)
        length = self._length * (2 * share * draw if share < _HALF else 1 - 2 * (1 - share) * draw)
        first = start + self._places.one(device, cycle) * (self._length - length)
        return first, first + length

    def _share(self, start: float, place: float) -> float:
        """Return the share of the cycle from `start` that a device is up; `place` is its draw of a time zone."""
        rule = self._availability
        if rule.night is None:
            return rule.day
        zone = rule.zones[int(place * len(rule.zones))]
        hour = ((start + self._length / 2) / HOUR_S + zone) % 24.0
        return rule.night if self._is_night(hour) else rule.day

    def _is_night(self, hour: float) -> bool:
        begins, ends = self._availability.night_from, self._availability.night_to
        return begins <= hour < ends if begins <= ends else hour >= begins or hour < ends

    def _shares(self, start: Reals, places: Reals) -> Reals:
        """Return what `_share` does, for many."""
        rule = self._availability
        if rule.night is None:
            return np.full(len(start), rule.day)
        zones = np.asarray(rule.zones)[(places * len(rule.zones)).astype(np.int64)]
        hours = ((start + self._length / 2) / HOUR_S + zones) % 24.0
        late, early = hours >= rule.night_from, hours < rule.night_to
        night = late & early if rule.night_from <= rule.night_to else late | early
        return np.where(night, rule.night, rule.day)


def _drawn(share: Reals, draw: Reals) -> Reals:
    """Return what part of a cycle is spent up, anything up to twice the share; or down, where that is the less."""
    return np.where(share < _HALF, 2 * share * draw, 1 - 2 * (1 - share) * draw)
