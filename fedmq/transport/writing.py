"""The half of a link that writes: what is said in one turn of the event loop goes out in one system call.

It goes to the socket directly. paho's own way there takes a queue, two more turns of the event loop and a dozen calls
for each packet; it is for what the socket does not take at once, and for the few packets that paho makes itself.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from paho.mqtt.enums import MessageType

from fedmq.transport.packets import gather

if TYPE_CHECKING:
    from collections.abc import Callable

    import paho.mqtt.client as paho

    from fedmq.transport.reading import Reading

FromPaho: TypeAlias = Any
"""An argument of one of paho's callbacks, which it declares for its two callback interfaces at once."""


class Writing:
    """What goes out over one link; `spoke` is when (`time.monotonic`) something last went past paho."""

    def __init__(self, client: paho.Client, reading: Reading, abandon: Callable[[str], None]) -> None:
        """Write to the socket that `reading` reads; `abandon(why)` is called where that cannot be done."""
        self.spoke = -math.inf
        self._paho, self._reading, self._abandon = client, reading, abandon
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._waits = False

    def take_over(self) -> None:
        """Write what paho makes: aiomqtt's go through the door for other threads, and from here on only we send."""
        self._paho.on_socket_register_write = self._on_more_to_write
        self._paho.on_socket_unregister_write = self._on_all_written

    def end(self) -> None:
        """Forget what was to be sent: the link is broken."""
        self._outbox.clear()

    def send(self, *parts: bytes) -> None:
        """Send soon, together with what else is sent in this turn of the event loop: a system call for all of it."""
        if not self._outbox:
            self._loop.call_soon(self.flush)
        self._outbox += parts

    def flush(self) -> None:
        """Send now what is to be sent soon."""
        parts, self._outbox = self._outbox, []
        for piece in gather(parts):
            rest = self._left_of(piece)
            if rest:  # paho slices, counts and sends it; at QoS 1 it leaves the rest to us
                self._paho._packet_queue(MessageType.PUBLISH, cast("bytes", rest), 0, 1)  # noqa: SLF001

    def _left_of(self, piece: memoryview) -> memoryview:
        """Return what the socket does not take of it; all, where something waits already or the socket is no more."""
        sock = self._reading.socket
        if sock is None or self._paho._out_packet:  # noqa: SLF001
            return piece
        try:
            count = sock.send(piece)
        except (OSError, ValueError):  # it is full, or broken: paho will meet the same, and says so
            return piece
        self.spoke = self._loop.time()
        return piece[count:]

    def _on_more_to_write(self, *_: FromPaho) -> None:
        self._loop.call_soon(self._write)

    def _on_all_written(self, *_: FromPaho) -> None:
        if self._waits and self._reading.socket is not None:
            self._waits = False
            self._loop.remove_writer(self._reading.socket.fileno())

    def _write(self) -> None:
        """Send what paho has queued, and what the socket does not take as soon as it will."""
        try:
            self._paho.loop_write()
        except Exception as error:  # noqa: BLE001 - as aiomqtt: whatever it is, the link is done
            self._abandon(f"the connection was cut ({error})")
        sock = self._reading.socket
        if sock is not None and self._paho.want_write() and (handle := sock.fileno()) >= 0:
            self._waits = True
            self._loop.add_writer(handle, self._write)
