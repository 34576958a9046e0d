"""A reader that does not keep up costs the broker memory, not this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.reading import INBOX_BYTES

if TYPE_CHECKING:
    from fedmq.transport.interface import Transport
    from fedmq.transport.mosquitto import Mosquitto

pytestmark = pytest.mark.broker

SIZE = 1_000_000
COUNT = 40


async def test_the_inbox_is_bounded_and_nothing_is_lost(shared_mosquitto: Mosquitto) -> None:
    transport = open_transport(shared_mosquitto.address, Credentials())
    slow = await transport.connect(Profile("slow-reader", durable=False))
    await slow.subscribe("flood/#")
    await _flood(transport, range(1))
    assert (
        len(await slow.receive()) == 1
    )  # acknowledging once is what makes mosquitto 2.0.11 forget the receive maximum
    waiting = asyncio.create_task(slow.receive())
    await _flood(transport, range(1, COUNT))
    numbers = [int.from_bytes(message.payload[:4], "big") for message in await waiting]
    link = cast("Any", slow)._link
    held = []
    while len(numbers) < COUNT - 1:
        held.append(sum(len(message.payload) for _, message in link.reading.inbox))
        numbers += [int.from_bytes(message.payload[:4], "big") for message in await slow.receive()]
        await asyncio.sleep(0.05)  # the broker would fill the inbox meanwhile
    await slow.close()
    assert numbers == list(range(1, COUNT))
    assert max(held) <= INBOX_BYTES + 2 * SIZE


async def test_whoever_reads_nothing_can_publish_still(shared_mosquitto: Mosquitto) -> None:
    """The broker's answer stands in line behind what is not read."""
    transport = open_transport(shared_mosquitto.address, Credentials())
    busy = await transport.connect(Profile("busy-reader", durable=False))
    await busy.subscribe("flood/#")
    link = cast("Any", busy)._link
    await _flood(transport, range(20))
    async with asyncio.timeout(20.0):
        while not link.reading._paused:
            await asyncio.sleep(0.01)
    await asyncio.wait_for(busy.publish(Outgoing("receipt", b"x")), 10.0)
    await busy.close()


async def _flood(transport: Transport, numbers: range) -> None:
    sender = await transport.connect(Profile("flooder", durable=False))
    for number in numbers:
        await sender.publish(Outgoing(f"flood/{number}", number.to_bytes(4, "big") + bytes(SIZE - 4)))
    await sender.close()
