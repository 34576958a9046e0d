"""The engine for Keras models with convolutions, in NumPy: devices in stacks, whatever SGD is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fedmq.descent import gain
from fedmq.device.interface import Trained
from fedmq.engines.front import cores
from fedmq.engines.numpy.blas import one_thread
from fedmq.engines.numpy.networks import NetworkDescent
from fedmq.engines.numpy.stacks import means
from fedmq.engines.steps import Steps, in_stacks, picked, rounded
from fedmq.errors import ConfigError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.settings import finite
from fedmq.trainers.shares import check_labels, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from fedmq.engines.engine import Job
    from fedmq.engines.numpy.models import KerasModel
    from fedmq.engines.numpy.networks import Network
    from fedmq.engines.numpy.stacks import Stack, Told
    from fedmq.trainers.numpy import Labels
    from fedmq.trainers.settings import Settings
    from fedmq.vectors import Layout, Vector

_STACK: Final = 8
"""Enough to spread NumPy's cost for each call; their step on images as small as MNIST's takes 10 MB."""

_EVALUATED_AT_ONCE: Final = 64


class Examples(NamedTuple):
    """`x` of shape (examples, ...) as the network takes them, `y` their class numbers."""

    x: Stack
    y: Labels

    @classmethod
    def of(cls, network: Network, pair: tuple[ArrayLike, ArrayLike], what: str) -> Examples:
        """Return a device's data. Raises ConfigError where they do not fit the network."""
        given = share(pair, what)
        x, y = np.asarray(given.parts[0], np.float32), np.asarray(given.parts[1])
        if x[0].size != np.prod(network.image):
            raise ConfigError(
                f"{what} has examples of shape {x.shape[1:]}, the model takes {network.image}: fit them"
            )
        if y.ndim != 1:
            raise ConfigError(f"{what} has labels of shape {y.shape}: give one class number per example")
        check_labels(y, network.classes, what)
        return cls(np.ascontiguousarray(x.reshape(-1, *network.image)), y.astype(np.int64))


class _Kind(NamedTuple):
    """What must be the same to be stacked: it says nothing of other devices, so neither will results."""

    settings: Settings
    steps: int
    width: int
    pulled: bool


class ConvolvingEngine:
    """Trains a Keras model that `fedmq.engines.numpy.reading` has read, for the devices of `train`.

    `train` and `held_out` are (x, y) of each device, by name; `workers` stacks are trained side by side, one for
    each core where nothing is said. Raises ConfigError where examples do not fit the model.
    """

    def __init__(
        self,
        model: KerasModel,
        train: Mapping[str, tuple[ArrayLike, ArrayLike]],
        held_out: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        workers: int | None = None,
    ) -> None:
        one_thread()
        self._model = model
        self._train = {name: self._examples(name, pair, "training") for name, pair in train.items()}
        self._held_out = {name: self._examples(name, pair, "held-out") for name, pair in held_out.items()}
        self.stack: Final = _STACK
        self.threads: Final = workers or cores()

    @property
    def name(self) -> str:
        """Engine and version, such as ``numpy 2.4.6``."""
        return f"numpy {np.__version__}"

    @property
    def layout(self) -> Layout:
        """The model's layout."""
        return self._model.layout

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""
        return len(self._train[device].x)

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._model.initial.copy()

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return loss, accuracy and number of the examples that `device` holds back."""
        if device not in self._held_out:
            return {}
        x, y = self._held_out[device]
        descent, sums = self._descent([model]), np.zeros(2)
        with np.errstate(all="ignore"):
            for start in range(0, len(x), _EVALUATED_AT_ONCE):
                rows = slice(start, start + _EVALUATED_AT_ONCE)
                sums += descent.look(x[None, rows], y[None, rows], np.ones((1, len(y[rows])), np.float32))[0]
        loss, right = (sums / len(x)).tolist()
        return finite({"loss": loss, "accuracy": right, "held_out": float(len(x))})

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """Train all `jobs`, those together that can be stacked."""
        return in_stacks(jobs, self._kind, self.stack, self._together)

    def _kind(self, job: Job) -> _Kind:
        schedule = Schedule(job.count(self.examples(job.device)), job.chosen)
        pull = job.pulled
        pulled = pull.linear is not None or pull.strength > 0
        return _Kind(job.chosen, rounded(schedule.steps), schedule.width, pulled)

    def _together(self, jobs: Sequence[Job]) -> list[Trained]:
        kind = self._kind(jobs[0])
        counts = [job.count(self.examples(job.device)) for job in jobs]
        steps = Steps.of(jobs, counts, length=kind.steps)
        descent = self._descent([job.model for job in jobs])
        if kind.pulled:
            descent.pull([job.pulled for job in jobs])
        with np.errstate(all="ignore"):  # a training that diverges is reported as it is
            told = self._descended(descent, jobs, steps, self._rate(kind.settings))
        return [
            self._trained(job, vector, count, figures)
            for job, vector, count, figures in zip(
                jobs, descent.vectors, steps.counts(), means(told, steps), strict=True
            )
        ]

    def _descended(self, descent: NetworkDescent, jobs: Sequence[Job], steps: Steps, rate: float) -> Told:
        """Take all steps; return what was told of each."""
        rows = picked(jobs, steps.rows)
        own = [self._train[job.device] for job in jobs]
        told = np.zeros((*steps.taken.shape, 2))
        for step in range(steps.length):
            each = list(zip(own, rows[:, step], strict=True))
            x, y = (
                np.stack([held.x[some] for held, some in each]),
                np.stack([held.y[some] for held, some in each]),
            )
            mask = steps.mask[:, step]
            told[:, step] = descent.look(x, y, mask)
            descent.step(y, mask, np.float32(rate) * steps.taken[:, step, None])
        return told

    def _descent(self, models: Sequence[Vector]) -> NetworkDescent:
        return NetworkDescent(self._model.network, self.layout, models, self._model.momentum)

    def _rate(self, settings: Settings) -> float:
        return self._model.learning_rate if settings.learning_rate is None else settings.learning_rate

    def _trained(self, job: Job, vector: Vector, steps: int, figures: Mapping[str, float]) -> Trained:
        momentum = self._model.momentum
        reach = self._rate(job.chosen) * gain(steps, momentum) if momentum < 1 else None
        metrics = {**self.evaluate(job.device, job.model), **figures}
        return Trained(vector, job.count(self.examples(job.device)), steps, finite(metrics), reach)

    def _examples(self, device: str, pair: tuple[ArrayLike, ArrayLike], which: str) -> Examples:
        try:
            return Examples.of(self._model.network, pair, f"the {which} data")
        except ConfigError as error:
            raise ConfigError(f"{device}: {error}") from error
