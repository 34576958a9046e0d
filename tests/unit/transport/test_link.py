"""One link without a network: what it sends and makes of answers, and the private names that it counts on.

The latter fail when an update of aiomqtt or paho takes one away.
"""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from typing import TYPE_CHECKING

import aiomqtt
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import MessageType, MQTTErrorCode

from fedmq.errors import BrokerRefused, ConnectionLost
from fedmq.transport.interface import Limits, Outgoing
from fedmq.transport.link import HEARD_AT, Link
from fedmq.transport.mqtt import MqttConnection
from fedmq.transport.packets import MQTT_5, encode_publish, encode_unsubscribe
from fedmq.transport.pending import Patience
from fedmq.transport.readahead import Packet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHECKED_AIOMQTT = ("2.5.",)
CHECKED_PAHO = ("2.1.", "2.2.")


async def test_aiomqtt_has_what_is_reached_into() -> None:
    client = aiomqtt.Client("localhost")
    assert isinstance(client._client, Client)
    assert isinstance(client._disconnected, asyncio.Future)
    assert client._client.on_socket_open is not None
    assert client._misc_task is None
    assert "self._misc_task = self._loop.create_task(self._misc_loop())" in inspect.getsource(
        aiomqtt.Client._on_socket_open
    )
    client._disconnected.cancel()


def test_paho_has_what_is_reached_into() -> None:
    assert list(inspect.signature(Client._packet_read).parameters) == ["self"]
    assert list(inspect.signature(Client._packet_handle).parameters) == ["self"]
    assert list(inspect.signature(Client._sock_close).parameters) == ["self"]
    queue = inspect.signature(Client._packet_queue)
    assert list(queue.parameters)[1:5] == ["command", "packet", "mid", "qos"]
    assert list(inspect.signature(Client._loop_rc_handle).parameters) == ["self", "rc"]
    assert "self._last_msg_out" in inspect.getsource(Client._check_keepalive)
    assert "packet['packet'][packet['pos']:]" in inspect.getsource(Client._packet_write)
    assert "packet['qos'] == 0" in inspect.getsource(Client._packet_write)
    assert "self._packet_read()" in inspect.getsource(Client.loop_read)
    assert "self._in_packet['remaining_length']" in inspect.getsource(Client)


def test_the_installed_versions_are_among_the_checked() -> None:
    assert version("aiomqtt").startswith(CHECKED_AIOMQTT), "run tests/broker against it, then add it here"
    assert version("paho-mqtt").startswith(CHECKED_PAHO), "run tests/broker against it, then add it here"


# ---------------------------------------------------------------------------------------------------------------------
# Publishing


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    client = aiomqtt.Client("localhost", protocol=aiomqtt.ProtocolVersion.V5)
    link = Link(client, "mqtt://here", unordered=10, largest=1_000, patience=Patience())
    yield link
    link.abandon("the test is over")
    client._disconnected.cancel()


def connect(link: Link, inflight: int = 10) -> MqttConnection:
    limits = Limits(MQTT_5, session_present=False, packet_bytes=1_000_000, inflight=inflight)
    return MqttConnection(link, limits)


def sent(link: Link) -> list[bytes]:
    """What went to the socket's queue since the last call, piece by piece."""
    queue = link._paho._out_packet
    return [bytes(queue.popleft()["packet"]) for _ in range(len(queue))]


def answer(link: Link, identifier: int, *rest: int) -> None:
    link.reading._handle(Packet(0x40, memoryview(identifier.to_bytes(2, "big") + bytes(rest))))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def wire(payload: bytes, identifier: int) -> bytes:
    return b"".join(encode_publish(Outgoing("t", payload), MQTT_5).parts(identifier))


async def test_what_is_published_and_acknowledged_in_one_turn_is_one_piece(link: Link) -> None:
    connection = connect(link)
    tasks = [asyncio.create_task(connection.publish(Outgoing("t", bytes([n])))) for n in range(3)]
    await asyncio.sleep(0)
    link.acknowledge([7, 0, 8])
    await turns()
    assert sent(link) == [wire(b"\0", 1) + wire(b"\1", 2) + wire(b"\2", 3) + b"\x40\x02\0\x07\x40\x02\0\x08"]
    for identifier in (2, 1, 3):
        assert not tasks[identifier - 1].done()
        answer(link, identifier)
        await turns()
        assert tasks[identifier - 1].done()
    await asyncio.gather(*tasks)


