"""The engine of `fedmq.engines.numpy`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fedmq.device.interface import Trained
from fedmq.engines.front import cores
from fedmq.engines.numpy.blas import one_thread
from fedmq.engines.numpy.blocks import Batches
from fedmq.engines.numpy.convolving import ConvolvingEngine
from fedmq.engines.numpy.deferred import DeferredDescent
from fedmq.engines.numpy.models import read_apart
from fedmq.engines.numpy.stacks import means
from fedmq.engines.steps import Steps, in_stacks, rounded
from fedmq.errors import ConfigError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.module import load_user_module
from fedmq.trainers.numpy import Mlp, NumpyTrainer, trainer_options, trainer_pair
from fedmq.trainers.settings import finite, refuse_unknown, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.engines.engine import Job
    from fedmq.engines.numpy.models import KerasModel
    from fedmq.trainers.module import Supply
    from fedmq.trainers.settings import Settings
    from fedmq.vectors import Layout, Vector

STACK: Final = 24
"""Enough to spread NumPy's cost for each call over many devices, and few enough to stay near the caches."""


class _Kind(NamedTuple):
    """What must be the same to be stacked: it says nothing of other devices, so neither will results.

    `steps` in all and in an `epoch`, both rounded up, of `width` examples each.
    """

    settings: Settings
    steps: int
    epoch: int
    width: int


class NumpyEngine:
    """Perceptrons of a fleet; `trainers` hold the devices' data, by name, and are of one model.

    `initial` and `layout` are for models that were read from elsewhere and have names and first weights of their own.
    `workers` stacks are trained side by side, one for each core where nothing is said.
    """

    def __init__(
        self,
        trainers: Mapping[str, NumpyTrainer],
        *,
        layout: Layout | None = None,
        initial: Vector | None = None,
        workers: int | None = None,
    ) -> None:
        one_thread()
        self._trainers = dict(trainers)
        first = next(iter(self._trainers.values()))
        self.layout: Final = layout or first.layout
        self._initial = first.initial() if initial is None else initial
        self.stack: Final = STACK
        self.threads: Final = workers or cores()

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
        return in_stacks(jobs, self._kind, self.stack, self._together)

    def _kind(self, job: Job) -> _Kind | None:
        """Return of which kind `job` is; None where it trains alone."""
        trainer = self._trainers[job.device]
        pull = job.pulled
        if trainer.momentum or pull.linear is not None or pull.strength:
            return None
        schedule = Schedule(job.count(trainer.examples), job.chosen)
        epoch = -(-schedule.rows // schedule.width)
        return _Kind(job.chosen, rounded(schedule.steps), rounded(epoch), schedule.width)

    def _together(self, jobs: Sequence[Job]) -> list[Trained]:
        kind = self._kind(jobs[0])
        if kind is None:
            return [self._alone(job) for job in jobs]
        trainers = [self._trainers[job.device] for job in jobs]
        counts = [job.count(trainer.examples) for job, trainer in zip(jobs, trainers, strict=True)]
        steps = Steps.of(jobs, counts, length=kind.steps)
        descent = DeferredDescent(trainers[0].layout, [job.model for job in jobs])
        rate = np.float32(trainers[0].chosen_rate(kind.settings))
        with np.errstate(all="ignore"):  # a training that diverges is reported as it is
            told = descent.run(Batches(jobs, trainers, steps, kind.epoch), rate)
        return [
            self._trained(job, vector, count, figures)
            for job, vector, count, figures in zip(
                jobs, descent.vectors, steps.counts(), means(told, steps), strict=True
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


def from_module(
    module: str, supplies: Mapping[str, Supply], options: Mapping[str, Any]
) -> NumpyEngine | ConvolvingEngine:
    """Return the engine for a user's module whose `model()` returns an `Mlp`, or a Keras model that it can train.

    `options`: ``workers``, how many stacks train side by side (default: one for each core); those of the NumPy trainer
    for an `Mlp`, and ``seed`` for a Keras model, which says the others itself. Raises ConfigError where model or data
    cannot be used.
    """
    options = dict(options)
    workers = whole("workers", options.pop("workers", cores()))
    found = _own_model(module)
    if isinstance(found, Mlp):
        return NumpyEngine(_trainers(found, module, supplies, trainer_options(options)), workers=workers)
    refuse_unknown("engine option", options, ("seed",))
    model = read_apart(module, options)
    mlp = model.mlp
    if mlp is None:
        return _convolving(model, module, supplies, workers)
    given = {"learning_rate": model.learning_rate, "momentum": model.momentum}
    trainers = _trainers(mlp, module, supplies, given)
    return NumpyEngine(trainers, layout=model.layout, initial=model.initial, workers=workers)


def _convolving(
    model: KerasModel, module: str, supplies: Mapping[str, Supply], workers: int
) -> ConvolvingEngine:
    train = {device: trainer_pair(supply.train, module) for device, supply in supplies.items()}
    held = {device: supply.held_out for device, supply in supplies.items() if supply.held_out is not None}
    held_out = {device: trainer_pair(own, module) for device, own in held.items()}
    return ConvolvingEngine(model, train, held_out, workers=workers)


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
