"""Receipts on their way out: many at once, bounded, and dropped where there is no link.

A lost receipt costs nothing but time: the device sends its update again and gets the same verdict.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fedmq.errors import TransportError
from fedmq.transport.interface import Outgoing
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from fedmq.protocol.messages import Receipt
    from fedmq.transport.session import Session
    from fedmq.wire.topics import Topics

log = logging.getLogger(__name__)

WAITING: Final = 20_000
"""Receipts that may wait; above that the newest are dropped, and asked for again."""
AT_ONCE: Final = 32
"""Receipts that may be unacknowledged at a time."""


class Postbox:
    """Sends receipts in the background."""

    def __init__(self, topics: Topics, session: Session) -> None:
        """Send through `session`."""
        self._topics, self._session = topics, session
        self._waiting: asyncio.Queue[Outgoing] = asyncio.Queue(WAITING)

    def post(self, device: str, receipt: Receipt) -> None:
        """Send this receipt soon."""
        outgoing = Outgoing(self._topics.receipt(device), encode(receipt))
        try:
            self._waiting.put_nowait(outgoing)
        except asyncio.QueueFull:
            log.warning("a receipt for %s is dropped: %d wait already", device, WAITING)

    async def send_forever(self) -> None:
        """Work the queue off, several at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._send_one_by_one())

    async def drained(self) -> None:
        """Wait until nothing waits any more."""
        await self._waiting.join()

    async def _send_one_by_one(self) -> None:
        while True:
            outgoing = await self._waiting.get()
            try:
                await self._session.try_publish(outgoing)
            except TransportError as error:
                log.debug("a receipt is lost, the device will ask again: %s", error)
            finally:
                self._waiting.task_done()