async def test_a_refusal_comes_with_the_brokers_reason(link: Link) -> None:
    task = asyncio.create_task(connect(link).publish(Outgoing("t", b"x")))
    await turns()
    answer(link, 1, 0x87, 0)
    with pytest.raises(BrokerRefused, match=r"refused the message to 't': not authorized.*0x87") as caught:
        await task
    assert caught.value.code == 0x87


async def test_a_cancelled_publish_keeps_its_slot_until_the_broker_has_spoken(link: Link) -> None:
    connection = connect(link, inflight=1)
    first = asyncio.create_task(connection.publish(Outgoing("t", b"1")))
    await turns()
    first.cancel()
    second = asyncio.create_task(connection.publish(Outgoing("t", b"2")))
    await turns()
    assert first.cancelled()
    assert sent(link) == [wire(b"1", 1)]
    answer(link, 1)
    await turns()
    assert sent(link) == [wire(b"2", 2)]
    answer(link, 2)
    await second


async def test_a_broken_link_ends_every_publish_those_that_wait_for_a_slot_too(link: Link) -> None:
    connection = connect(link, inflight=2)
    tasks = [asyncio.create_task(connection.publish(Outgoing("t", bytes([n])))) for n in range(6)]
    await turns()
    link.abandon("somebody pulled the plug")
    for task in tasks:
        with pytest.raises(ConnectionLost, match="pulled the plug"):
            await asyncio.wait_for(task, 1.0)
    assert connection._slots._value == 2


async def test_a_link_that_ends_after_connecting_was_given_up_says_so(link: Link) -> None:
    """aiomqtt asks the future of a CONNECT for its error, which raises where that was cancelled."""
    link._client._connected.cancel()
    link._paho._do_on_disconnect(packet_from_broker=False, v1_rc=MQTTErrorCode.MQTT_ERR_CONN_LOST)
    assert link.broken == "the connection was cut"


async def test_a_link_that_is_set_up_is_read_past_aiomqtt(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(link.reading, "take_over", lambda: done.append("reading"))
    monkeypatch.setattr(link, "_look_after", lambda: done.append("keep-alive"))
    entering = link._loop.create_future()
    entering.set_result(None)
    link._settle(entering)
    assert done == ["reading", "keep-alive"]


async def test_answers_that_nobody_waits_for_change_nothing(link: Link) -> None:
    subscription = link._pending.add(1, MessageType.SUBACK, "a subscription")
    answer(link, 1)
    answer(link, 99)
    assert not subscription.done()


async def test_identifiers_wrap_around_what_is_in_flight(link: Link) -> None:
    link._identifier = 65_533
    for identifier in (65_534, 1, 2, 4):
        link._pending.add(identifier, MessageType.PUBACK, "a message")
    assert [link._next_identifier() for _ in range(2)] == [65_535, 3]
    connection = connect(link)
    tasks = [asyncio.create_task(connection.publish(Outgoing("t", b"x")))]
    tasks.append(asyncio.create_task(connection.unsubscribe("a/+")))
    await turns()
    assert sent(link) == [wire(b"x", 5) + encode_unsubscribe(6, ["a/+"], MQTT_5)]
    answer(link, 5)
    link.reading._handle(Packet(0xB0, memoryview(b"\0\x06\0\0")))
    await asyncio.gather(*tasks)


async def test_the_keep_alive_is_looked_after_now_and_then_until_the_link_breaks(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    answers = [MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_CONN_LOST]
    waits: list[tuple[float, object]] = []

    def look() -> MQTTErrorCode:
        looks.append(0.0)
        return answers[len(looks) - 1]

    monkeypatch.setattr(link._paho, "loop_misc", look)
    monkeypatch.setattr(link._loop, "call_later", lambda wait, work: waits.append((wait, work)))
    monkeypatch.setattr(link, "_heard", lambda: 1e12)
    link._writing.spoke = 2e12
    assert link._paho.keepalive == 60
    link._look_after()
    assert waits == [(7.5, link._look_after)]
    (name,) = HEARD_AT & vars(link._paho).keys()
    assert getattr(link._paho, name) == 1e12, "paho is told of what came past it"
    assert link._paho._last_msg_out == 2e12, "and of what went"
    link._look_after()  # paho finds that the link is dead, and says so itself
    assert len(waits) == 1
    link._break("it is over")
    link._look_after()
    assert len(looks) == 2
