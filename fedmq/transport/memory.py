"""A broker inside the process, with MQTT's semantics and seeded bad luck: for simulation and for tests.

It holds retained messages, wildcards, durable sessions with bounded queues, last wills, the receive maximum and the
packet limit, as a good MQTT 5 broker does; `Faults` makes it a bad one. It waits by the event loop's clock only, so it
runs in virtual time, and with one seed and one order of calls it tells the same story each time.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError
from fedmq.transport.filters import check_filter, check_topic
from fedmq.transport.interface import Limits, Message
from fedmq.transport.mailbox import NO_FAULTS, Faults, Mailbox, Parcel, Weather
from fedmq.transport.packets import (
    LARGEST_PACKET,
    MQTT_5,
    NOT_AUTHORIZED,
    check_size,
    encode_publish,
    explain,
)
from fedmq.transport.topictree import FilterTree, TopicTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedmq.transport.interface import Outgoing, Profile


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a `MemoryBroker` grants.

    `packet_bytes` bounds one message, `inflight` is told to clients (it needs no window of its own), `queue` bounds
    the messages that wait for one session; `may_publish` (identity, topic) is its access control list.
    """

    packet_bytes: int = LARGEST_PACKET
    inflight: int = 100
    queue: int = 10_000
    may_publish: Callable[[str, str], bool] | None = None


