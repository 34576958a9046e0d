"""Engines out of trainers: one for each device, called as they are, on as many threads as there are cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fedmq.device.interface import SteeredTrainer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.device.interface import Trained
    from fedmq.engines.engine import Job
    from fedmq.trainers.batches import Rows
    from fedmq.vectors import Layout, Vector


class PickingTrainer(SteeredTrainer, Protocol):
    """A trainer that can train on some of its examples as well."""

    def picked(self, rows: Rows) -> SteeredTrainer:
        """Return one that trains on these of the examples."""


class SingleEngine:
    """Trains each device with its own one of `trainers`, which must bear being called from different threads."""

    def __init__(self, trainers: Mapping[str, PickingTrainer], workers: int) -> None:
        self._trainers = dict(trainers)
        self._first = next(iter(self._trainers.values()))
        self.stack: Final = 1
        self.threads: Final = workers

    @property
    def name(self) -> str:
        """The trainers' name."""
        return self._first.name

    @property
    def layout(self) -> Layout:
        """The trainers' layout."""
        return self._first.layout

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""
        return self._trainers[device].examples

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._first.initial()

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """Train all `jobs`, one after the other."""
        return [
            self._trainer(job).train(job.model, job.settings, seed=job.seed, pull=job.pull) for job in jobs
        ]

    def _trainer(self, job: Job) -> SteeredTrainer:
        trainer = self._trainers[job.device]
        job.count(trainer.examples)
        return trainer if job.rows is None else trainer.picked(job.rows)

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return the figures of `model` on what `device` holds back."""
        return self._trainers[device].evaluate(model)
