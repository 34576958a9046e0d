"""What the aggregator wants to stand on the broker, kept true over lost links and forgetful brokers."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from fedmq.errors import BrokerRefused, ConnectionLost
from fedmq.transport.interface import Outgoing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedmq.transport.interface import Connection

log = logging.getLogger(__name__)

AT_ONCE: Final = 8
"""Messages of one `put` that may be unacknowledged at a time."""


class Board:
    """Retained messages by topic, in the order in which they are to appear.

    `put` publishes at once where there is a link, and else leaves it to the next connection: each one begins with all
    of them again, because a broker may have come back from an old state.
    """

    def __init__(self) -> None:
        """Begin with an empty board and no link."""
        self._wanted: dict[str, Outgoing] = {}
        self._owed: dict[str, Outgoing] = {}
        self._even = asyncio.Event()
        self._even.set()
        self._connection: Connection | None = None

    async def attach(self, connection: Connection) -> None:
        """Publish everything over a new connection. Raises ConnectionLost when it breaks on the way."""
        cleared = {topic: outgoing for topic, outgoing in self._owed.items() if topic not in self._wanted}
        self._owe(*cleared.values(), *self._wanted.values())
        while self._owed:  # what is put up or taken down meanwhile comes at its end
            outgoing = next(iter(self._owed.values()))
            await _publish(connection, outgoing)
            self._done(outgoing)
        self._connection = connection

    def detach(self) -> None:
        """Forget the connection: it is lost."""
        self._connection = None

    async def put(self, outgoings: Iterable[Outgoing]) -> None:
        """Put these up, after all that stands already and in no order among themselves.

        Returns when the broker has them, or the link broke.
        """
        rest = iter(outgoings)
        while window := list(islice(rest, AT_ONCE)):
            for outgoing in window:
                self._wanted.pop(outgoing.topic, None)
                self._wanted[outgoing.topic] = outgoing
            self._owe(*window)
            await asyncio.gather(*map(self._try, window))

    async def clear(self, topics: Iterable[str]) -> None:
        """Take these down, now or on the next connection."""
        for topic in topics:
            if self._wanted.pop(topic, None) is not None:
                blank = Outgoing(topic, b"", retain=True)
                self._owe(blank)
                await self._try(blank)

    def take_down(self, topics: Iterable[str]) -> None:
        """Take these down on the next connection, though it was not this board that put them up."""
        self._owe(*(Outgoing(topic, b"", retain=True) for topic in topics))

    def topics(self) -> list[str]:
        """Return the topics that stand."""
        return list(self._wanted)

    @property
    def is_even(self) -> bool:
        """Whether the broker has everything."""
        return self._even.is_set()

    async def even(self) -> None:
        """Wait until the broker has everything."""
        await self._even.wait()

    def _owe(self, *outgoings: Outgoing) -> None:
        for outgoing in outgoings:
            self._owed.pop(outgoing.topic, None)
            self._owed[outgoing.topic] = outgoing
            self._even.clear()

    def _done(self, outgoing: Outgoing) -> None:
        if self._owed.get(outgoing.topic) is outgoing:  # else there is a newer one by now
            del self._owed[outgoing.topic]
        if not self._owed:
            self._even.set()

    async def _try(self, outgoing: Outgoing) -> None:
        if self._connection is None:
            return
        try:
            await _publish(self._connection, outgoing)
        except ConnectionLost:
            return  # the session notices as well, and the next connection puts it up
        self._done(outgoing)


async def _publish(connection: Connection, outgoing: Outgoing) -> None:
    try:
        await connection.publish(outgoing)
    except BrokerRefused as error:
        log.error(  # noqa: TRY400 - a sentence for the operator, no traceback
            "the broker refused %s: %s; check the aggregator's rights and the broker's limits",
            outgoing.topic,
            error,
        )