class MemoryBroker:
    """An MQTT broker in this process, and the `Transport` to it.

    `seed` decides all its luck. `faults` may be set at any time and holds from then on.
    """

    def __init__(
        self, *, seed: int = 0, faults: Faults = NO_FAULTS, abilities: Abilities | None = None
    ) -> None:
        self._abilities = abilities or Abilities()
        self._weather = Weather(faults, random.Random(seed))  # noqa: S311 - luck, not secrecy
        self._boxes: dict[str, Mailbox] = {}
        self._subscriptions = FilterTree()
        self._retained: TopicTree[Parcel] = TopicTree()
        self._running = True

    @property
    def address(self) -> str:
        """A name for people."""
        return "memory://broker"

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on."""
        return self._weather.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._weather.faults = faults

    @property
    def identities(self) -> tuple[str, ...]:
        """The sessions that it keeps, connected or not."""
        return tuple(self._boxes)

    @property
    def connected(self) -> tuple[str, ...]:
        """The identities that are connected."""
        return tuple(name for name, box in self._boxes.items() if box.receiver is not None)

    @property
    def dropped(self) -> int:
        """How many deliveries to the present sessions it lost without a word."""
        return sum(box.dropped for box in self._boxes.values())

    def retained(self, text: str = "#") -> dict[str, bytes]:
        """Return the payloads it keeps, by topic, of the topics that the filter `text` matches."""
        now = asyncio.get_running_loop().time()
        return {topic: kept.message.payload for topic, kept in self._retained.find(text) if kept.fresh(now)}

    async def connect(self, profile: Profile) -> MemoryConnection:
        """Open a connection; one that the same identity had is cut. Raises ConnectionLost while it is stopped."""
        await asyncio.sleep(0)
        if not self._running:
            raise ConnectionLost(f"cannot connect to {self.address}: it is stopped")
        if profile.will is not None:
            check_topic(profile.will.topic)
        self.cut(profile.identity)
        if not profile.durable:
            self._forget(profile.identity)
        present = profile.identity in self._boxes
        box = self._boxes.setdefault(profile.identity, Mailbox(profile, self._weather, self._abilities.queue))
        limits = Limits(MQTT_5, present, self._abilities.packet_bytes, self._abilities.inflight)
        return MemoryConnection(self, box, profile, limits)

    def cut(self, identity: str) -> bool:
        """Break the link of one identity, as the network does; return whether it had one."""
        box = self._boxes.get(identity)
        if box is None or box.receiver is None:
            return False
        box.receiver.cut()
        return True

    def stop(self) -> None:
        """Break all links and refuse new ones until `start`; sessions and retained messages stay."""
        self._running = False
        for identity in self.connected:
            self.cut(identity)

    def start(self) -> None:
        """Accept connections again."""
        self._running = True

    def wipe(self) -> None:
        """Lose all sessions and retained messages, as a broker without persistence does when it is killed."""
        for identity in self.identities:
            self.cut(identity)
            self._forget(identity)
        self._retained = TopicTree()

    # -----------------------------------------------------------------------------------------------------------------
    # For `MemoryConnection`

    def route(self, outgoing: Outgoing) -> None:
        """Hand a message to everyone who subscribed to its topic, and keep it where it is retained."""
        deadline = None
        if outgoing.expiry_s is not None:
            deadline = asyncio.get_running_loop().time() + outgoing.expiry_s
        parcel = Parcel(Message(outgoing.topic, outgoing.payload), deadline)
        if outgoing.retain:
            kept = replace(parcel, message=replace(parcel.message, retained=True))
            self._retained.put(outgoing.topic, kept if outgoing.payload else None)
        for name in self._subscriptions.match(outgoing.topic):
            if name in self._boxes:  # a delivery before this one may have cut a link and ended a session
                self._boxes[name].offer(parcel)

    def judge(self, identity: str, topic: str) -> None:
        """Raise BrokerRefused where the access control list says no."""
        may = self._abilities.may_publish
        if may is not None and not may(identity, topic):
            sentence = f"the broker refused the message to {topic!r}: {explain(NOT_AUTHORIZED)}"
            raise BrokerRefused(sentence, code=NOT_AUTHORIZED)

    def subscribe(self, box: Mailbox, text: str) -> None:
        """Add a subscription and send what is retained for it."""
        self._subscriptions.add(text, box.profile.identity)
        box.filters[text] = None
        for _, kept in list(self._retained.find(text)):
            box.offer(kept)

    def unsubscribe(self, box: Mailbox, text: str) -> None:
        """Take a subscription away."""
        self._subscriptions.discard(text, box.profile.identity)
        box.filters.pop(text, None)

    def strikes(self, fault: str, topic: str) -> bool:
        """Roll once for `fault`."""
        return self._weather.strikes(fault, topic)

    def odds(self) -> bool:
        """Toss a coin."""
        return self._weather.random.random() < 0.5  # noqa: PLR2004 - even odds

    def leave(self, box: Mailbox, will: Outgoing | None) -> None:
        """End a connection: keep the session for its time, and publish the last will where there is one to publish."""
        box.detach()
        profile = box.profile
        if profile.durable:
            loop = asyncio.get_running_loop()
            box.expiry = loop.call_later(profile.expiry_s, self._forget, profile.identity)
        else:
            self._forget(profile.identity)
        if will is not None:
            self.route(will)

    def _forget(self, identity: str) -> None:
        box = self._boxes.pop(identity, None)
        if box is None:
            return
        if box.expiry is not None:
            box.expiry.cancel()
        for text in box.filters:
            self._subscriptions.discard(text, identity)


class MemoryConnection:
    """One live connection to a `MemoryBroker`; see `fedmq.transport.interface.Connection`."""

    def __init__(self, broker: MemoryBroker, box: Mailbox, profile: Profile, limits: Limits) -> None:
        self._broker = broker
        self._box = box
        self._profile = profile
        self._limits = limits
        self._inbox: list[Message] = []
        self._taken = 0
        self._broken: str | None = None
        self._arrival: asyncio.Future[None] | None = None
        box.attach(profile, self)

    @property
    def limits(self) -> Limits:
        """What the broker granted."""
        return self._limits

    async def publish(self, outgoing: Outgoing) -> None:
        """Send at QoS 1 and return when the broker has acknowledged it."""
        check_topic(outgoing.topic)
        packet = encode_publish(outgoing, self._limits.protocol)
        check_size(outgoing.topic, packet.size, self._limits.packet_bytes)
        await self._turn()
        self._broker.judge(self._profile.identity, outgoing.topic)
        unlucky = self._broker.strikes("cut", outgoing.topic)
        if not unlucky or self._broker.odds():
            self._broker.route(outgoing)
        if unlucky:
            self.cut()
            raise self._lost()

    async def subscribe(self, *filters: str) -> None:
        """Subscribe at QoS 1."""
        for text in filters:
            check_filter(text)
        await self._turn()
        for text in filters:
            self._broker.subscribe(self._box, text)

    async def unsubscribe(self, *filters: str) -> None:
        """Undo `subscribe`."""
        for text in filters:
            check_filter(text)
        await self._turn()
        for text in filters:
            self._broker.unsubscribe(self._box, text)

    async def receive(self) -> Sequence[Message]:
        """Acknowledge what the last call returned, then wait for messages and return all that are there."""
        if self._arrival is not None:
            raise MisuseError(
                "receive() was called while another call still waits: one task reads a connection"
            )
        if self._taken and self._broken is None:
            taken, self._taken = self._taken, 0
            self._box.acknowledge(taken)
        await self._wait()
        if self._broken is not None:
            raise self._lost()
        batch, self._inbox = self._inbox, []
        self._taken = len(batch)
        return batch

    async def close(self) -> None:
        """Disconnect in good order."""
        self._end("it was closed", None)

    def take(self, message: Message) -> None:
        """Put a message where `receive` finds it."""
        self._inbox.append(message)
        self._wake()

    def cut(self) -> None:
        """Break, as the network does."""
        self._end("the connection was cut", self._profile.will)

    def _end(self, why: str, will: Outgoing | None) -> None:
        if self._broken is None:
            self._broken = why
            self._wake()
            self._broker.leave(self._box, will)

    async def _turn(self) -> None:
        """Let others run, as waiting for a network would, and see whether the link is still there."""
        await asyncio.sleep(0)
        if self._broken is not None:
            raise self._lost()

    async def _wait(self) -> None:
        while not self._inbox and self._broken is None:
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the link to {self._broker.address} is gone: {self._broken}")
