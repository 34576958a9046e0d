"""What goes out of the outbox: whole, in chunks, or a question; and what is not sent any more."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, cast

import pytest

from fedmq.device.outbox import MemoryOutbox, Stored
from fedmq.device.sending import ASK_FROM_BYTES, CHUNKS_AT_ONCE, Sending
from fedmq.errors import BrokerRefused, ConnectionLost
from fedmq.protocol.messages import Chunk, Query
from fedmq.protocol.participation import Send
from fedmq.protocol.posting import Letter
from fedmq.protocol.spans import EVERYTHING
from fedmq.transport.interface import Connection, Limits
from fedmq.wire import limits
from fedmq.wire.chunks import OVERHEAD_BYTES
from fedmq.wire.envelope import decode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

RUN, ID = b"run-0001", b"update-1"
TOPICS = Topics("test")
ROOM = limits.LEAST_PACKET_BYTES - OVERHEAD_BYTES
LONG = bytes(10 * ROOM)
WHOLE, QUESTION = "fedmq/v1/test/up/ada/update/7", "fedmq/v1/test/up/ada/query/7"


class Desk:
    """An outbox with one update, and what was published of it over a link that takes the smallest packets."""

    limits = Limits(4, session_present=False, packet_bytes=limits.LEAST_PACKET_BYTES, inflight=20)

    def __init__(self, body: bytes) -> None:
        self.letters = {ID: Letter(RUN, 7, due=math.inf)}
        self.published: list[tuple[str, bytes]] = []
        self.ends: list[bytes] = []
        self.before: Callable[[int], None] = lambda count: None
        outbox = MemoryOutbox()
        outbox.put(Stored(RUN, 7, ID, body))
        self.sending = Sending(
            "ada",
            TOPICS,
            outbox,
            letters=lambda: self.letters,
            publish=self.publish,
            sent=self.ends.append,
        )

    async def publish(self, connection: Connection, topic: str, data: bytes) -> None:
        assert connection is cast("Connection", self)
        self.before(len(self.published))
        self.published.append((topic, data))
        await asyncio.sleep(0)

    async def send(self, missing: tuple[int, ...] = ()) -> list[int]:
        """Send, and return the indexes of the chunks that were published."""
        await self.sending.send(cast("Connection", self), Send(7, ID, missing, 9))
        return [int(topic.rpartition("/")[2]) for topic, _ in self.published if topic.count("/") == 7]


async def test_a_short_update_goes_whole_even_where_it_would_be_asked_about() -> None:
    body = bytes(ASK_FROM_BYTES - 1)
    desk = Desk(body)
    await desk.send()
    await desk.send(EVERYTHING)
    assert desk.published == [(WHOLE, body)] * 2


@pytest.mark.parametrize(("size", "count"), [(ASK_FROM_BYTES, 1), (ROOM, 1), (ROOM + 1, 2), (10 * ROOM, 10)])
async def test_a_longer_update_is_asked_about(size: int, count: int) -> None:
    desk = Desk(bytes(size))
    await desk.send()
    [(topic, data)] = desk.published
    assert (topic, decode(data, Query)) == (QUESTION, Query(RUN, ID, count, 9))
    assert desk.ends == [ID]


async def test_a_long_update_goes_in_chunks() -> None:
    desk = Desk(LONG)
    assert await desk.send(EVERYTHING) == list(range(10))
    assert b"".join(decode(data, Chunk).data for _, data in desk.published) == LONG
    assert desk.ends == [ID]


async def test_of_a_long_update_the_missing_chunks_are_sent() -> None:
    desk = Desk(LONG)
    assert await desk.send((2, 1, 5, 9)) == [2, 8, 9]


async def test_an_update_that_is_gone_is_not_sent() -> None:
    desk = Desk(LONG)
    desk.letters.clear()
    await desk.send()
    assert (desk.published, desk.ends) == ([], [ID])


async def test_the_rest_is_not_sent_once_there_is_a_verdict() -> None:
    desk = Desk(LONG)
    desk.before = lambda count: desk.letters.clear() if count == 5 else None
    assert await desk.send(EVERYTHING) == list(range(2 * CHUNKS_AT_ONCE))


async def test_the_rest_is_not_sent_now_where_it_is_to_be_sent_later() -> None:
    desk = Desk(LONG)

    def put_off(count: int) -> None:
        if count == 5:
            desk.letters[ID].due = 99.0

    desk.before = put_off
    assert await desk.send(EVERYTHING) == list(range(2 * CHUNKS_AT_ONCE))


async def test_what_is_asked_for_next_takes_the_place_of_what_is_under_way() -> None:
    desk = Desk(LONG)
    first = asyncio.create_task(desk.send(EVERYTHING))
    while not desk.published:
        await asyncio.sleep(0)
    assert len(desk.published) == CHUNKS_AT_ONCE
    await desk.send((9, 1))
    await first
    assert len(desk.published) == CHUNKS_AT_ONCE + 1
    assert desk.ends == [ID]


@pytest.mark.parametrize("error", [BrokerRefused("no", code=0x87), ConnectionLost("gone")])
async def test_a_refusal_or_a_lost_link_ends_it(error: Exception) -> None:
    desk = Desk(LONG)

    def refuse(_: int) -> None:
        raise error

    desk.before = refuse
    await desk.send(EVERYTHING)
    assert (desk.published, desk.ends) == ([], [ID])
