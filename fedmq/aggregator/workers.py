"""The aggregator's two threads, and what is done in them: one writes the journal, one does the arithmetic."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from fedmq.store.trouble import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class Workers:
    """Threads of one each: what is given to one of them is done in that order."""

    def __init__(self) -> None:
        """Begin with nothing to do; `fold` writes checkpoints too."""
        self.journal = ThreadPoolExecutor(1, "fedmq-journal")
        self.fold = ThreadPoolExecutor(1, "fedmq-fold")
        self._trouble = Trouble("the federation pauses")

    async def run(
        self, executor: ThreadPoolExecutor, work: Callable[..., Result], *arguments: object
    ) -> Result:
        """Do the work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)

    async def insist(
        self, executor: ThreadPoolExecutor, work: Callable[..., Result], *arguments: object
    ) -> Result:
        """Do it, and while the disk refuses do it again: a full disk is a pause, not an end."""
        return await self._trouble.insist(lambda: self.run(executor, work, *arguments))

    def close(self) -> None:
        """Wait until everything is done, and take no more."""
        self.fold.shutdown(wait=True)
        self.journal.shutdown(wait=True)
