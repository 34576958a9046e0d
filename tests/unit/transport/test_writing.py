"""The half of a link that writes, without a network: straight to the socket, and never past what waits already."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiomqtt
import pytest

from fedmq.transport.pending import Patience, Pending
from fedmq.transport.reading import Reading
from fedmq.transport.writing import Writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Socket:
    """Takes so many bytes more, or raises what it is given."""

    def __init__(self, room: int, trouble: Exception | None = None) -> None:
        self.room, self.trouble = room, trouble
        self.taken: list[bytes] = []

    def send(self, data: memoryview) -> int:
        if self.trouble is not None:
            raise self.trouble
        if not self.room:
            raise BlockingIOError
        self.taken.append(bytes(data[: self.room]))
        self.room -= len(self.taken[-1])
        return len(self.taken[-1])

    def fileno(self) -> int:
        return -1


@pytest.fixture
async def writing() -> AsyncIterator[Writing]:
    client = aiomqtt.Client("localhost", protocol=aiomqtt.ProtocolVersion.V5)
    pending = Pending(Patience(), lambda *_: None, lambda: 0.0)
    reading = Reading(client._client, pending, "mqtt://here", unordered=2, largest=1_000)
    yield Writing(client._client, reading, lambda _: None)
    client._client._sock = None
    pending.give_up()
    client._disconnected.cancel()


def on(writing: Writing, room: int, trouble: Exception | None = None) -> Socket:
    """Open a socket with so much room."""
    sock = Socket(room, trouble)
    writing._reading.socket = sock  # type: ignore[assignment]  # as much of one as is needed
    return sock


def queued(writing: Writing) -> list[bytes]:
    """What is left to paho."""
    return [bytes(each["packet"]) for each in writing._paho._out_packet]


async def test_what_is_sent_in_one_turn_goes_out_at_once_and_in_order(writing: Writing) -> None:
    sock = on(writing, 100)
    writing.send(b"ab", b"c")
    writing.send(b"d")
    assert sock.taken == []
    await asyncio.sleep(0)
    assert sock.taken == [b"abcd"]
    assert writing.spoke > 0.0
    await asyncio.sleep(0)
    assert sock.taken == [b"abcd"]
    assert queued(writing) == []


async def test_what_does_not_fit_waits_and_nothing_overtakes_it(writing: Writing) -> None:
    sock = on(writing, 3)
    writing.send(b"abcd")
    writing.flush()
    sock.room = 100
    writing.send(b"ef")
    writing.flush()
    assert (sock.taken, queued(writing)) == ([b"abc"], [b"d", b"ef"])
    writing._paho._sock = sock  # type: ignore[assignment]  # (as above)
    writing._write()
    assert (sock.taken, queued(writing)) == ([b"abc", b"d", b"ef"], [])


@pytest.mark.parametrize("trouble", [BlockingIOError(), ConnectionResetError(), ValueError("closed")])
async def test_a_socket_that_takes_nothing_is_for_paho_to_find(writing: Writing, trouble: Exception) -> None:
    on(writing, 100, trouble)
    writing.send(b"ab")
    writing.flush()
    assert queued(writing) == [b"ab"]
    assert writing.spoke < 0.0


async def test_a_broken_link_sends_nothing_more(writing: Writing) -> None:
    sock = on(writing, 100)
    writing.send(b"ab")
    writing.end()
    await asyncio.sleep(0)
    assert (sock.taken, queued(writing)) == ([], [])
