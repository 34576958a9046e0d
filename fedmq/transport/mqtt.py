"""Real brokers: MQTT 5 and 3.1.1 over TCP, TLS and websockets, with aiomqtt on paho.

What aiomqtt leaves out is made up for here and in `fedmq.transport.link`: the broker's verdict on each publish and
subscription, the broker's limits, prompt notice of a broken link, and acknowledgement of what was *processed*.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError
from fedmq.transport.filters import check_filter, check_topic
from fedmq.transport.interface import Limits
from fedmq.transport.link import HungUp, Link
from fedmq.transport.packets import (
    FAILURE,
    LARGEST_PACKET,
    MQTT_5,
    UNSUPPORTED_VERSION,
    check_size,
    encode_publish,
    explain,
)
from fedmq.transport.pending import Patience

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from fedmq.transport.interface import Message, Outgoing, Profile
    from fedmq.transport.pending import Codes

_log = logging.getLogger(__name__)

INFLIGHT_UNSTATED: Final = 20
"""Publishes in flight towards a broker that names no limit: mosquitto's own default, and enough to fill a link."""

INFLIGHT_MOST: Final = 200
"""Publishes in flight at most, whatever the broker allows: each holds its payload in memory."""

INCOMING_BYTES: Final = 32 * 1024 * 1024
"""Largest packet we take from a broker; models travel in chunks far below it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is and how to prove ourselves; `address` is what people get to see."""

    address: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    websocket_path: str | None = None


class MqttTransport:
    """Connects to one broker; `protocols` are the MQTT versions to try, best first."""

    def __init__(
        self, endpoint: Endpoint, *, protocols: Sequence[int] = (MQTT_5,), patience: Patience | None = None
    ) -> None:
        self._endpoint = endpoint
        self._protocols = tuple(protocols)
        self._patience = patience or Patience()

    def __repr__(self) -> str:
        return f"MqttTransport({self._endpoint.address!r})"

    @property
    def address(self) -> str:
        """The broker's address, without secrets."""
        return self._endpoint.address

    async def connect(self, profile: Profile) -> MqttConnection:
        """Open one connection. Raises ConnectionLost or BrokerRefused.

        A broker that refuses MQTT 5 is asked for 3.1.1 from then on. One that hangs up without a word may be too old
        for MQTT 5, or just stopping: 3.1.1 is tried once, and the next connection begins with MQTT 5 again.
        """
        *better, last = self._protocols
        for protocol in better:
            try:
                connection = await self._open(profile, protocol)
            except HungUp:
                continue
            except BrokerRefused as error:
                if error.code != UNSUPPORTED_VERSION:
                    raise
                _log.info("%s does not speak MQTT 5: using MQTT 3.1.1", self.address)
                self._protocols = (last,)
            else:
                self._protocols = (protocol,)
                return connection
        return await self._open(profile, last)

    async def _open(self, profile: Profile, protocol: int) -> MqttConnection:
        client = self._client(profile, protocol)
        link = Link(
            client,
            self.address,
            unordered=profile.receive_maximum,
            largest=INCOMING_BYTES,
            patience=self._patience,
        )
        await link.open()
        return MqttConnection(link, _limits(link, protocol))

    def _client(self, profile: Profile, protocol: int) -> aiomqtt.Client:
        end, newest = self._endpoint, protocol == MQTT_5
        return aiomqtt.Client(
            end.host,
            end.port,
            identifier=profile.identity,
            username=end.username,
            password=end.password,
            protocol=aiomqtt.ProtocolVersion(protocol),
            keepalive=profile.keepalive_s,
            will=None if profile.will is None else _will(profile.will, protocol),
            timeout=self._patience.connect_s,
            tls_context=end.tls,
            transport="tcp" if end.websocket_path is None else "websockets",
            websocket_path=end.websocket_path,
            logger=_log,
            # MQTT 5 and 3.1.1 spell a durable session differently, and paho refuses the other's spelling.
            **(
                {"clean_start": not profile.durable, "properties": _session_properties(profile)}
                if newest
                else {"clean_session": not profile.durable}
            ),
        )


