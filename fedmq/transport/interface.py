"""What fedmq asks of an MQTT link: the `Transport` that every broker and client library is fitted to.

One `Connection` lives as long as one network connection; when it breaks, `receive` raises `ConnectionLost` and the
object is done. `fedmq.transport.session` keeps a session going over many of them. The conformance suite in
`fedmq.testing.transport` says the same in executable form, for implementations outside this package too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Message:
    """One received PUBLISH. `retained` is True where the broker had kept it from before the subscription."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One PUBLISH to send, always at QoS 1.

    `expiry_s` (seconds), `content_type`, `correlation` and `properties` travel as MQTT 5 properties and are left out
    under MQTT 3.1.1: nothing may depend on them.
    """

    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int | None = None
    content_type: str | None = None
    correlation: bytes | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """What identifies one MQTT session, the same over all of its connections.

    `identity` is the MQTT client identifier. With `durable`, the broker keeps subscriptions and queued messages for
    `expiry_s` seconds while the link is down. `receive_maximum` bounds how many messages may be unacknowledged towards
    us, and so the memory that incoming traffic can take. `keepalive_s` is MQTT's keep-alive.
    """

    identity: str
    will: Outgoing | None = None
    durable: bool = True
    expiry_s: int = 86_400
    receive_maximum: int = 64
    keepalive_s: int = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """What the broker granted on connect. `packet_bytes` bounds a whole PUBLISH, topic and properties included."""

    protocol: int
    session_present: bool
    packet_bytes: int
    inflight: int


class Connection(Protocol):
    """One live connection."""

    @property
    def limits(self) -> Limits:
        """What the broker granted."""

    async def publish(self, outgoing: Outgoing) -> None:
        """Send at QoS 1 and return when the broker has acknowledged.

        Raises BrokerRefused when the acknowledgement carries a failure, ConnectionLost when the link breaks first (the
        message may or may not have arrived).
        """

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1; returns after the broker's acknowledgement. Raises like `publish`."""

    async def unsubscribe(self, *filters: str) -> None:
        """Undo `subscribe`. Raises like `publish`."""

    async def receive(self) -> Sequence[Message]:
        """Wait for messages and return all that are there, oldest first, at least one.

        Calling again acknowledges to the broker what the call before returned: so a slow reader slows the broker down,
        and what was not taken up before the link broke comes again. Raises ConnectionLost.
        """

    async def close(self) -> None:
        """Disconnect in good order (no last will); never raises, and may be called twice."""


class Transport(Protocol):
    """Makes connections to one broker."""

    @property
    def address(self) -> str:
        """The broker's address for people, without secrets."""

    async def connect(self, profile: Profile) -> Connection:
        """Open one connection. Raises ConnectionLost (try again) or BrokerRefused (bad name, password, …)."""
