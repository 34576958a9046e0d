"""The devices of one process on one engine: they ask one by one, and are trained many at a time.

All that a device computes for a task is done for a whole batch in one trip to a thread: what the algorithm begins with,
the training, the encoding. A trip for each device would cost more than it carries, and each step of it would wait for
the thread of the event loop, which is busy with everyone's messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fedmq.device.computing import Shared
from fedmq.device.drafts import finish_all
from fedmq.engines.engine import Job
from fedmq.engines.front import PATIENCE_S
from fedmq.errors import FedmqError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.device.computing import Frames
    from fedmq.device.interface import Trained
    from fedmq.device.outbox import Stored
    from fedmq.device.replica import Replica
    from fedmq.device.training import Begun, Training
    from fedmq.engines.engine import Engine
    from fedmq.protocol.messages import Manifest, Task
    from fedmq.vectors import Vector
    from fedmq.wire.envelope import MessageT


class _Pupil(NamedTuple):
    """A device that waits for its answer to a task."""

    training: Training
    task: Task
    model: Vector
    answer: asyncio.Future[Stored]


class _Place(NamedTuple):
    """What a device has begun, and the job that it is for the engine."""

    training: Training
    begun: Begun
    job: Job


class Classroom:
    """Computes for devices whose trainers are an engine's; see `fedmq.device.computing.Computing`.

    Batches are of the engine's `stack`, as many side by side as it has threads; one that is not full waits `PATIENCE_S`
    for more. Not thread-safe: its methods are called on one event loop.
    """

    def __init__(self, engine: Engine) -> None:
        """Train on `engine`, in threads that begin with the first batch."""
        self._shared: Final = Shared()
        self._engine, self._free = engine, engine.threads
        self._pool = ThreadPoolExecutor(engine.threads, "fedmq-class")
        self._waiting: deque[_Pupil] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    def read(self, payload: bytes, kind: type[MessageT]) -> MessageT:
        """Return the message; see `Shared`."""
        return self._shared.read(payload, kind)

    async def advance(self, replica: Replica, manifest: Manifest, frames: Frames) -> None:
        """Take the replica forward; see `Shared`."""
        await self._shared.advance(replica, manifest, frames)

    async def answer(self, training: Training, task: Task, model: Vector) -> Stored:
        """Return what the device answers, together with others that ask meanwhile."""
        answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Pupil(training, task, model, answer))
        self._begin()
        return await answer

    def close(self) -> None:
        """End the threads, after what is under way."""
        self._pool.shutdown()

    def _begin(self) -> None:
        """Begin what can begin, and see to it that nobody waits for long."""
        while self._free and len(self._waiting) >= self._engine.stack:
            self._teach()
        if self._free and self._waiting and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(PATIENCE_S, self._waited)

    def _waited(self) -> None:
        self._alarm = None
        if self._free and self._waiting:
            self._teach()
        self._begin()

    def _teach(self) -> None:
        """Do one batch in a thread."""
        count = min(self._engine.stack, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        self._free -= 1
        lesson = asyncio.get_running_loop().run_in_executor(self._pool, self._lesson, batch)
        lesson.add_done_callback(partial(self._over, batch))

    def _over(self, batch: Sequence[_Pupil], lesson: asyncio.Future[list[Stored | FedmqError]]) -> None:
        self._free += 1
        error = lesson.exception()
        outcomes: Sequence[Stored | BaseException] = [error] * len(batch) if error else lesson.result()
        for pupil, outcome in zip(batch, outcomes, strict=True):
            _tell(pupil.answer, outcome)
        self._begin()

    def _lesson(self, batch: Sequence[_Pupil]) -> list[Stored | FedmqError]:
        """Return everyone's answer, or why there is none."""
        begun = [self._begun(pupil) for pupil in batch]
        places = [each for each in begun if isinstance(each, _Place)]
        trained = zip(places, self._trained(places), strict=True)
        outcomes = iter(finish_all([(place.training, place.begun, each) for place, each in trained]))
        return [next(outcomes) if isinstance(each, _Place) else each for each in begun]

    def _begun(self, pupil: _Pupil) -> _Place | FedmqError:
        try:
            begun = pupil.training.begin(pupil.task, pupil.model)
            job = Job(begun.device, begun.start, begun.settings, begun.seed, begun.pull)
            job.require(self._engine.layout)
        except FedmqError as error:
            return error
        return _Place(pupil.training, begun, job)

    def _trained(self, places: Sequence[_Place]) -> Sequence[Trained | FedmqError]:
        try:
            return self._engine.train([place.job for place in places])
        except FedmqError as error:
            return [error] * len(places)


def _tell(answer: asyncio.Future[Stored], outcome: Stored | BaseException) -> None:
    """Give it to who waits for it, if anybody does any more."""
    if answer.done():
        return
    if isinstance(outcome, BaseException):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
