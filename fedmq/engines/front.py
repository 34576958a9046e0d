"""Between devices that ask one by one and an engine that works best on many: gathers what is asked at one time."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

from fedmq.engines.engine import Job
from fedmq.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting, Trained
    from fedmq.engines.engine import Engine
    from fedmq.trainers.batches import Rows
    from fedmq.vectors import Layout, Vector

PATIENCE_S: Final = 0.003
"""How long a batch that is not full waits for one more; a fraction of the shortest training worth stacking."""

_MOST_CALLERS: Final = 256


class SharedTrainer:
    """One device's share in an engine, as a trainer of its own: see `fedmq.device.interface.SteeredTrainer`."""

    def __init__(self, front: Front, device: str, rows: Rows | None = None) -> None:
        self._front, self._device, self._rows = front, device, rows

    @property
    def name(self) -> str:
        """The engine's."""
        return self._front.engine.name

    @property
    def layout(self) -> Layout:
        """The engine's."""
        return self._front.engine.layout

    @property
    def examples(self) -> int:
        """How many local examples it trains on."""
        return self._front.engine.examples(self._device) if self._rows is None else len(self._rows)

    def initial(self) -> Vector:
        """Return the model's first weights."""
        return self._front.engine.initial()

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train from `model`, together with whoever else asks meanwhile; returns when this device's result is there."""
        return self._front.train(self.job(model, settings, seed=seed, pull=pull))

    def job(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Job:
        """Return what `train` would ask of the engine, for those who ask for many trainings at once."""
        return Job(self._device, model, settings, seed, pull, self._rows)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return the figures of `model` on the held-out share."""
        return self._front.engine.evaluate(self._device, model)

    def save(self, model: Vector, path: Path) -> None:
        """Write the framework's own model with these weights. Raises MisuseError where the engine has none."""
        save = getattr(self._front.engine, "save", None)
        if save is None:
            raise MisuseError(f"{self.name} has no model file of its own: save the vector with its layout")
        save(model, path)


class Front:
    """Hands jobs to `engine` on as many threads as it has use for, each time as many as wait, up to its `stack`.

    A batch that is not full waits until nobody has come for `patience_s`. Close it, or use it in a ``with`` block; what
    waits then is still done.
    """

    def __init__(self, engine: Engine, *, patience_s: float = PATIENCE_S) -> None:
        self.engine: Final = engine
        self._patience_s = patience_s
        self._waiting: deque[tuple[Job, Future[Trained]]] = deque()
        self._changed = threading.Condition()
        self._idle, self._shared, self._closed = 0, False, False
        self._threads = [
            threading.Thread(target=self._serve, name=f"fedmq-engine-{number}", daemon=True)
            for number in range(engine.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def callers(self) -> int:
        """How many threads should call `train` at once to keep the engine busy: two batches for each of its threads."""
        return min(2 * self.engine.stack * self.engine.threads, _MOST_CALLERS)

    def trainer(self, device: str, rows: Rows | None = None) -> SharedTrainer:
        """Return the trainer of `device`, on all of its examples or on those that `rows` name."""
        return SharedTrainer(self, device, rows)

    def train(self, job: Job) -> Trained:
        """Return what `job` gave; blocking. Raises what the engine raises, MisuseError when the front is closed."""
        job.require(self.engine.layout)
        return self._put(job).result()

    def train_all(self, jobs: Sequence[Job]) -> list[Trained]:
        """Return what each job gave, in order; blocking."""
        for job in jobs:
            job.require(self.engine.layout)
        return [future.result() for future in [self._put(job) for job in jobs]]

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, job: Job) -> Future[Trained]:
        future: Future[Trained] = Future()
        with self._changed:
            if self._closed:
                raise MisuseError("the engine's front is closed: train before the simulation ends")
            self._waiting.append((job, future))
            self._changed.notify_all()
        return future

    def _serve(self) -> None:
        while batch := self._gather():
            self._run(batch)

    def _gather(self) -> list[tuple[Job, Future[Trained]]]:
        """Return the next batch; an empty one when there is nothing left to do."""
        with self._changed:
            self._idle += 1
            while not self._ready():
                pass
            # those who are free share what is there, and take less than a full stack of it where that keeps all busy
            count = min(self.engine.stack, -(-len(self._waiting) // self._idle))
            batch = [self._waiting.popleft() for _ in range(count)]
            self._idle -= 1
            self._shared = self._idle > 0 and bool(self._waiting)
            if self._shared:
                self._changed.notify_all()
            return batch

    def _ready(self) -> bool:
        """Return whether it is time to take a batch; where it is not, wait for a change first."""
        if self._closed or self._shared or len(self._waiting) >= self.engine.stack:
            return True
        changed = self._changed.wait(self._patience_s if self._waiting else None)
        return not changed and bool(self._waiting)

    def _run(self, batch: Sequence[tuple[Job, Future[Trained]]]) -> None:
        try:
            results = self.engine.train([job for job, _ in batch])
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), trained in zip(batch, results, strict=True):
                future.set_result(trained)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
