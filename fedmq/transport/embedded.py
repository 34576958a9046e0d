"""The embedded broker: rumqttd out of a wheel (PyPI ``iotcore``), for demonstrations on one machine.

It needs no installation beyond ``pip install 'fedmq[embedded]'``, and it listens on 127.0.0.1 only. It is never for
deployment; faults of iotcore 0.4.0, all measured, none of which can be configured away:

- its log of messages only grows: gigabytes after a long run, and once it wraps, sessions that were away lose messages
  without a word;
- it ignores receive maximum, maximum packet size and session expiry;
- it keeps nothing over a restart, and has no access control.

Its own settings allow 20,480 bytes a message; they are raised here.
"""

from __future__ import annotations

import asyncio
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fedmq.errors import ConfigError
from fedmq.transport.mosquitto import LOOPBACK, START_S, free_port

if TYPE_CHECKING:
    from types import TracebackType

    from iotcore import Broker

_SETTINGS: Final = """\
id = 0

[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "{address}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 33554432
max_inflight_count = 100
dynamic_filters = true
"""


def has_embedded() -> bool:
    """Return whether iotcore is installed."""
    return find_spec("iotcore") is not None


class Embedded:
    """One iotcore process: ``async with Embedded() as broker: broker.address``.

    It runs as a child process that ends when its standard input does, so it cannot outlive us, however we end.
    """

    name: Final = "embedded"

    def __init__(self, port: int | None = None) -> None:
        """Listen on `port`, or on a free one."""
        self._port = port
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._broker: Broker | None = None

    @property
    def port(self) -> int:
        """The listener's port; the same over restarts."""
        if self._port is None:
            self._port = free_port()
        return self._port

    @property
    def address(self) -> str:
        """The listener's address."""
        return f"mqtt://{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Start and wait until it accepts connections. Raises ConfigError."""
        if not has_embedded():
            raise ConfigError("the embedded broker is not installed: pip install 'fedmq[embedded]'")
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        from iotcore import Broker  # noqa: PLC0415 - an extra, and 14 MB

        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="fedmq-embedded-")
        settings = Path(self._folder.name, "rumqttd.toml")
        settings.write_text(_SETTINGS.format(address=f"{LOOPBACK}:{self.port}"))
        self._broker = Broker(config_path=str(settings))
        try:
            self._broker.start(timeout=START_S)
        except (OSError, RuntimeError, ValueError) as error:
            self._broker = None
            raise ConfigError(f"the embedded broker did not start: {error}") from error

    async def stop(self) -> None:
        """End it; may be called twice."""
        broker, self._broker = self._broker, None
        if broker is not None:
            await asyncio.to_thread(broker.stop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None
