"""One network connection on aiomqtt and paho: it and its two halves reach into their private parts, nobody else.

aiomqtt brings paho into the event loop; that, connecting and disconnecting is what is used of it. Its `publish` ignores
the broker's verdict and notices a cut link only after its timeout; its `messages` costs a task a message and
acknowledges what nobody has looked at. paho's requests and its reading of answers build a table of properties for each
packet, and keep books for sending again after a reconnect, where a new link has a new client: PUBLISH, SUBSCRIBE,
UNSUBSCRIBE and what answers them are made and read here. Private names in use, each with its reason, checked against
aiomqtt 2.5.1 with paho-mqtt 2.1.0 and 2.2.0 (`tests/unit/transport/test_link.py` fails when one of them goes away):

=========================== =========================================================================================
``aiomqtt.Client._client``  paho's client, whose public callbacks are used directly
``….Client._disconnected``  where aiomqtt puts an error met while reading, and nowhere else
``….Client._misc_task``     ended: it wakes every second to look at the keep-alive, which for a thousand links in one
                            process is a thousand tasks a second; `Link._look_after` does so now and then
``paho Client._sock``       replaced by `ReadAhead`
``paho …._last_msg_in``     when something last came (`_last_bytes_received` in 2.2.0), which paho does not see while
                            `ReadAhead` reads: it is told before each look at the keep-alive
``paho …._last_msg_out``    likewise, when something was last sent, which `Writing` does past paho
``paho …._packet_read``     replaced by `Reading.read_packet`: paho's own makes a system call for each of a packet's
                            first bytes, copies a payload five times, and builds a table of all MQTT 5 properties for
                            each message: several times what receiving need cost
``paho …._in_packet``       where `_packet_handle` finds the packet
``paho …._packet_handle``   handles CONNACK, DISCONNECT and what keeps the link alive
``paho …._loop_rc_handle``  takes leave of a link that cannot be read any more, as `loop_read` does, which is three
                            calls more for each packet, and aiomqtt's way to it two
``paho …._sock_close``      closes the socket and takes it out of the event loop
``paho …._packet_queue``    has what the socket does not take at once
``paho …._out_packet``      that queue: while something waits in it, all else goes there too
=========================== =========================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiomqtt
from paho.mqtt.enums import MessageType, MQTTErrorCode

from fedmq.errors import BrokerRefused, ConnectionLost
from fedmq.transport.packets import FAILURE, encode_puback, encode_subscribe, encode_unsubscribe, explain
from fedmq.transport.pending import Codes, Patience, Pending
from fedmq.transport.reading import Reading
from fedmq.transport.writing import Writing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties

    from fedmq.transport.packets import Publish
    from fedmq.transport.writing import FromPaho

_log = logging.getLogger(__name__)

MOST_IDENTIFIERS: Final = 65_535
"""Packet identifiers that there are (MQTT 5, section 2.2.1)."""

HEARD_AT: Final = {"_last_bytes_received", "_last_msg_in"}
"""Where paho's versions keep when something last came."""

_CLOSE_S: Final = 3.0
"""Seconds that an orderly disconnect may take before the socket is simply closed."""

_LINGER_S: Final = 1.0
"""Seconds of these for the broker to close the connection as well."""

_LEFTOVERS: Final = 64 * 1024
"""Bytes read at once that nobody will look at any more."""

_LOOKS: Final = 8
"""Looks at the keep-alive within its time: a ping is late by an eighth of it at most, and brokers bear half."""


class Granted(NamedTuple):
    """The broker's answer to CONNECT."""

    session_present: bool
    properties: Properties | None


class HungUp(ConnectionLost):
    """The broker closed the connection without answering CONNECT: it may not know this version of MQTT."""


