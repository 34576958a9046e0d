"""Saying that a disk is in trouble, so that a person sees it, and does not see it a thousand times.

A disk that is full, read-only or gone is a pause: what depends on it waits, and the same write is tried again every
second. That is told as it begins, each minute while it lasts, and when it is over. A disk that is only slow
is told of as well: rounds then take as long as it does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, TypeVar

from fedmq.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")

log = logging.getLogger(__name__)

DISK_PAUSE_S: Final = 1.0
"""Wait before something is written again after the disk refused."""
REPEAT_S: Final = 60.0
"""Pause before the same trouble is told of again."""
SLOW_S: Final = 5.0
"""Seconds that one write may take before that is told."""


class Trouble:
    """One disk's, as one writer sees it."""

    def __init__(
        self,
        pauses: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        waits: str = "receipts and rounds wait for it",
    ) -> None:
        """Begin without any; `pauses` says what does not go on meanwhile, `waits` what a slow disk holds up."""
        self._pauses, self._clock, self._waits = pauses, clock, waits
        self._since: float | None = None
        self._told = -REPEAT_S

    @property
    def lasts(self) -> bool:
        """Whether there is some."""
        return self._since is not None

    async def insist(self, write: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `write()` does; while the disk refuses, do it again: a full disk is a pause, not an end."""
        while True:
            begin = self._clock()
            try:
                done = await write()
            except StoreError as error:
                self.refused(error)
                await asyncio.sleep(DISK_PAUSE_S)
            else:
                self.wrote(self._clock() - begin)
                return done

    def refused(self, error: StoreError) -> None:
        """Tell that the disk refuses."""
        now = self._clock()
        first = self._since is None
        self._since = now if self._since is None else self._since
        if first or now - self._told >= REPEAT_S:
            self._told = now
            log.critical("%s, for %.0f s now: %s", self._pauses, now - self._since, error)

    def wrote(self, seconds: float) -> None:
        """Note that a write took so long, and ended well."""
        now = self._clock()
        if self._since is not None:
            log.warning("the disk takes writes again, after %.0f s: everything goes on", now - self._since)
            self._since = None
        elif seconds >= SLOW_S and now - self._told >= REPEAT_S:
            self._told = now
            log.warning("the disk took %.1f s for one write: %s", seconds, self._waits)
