"""The private names of aiomqtt and paho that `fedmq.transport.link` counts on: fails when an update takes one away."""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version

import aiomqtt
from paho.mqtt.client import Client

CHECKED_AIOMQTT = ("2.5.",)
CHECKED_PAHO = ("2.1.", "2.2.")


async def test_aiomqtt_has_what_is_reached_into() -> None:
    client = aiomqtt.Client("localhost")
    assert isinstance(client._client, Client)  # noqa: SLF001
    assert isinstance(client._disconnected, asyncio.Future)  # noqa: SLF001
    assert client._client.on_socket_open is not None  # noqa: SLF001
    client._disconnected.cancel()  # noqa: SLF001


def test_paho_has_what_is_reached_into() -> None:
    assert list(inspect.signature(Client._packet_read).parameters) == ["self"]  # noqa: SLF001
    assert list(inspect.signature(Client._packet_handle).parameters) == ["self"]  # noqa: SLF001
    assert list(inspect.signature(Client._sock_close).parameters) == ["self"]  # noqa: SLF001
    queue = inspect.signature(Client._packet_queue)  # noqa: SLF001
    assert list(queue.parameters)[1:5] == ["command", "packet", "mid", "qos"]
    assert "self._packet_read()" in inspect.getsource(Client.loop_read)
    assert "self._in_packet['remaining_length']" in inspect.getsource(Client)


def test_the_installed_versions_are_among_the_checked() -> None:
    assert version("aiomqtt").startswith(CHECKED_AIOMQTT), "run tests/broker against it, then add it here"
    assert version("paho-mqtt").startswith(CHECKED_PAHO), "run tests/broker against it, then add it here"
