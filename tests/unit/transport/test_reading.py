"""The half of a link that reads, without a network: a bounded inbox, and a socket left unread while it is full."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import aiomqtt
import pytest
from paho.mqtt.enums import MessageType, MQTTErrorCode

from fedmq.transport.interface import Message
from fedmq.transport.pending import Patience, Pending
from fedmq.transport.readahead import Packet
from fedmq.transport.reading import INBOX_BYTES, Reading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HALF = Message("t", bytes(INBOX_BYTES // 2 + 1))
HANDLE = 7


class Socket:
    """Has these packets, each as its first byte and the rest, or what it raises."""

    heard = 12.0

    def __init__(self, *packets: object) -> None:
        self.packets = list(packets)

    def packet(self) -> object:
        found = self.packets.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def pending(self) -> int:
        return len(self.packets)

    def fileno(self) -> int:
        return HANDLE


@pytest.fixture
async def reading() -> AsyncIterator[Reading]:
    client = aiomqtt.Client("localhost", protocol=aiomqtt.ProtocolVersion.V5)
    pending = Pending(Patience(), lambda *_: None, lambda: 0.0)
    reading = Reading(client._client, pending, "mqtt://here", unordered=2, largest=1_000)
    reading.socket = Socket()  # type: ignore[assignment]  # as much of one as is needed
    yield reading
    pending.give_up()
    client._disconnected.cancel()


@pytest.fixture
def watched(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whether the event loop looks at the socket, each time that changes, and what it is to do later."""
    seen: list[str] = []
    monkeypatch.setattr(reading._loop, "add_reader", lambda *_: seen.append("read"))
    monkeypatch.setattr(reading._loop, "remove_reader", lambda *_: seen.append("unread"))
    monkeypatch.setattr(reading._loop, "call_later", lambda _, work: seen.append(work.__name__))
    return seen


async def test_a_full_inbox_leaves_the_socket_unread_until_it_is_emptied(
    reading: Reading, watched: list[str]
) -> None:
    for number in (1, 2):
        assert watched == []
        reading._take(number, HALF)
    assert watched == ["unread"]
    assert reading.drain() == [(1, HALF), (2, HALF)]
    assert (watched, reading.inbox) == (["unread", "read"], [])
    reading._take(3, HALF)
    assert watched == ["unread", "read"], "what was taken up is in it no more"


async def test_a_link_that_has_ended_is_read_no_more(reading: Reading, watched: list[str]) -> None:
    reading._take(1, HALF)
    reading._take(2, HALF)
    reading.end()
    reading.drain()
    assert watched == ["unread"]


async def test_an_answer_that_is_awaited_is_looked_for_all_the_same(
    reading: Reading, watched: list[str]
) -> None:
    """It stands behind what is not read."""
    reading._take(1, HALF)
    reading._take(2, HALF)
    for identifier in (1, 2):
        reading._pending.add(identifier, MessageType.PUBACK, "a message")
        reading.glance()
    assert watched.count("resume") == 1
    reading.resume()
    reading._take(3, HALF)
    assert watched.count("resume") == 2


async def test_messages_that_need_no_word_wait_in_bounds(
    reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        reading._take(0, Message("t", b"x"))
    reading._take(1, Message("t", b"y"))
    assert [identifier for identifier, _ in reading.inbox] == [0, 0, 1]
    assert "dropped a QoS 0 message on 't'" in caplog.text


async def test_who_waits_is_woken_by_a_message_and_by_the_end(reading: Reading) -> None:
    for news in (partial(reading._take, 1, Message("t", b"x")), reading.end):
        waiting = asyncio.create_task(reading.arrival())
        await asyncio.sleep(0)
        assert not waiting.done()
        news()
        await waiting


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (None, MQTTErrorCode.MQTT_ERR_AGAIN),
        (BlockingIOError(), MQTTErrorCode.MQTT_ERR_AGAIN),
        (ConnectionError("closed"), MQTTErrorCode.MQTT_ERR_CONN_LOST),
        (ValueError("too long"), MQTTErrorCode.MQTT_ERR_PROTOCOL),
    ],
)
async def test_what_is_no_packet_has_its_code(reading: Reading, found: object, code: MQTTErrorCode) -> None:
    reading.socket = Socket(found)  # type: ignore[assignment]  # (as above)
    assert reading.read_packet() is code


async def test_packets_are_read_until_none_is_there_or_one_makes_no_sense(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(reading._paho, "_loop_rc_handle", left.append)
    monkeypatch.setattr(reading._paho, "socket", lambda: reading.socket)

    def read(*packets: object) -> int:
        sock = Socket(*packets)
        reading.socket = sock  # type: ignore[assignment]  # (as above)
        reading._read_on()
        return len(sock.packets)

    first, second = (Packet(0x30, memoryview(b"\0\x01t\0" + body)) for body in (b"1", b"2"))
    assert read(first, second, None) == 0
    assert [message.payload for _, message in reading.drain()] == [b"1", b"2"]
    reading.end()
    assert read(first, None) == 0, "while it is being closed it is read, or the loop would spin"
    assert left == []
    assert read(ConnectionError("closed"), first) == 1
    assert left == [MQTTErrorCode.MQTT_ERR_CONN_LOST]
    monkeypatch.setattr(reading._paho, "socket", lambda: None)
    assert read(first) == 1, "paho has closed it"


async def test_a_link_is_read_past_paho_once_it_is_set_up_unless_it_is_full_or_broken(
    reading: Reading, watched: list[str]
) -> None:
    reading.take_over()
    assert watched == ["read"]
    reading._take(1, HALF)
    reading._take(2, HALF)
    reading.take_over()
    assert watched == ["read", "unread"]
    reading.end()
    reading.take_over()
    assert watched == ["read", "unread"]


async def test_without_a_socket_nothing_is_heard(reading: Reading) -> None:
    assert reading.heard == 12.0
    reading.socket = None
    assert reading.heard == float("-inf")
    assert reading.read_packet() is MQTTErrorCode.MQTT_ERR_AGAIN
