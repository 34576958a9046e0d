"""Whose turn it may be: the devices of a fleet by number, and the trainer of any of them at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fedmq.engines import Job
from fedmq.errors import ConfigError
from fedmq.simulate.fleet import Fleet, build_fleet
from fedmq.simulate.virtual.drawn import Drawn, flips
from fedmq.simulate.virtual.teachers import one_by_one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.device.interface import Trained, Trainer
    from fedmq.device.training import Begun
    from fedmq.simulate.settings import SimulationSettings
    from fedmq.worlds import Population


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
            return one_by_one(trainings)
        jobs = [
            Job(begun.device, begun.start, begun.settings, begun.seed, begun.pull) for _, begun in trainings
        ]
        return self._front.train_all(jobs)


def make_roster(settings: SimulationSettings, population: Population) -> Roster:
    """Return the fleet's devices as their world has them. Raises ConfigError."""
    world, table = population.world, settings.fleet
    if world.data is None:
        if flips(world):
            raise ConfigError(
                "label_flip needs data whose labels can be flipped: say [world.data], to draw from a set"
            )
        return Dealt(build_fleet(table, settings.training))
    return Drawn(table, world.data, population, settings.training)
