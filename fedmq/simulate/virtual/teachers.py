"""Who trains devices that draw from one set: a trainer made for each share, or one engine that holds the set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedmq.device.training import train
from fedmq.engines.choice import load
from fedmq.engines.front import Front, SharedTrainer
from fedmq.simulate.dealing import engine_options
from fedmq.simulate.fleet import POOLED, build_trainer
from fedmq.simulate.measuring import fastest
from fedmq.simulate.settings import AUTO, OWN_TRAINERS
from fedmq.trainers.module import Supply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.datasets import Dataset
    from fedmq.device.interface import Setting, Trained, Trainer
    from fedmq.device.training import Begun
    from fedmq.engines import Job
    from fedmq.simulate.settings import FleetTable
    from fedmq.worlds.chance import Integers

    Labels = Mapping[bool, Any]
    """The set's labels: as they are, and as those who flip them have them."""

_TRIED: Final = 64
"""Devices among which a set is dealt out to see which engine is fastest."""


class Teachers(Protocol):
    """Trainers for any share of a set, and one, `judge`, that evaluates on all that is held out."""

    judge: Trainer

    def trainer(self, name: str, rows: Integers, *, flipped: bool) -> Trainer:
        """Return the trainer of these rows of the set, for the device of this name."""

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Return what these trainings gave, in order."""


class OwnTrainers:
    """A trainer for each share, made when it is asked for."""

    def __init__(self, table: FleetTable, data: Dataset, labels: Labels) -> None:
        """Make them of the kind that the fleet asks for. Raises ConfigError."""
        self._table, self._data, self._labels = table, data, labels
        self._build, self._options = build_trainer(table.trainer), {"seed": table.seed, **table.options}
        self.judge = self._make(POOLED, _to_judge(data))

    def trainer(self, name: str, rows: Integers, *, flipped: bool) -> Trainer:
        """Make one."""
        return self._make(name, Supply((self._data.x[rows], self._labels[flipped][rows])))

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Train one by one."""
        return one_by_one(trainings)

    def _make(self, name: str, supply: Supply) -> Trainer:
        return self._build(self._table.module, name, self._options, supply=supply)


class OnEngine:
    """Shares of an engine that holds the set once for each way to label it: every job names its rows."""

    def __init__(
        self, table: FleetTable, data: Dataset, labels: Labels, training: Mapping[str, Setting]
    ) -> None:
        """Load the engine that the fleet asks for, or the fastest at `training`. Raises ConfigError."""
        kind = _chosen(table, training)
        make = load(kind)  # before the user's module is: an engine may decide what Keras runs on
        supplies = {_whole_set(flipped): Supply((data.x, given)) for flipped, given in labels.items()}
        supplies[POOLED] = _to_judge(data)
        self._front = Front(make(table.module, supplies, engine_options(table, kind, training)))
        self.judge: Trainer = self._front.trainer(POOLED)

    def trainer(self, name: str, rows: Integers, *, flipped: bool) -> Trainer:  # noqa: ARG002 - the interface
        """Return the engine's share of these rows."""
        return self._front.trainer(_whole_set(flipped), rows)

    def train(self, trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
        """Train all together, those with as many examples side by side: they stack best."""
        jobs = [_job(trainer, begun) for trainer, begun in trainings]
        order = sorted(range(len(jobs)), key=lambda place: trainings[place][0].examples)
        found = dict(zip(order, self._front.train_all([jobs[place] for place in order]), strict=True))
        return [found[place] for place in range(len(jobs))]


def teachers(table: FleetTable, data: Dataset, labels: Labels, training: Mapping[str, Setting]) -> Teachers:
    """Return what the fleet asks for. Raises ConfigError."""
    if table.engine == OWN_TRAINERS:
        return OwnTrainers(table, data, labels)
    return OnEngine(table, data, labels, training)


def one_by_one(trainings: Sequence[tuple[Trainer, Begun]]) -> Sequence[Trained]:
    """Train with the trainers themselves."""
    return [train(trainer, begun) for trainer, begun in trainings]


def _job(trainer: Trainer, begun: Begun) -> Job:
    assert isinstance(trainer, SharedTrainer)
    return trainer.job(begun.start, begun.settings, seed=begun.seed, pull=begun.pull)


def _whole_set(flipped: bool) -> str:  # noqa: FBT001 - a key
    return "the set, labels flipped" if flipped else "the set"


def _to_judge(data: Dataset) -> Supply:
    return Supply((data.x[:1], data.y[:1]), (data.x_test, data.y_test))


def _chosen(table: FleetTable, training: Mapping[str, Setting]) -> str:
    if table.engine != AUTO:
        return table.engine
    tried = replace(table, devices=min(table.devices, _TRIED), partition="iid")
    return fastest(tried, training)[0].engine
