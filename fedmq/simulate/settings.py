"""What a simulation is told: the fleet, and the same tables that an aggregator's file has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedmq.aggregator.encodings import DEFAULT, ENCODINGS
from fedmq.aggregator.settings import Encoding, Federation
from fedmq.algorithms import Algorithm, Plain
from fedmq.device.interface import ModuleName
from fedmq.errors import ConfigError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import AnyRule, preset
from fedmq.store.archive import KeepUpdates


@dataclass(frozen=True, slots=True)
class FleetTable:
    """``[fleet]``: who takes part, and with what data.

    module: the user's Python module with ``model()``, and ``data(device)`` unless `data` names a set that comes with
    fedmq. data: ``smartwatch``, ``mnist``, or ``module``. partition: how a shipped set is dealt out: ``by_owner``,
    ``iid``, ``dirichlet(0.5)``, ``shards(2)``, ``quantity(1.5)``. options: what the trainer takes, such as ``threads``.
    baselines: train also without federation, for comparison.
    """

    module: ModuleName
    data: Literal["smartwatch", "mnist", "module"] = "module"
    devices: int = 10
    partition: str = "by_owner"
    seed: int = 0
    trainer: str = "keras"
    baselines: bool = True
    options: dict[str, bool | int | float | str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for a fleet that cannot be."""
        if not 1 <= self.devices <= 10_000:  # noqa: PLR2004 - one MQTT session each
            raise ConfigError(f"devices is {self.devices}; it must be from 1 to 10000")


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """What ``fedmq simulate`` reads."""

    fleet: FleetTable
    name: str = "simulation"
    rounds: Policy = field(default_factory=Policy)
    stop: StopWhen = field(default_factory=lambda: StopWhen(rounds=30))
    rule: AnyRule = field(default_factory=lambda: preset("fedavg"))
    encoding: Encoding = ENCODINGS[DEFAULT]
    training: dict[str, bool | int | float | str] = field(default_factory=dict)
    store: KeepUpdates = field(default_factory=KeepUpdates)
    algorithm: Algorithm = field(default_factory=Plain)

    @property
    def federation(self) -> Federation:
        """The federation that is simulated. Raises ConfigError."""
        return Federation(
            self.name, self.rule, self.rounds, self.stop, self.encoding, self.training, self.algorithm
        )
