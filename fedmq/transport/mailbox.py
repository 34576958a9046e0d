"""One MQTT session inside the in-process broker: its queue, its window of unacknowledged messages, and its bad luck."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from fedmq.errors import MisuseError
from fedmq.transport.filters import check_filter, matches

if TYPE_CHECKING:
    from random import Random

    from fedmq.transport.interface import Message, Profile

_CHANCES: Final = ("drop", "duplicate", "reorder", "cut")


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, each with a chance from 0 to 1 for every delivery on a topic that `topics` matches.

    drop: lost without a word although the publisher was told "success", as by a full queue.
    duplicate: delivered twice, as QoS 1 allows.
    reorder: held back for up to `reorder_s` seconds while others overtake it.
    cut: the receiver's link breaks instead; on a publish, the sender's, with even odds before and after the broker
    took the message.
    delay_s: each delivery takes a time between these two, in order.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    cut: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    reorder_s: float = 1.0
    topics: str = "#"

    def __post_init__(self) -> None:
        check_filter(self.topics)
        for name in _CHANCES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise MisuseError(f"the chance of {name!r} is {getattr(self, name)}: it goes from 0 to 1")
        if not 0.0 <= self.delay_s[0] <= self.delay_s[1] or self.reorder_s < 0.0:
            raise MisuseError(f"{self} has a time below zero, or a delay that ends before it begins")

    def concern(self, topic: str) -> bool:
        """Return whether anything can happen to a message on `topic`."""
        return self != NO_FAULTS and (self.topics == "#" or matches(self.topics, topic))


NO_FAULTS: Final = Faults()


@dataclass(slots=True)
class Weather:
    """The broker's faults, which may change at any time, and the source of its luck."""

    faults: Faults
    random: Random

    def strikes(self, fault: str, topic: str) -> bool:
        """Roll once for `fault`; rolls only where it is possible, so that a seed's story is stable."""
        chance: float = getattr(self.faults, fault)
        return chance > 0.0 and self.faults.concern(topic) and self.random.random() < chance


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message on its way to one session; `deadline` (loop time) is when it expires, `again` marks a repetition."""

    message: Message
    deadline: float | None = None
    again: bool = False

    def fresh(self, now: float) -> bool:
        """Return whether it has not expired."""
        return self.deadline is None or now < self.deadline


class Receiver(Protocol):
    """The connection that a mailbox delivers to."""

    def take(self, message: Message) -> None:
        """Put `message` where `receive` finds it."""

    def cut(self) -> None:
        """Break, as the network does."""


class Mailbox:
    """What a broker keeps for one identity, over its connections.

    `limit` bounds the messages that wait; what comes above is dropped without a word, and counted, as brokers do.
    """

    def __init__(self, profile: Profile, weather: Weather, limit: int) -> None:
        self.profile = profile
        self.filters: dict[str, None] = {}
        self.receiver: Receiver | None = None
        self.dropped = 0
        self.expiry: asyncio.TimerHandle | None = None
        self._weather = weather
        self._limit = limit
        self._waiting: deque[Parcel] = deque()
        self._window: deque[Parcel] = deque()
        self._late: deque[tuple[float, Parcel]] = deque()

    def attach(self, profile: Profile, receiver: Receiver) -> None:
        """Begin a connection: what was not acknowledged comes first."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        self.profile = profile
        self.receiver = receiver
        self._pump()

    def detach(self) -> None:
        """End a connection; what it had not acknowledged waits for the next one."""
        self.receiver = None
        self._waiting.extendleft(reversed(self._window))
        self._window.clear()

    def offer(self, parcel: Parcel) -> None:
        """Take in one message, as far as luck has it."""
        topic = parcel.message.topic
        if self._weather.strikes("drop", topic):
            self.dropped += 1
        elif self._weather.strikes("reorder", topic):
            pause = self._weather.random.uniform(0.0, self._weather.faults.reorder_s)
            asyncio.get_running_loop().call_later(pause, self._admit, parcel)
        elif self._late or (self._weather.faults.delay_s[1] > 0.0 and self._weather.faults.concern(topic)):
            self._delay(parcel)
        else:
            self._admit(parcel)

    def acknowledge(self, count: int) -> None:
        """Forget the `count` oldest messages of the window and send what waits."""
        for _ in range(count):
            self._window.popleft()
        self._pump()

    def _delay(self, parcel: Parcel) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.time() + self._weather.random.uniform(*self._weather.faults.delay_s)
        if self._late:
            ready = max(ready, self._late[-1][0])
        else:
            loop.call_at(ready, self._arrive)
        self._late.append((ready, parcel))

    def _arrive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._late and self._late[0][0] <= loop.time():
            self._admit(self._late.popleft()[1])
        if self._late:
            loop.call_at(self._late[0][0], self._arrive)

    def _admit(self, parcel: Parcel) -> None:
        if len(self._waiting) >= self._limit:
            self.dropped += 1
        else:
            self._waiting.append(parcel)
            self._pump()

    def _pump(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.receiver and self._waiting and len(self._window) < self.profile.receive_maximum:
            parcel = self._waiting.popleft()
            if parcel.fresh(now):
                self._send(self.receiver, parcel)

    def _send(self, receiver: Receiver, parcel: Parcel) -> None:
        topic = parcel.message.topic
        if self._weather.strikes("cut", topic):
            self._waiting.appendleft(parcel)
            receiver.cut()
            return
        self._window.append(parcel)
        receiver.take(parcel.message)
        if not parcel.again and self._weather.strikes("duplicate", topic):
            self._waiting.appendleft(replace(parcel, again=True))
