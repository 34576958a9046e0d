"""What leaves a device's outbox: whole updates, chunks of them, and questions which of their chunks are missing.

Of each update one thing is being sent at a time. What is asked for next takes the place of what is under way, and where
an update has its verdict the rest of it is not sent any more: some chunks are on their way by then, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from itertools import islice
from typing import TYPE_CHECKING, Final

from fedmq.errors import BrokerRefused, StoreError, TransportError
from fedmq.protocol.messages import Query
from fedmq.protocol.spans import EVERYTHING, within
from fedmq.wire.chunks import chunk_count, chunk_room, cut
from fedmq.wire.envelope import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from fedmq.device.outbox import Outbox
    from fedmq.protocol.messages import Chunk
    from fedmq.protocol.participation import Send
    from fedmq.protocol.posting import Letter
    from fedmq.transport.interface import Connection
    from fedmq.wire.topics import Topics

    Publish = Callable[[Connection, str, bytes], Awaitable[None]]

log = logging.getLogger(__name__)

CHUNKS_AT_ONCE: Final = 4
"""Chunks of an update that may be unacknowledged at a time; more would only fill the link's buffers."""
ASK_FROM_BYTES: Final = 2048
"""Shortest update that is asked about: below, sending it again costs no more than question and answer."""


class Sending:
    """Sends what the participant asks for, of updates that lie in `outbox`."""

    def __init__(  # noqa: PLR0913 - all but three go by name
        self,
        device: str,
        topics: Topics,
        outbox: Outbox,
        *,
        letters: Callable[[], Mapping[bytes, Letter]],
        publish: Publish,
        sent: Callable[[bytes], None],
    ) -> None:
        """Publish through `publish`; `letters` are what the participant still wants sent, `sent` hears of each end."""
        self._device, self._topics, self._outbox = device, topics, outbox
        self._letters, self._publish, self._sent = letters, publish, sent
        self._turns: dict[bytes, Send] = {}

    async def send(self, connection: Connection, effect: Send) -> None:
        """Carry the effect out over this connection."""
        self._turns[effect.update] = effect
        try:
            await self._send(connection, effect)
        except BrokerRefused as error:
            log.error("%s may not publish its update: %s", self._device, error)  # noqa: TRY400 - a sentence
        except TransportError as error:
            log.debug("%s could not send: %s", self._device, error)
        except StoreError as error:
            log.error("%s cannot send its update, and tries again: %s", self._device, error)  # noqa: TRY400
        if self._turns.get(effect.update) is effect:
            del self._turns[effect.update]
            self._sent(effect.update)

    async def _send(self, connection: Connection, effect: Send) -> None:
        letter, body = self._letters().get(effect.update), self._outbox.get(effect.update)
        if letter is None or body is None:
            return
        room = chunk_room(connection.limits.packet_bytes)
        count = chunk_count(len(body), room)
        if not effect.missing and len(body) >= ASK_FROM_BYTES:
            await self._ask(connection, effect, Query(letter.run, effect.update, count, effect.question))
        elif count == 1:
            await self._publish(connection, self._topics.update(self._device, effect.round), body)
        else:
            wanted = within(effect.missing or EVERYTHING, count)
            chunks = cut(body, letter.run, effect.update, room, indexes=wanted)
            await self._send_chunks(connection, effect, chunks)

    async def _ask(self, connection: Connection, effect: Send, query: Query) -> None:
        await self._publish(connection, self._topics.query(self._device, effect.round), encode(query))

    async def _send_chunks(self, connection: Connection, effect: Send, chunks: Iterator[Chunk]) -> None:
        while self._goes_on(effect) and (window := list(islice(chunks, CHUNKS_AT_ONCE))):
            await asyncio.gather(*(self._send_chunk(connection, effect, chunk) for chunk in window))

    async def _send_chunk(self, connection: Connection, effect: Send, chunk: Chunk) -> None:
        topic = self._topics.update(self._device, effect.round, chunk.index)
        await self._publish(connection, topic, encode(chunk))

    def _goes_on(self, effect: Send) -> bool:
        """Tell whether this is still what is to be sent: no verdict has come, nor word to send it later."""
        letter = self._letters().get(effect.update)
        return self._turns.get(effect.update) is effect and letter is not None and letter.due == math.inf
