"""What the process of a share is told: which devices it has, what they take part in, and where the broker is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmq.config import BrokerTable, structure
from fedmq.config.tables import tables
from fedmq.device.interface import ModuleName
from fedmq.engines.front import cores
from fedmq.simulate.settings import SimulationSettings
from fedmq.simulate.shares import Share, shares
from fedmq.transport.address import Credentials, open_transport

if TYPE_CHECKING:
    from fedmq.transport.interface import Transport

_ONE_THREAD_A_CORE = frozenset({"numpy", "tensorflow", "jax", "litert"})
"""Engines with an option for how many threads train; devices' own trainers have none."""


@dataclass(frozen=True, slots=True)
class Place:
    """The broker; a `private` one is ours, in process `pid` where we know that, and wants no password of anybody's."""

    address: str
    private: bool = False
    pid: int | None = None

    def open(self) -> Transport:
        """Return a transport to it. Raises ConfigError."""
        return (
            open_transport(self.address, Credentials()) if self.private else BrokerTable(self.address).open()
        )


@dataclass(frozen=True, slots=True)
class Order:
    """One share's; its devices keep what they have to in `folder`, in memory where that is empty."""

    settings: SimulationSettings
    share: Share
    place: Place
    folder: str = ""

    def line(self) -> str:
        """Return the order as one line of JSON; paths are absolute in it."""
        return json.dumps(tables(self))

    def moved(self, folder: Path) -> Order:
        """Return the order for a machine where the user's file lies in `folder`; a module by its dotted name stays."""
        fleet = self.settings.fleet
        if not fleet.module.endswith(".py"):
            return self
        module = ModuleName(str(folder / Path(fleet.module).name))
        return replace(self, settings=replace(self.settings, fleet=replace(fleet, module=module)))

    @classmethod
    def read(cls, line: str) -> Order:
        """Return the order that `line` gave. Raises ConfigError for settings that cannot be."""
        tree: dict[str, Any] = json.loads(line)
        return structure(tree, cls, source="a share's settings")


def orders(
    settings: SimulationSettings, engine: str, count: int, place: Place, folder: Path | None = None
) -> list[Order]:
    """Return the orders of all of `count` shares, which train on `engine`, each on its part of the cores."""
    options = dict(settings.fleet.options)
    if settings.fleet.on == "here" and engine in _ONE_THREAD_A_CORE:
        options.setdefault("workers", max(1, cores() // count))
    fleet = replace(settings.fleet, engine=engine, baselines=False, options=options)  # type: ignore[arg-type]  # read from a name
    told = replace(settings, fleet=fleet)
    kept = "" if folder is None else str(folder.resolve())
    return [Order(told, share, place, kept) for share in shares(count)]
