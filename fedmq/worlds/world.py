"""A world: how the devices of a fleet behave, as a small description; and worlds by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from fedmq.errors import ConfigError
from fedmq.worlds.attacks import LittleIsEnough
from fedmq.worlds.availability import Availability
from fedmq.worlds.equipment import Attackers, Battery, Connection, Hardware
from fedmq.worlds.shares import Data

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class World:
    """``[world]``: how devices behave. Without a battery, power is no matter; without data, `[fleet]` deals it out."""

    availability: Availability = field(default_factory=Availability)
    hardware: Hardware = field(default_factory=Hardware)
    link: Connection = field(default_factory=Connection)
    battery: Battery | None = None
    data: Data | None = None
    attackers: Attackers | None = None


class Named(NamedTuple):
    """One preset, and what it is in one line."""

    world: World
    purpose: str


_NAMED: Final[Mapping[str, Named]] = {
    "lab": Named(World(), "A dozen boards on a bench: always on, alike, on a fast network."),
    "city-lte": Named(
        World(
            Availability(up_s=5400.0, down_s=5400.0, night=0.8),
            Hardware(example_s=0.01, setup_s=1.0, spread=0.5, noise=0.2, speeds=(0.5, 1.0, 1.0, 3.0)),
            Connection(0.05, up_kbit_s=5_000.0, down_kbit_s=20_000.0, spread=0.8, cuts_per_hour=2.0),
            data=Data(examples=50.0, spread=0.8, labels=0.5),
        ),
        "Gateways and phones about a town: sessions of an hour or two, more of them by night, on LTE.",
    ),
    "farm-duty-cycled": Named(
        World(
            Availability(up_s=600.0, down_s=21_000.0, regular=True, forgets=True),
            Hardware(example_s=0.05, setup_s=5.0, spread=0.3, noise=0.1),
            Connection(
                0.8, up_kbit_s=30.0, down_kbit_s=60.0, spread=0.5, cuts_per_hour=6.0, reconnect_s=15.0
            ),
            Battery(capacity_j=200.0, daily_j=20.0, level=0.4, train_w=2.5, radio_w=0.8),
            Data(examples=40.0, spread=0.5, labels=1.0, turnover_days=7.0),
        ),
        "Sensors in fields: switched on for ten minutes every six hours, on a narrow link and a small solar panel.",
    ),
    "phones-by-night": Named(
        World(
            Availability(up_s=300.0, down_s=10_500.0, night=0.85, zones=(-8.0, -5.0, 1.0, 1.0, 5.5, 8.0)),
            Hardware(example_s=0.004, setup_s=1.0, spread=0.7, noise=0.3, speeds=(0.5, 1.0, 2.0)),
            Connection(0.03, up_kbit_s=10_000.0, down_kbit_s=50_000.0, spread=0.7, cuts_per_hour=0.5),
            data=Data(examples=60.0, spread=1.0, labels=0.3, turnover_days=4.0, season_days=10.0),
        ),
        "Phones round the world that take part while they are charged by night; what their owners do changes.",
    ),
    "hostile": Named(
        World(
            Availability(up_s=5400.0, down_s=5400.0, night=0.8),
            Hardware(example_s=0.01, setup_s=1.0, spread=0.5, noise=0.2, speeds=(0.5, 1.0, 1.0, 3.0)),
            Connection(0.05, up_kbit_s=5_000.0, down_kbit_s=20_000.0, spread=0.8, cuts_per_hour=6.0),
            data=Data(examples=50.0, spread=0.8, labels=0.5),
            attackers=Attackers(0.2, LittleIsEnough(1.5)),
        ),
        "The town again, with worse links and one device in five in the hands of somebody else.",
    ),
}

WORLDS: Final[Mapping[str, World]] = MappingProxyType({name: named.world for name, named in _NAMED.items()})
"""Every preset by name."""

WORLD_PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {name: named.purpose for name, named in _NAMED.items()}
)
"""What each preset is, in one line."""


def world(name: str) -> World:
    """Return the world called `name`; raise ConfigError, naming the nearest, where there is none."""
    if name in WORLDS:
        return WORLDS[name]
    near = difflib.get_close_matches(name, WORLDS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(WORLDS)}"
    raise ConfigError(f"there is no world {name!r}: {hint}")
