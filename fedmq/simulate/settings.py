"""What a simulation is told: the fleet, and the same tables that an aggregator's file has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, Plain
from fedmq.device.interface import ModuleName
from fedmq.engines.front import cores
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import AnyRule, preset
from fedmq.simulate.shares import enough
from fedmq.store.archive import KeepUpdates
from fedmq.worlds import World

MOST_SESSIONS: Final = 10_000
"""Devices that may have an MQTT session each."""
MOST_DEVICES: Final = 1_000_000
"""Devices of a fleet in virtual time."""

MOST_PROCESSES: Final = 1_000

WORTHWHILE: Final = 250
"""Devices for which one more process is worth starting."""
LIGHT: Final = frozenset({"numpy", "litert"})
"""Engines of which each process may have its own: they take some tens of megabytes, and no GPU."""

OWN_TRAINERS: Final = "trainer"
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class FleetTable:
    """``[fleet]``: who takes part, and with what data.

    module: the user's Python module with ``model()``, and ``data(device)`` unless `data` names a set that comes with
    fedmq. data: ``smartwatch``, ``mnist``, or ``module``. partition: how a shipped set is dealt out: ``by_owner``,
    ``iid``, ``dirichlet(0.5)``, ``shards(2)``, ``quantity(1.5)``. options: what trainer or engine takes, such as
    ``threads``. engine: who trains, ``trainer`` (each device's own, one after the other), an engine that trains many at
    once (``numpy``, ``tensorflow``, ``jax``, ``litert``), or ``auto``, the fastest of those that are installed.
    baselines: train also without federation, for comparison. outbox: where devices keep what has no receipt yet, and
    what codecs and algorithms have them keep: in ``memory``, or on ``disk`` in the run's folder, as real ones do.
    processes: over how many the devices are spread, 0 for what `shares` says. on: where these run, ``here`` or on the
    machines of a ``ray`` cluster, at `ray_address` or where Ray itself looks for one.
    """

    module: ModuleName
    data: Literal["smartwatch", "mnist", "module"] = "module"
    devices: int = 10
    partition: str = "by_owner"
    seed: int = 0
    trainer: str = "keras"
    engine: Literal["trainer", "auto", "numpy", "tensorflow", "jax", "litert"] = "trainer"
    baselines: bool = True
    processes: int = 0
    outbox: Literal["memory", "disk"] = "memory"
    on: Literal["here", "ray"] = "here"
    ray_address: str = ""
    options: dict[str, bool | int | float | str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for a fleet that cannot be."""
        if not 1 <= self.devices <= MOST_DEVICES:
            raise ConfigError(f"devices is {self.devices}; it must be from 1 to {MOST_DEVICES}")
        if not 0 <= self.processes <= MOST_PROCESSES:
            raise ConfigError(
                f"processes is {self.processes}; it must be from 1 to {MOST_PROCESSES}, or 0 to leave it open"
            )
        if self.ray_address and self.on != "ray":
            raise ConfigError(
                f"ray_address is {self.ray_address!r}, and nothing runs on Ray: say on = 'ray' as well"
            )
        if self.outbox == "disk" and self.on == "ray":
            raise ConfigError(
                "outbox is 'disk', in the run's folder on this machine, and devices on Ray may be on others: leave "
                "outbox or on out"
            )

    @property
    def shares(self) -> int:
        """Over how many processes of this machine the devices are spread.

        Where nothing is said, a fleet of some size on a `LIGHT` engine has one for each core: what is Python in a fleet
        runs on one core at a time in each of them.
        """
        busy = self.devices // WORTHWHILE if self.engine in LIGHT else 1
        return enough(self.devices, self.processes, least=max(1, min(busy, cores())))

    @property
    def spread(self) -> bool:
        """Whether the devices live in other processes than the aggregator."""
        return self.on == "ray" or self.shares > 1


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """What ``fedmq simulate`` reads. With a `world` the run is in virtual time, of so many `days` at most (0: any)."""

    fleet: FleetTable
    name: str = "simulation"
    rounds: Policy = field(default_factory=Policy)
    stop: StopWhen = field(default_factory=lambda: StopWhen(rounds=30))
    rule: AnyRule = field(default_factory=lambda: preset("fedavg"))
    encoding: Encoding = ENCODINGS[DEFAULT]
    training: dict[str, bool | int | float | str] = field(default_factory=dict)
    store: KeepUpdates = field(default_factory=KeepUpdates)
    algorithm: Algorithm = field(default_factory=Plain)
    world: World | None = None
    days: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for what needs virtual time, where none is asked for by a world."""
        if self.world is None and self.fleet.devices > MOST_SESSIONS:
            raise ConfigError(
                f"fleet.devices is {self.fleet.devices}, and {MOST_SESSIONS} can have an MQTT session each: take "
                "fewer, or say [world], for virtual time"
            )
        if self.days < 0 or (self.days and self.world is None):
            raise ConfigError(
                f"days is {self.days}; it must be 0 (no limit) or more, and goes with a [world]"
            )
        if self.world is not None and (self.fleet.processes > 1 or self.fleet.on == "ray"):
            raise ConfigError("virtual time runs in one process: leave processes and on out, or the world")
        if self.world is not None and self.fleet.outbox == "disk":
            raise ConfigError("virtual time has no disks: leave outbox out, or the world")
        if self.world is not None and self.store.keep_updates:
            raise ConfigError("keep_updates keeps what is sent over MQTT: leave it out in virtual time")

    @property
    def federation(self) -> Federation:
        """The federation that is simulated. Raises ConfigError."""
        return Federation(
            self.name, self.rule, self.rounds, self.stop, self.encoding, self.training, self.algorithm
        )
