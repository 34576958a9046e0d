"""The half of a link that reads: packets are decoded as they come, and messages kept until somebody takes them up."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.enums import MessageType, MQTTErrorCode

from fedmq.transport.packets import decode_puback, decode_publish, decode_suback
from fedmq.transport.readahead import Packet, ReadAhead

if TYPE_CHECKING:
    import paho.mqtt.client as paho

    from fedmq.transport.interface import Message
    from fedmq.transport.pending import Pending

_log = logging.getLogger(__name__)

_GLANCE_S: Final = 0.05
"""Seconds after which a full inbox is read on where an answer is awaited: who empties the inbox may wait for it."""

_WELL: Final = (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN)
_PUBLISH, _PUBACK = int(MessageType.PUBLISH), int(MessageType.PUBACK)
_ANSWERS: Final = frozenset({int(MessageType.SUBACK), int(MessageType.UNSUBACK)})

INBOX_BYTES: Final = 4 * 2**20
"""Payload bytes in the inbox above which the socket is left unread, so that the broker holds the rest (mosquitto 2.0.11
keeps to no receive maximum after the first acknowledgement)."""


class Reading:
    """What comes over one link, from its opening to its end.

    `inbox` holds the messages that have arrived, as pairs of packet identifier (0 where nothing is to be acknowledged)
    and message; answers go to `pending`. `unordered` bounds how many messages that need no acknowledgement may wait;
    what comes above is dropped, as QoS 0 allows. `largest` bounds an incoming packet, in bytes.
    """

    def __init__(
        self, client: paho.Client, pending: Pending, address: str, *, unordered: int, largest: int
    ) -> None:
        self.inbox: list[tuple[int, Message]] = []
        self.socket: ReadAhead | None = None
        self._inbox_bytes = 0
        self._paused = self._ended = False
        self._paho, self._pending, self._address = client, pending, address
        self._protocol = int(client.protocol)
        self._unordered, self._largest = unordered, largest
        self._loop = asyncio.get_running_loop()
        self._arrival: asyncio.Future[None] | None = None

    def open(self, sock: Any) -> ReadAhead:  # noqa: ANN401 - paho has no type for its sockets
        """Return what stands in for the socket that paho has opened; in the thread that connects."""
        self.socket = ReadAhead(sock, largest=self._largest)
        return self.socket

    def end(self) -> None:
        """Read no more, and wake who waits: the link is broken."""
        self._ended = True
        self._wake()

    @property
    def heard(self) -> float:
        """When (`time.monotonic`) the last bytes came."""
        return self.socket.heard if self.socket is not None else -math.inf

    # -----------------------------------------------------------------------------------------------------------------
    # The inbox

    async def arrival(self) -> None:
        """Wait until there is something in `inbox`, or the link breaks."""
        self._arrival = self._loop.create_future()
        try:
            await self._arrival
        finally:
            self._arrival = None

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def drain(self) -> list[tuple[int, Message]]:
        """Return what is in the inbox, and read on if it was full."""
        batch, self.inbox, self._inbox_bytes = self.inbox, [], 0
        self.resume()
        return batch

    def resume(self) -> None:
        """Read on where reading was paused: there is room again, or an answer to wait for."""
        if self._paused and self.socket is not None and not self._ended:
            self._paused = False
            self._loop.add_reader(self.socket.fileno(), self._read_on)

    def take_over(self) -> None:
        """Read without aiomqtt and paho in between from now on: the link is set up."""
        if self.socket is not None and not self._paused and not self._ended:
            self._loop.add_reader(self.socket.fileno(), self._read_on)

    def _read_on(self) -> None:
        """Read what there is, as aiomqtt and paho do: as long as it is open, or what comes would wake us for ever."""
        while self.socket is not None and self._paho.socket() is not None:
            code = self.read_packet()
            if code not in _WELL:
                self._paho._loop_rc_handle(code)  # noqa: SLF001
                return
            if self.socket.pending() <= 0:
                return

    def _pause(self) -> None:
        """Leave the socket unread while the inbox is full; not for long while an answer is awaited."""
        if self._inbox_bytes > INBOX_BYTES and not self._paused and self.socket is not None:
            self._paused = True
            self._loop.remove_reader(self.socket.fileno())
            if self._pending:
                self._loop.call_later(_GLANCE_S, self.resume)

    def glance(self) -> None:
        """Look for an answer soon that is awaited from now on, where reading is paused and none was awaited before."""
        if self._paused and len(self._pending) == 1:
            self._loop.call_later(_GLANCE_S, self.resume)

    # -----------------------------------------------------------------------------------------------------------------
    # Packets; paho calls `read_packet`

    def read_packet(self) -> MQTTErrorCode:
        """Read and handle one packet; stands in for `paho.Client._packet_read`."""
        try:
            found = self.socket.packet() if self.socket is not None else None
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        except ValueError as error:
            _log.warning("%s sent what cannot be read: %s", self._address, error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if found is None:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        try:
            return self._handle(found)
        except Exception as error:  # noqa: BLE001 - paho raises all sorts over a packet that makes no sense
            _log.warning("%s sent what cannot be read: %s", self._address, error)
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _handle(self, packet: Packet) -> MQTTErrorCode:
        kind = packet.command & 0xF0
        if kind == _PUBLISH:
            self._take(*decode_publish(packet.command, packet.body, self._protocol))
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        if kind == _PUBACK:
            identifier, code = decode_puback(packet.command, packet.body, self._protocol)
            self._pending.settle(_PUBACK, identifier, (code,))
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        if kind in _ANSWERS:
            self._pending.settle(kind, *decode_suback(packet.command, packet.body, self._protocol))
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        slot = self._paho._in_packet  # noqa: SLF001
        slot["command"], slot["packet"] = packet.command, bytearray(packet.body)
        slot["remaining_length"] = len(packet.body)
        return self._paho._packet_handle()  # noqa: SLF001

    def _take(self, identifier: int, message: Message) -> None:
        if identifier or len(self.inbox) < self._unordered:
            self.inbox.append((identifier, message))
            self._inbox_bytes += len(message.payload)
            self._pause()
            self._wake()
        else:
            _log.warning("dropped a QoS 0 message on %r: they come faster than they are read", message.topic)