class Link:
    """One network connection, from CONNECT to its end.

    `reading` has what arrived. `unordered` bounds how many messages that need no acknowledgement may wait there;
    `largest` an incoming packet, in bytes; `patience` how long the broker may take to answer a request.
    """

    def __init__(
        self, client: aiomqtt.Client, address: str, *, unordered: int, largest: int, patience: Patience
    ) -> None:
        self.broken: str | None = None
        self.granted = Granted(session_present=False, properties=None)
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._paho: paho.Client = client._client  # noqa: SLF001
        self._protocol = int(self._paho.protocol)
        self._unwanted = False
        self._refusal: BrokerRefused | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._pending = Pending(patience, self._late, self._heard)
        self.reading = Reading(self._paho, self._pending, address, unordered=unordered, largest=largest)
        self._writing = Writing(self._paho, self.reading, self.abandon)
        self._identifier = 0
        self._take_over()

    def _take_over(self) -> None:
        client: Any = self._paho  # paho declares its callbacks for both of its callback interfaces at once
        client.disable_logger()  # it formats a line for each packet; what matters comes back as errors
        client.manual_ack_set(on=True)
        client.max_inflight_messages_set(0)  # `MqttConnection` keeps to the broker's limit
        self._their_open, client.on_socket_open = client.on_socket_open, self._on_open
        self._their_connect, client.on_connect = client.on_connect, self._on_connect
        self._their_disconnect, client.on_disconnect = client.on_disconnect, self._on_disconnect
        vars(client).update(_packet_read=self.reading.read_packet)
        self._watch()

    def _watch(self) -> None:
        self._client._disconnected.add_done_callback(self._on_aiomqtt_end)  # noqa: SLF001

    # -----------------------------------------------------------------------------------------------------------------
    # Opening and closing

    async def open(self) -> None:
        """Connect. Raises ConnectionLost or BrokerRefused; cancelling it leaves no connection behind."""
        entering: asyncio.Future[Any] = asyncio.ensure_future(self._client.__aenter__())
        try:
            await asyncio.wait((entering, self._ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._give_up(entering)
            raise
        if self._refusal is not None:
            self._give_up(entering)
            raise self._refusal
        if not entering.done():
            self._give_up(entering)
            raise HungUp(f"{self._address} closed the connection before it was set up")
        self._settle(entering)

    def _settle(self, entering: asyncio.Future[Any]) -> None:
        error = entering.exception()
        if error is not None:
            self.abandon("it could not be opened")
            raise ConnectionLost(f"cannot connect to {self._address}: {error}") from error
        self._watch()  # aiomqtt may have begun a new future
        if self._client._misc_task is not None:  # noqa: SLF001
            self._client._misc_task.cancel()  # noqa: SLF001
        self.reading.take_over()
        self._look_after()

    def _look_after(self) -> None:
        """Have paho keep the link alive, or find that it is dead: which it is not where bytes come, of whatever."""
        known = vars(self._paho)
        for name in HEARD_AT & known.keys():
            known[name] = max(known[name], self._heard())
        known["_last_msg_out"] = max(known["_last_msg_out"], self._writing.spoke)
        if self.broken is None and self._paho.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._loop.call_later(max(1.0, self._paho.keepalive / _LOOKS), self._look_after)

    def _give_up(self, entering: asyncio.Future[Any]) -> None:
        # A thread may be connecting: it must not be left to send CONNECT later and take over the session of a newer
        # connection. It gives up by itself in `_on_open`; past that point the socket is shut and the rest follows.
        self._unwanted = True
        if self.reading.socket is not None:
            self.reading.socket.shut()
        entering.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._ended.add_done_callback(lambda _: entering.cancel())

    async def close(self) -> None:
        """Disconnect in good order; never raises."""
        if self.broken is not None:
            return
        self._writing.flush()
        self._break("it was closed")
        try:
            async with asyncio.timeout(_CLOSE_S), self._lingering():
                await self._client.__aexit__(None, None, None)
        except (aiomqtt.MqttError, OSError) as error:
            _log.debug("closing the link to %s: %s", self._address, str(error) or "no answer")
        finally:
            self._paho._sock_close()  # noqa: SLF001

    @contextlib.asynccontextmanager
    async def _lingering(self) -> AsyncIterator[None]:
        """Keep the connection behind paho's back until the broker has closed it too.

        What still comes to a closed socket is answered by the system with a reset, and that costs the broker what it
        has not read yet: our DISCONNECT, so that it would take who leaves in good order for dead.
        """
        if self.reading.socket is None:
            yield
            return
        with self.reading.socket.twin() as twin:
            yield
            twin.setblocking(False)  # noqa: FBT003 - the socket interface's own spelling
            twin.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LINGER_S):
                while await self._loop.sock_recv(twin, _LEFTOVERS):
                    pass

    def abandon(self, why: str) -> None:
        """Close the socket without a word, for a link that is broken or makes no progress."""
        self._paho._sock_close()  # noqa: SLF001
        self._break(why)

    def lost(self) -> ConnectionLost:
        """Return a new error that tells why the link is broken."""
        return ConnectionLost(f"the link to {self._address} is gone: {self.broken}")

    def _break(self, why: str) -> None:
        if self.broken is not None:
            return
        self.broken = why
        self._ended.set_result(None)
        self._writing.end()
        self._pending.give_up()
        self.reading.end()

    def _heard(self) -> float:
        return self.reading.heard

    def _late(self, what: str, patience_s: float) -> None:
        self.abandon(f"the broker did not acknowledge {what} within {patience_s:.0f} s")

    # -----------------------------------------------------------------------------------------------------------------
    # Requests

    def publish(self, packet: Publish, what: str, landed: Callable[[], None]) -> asyncio.Future[Codes]:
        """Send, and return a future for the broker's answer; `landed` is called when that comes or the link breaks.

        Raises ConnectionLost.
        """
        if self.broken is not None:
            raise self.lost()
        identifier = self._next_identifier()
        self._writing.send(*packet.parts(identifier))
        answer = self._pending.add(identifier, MessageType.PUBACK, what, size=packet.size, landed=landed)
        self.reading.glance()
        return answer

    def subscribe(self, filters: Sequence[str]) -> asyncio.Future[Codes]:
        """Ask for a subscription at QoS 1, and return a future for the broker's answer. Raises ConnectionLost."""
        return self._ask(encode_subscribe, filters, MessageType.SUBACK, "a subscription")

    def unsubscribe(self, filters: Sequence[str]) -> asyncio.Future[Codes]:
        """Ask for the end of a subscription, and return a future for the broker's answer. Raises ConnectionLost."""
        return self._ask(encode_unsubscribe, filters, MessageType.UNSUBACK, "an unsubscription")

    def _ask(
        self, encode: Callable[[int, Sequence[str], int], bytes], filters: Sequence[str], kind: int, what: str
    ) -> asyncio.Future[Codes]:
        if self.broken is not None:
            raise self.lost()
        identifier = self._next_identifier()
        self._writing.send(encode(identifier, filters, self._protocol))
        self.reading.resume()
        return self._pending.add(identifier, kind, what)

    def _next_identifier(self) -> int:
        """Return a packet identifier that is not in flight."""
        while True:
            self._identifier = self._identifier % MOST_IDENTIFIERS + 1
            if self._identifier not in self._pending:
                return self._identifier

    def acknowledge(self, identifiers: Iterable[int]) -> None:
        """Send PUBACKs, in order, in one piece."""
        packets = [encode_puback(identifier) for identifier in identifiers if identifier]
        if packets and self.broken is None:
            self._writing.send(*packets)

    # -----------------------------------------------------------------------------------------------------------------
    # Callbacks; paho runs `_on_open` in the connecting thread, the others in the event loop

    def _on_open(self, *opened: FromPaho) -> None:
        client, userdata, sock = opened
        if self._unwanted:
            sock.close()
            raise ConnectionAbortedError("nobody waits for this connection any more")
        client._sock = self.reading.open(sock)  # noqa: SLF001
        self._their_open(client, userdata, client._sock)  # noqa: SLF001

    def _on_connect(self, *answer: FromPaho) -> None:
        _, _, flags, reason, properties = answer
        self.granted = Granted(flags.session_present, properties)
        if reason.value >= FAILURE:
            sentence = f"{self._address} refused the connection: {explain(reason.value)}"
            self._refusal = BrokerRefused(sentence, code=reason.value)
            self._break("the broker refused it")
        else:
            self._writing.take_over()
            self._their_connect(*answer)

    def _on_disconnect(self, *farewell: FromPaho) -> None:
        # It asks what became of CONNECT, which raises where that was given up.
        with contextlib.suppress(asyncio.CancelledError):
            self._their_disconnect(*farewell)
        _, _, flags, reason, _ = farewell
        told = flags.is_disconnect_packet_from_server
        self._break(explain(reason.value) if told else "the connection was cut")

    def _on_aiomqtt_end(self, ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if self.broken is None:
            self.abandon(f"the connection was cut ({error})")
