"""How a link says good-bye: the broker gets to read it, whatever it was still sending."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fedmq.transport import link
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.interface import Profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from fedmq.transport.interface import Connection

CONNACK = b"\x20\x03\x00\x00\x00"
DISCONNECT = 0xE0


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """Give a connection, and the broker's end of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket interface's own spelling
        transport = open_transport(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", Credentials())
        connecting = asyncio.create_task(transport.connect(Profile("rover")))
        broker, _ = await loop.sock_accept(listener)
        with broker:
            broker.setblocking(False)  # noqa: FBT003 - (same)
            await loop.sock_recv(broker, 1_000)
            await loop.sock_sendall(broker, CONNACK)
            yield await connecting, broker


async def test_a_broker_that_is_still_sending_is_not_cut_off() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (connection, broker):
        closing = asyncio.create_task(connection.close())
        farewell = await loop.sock_recv(broker, 1_000)
        await loop.sock_sendall(broker, bytes(100_000))
        rest = await loop.sock_recv(broker, 1_000)  # a reset would raise
        assert (farewell + rest)[0] == DISCONNECT
        assert not closing.done()
        broker.close()
        await closing


async def test_one_that_never_closes_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_LINGER_S", 0.05)
    async with connected() as (connection, broker):
        await connection.close()
        assert (await asyncio.get_running_loop().sock_recv(broker, 1_000))[0] == DISCONNECT
