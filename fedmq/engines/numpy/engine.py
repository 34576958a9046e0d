"""The engine of `fedmq.engines.numpy`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedmq.device.interface import Trained
from fedmq.engines.front import cores
from fedmq.engines.numpy.blas import one_thread
from fedmq.engines.numpy.deferred import Batches, DeferredDescent
from fedmq.engines.numpy.models import read_apart
from fedmq.engines.steps import Steps, alike, picked, rounded
from fedmq.errors import ConfigError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.module import load_user_module
from fedmq.trainers.numpy import Mlp, NumpyTrainer, trainer_options, trainer_pair
from fedmq.trainers.settings import finite, refuse_unknown

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from fedmq.engines.engine import Job
    from fedmq.trainers.module import Supply
    from fedmq.vectors import Layout, Vector

STACK: Final = 24
"""Enough to spread NumPy's cost for each call over many devices, and few enough to stay near the caches."""


class NumpyEngine:
    """Perceptrons of a fleet; `trainers` hold the devices' data, by name, and are of one model.

    `initial` and `layout` are for models that were read from elsewhere and have names and first weights of their own.
    """

    def __init__(
        self,
        trainers: Mapping[str, NumpyTrainer],
        *,
        layout: Layout | None = None,
        initial: Vector | None = None,
    ) -> None:
        one_thread()
        self._trainers = dict(trainers)
        first = next(iter(self._trainers.values()))
        self.layout: Final = layout or first.layout
        self._initial = first.initial() if initial is None else initial
        self.stack: Final = STACK
        self.threads: Final = cores()

    @property
    def name(self) -> str:
        """Engine and version, such as ``numpy 2.4.6``."""
        return f"numpy {np.__version__}"

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""
        return self._trainers[device].examples

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._initial.copy()

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return loss, accuracy and number of the examples that `device` holds back."""
        return self._trainers[device].evaluate(model)

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """Train all `jobs`, those together that can be stacked."""
        results: list[Trained | None] = [None] * len(jobs)
        for places, group in alike(jobs, self._kind, self.stack):
            for place, trained in zip(places, self._together(group), strict=True):
                results[place] = trained
        return [trained for trained in results if trained is not None]

    def _kind(self, job: Job) -> Hashable:
        """Return what must be the same to be stacked: it says nothing of other devices, so neither will results."""
        trainer = self._trainers[job.device]
        pull = job.pulled
        if trainer.momentum or pull.linear is not None or pull.strength:
            return None
        schedule = Schedule(job.count(trainer.examples), job.chosen)
        return job.chosen, rounded(schedule.steps), schedule.width

    def _together(self, jobs: Sequence[Job]) -> list[Trained]:
        if self._kind(jobs[0]) is None:
            return [self._alone(job) for job in jobs]
        trainers = [self._trainers[job.device] for job in jobs]
        counts = [job.count(trainer.examples) for job, trainer in zip(jobs, trainers, strict=True)]
        steps = Steps.of(jobs, counts, length=rounded(Schedule(counts[0], jobs[0].chosen).steps))
        rate = trainers[0].chosen_rate(jobs[0].chosen)
        with np.errstate(all="ignore"):  # a training that diverges is reported as it is
            batches = Batches.of(
                [t.x for t in trainers], [t.y for t in trainers], picked(jobs, steps.rows), steps.mask
            )
            descent = DeferredDescent(trainers[0].layout, [job.model for job in jobs])
            told = descent.run(batches, np.float32(rate))
        return [
            self._trained(job, vector, count, figures)
            for job, vector, count, figures in zip(
                jobs, descent.vectors, steps.counts(), _means(told, steps), strict=True
            )
        ]

    def _alone(self, job: Job) -> Trained:
        trainer = self._trainers[job.device]
        if job.rows is not None:
            job.count(trainer.examples)
            trainer = trainer.picked(job.rows)
        return trainer.train(job.model, job.settings, seed=job.seed, pull=job.pull)

    def _trained(self, job: Job, vector: Vector, steps: int, figures: Mapping[str, float]) -> Trained:
        trainer = self._trainers[job.device]
        metrics = {**trainer.evaluate(job.model), **figures}
        reach = trainer.reach(job.chosen, steps)
        return Trained(vector, job.count(trainer.examples), steps, finite(metrics), reach)


def from_module(module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]) -> NumpyEngine:
    """Return the engine for a user's module whose `model()` returns an `Mlp`, or a Keras model that is one.

    `options` are those of the NumPy trainer for an `Mlp`, and ``seed`` for a Keras model, which says the others itself.
    Raises ConfigError where model or data cannot be used.
    """
    found = _own_model(module)
    if isinstance(found, Mlp):
        return NumpyEngine(_trainers(found, module, supplies, trainer_options(options)))
    refuse_unknown("engine option", options, ("seed",))
    model = read_apart(module, options)
    given = {"learning_rate": model.learning_rate, "momentum": model.momentum}
    trainers = _trainers(model.mlp, module, supplies, given)
    return NumpyEngine(trainers, layout=model.layout, initial=model.initial)


def _own_model(module: str) -> object:
    """Return what `model()` gives, unless that takes Keras, which is better loaded in another process."""
    if "keras" in sys.modules:
        return load_user_module(module).model()
    sys.modules["keras"] = None  # type: ignore[assignment]  # Python's mark for "cannot be imported"
    try:
        return load_user_module(module).model()
    except (ImportError, ConfigError):
        return None
    finally:
        del sys.modules["keras"]


def _trainers(
    model: Mlp, module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]
) -> dict[str, NumpyTrainer]:
    trainers = {}
    for device, supply in supplies.items():
        try:
            train = trainer_pair(supply.train, module)
            held_out = None if supply.held_out is None else trainer_pair(supply.held_out, module)
            trainers[device] = NumpyTrainer(model, *train, held_out=held_out, **options)
        except ConfigError as error:
            raise ConfigError(f"{device}: {error}") from error
    return trainers


def _means(told: NDArray[np.float64], steps: Steps) -> list[dict[str, float]]:
    """Return each device's figures of its last epoch."""
    seen = (steps.mask.sum(axis=2) * steps.last).sum(axis=1)
    sums = (told * steps.last[..., None]).sum(axis=1) / np.maximum(seen, 1)[:, None]
    return [{"train_loss": float(loss), "train_accuracy": float(right)} for loss, right in sums]