class MqttConnection:
    """One live connection to a real broker; see `fedmq.transport.interface.Connection`."""

    def __init__(self, link: Link, limits: Limits) -> None:
        self._link = link
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.inflight)
        self._taken: list[int] = []
        self._receiving = False

    @property
    def limits(self) -> Limits:
        """What the broker granted."""
        return self._limits

    async def publish(self, outgoing: Outgoing) -> None:
        """Send at QoS 1 and return when the broker has acknowledged it."""
        check_topic(outgoing.topic)
        packet = encode_publish(outgoing, self._limits.protocol)
        check_size(outgoing.topic, packet.size, self._limits.packet_bytes)
        await self._slots.acquire()
        what = f"the message to {outgoing.topic!r}"
        try:
            # Not when the caller stops waiting: a message stays in flight until the broker has spoken.
            answer = self._link.publish(packet, what, self._slots.release)
        except ConnectionLost:
            self._slots.release()
            raise
        (code,) = await self._answer(answer)
        _heed(code, what)

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1."""
        for text in filters:
            check_filter(text)
        codes = await self._answer(self._link.subscribe(filters))
        for text, code in zip(filters, codes, strict=False):
            _heed(code, f"the subscription to {text!r}")

    async def unsubscribe(self, *filters: str) -> None:
        """Undo `subscribe`."""
        for text in filters:
            check_filter(text)
        codes = await self._answer(self._link.unsubscribe(filters))
        for text, code in zip(filters, codes, strict=False):  # MQTT 3.1.1 gives no reasons here
            _heed(code, f"the end of the subscription to {text!r}")

    async def receive(self) -> Sequence[Message]:
        """Acknowledge what the last call returned, then wait for messages and return all that are there."""
        if self._receiving:
            raise MisuseError(
                "receive() was called while another call still waits: one task reads a connection"
            )
        self._link.acknowledge(self._taken)
        self._taken = []
        self._receiving = True
        try:
            while not self._link.reading.inbox and self._link.broken is None:
                await self._link.reading.arrival()
        finally:
            self._receiving = False
        return self._take_up()

    def _take_up(self) -> Sequence[Message]:
        if self._link.broken is not None:  # what is left in the inbox comes again
            raise self._link.lost()
        batch = self._link.reading.drain()
        self._taken = [identifier for identifier, _ in batch]
        return [message for _, message in batch]

    async def close(self) -> None:
        """Disconnect in good order."""
        await self._link.close()

    async def _answer(self, answer: asyncio.Future[Codes]) -> Sequence[int]:
        codes = await answer
        if codes is None:
            raise self._link.lost()
        return codes


def _heed(code: int, what: str) -> None:
    if code >= FAILURE:
        raise BrokerRefused(f"the broker refused {what}: {explain(code)}", code=code)


def _limits(link: Link, protocol: int) -> Limits:
    session_present, properties = link.granted
    inflight = getattr(
        properties, "ReceiveMaximum", INFLIGHT_MOST if protocol == MQTT_5 else INFLIGHT_UNSTATED
    )
    return Limits(
        protocol=protocol,
        session_present=session_present,
        packet_bytes=getattr(properties, "MaximumPacketSize", LARGEST_PACKET),
        inflight=min(inflight, INFLIGHT_MOST),
    )


def _session_properties(profile: Profile) -> Properties:
    properties = _no_properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = profile.expiry_s if profile.durable else 0
    properties.ReceiveMaximum = profile.receive_maximum
    properties.MaximumPacketSize = INCOMING_BYTES
    return properties


def _will(will: Outgoing, protocol: int) -> aiomqtt.Will:
    check_topic(will.topic)
    properties = _will_properties(will) if protocol == MQTT_5 else None
    return aiomqtt.Will(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)


def _will_properties(will: Outgoing) -> Properties:
    properties = _no_properties(PacketTypes.WILLMESSAGE)
    if will.expiry_s is not None:
        properties.MessageExpiryInterval = will.expiry_s
    if will.content_type is not None:
        properties.ContentType = will.content_type
    if will.correlation is not None:
        properties.CorrelationData = will.correlation
    if will.properties:
        properties.UserProperty = list(will.properties.items())
    return properties


def _no_properties(packet: int) -> Properties:
    return Properties(packet)
