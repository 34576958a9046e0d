"""What verdicts on updates mean for what a device keeps: the reckoning, without waiting for anything.

`fedmq.device.settling` does it on a device, in worker threads; a simulation in virtual time calls it as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.device.kept import End
from fedmq.protocol.messages import Query, TaskKind, Verdict
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.kept import Origin
    from fedmq.device.outbox import Outbox
    from fedmq.protocol.messages import Task


class Verdicts:
    """One device's updates that change what it keeps. Blocking."""

    def __init__(self, keepsakes: Keepsakes, outbox: Outbox) -> None:
        """Begin without a task."""
        self._keepsakes, self._outbox = keepsakes, outbox
        self.task: Task | None = None

    @property
    def waiting(self) -> bool:
        """Whether any update's end is open."""
        return bool(self._keepsakes.waiting())

    def concerns(self, update: bytes) -> bool:
        """Tell whether what is kept waits for this update's end."""
        return update in self._keepsakes.waiting()

    def open_before(self, task: Task) -> bool:
        """Tell whether the end of an update of an earlier round of the task's run is open."""
        return any(_before(origin, task) for origin in self._keepsakes.waiting().values())

    def questions(self, task: Task, outbox: Collection[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield round, update id and message of each question that a new task gives cause for.

        `outbox` are the updates that the participant still sends: their receipts will come.
        """
        for update, origin in self._keepsakes.waiting().items():
            asks = task.kind is TaskKind.TRAIN and origin.run == task.run and origin.round < task.oldest
            if asks and not origin.accepted and update not in outbox:
                yield origin.round, update, encode(Query(task.run, update, 0))

    def judge(self, update: bytes, verdict: Verdict) -> None:
        """Note the verdict, and only then remove the update: a restart in between asks for it again."""
        if verdict is Verdict.ACCEPTED:
            self._keepsakes.accept(update)
        else:
            self._keepsakes.settle(update, End.REFUSED if verdict is Verdict.REJECTED else End.RETURNED)
        self._outbox.forget(update)
        self.settle()

    def settle(self) -> None:
        """Settle what is of another run, of a round that moved nothing, or accepted in an earlier round.

        That a round moved nothing only the next task shows for sure: so it is taken down then, accepted or not.
        """
        for update, origin in self._keepsakes.waiting().items():
            end = None if self.task is None else _end(origin, self.task)
            if end is not None:
                self._keepsakes.settle(update, end)


def _end(origin: Origin, task: Task) -> End | None:
    """Return how an update has ended, as far as the newest task shows it."""
    if origin.run != task.run:
        return End.DROPPED
    if _in_vain(origin, task):
        return End.RETURNED
    return End.MOVED if origin.accepted and _before(origin, task) else None


def _before(origin: Origin, task: Task) -> bool:
    return origin.run == task.run and origin.round < task.round


def _in_vain(origin: Origin, task: Task) -> bool:
    """Tell whether nothing has moved since, and the update is taken no more, or was in a round that is over."""
    over = _before(origin, task) if origin.accepted else origin.run == task.run and origin.round < task.oldest
    return over and origin.model == task.model
