"""The devices of one fleet in one world: what each of them is and does, at any time, asked in any order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedmq.worlds.availability import HOUR_S, Always, Availability, Cycles, Spells
from fedmq.worlds.chance import Chance
from fedmq.worlds.traces import read_trace

if TYPE_CHECKING:
    from fedmq.worlds.availability import Booleans, Spell
    from fedmq.worlds.chance import Integers
    from fedmq.worlds.world import World


class Population:
    """Devices are numbers from 0. Nothing is held for any of them: all is drawn anew when it is asked for."""

    def __init__(self, world: World, seed: int = 0) -> None:
        """Draw under `seed`. Raises ConfigError where the world's trace cannot be read."""
        self.world = world
        self._spells = _spells(world.availability, seed)
        self._speeds, self._classes = Chance(seed, "speed"), Chance(seed, "class of hardware")
        self._noise, self._links = Chance(seed, "one training"), Chance(seed, "link")
        self._cuts, self._returns = Chance(seed, "cut"), Chance(seed, "reconnection")
        self._sides = Chance(seed, "attacker")

    # --- up and down --------------------------------------------------------------------------------------------------

    def up(self, devices: Integers, time: float) -> Booleans:
        """Tell of each of `devices` whether it is up at `time`, in seconds."""
        return self._spells.up(devices, time)

    def spell(self, device: int, time: float) -> Spell:
        """Return whether the device is up, and until when that is so."""
        return self._spells.spell(device, time)

    def worked(self, device: int, time: float, seconds: float) -> float:
        """Return when a device has been up for so many seconds from `time` on: work sleeps when it does."""
        while True:
            spell = self.spell(device, time)
            if spell.until == math.inf:
                return time + seconds if spell.up else math.inf
            if spell.up:
                if time + seconds <= spell.until:
                    return time + seconds
                seconds -= spell.until - time
            time = spell.until

    # --- training -----------------------------------------------------------------------------------------------------

    def training_s(self, device: int, examples: float, training: int = 0) -> float:
        """Return how long the device trains on so many examples, each counted once for each epoch.

        `training` numbers the device's trainings, one of which takes longer than another.
        """
        hardware = self.world.hardware
        speed = hardware.speeds[int(self._classes.one(device) * len(hardware.speeds))]
        spread = hardware.spread * self._speeds.normal(device) if hardware.spread else 0.0
        noise = hardware.noise * self._noise.normal(device, training) if hardware.noise else 0.0
        return (hardware.setup_s + examples * hardware.example_s) / speed * math.exp(spread + noise)

    # --- the link -----------------------------------------------------------------------------------------------------

    def upload_s(self, device: int, nbytes: int) -> float:
        """Return how long so many bytes take up, if nothing breaks."""
        return self._transfer_s(device, nbytes, self.world.link.up_kbit_s)

    def download_s(self, device: int, nbytes: int) -> float:
        """Return how long so many bytes take down, if nothing breaks."""
        return self._transfer_s(device, nbytes, self.world.link.down_kbit_s)

    def _transfer_s(self, device: int, nbytes: int, kbit_s: float) -> float:
        link = self.world.link
        slower = math.exp(link.spread * self._links.normal(device)) if link.spread else 1.0
        return link.latency_s + nbytes * 8e-3 / kbit_s * slower

    def next_cut(self, device: int, time: float) -> float:
        """Return when the device's link breaks next after `time`: once in each stretch of the mean length."""
        rate = self.world.link.cuts_per_hour
        if not rate:
            return math.inf
        stretch = HOUR_S / rate
        number = math.floor(time / stretch)
        cut = (number + self._cuts.one(device, number)) * stretch
        return cut if cut > time else (number + 1 + self._cuts.one(device, number + 1)) * stretch

    def reconnected(self, device: int, time: float) -> float:
        """Return when a link that broke at `time` is there again: after half to one and a half of the usual time."""
        return time + self.world.link.reconnect_s * (0.5 + self._returns.one(device, int(time * 1e3)))

    # --- on whose side ------------------------------------------------------------------------------------------------

    def attacks(self, device: int) -> bool:
        """Tell whether the device attacks."""
        attackers = self.world.attackers
        return attackers is not None and self._sides.one(device) < attackers.share


def _spells(availability: Availability, seed: int) -> Spells:
    if availability.trace is not None:
        return read_trace(availability.trace)
    return Always() if availability.always else Cycles(availability, seed)
