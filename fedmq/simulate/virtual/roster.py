"""Whose turn it may be: the devices of a fleet by number, and the trainer of any of them at any time."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from fedmq import datasets
from fedmq.device.training import train
from fedmq.engines import Job
from fedmq.errors import ConfigError
from fedmq.simulate.fleet import Fleet, build_fleet, build_trainer
from fedmq.simulate.settings import OWN_TRAINERS
from fedmq.trainers.module import Supply
from fedmq.worlds import Population, Shares
from fedmq.worlds.attacks import LabelFlip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.datasets import Dataset
    from fedmq.device.interface import Trained, Trainer
    from fedmq.device.training import Begun
    from fedmq.simulate.settings import FleetTable, SimulationSettings
    from fedmq.worlds import Attack, Data, World

CACHED = 64
"""Trainers that are kept for the case that they are asked for again."""


class Roster(Protocol):
    """The devices of one fleet."""

    @property
    def names(self) -> Sequence[str]:
        """Their names, by number."""

    @property
    def pooled(self) -> Trainer | None:
        """A trainer that evaluates on everyone's held-out data; None where there is no such thing."""

    @property
    def trainers(self) -> Mapping[str, Trainer]:
        """Everyone's trainer by name, where all are there at once; else none."""

    @property
    def description(self) -> str:
        """How many devices, with what data, for people."""

    def first(self) -> Trainer:
        """Return some trainer, for layout and first weights."""

    def examples(self, device: int) -> int:
        """Return how many examples the device trains on."""

    def trainer(self, device: int, time: float) -> Trainer:
        """Return the device's trainer, with the data that it has at `time`."""

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Return what these trainings gave, each by a trainer of the roster's, in order."""


class Dealt:
    """Devices whose data were dealt out beforehand and stay: every trainer is there."""

    def __init__(self, fleet: Fleet) -> None:
        """Take the trainers of a fleet."""
        self.names = list(fleet.trainers)
        self.trainers, self.pooled, self.description = fleet.trainers, fleet.pooled, fleet.description
        self._all, self._front = list(fleet.trainers.values()), fleet.front

    def first(self) -> Trainer:
        """Return the first device's."""
        return self._all[0]

    def examples(self, device: int) -> int:
        """Return the trainer's."""
        return self._all[device].examples

    def trainer(self, device: int, time: float) -> Trainer:  # noqa: ARG002 - these data stay
        """Return the device's."""
        return self._all[device]

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Have the fleet's engine train them together, where it has one."""
        if self._front is None:
            return _one_by_one(trainings)
        jobs = [
            Job(begun.device, begun.start, begun.settings, begun.seed, begun.pull) for _, begun in trainings
        ]
        return self._front.train_all(jobs)


class Drawn:
    """Devices that draw their data from one set as their world says; a trainer is made when it is asked for."""

    def __init__(self, table: FleetTable, data: Data, population: Population) -> None:
        """Draw under the fleet's seed. Raises ConfigError where the fleet's data cannot be drawn from."""
        self._table, self._population = table, population
        self._set = _dataset(table)
        self._shares = Shares(data, self._set.y, table.seed)
        self._build, self._options = build_trainer(table.trainer), {"seed": table.seed, **table.options}
        width = len(str(table.devices))
        self.names = [f"device-{number:0{width}d}" for number in range(1, table.devices + 1)]
        self.trainers: Mapping[str, Trainer] = {}
        held_out = Supply((self._set.x[:1], self._set.y[:1]), (self._set.x_test, self._set.y_test))
        self.pooled: Trainer | None = self._make("pooled", held_out)
        self.description = f"{table.devices:,} devices, data: drawn from {table.data}"
        self._cached = lru_cache(CACHED)(self._trainer)

    def first(self) -> Trainer:
        """Return the one that evaluates."""
        assert self.pooled is not None
        return self.pooled

    def examples(self, device: int) -> int:
        """Return the size of its share."""
        return self._shares.count(device)

    def trainer(self, device: int, time: float) -> Trainer:
        """Return the device's, on its share at this time; an attacker's may be wrong on purpose."""
        return self._cached(device, time)

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Train one by one."""
        return _one_by_one(trainings)

    def _trainer(self, device: int, time: float) -> Trainer:
        rows = self._shares.rows(device, time)
        labels = self._set.y[rows]
        if self._population.attacks(device) and _flips(self._population.world):
            labels = LabelFlip.labels(labels, len(self._set.classes))
        return self._make(self.names[device], Supply((self._set.x[rows], labels)))

    def _make(self, name: str, supply: Supply) -> Trainer:
        return self._build(self._table.module, name, self._options, supply=supply)


def make_roster(settings: SimulationSettings, population: Population) -> Roster:
    """Return the fleet's devices as their world has them. Raises ConfigError."""
    world, table = population.world, settings.fleet
    if world.data is None:
        if _flips(world):
            raise ConfigError(
                "label_flip needs data whose labels can be flipped: say [world.data], to draw from a set"
            )
        return Dealt(build_fleet(table, settings.training))
    if table.engine != OWN_TRAINERS:
        raise ConfigError(
            f"engine is {table.engine!r}, and devices of a [world.data] draw new examples all the time, which no "
            "engine takes yet: leave engine out"
        )
    return Drawn(table, world.data, population)


def _one_by_one(trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
    return [train(trainer, begun) for trainer, begun in trainings]


def _dataset(table: FleetTable) -> Dataset:
    if table.data == "module":
        raise ConfigError(
            "[world.data] draws from a set that comes with fedmq, and [fleet] has data = 'module': name a set, or take "
            "a world without data of its own"
        )
    return datasets.smartwatch() if table.data == "smartwatch" else datasets.mnist()


def _flips(world: World) -> bool:
    return world.attackers is not None and world.attackers.attack.poisons_labels


def crafted_by(world: World) -> Attack | None:
    """Return the attack that makes up updates, where there is one."""
    return None if world.attackers is None or _flips(world) else world.attackers.attack
