"""From receipts to what a device keeps; and asking for receipts that got lost.

What an update changes of the device's own vectors is added when the aggregator's model has moved by that update: its
receipt says accepted, and the next round begins with another version than the update's round did. (An accepted update
moves nothing where its round is given up for want of others.) What it takes out of the residual of error feedback comes
back in every other case but one: an update that was refused takes the residual with it.

A new task makes a device forget updates of rounds that are over, receipt or not. For what it keeps that will not do: a
change on one side alone leaves device and aggregator out of step for good. So it asks: it sends the update once more,
without its sections. As the round is over, the aggregator looks at the update's id only, and gives the verdict that it
remembers, or says that the update came too late.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from fedmq.device.kept import End
from fedmq.protocol.messages import Facts, TaskKind, Update, Verdict
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator

    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.kept import Origin
    from fedmq.device.outbox import Outbox
    from fedmq.protocol.messages import Receipt, Task

PATIENCE_S: Final = 5.0
"""Longest wait before a training for receipts of earlier updates that change what the device keeps. Training without
them does no harm that later rounds would not make good."""


class Settling:
    """One device's updates that change what it keeps, until each is settled."""

    def __init__(
        self,
        keepsakes: Keepsakes,
        outbox: Outbox,
        begin: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
    ) -> None:
        """Write in worker threads, in tasks that `begin` begins and looks after."""
        self._keepsakes, self._outbox, self._begin = keepsakes, outbox, begin
        self._task: Task | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    # --- what is heard ------------------------------------------------------------------------------------------------

    def tasked(self, task: Task, outbox: Collection[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
        """Take the newest task; yield round, update id and message of each question that it gives cause for.

        `outbox` are the updates that the participant still sends: their receipts will come.
        """
        self._task = task
        waiting = self._keepsakes.waiting()
        if waiting:
            self._run(self._add_what_has_moved_the_model())
        for update, origin in waiting.items():
            asks = task.kind is TaskKind.TRAIN and origin.run == task.run and origin.round < task.oldest
            if asks and not origin.accepted and update not in outbox:
                yield origin.round, update, encode(_question(task, update))

    def forget(self, update: bytes, verdict: Verdict | None) -> None:
        """Let the update leave the outbox: at once, where nothing that is kept waits for its verdict."""
        if verdict is None or update not in self._keepsakes.waiting():
            self._outbox.forget(update)
        else:
            self._run(self._judge(update, verdict))

    def heard(self, receipt: Receipt) -> None:
        """Take a receipt for an update that the participant has forgotten."""
        if receipt.verdict.settled and receipt.update in self._keepsakes.waiting():
            self._run(self._judge(receipt.update, receipt.verdict))

    # --- waiting for it -----------------------------------------------------------------------------------------------

    async def up_to_date(self, task: Task) -> None:
        """Wait until the changes of all rounds before the task's are settled; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while any(_before(origin, task) for origin in self._keepsakes.waiting().values()):
                    self._news.clear()
                    await self._news.wait()

    async def done(self) -> None:
        """Wait until what has changed is written; a writing that failed has ended the device already."""
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[object, object, None]) -> None:
        running = self._begin(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _judge(self, update: bytes, verdict: Verdict) -> None:
        """Note the verdict, and only then remove the update: a restart in between asks for it again."""
        if verdict is Verdict.ACCEPTED:
            await asyncio.to_thread(self._keepsakes.accept, update)
        else:
            end = End.REFUSED if verdict is Verdict.REJECTED else End.RETURNED
            await asyncio.to_thread(self._keepsakes.settle, update, end)
        self._outbox.forget(update)
        await self._add_what_has_moved_the_model()

    async def _add_what_has_moved_the_model(self) -> None:
        """Settle what is of another run, of a round that moved nothing, or accepted in an earlier round.

        That a round moved nothing only the next task shows for sure: so it is taken down then, accepted or not.
        """
        task = self._task
        for update, origin in self._keepsakes.waiting().items():
            if task is None:
                break
            if origin.run != task.run:
                await asyncio.to_thread(self._keepsakes.settle, update, End.DROPPED)
            elif _in_vain(origin, task):
                await asyncio.to_thread(self._keepsakes.settle, update, End.RETURNED)
            elif origin.accepted and _before(origin, task):
                await asyncio.to_thread(self._keepsakes.settle, update, End.MOVED)
        self._news.set()


def _before(origin: Origin, task: Task) -> bool:
    return origin.run == task.run and origin.round < task.round


def _in_vain(origin: Origin, task: Task) -> bool:
    """Tell whether nothing has moved since, and the update is taken no more, or was in a round that is over."""
    over = _before(origin, task) if origin.accepted else origin.run == task.run and origin.round < task.oldest
    return over and origin.model == task.model


def _question(task: Task, update: bytes) -> Update:
    return Update(task.run, update, task.model, task.layout, Facts(0), {})
