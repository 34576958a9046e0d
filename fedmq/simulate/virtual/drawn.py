"""Devices that draw what they learn from out of one set, as their world says; other examples as time goes by."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fedmq import datasets
from fedmq.errors import ConfigError
from fedmq.simulate.dealing import device_names
from fedmq.simulate.virtual.teachers import teachers
from fedmq.worlds import Population, Shares
from fedmq.worlds.attacks import LabelFlip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.datasets import Dataset
    from fedmq.device.interface import Setting, Trained, Trainer
    from fedmq.device.training import Begun
    from fedmq.simulate.settings import FleetTable
    from fedmq.worlds import Data, World

CACHED: Final = 64
"""Trainers that are kept for the case that they are asked for again."""


class Drawn:
    """See `fedmq.simulate.virtual.roster.Roster`; a trainer is made when it is asked for."""

    def __init__(
        self, table: FleetTable, data: Data, population: Population, training: Mapping[str, Setting]
    ) -> None:
        """Draw under the fleet's seed. Raises ConfigError where the fleet's data cannot be drawn from."""
        self._population = population
        found = _dataset(table)
        labels = {False: found.y}
        if flips(population.world):
            labels[True] = LabelFlip.labels(found.y, len(found.classes))
        self._shares = Shares(data, found.y, table.seed)
        self._teachers = teachers(table, found, labels, training)
        self.names = device_names(table.devices)
        self.trainers: Mapping[str, Trainer] = {}
        self.pooled: Trainer | None = self._teachers.judge
        self.description = f"{table.devices:,} devices, data: drawn from {table.data}"
        self._cached = lru_cache(CACHED)(self._trainer)

    def first(self) -> Trainer:
        """Return the one that evaluates."""
        return self._teachers.judge

    def examples(self, device: int) -> int:
        """Return the size of its share."""
        return self._shares.count(device)

    def trainer(self, device: int, time: float) -> Trainer:
        """Return the device's, on its share at this time; an attacker's may be wrong on purpose."""
        return self._cached(device, time)

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Train them, on an engine where the fleet has one."""
        return self._teachers.train(trainings)

    def _trainer(self, device: int, time: float) -> Trainer:
        world = self._population.world
        flipped = flips(world) and self._population.attacks(device)
        return self._teachers.trainer(self.names[device], self._shares.rows(device, time), flipped=flipped)


def flips(world: World) -> bool:
    """Tell whether attackers train on wrong labels."""
    return world.attackers is not None and world.attackers.attack.poisons_labels


def _dataset(table: FleetTable) -> Dataset:
    if table.data == "module":
        raise ConfigError(
            "[world.data] draws from a set that comes with fedmq, and [fleet] has data = 'module': name a set, or take "
            "a world without data of its own"
        )
    return datasets.smartwatch() if table.data == "smartwatch" else datasets.mnist()
