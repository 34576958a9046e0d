"""From receipts to what a device keeps; and asking for receipts that got lost.

What an update changes of the device's own vectors is added when the aggregator's model has moved by that update: its
receipt says accepted, and the next round begins with another version than the update's round did. (An accepted update
moves nothing where its round is given up for want of others.) What it takes out of the residual of error feedback comes
back in every other case but one: an update that was refused takes the residual with it.

A new task makes a device forget updates of rounds that are over, receipt or not. For what it keeps that will not do: a
change on one side alone leaves device and aggregator out of step for good. So it asks for the verdict, with each task
until it has one. The aggregator gives the one that it remembers, or says that the update came too late.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from fedmq.device.verdicts import Verdicts
from fedmq.errors import StoreError
from fedmq.store.trouble import DISK_PAUSE_S, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator

    from fedmq.device.keepsakes import Keepsakes
    from fedmq.device.outbox import Outbox
    from fedmq.protocol.messages import Receipt, Task, Verdict

SETTLED_STAYS: Final = (
    "a settled update stays on disk, and is asked about again after a restart; what it changes waits"
)
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
        self._outbox, self._begin = outbox, begin
        self._verdicts = Verdicts(keepsakes, outbox)
        self._running: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._leaving = asyncio.Event()
        self._trouble = Trouble(SETTLED_STAYS, waits="what was settled stays until then")

    # --- what is heard ------------------------------------------------------------------------------------------------

    def tasked(self, task: Task, outbox: Collection[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
        """Take the newest task; yield round, update id and message of each question that it gives cause for.

        `outbox` are the updates that the participant still sends: their receipts will come.
        """
        self._verdicts.task = task
        questions = list(self._verdicts.questions(task, outbox))
        if self._verdicts.waiting:
            self._run(self._insist(self._verdicts.settle))
        yield from questions

    def forget(self, update: bytes, verdict: Verdict | None) -> None:
        """Let the update leave the outbox: at once, where nothing that is kept waits for its verdict."""
        if verdict is not None and self._verdicts.concerns(update):
            self._run(self._insist(self._verdicts.judge, update, verdict))
            return
        try:
            self._outbox.forget(update)
        except StoreError as error:
            self._trouble.refused(error)
            self._run(self._insist(self._outbox.forget, update))

    def heard(self, receipt: Receipt) -> None:
        """Take a receipt for an update that the participant has forgotten."""
        if receipt.verdict.settled and self._verdicts.concerns(receipt.update):
            self._run(self._insist(self._verdicts.judge, receipt.update, receipt.verdict))

    # --- waiting for it -----------------------------------------------------------------------------------------------

    async def up_to_date(self, task: Task) -> None:
        """Wait until the changes of all rounds before the task's are settled; not for ever."""
        if not self._verdicts.open_before(task):
            return  # most devices keep nothing, and a timer that is not needed costs more than to look
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while self._verdicts.open_before(task):
                    self._news.clear()
                    await self._news.wait()

    async def done(self) -> None:
        """Wait until what has changed is written; not for a disk that refuses: the next life asks for the verdicts."""
        self._leaving.set()
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[object, object, None]) -> None:
        running = self._begin(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _insist(self, work: Callable[..., None], *arguments: object) -> None:
        """Do it in a worker thread, and while the disk refuses do it again: all of it may be done twice."""
        while True:
            begin = time.monotonic()
            try:
                await asyncio.to_thread(work, *arguments)
            except StoreError as error:
                self._trouble.refused(error)
                if await self._leaves_within(DISK_PAUSE_S):
                    return
            else:
                self._trouble.wrote(time.monotonic() - begin)
                self._news.set()
                return

    async def _leaves_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        return self._leaving.is_set()
