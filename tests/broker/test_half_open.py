"""Links that are dead without a word, and links that are alive while the processor is busy."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import ConnectionLost
from fedmq.testing.proxy import Proxy
from fedmq.testing.transport import raises
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Outgoing, Profile

if TYPE_CHECKING:
    from fedmq.transport.mosquitto import Mosquitto

pytestmark = pytest.mark.broker

KEEP_ALIVE_S = 1
NOTICED_S = 2 * KEEP_ALIVE_S + 3.0
"""MQTT gives the answer to a ping as long as the keep-alive, and paho looks once a second."""


async def test_a_link_that_carries_nothing_any_more_is_noticed(shared_mosquitto: Mosquitto) -> None:
    """Nothing is cut, nothing is refused, and nobody was saying anything: only the keep-alive can tell."""
    async with Proxy(shared_mosquitto.port) as proxy:
        transport = open_transport(f"mqtt://127.0.0.1:{proxy.port}", Credentials())
        connection = await transport.connect(Profile("half-open", keepalive_s=KEEP_ALIVE_S))
        receiving = asyncio.create_task(raises(ConnectionLost, connection.receive(), within_s=60.0))
        await asyncio.sleep(2.5 * KEEP_ALIVE_S)
        assert not receiving.done()  # an idle link that works stays
        begin = time.monotonic()
        proxy.hold()
        await receiving
        assert time.monotonic() - begin < NOTICED_S
        await connection.close()


async def test_a_training_in_python_starves_no_keep_alive(shared_mosquitto: Mosquitto) -> None:
    """The broker ends a link after one and a half keep-alives of silence; the training takes three."""
    transport = open_transport(shared_mosquitto.address, Credentials())
    connection = await transport.connect(Profile("busy", keepalive_s=KEEP_ALIVE_S))
    await asyncio.to_thread(_train, 3.0 * KEEP_ALIVE_S)
    await connection.publish(Outgoing("half-open/after", b"still here"))
    await connection.close()


def _train(seconds: float) -> None:
    """Use the interpreter without a pause."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
