"""Devices one at a time, on several copies of one Keras model side by side."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fedmq.device.interface import Trained
from fedmq.errors import ConfigError, MisuseError
from fedmq.trainers.keras.runtime import ENGINE
from fedmq.trainers.keras.sources import InMemory, Source, source
from fedmq.trainers.keras.trainer import KerasEngine, plain
from fedmq.trainers.settings import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fedmq.engines.engine import Job
    from fedmq.trainers.keras.network import Network
    from fedmq.trainers.module import Supply
    from fedmq.vectors import Layout, Vector


class LanesEngine:
    """Trains any compiled Keras model; `make` gives a new copy of it for each of `threads` lanes.

    Raises ConfigError, naming the device, where data do not fit the model.
    """

    def __init__(self, make: Callable[[], Any], supplies: Mapping[str, Supply], threads: int) -> None:
        self.stack: Final = 1
        self.threads: Final = threads
        engines = [KerasEngine(make()) for _ in range(threads)]
        self._train = {device: _checked(engines, device, each.train) for device, each in supplies.items()}
        self._held = {
            device: _checked(engines, device, each.held_out)
            for device, each in supplies.items()
            if each.held_out is not None
        }
        first = next(iter(self._train.values()))
        networks = [engine.network_for(first, "the training data") for engine in engines]
        self._engines = engines
        self._initial = networks[0].initial
        self.layout: Final[Layout] = networks[0].layout
        self._free: queue.SimpleQueue[Network] = queue.SimpleQueue()
        for network in networks:
            self._free.put(network)

    @property
    def name(self) -> str:
        """Engine and versions, such as ``keras 3.15.1 (tensorflow 2.21.0), one device at a time``."""
        return f"{ENGINE}, one device at a time"

    def examples(self, device: str) -> int:
        """Return how many examples `device` trains on."""
        return self._train[device].rows

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._initial.copy()

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        """Return the model's loss and compiled metrics on what `device` holds back, and its number as ``held_out``."""
        self.layout.unpack(model)
        with self._lane() as network:
            return self._looked(network, device, model)

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """Train all `jobs`, one after the other, on whichever lane is free."""
        return [self._one(job) for job in jobs]

    def save(self, model: Vector, path: Path) -> None:
        """Write the Keras model with these weights to a ``.keras`` file."""
        with self._lane() as network:
            network.save(model, network.initial_personal, path)

    def _one(self, job: Job) -> Trained:
        data, chosen = self._data(job), job.chosen
        with self._lane() as network:
            metrics = self._looked(network, job.device, job.model)
            outcome = network.train(
                job.model,
                network.initial_personal,
                data.stretches(chosen, job.seed),
                chosen.learning_rate,
                job.pulled,
                job.seed,
            )
            steps = data.steps(chosen)
            reach = network.reach(chosen.learning_rate, steps)
        metrics |= {f"train_{name}": value for name, value in plain(outcome.figures).items()}
        return Trained(outcome.vector, data.rows, steps, finite(metrics), reach)

    def _data(self, job: Job) -> Source:
        data = self._train[job.device]
        job.count(data.rows)
        if job.rows is None:
            return data
        if not isinstance(data, InMemory):
            raise MisuseError(
                f"the examples of {job.device} are a stream, of which a job cannot name rows: give arrays"
            )
        return data.picked(job.rows)

    def _looked(self, network: Network, device: str, model: Vector) -> dict[str, float]:
        held = self._held.get(device)
        if held is None:
            return {}
        figures = network.evaluate(model, network.initial_personal, held.parts())
        return finite({**plain(figures), "held_out": held.rows})

    @contextmanager
    def _lane(self) -> Iterator[Network]:
        network = self._free.get()
        try:
            yield network
        finally:
            self._free.put(network)


def _checked(engines: Sequence[KerasEngine], device: str, data: Any) -> Source:  # noqa: ANN401  # a user's
    try:
        found = source(data, "the data")
        for engine in engines:
            engine.network_for(found, "the data")
    except ConfigError as error:
        raise ConfigError(f"{device}: {error}") from error
    return found
