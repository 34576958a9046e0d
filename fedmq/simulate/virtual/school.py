"""Trainings that are under way in virtual time, done many at once when the first result is wanted.

A device begins to train now and is done in an hour; whatever else begins within that hour is done in the same batch.
What is given up meanwhile, by a device that was switched off, is never trained at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fedmq.device.drafts import finish_all
from fedmq.device.naming import reckoned
from fedmq.device.outbox import MemoryOutbox, Stored
from fedmq.device.training import Training
from fedmq.errors import FedmqError
from fedmq.simulate.virtual.drawn import flips
from fedmq.worlds.chance import Chance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.device.interface import Trained, Trainer
    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.training import Begun
    from fedmq.protocol.messages import Task
    from fedmq.simulate.virtual.roster import Roster
    from fedmq.vectors import Vector
    from fedmq.worlds import Attack, Population, World

AT_ONCE: Final = 128
"""Trainings in one batch: so many devices' data are in memory at a time."""


class Work(NamedTuple):
    """One training that has begun: of whose data, at what time, for which task and from which model."""

    device: int
    time: float
    task: Task
    model: Vector
    keepsakes: Keepsakes


@dataclass(slots=True)
class _Seat:
    """One device's place in a batch."""

    work: Work
    training: Training
    trainer: Trainer
    outbox: MemoryOutbox
    begun: Begun


class School:
    """Does the trainings of one fleet."""

    def __init__(self, roster: Roster, population: Population, seed: int) -> None:
        """Begin with nobody."""
        self._roster, self._population = roster, population
        self._begun: dict[int, Work] = {}
        self._done: dict[int, Stored | FedmqError] = {}
        self._attack, self._chance = crafted_by(population.world), Chance(seed, "attack")
        self.trainings = 0

    def enrol(self, work: Work) -> None:
        """Begin a training; what the device had begun before is given up."""
        self.withdraw(work.device)
        self._begun[work.device] = work

    def withdraw(self, device: int) -> None:
        """Give the device's training up."""
        self._begun.pop(device, None)
        self._done.pop(device, None)

    def result(self, device: int) -> Stored:
        """Return what came of the device's training. Raises FedmqError where that is no update."""
        if device in self._begun:
            works, self._begun = list(self._begun.values()), {}
            for start in range(0, len(works), AT_ONCE):
                self._do(works[start : start + AT_ONCE])
        outcome = self._done.pop(device)
        if isinstance(outcome, FedmqError):
            raise outcome
        return outcome

    def _do(self, works: Sequence[Work]) -> None:
        seats = [seat for seat in map(self._seat, works) if seat is not None]
        results = self._roster.train([(seat.trainer, seat.begun) for seat in seats])
        self.trainings += len(seats)
        pairs = zip(seats, self._attacked(seats, results), strict=True)
        outcomes = finish_all([(seat.training, seat.begun, trained) for seat, trained in pairs])
        self._done |= {seat.work.device: outcome for seat, outcome in zip(seats, outcomes, strict=True)}

    def _seat(self, work: Work) -> _Seat | None:
        name, trainer = self._roster.names[work.device], self._roster.trainer(work.device, work.time)
        outbox = MemoryOutbox()
        training = Training(name, trainer, outbox, work.keepsakes, naming=reckoned(name))
        try:
            begun = training.begin(work.task, work.model)
        except FedmqError as error:
            self._done[work.device] = error
            return None
        return _Seat(work, training, trainer, outbox, begun)

    # --- those who do not play by the rules ---------------------------------------------------------------------------

    def _attacked(self, seats: Sequence[_Seat], results: Sequence[Trained]) -> Sequence[Trained]:
        """Return the results with those of attackers replaced by what they make up of them together."""
        gang = [at for at, seat in enumerate(seats) if self._population.attacks(seat.work.device)]
        if self._attack is None or not gang:
            return results
        seen = np.stack([results[at].vector - seats[at].begun.start for at in gang])
        rng = self._chance.generator(seats[gang[0]].work.device, seats[gang[0]].work.task.round)
        changed = list(results)
        with np.errstate(all="ignore"):
            rows = self._attack.craft(seen, len(gang), rng)
        for at, row in zip(gang, rows, strict=True):
            changed[at] = replace(results[at], vector=seats[at].begun.start + row)
        return changed


def crafted_by(world: World) -> Attack | None:
    """Return the attack that makes up updates, where there is one."""
    return None if world.attackers is None or flips(world) else world.attackers.attack
