"""What the conformance suite for transports works with: a rig, and what its tests do again and again."""

from __future__ import annotations

import asyncio
import contextlib
import unittest
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedmq.transport.interface import Outgoing, Profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fedmq.transport.interface import Connection, Message, Transport

PATIENCE_S: Final = 20.0
"""How long anything may take before a test fails; far above what is usual, as test machines are busy."""

PROMPT_S: Final = 1.0
"""How soon a broken link must be noticed by everyone who waits for it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an implementation and its broker can do; False is a documented fault, not a matter of taste.

    durable: a durable session gets what it missed, and what it did not acknowledge comes again.
    receive_maximum: the broker sends no more unacknowledged messages than we allow.
    packet_limit: the broker names a limit below MQTT's own for the size of a packet.
    refuses: the broker refuses, with a reason, what is published below `Rig.forbidden`.
    refuses_gently: and does not cut the link that it came over.
    expires: the broker forgets a retained message when its expiry has passed.
    takeover: a second connection under one identity ends the first and takes over its session.
    """

    durable: bool = True
    receive_maximum: bool = True
    packet_limit: bool = True
    refuses: bool = True
    refuses_gently: bool = True
    expires: bool = True
    takeover: bool = True


@dataclass(frozen=True, slots=True)
class Rig:
    """What a test works with.

    `fragile` leads to the same broker as `transport`, over links that `cut` breaks without a word, all of them.
    `hold` keeps these links from passing anything on until they are cut. `forbidden` is a topic prefix that the broker
    refuses. Identities and topics are made unique by `mark`, so one broker can serve many tests.
    """

    transport: Transport
    fragile: Transport
    cut: Callable[[], Awaitable[None]]
    hold: Callable[[], None]
    capabilities: Capabilities
    forbidden: str = "forbidden"
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def topic(self, rest: str) -> str:
        """Return a topic (or filter) that only this test uses."""
        return f"{self.mark}/{rest}"

    def profile(self, name: str, *, durable: bool = True, receive_maximum: int = 64) -> Profile:
        """Return the profile of one identity that only this test uses."""
        return Profile(f"{self.mark}-{name}", durable=durable, receive_maximum=receive_maximum)


async def collect(connection: Connection, count: int) -> list[Message]:
    """Receive until there are `count` messages, and return them; they are acknowledged but for the last batch."""
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            found.extend(await connection.receive())
    return found


async def raises(
    kind: type[Exception] | tuple[type[Exception], ...],
    waiting: Awaitable[object],
    *,
    within_s: float = PATIENCE_S,
) -> Exception:
    """Return the exception of `kind` that `waiting` must raise within the time."""
    try:
        async with asyncio.timeout(within_s):
            outcome = await waiting
    except kind as error:
        return error
    raise AssertionError(f"gave {outcome!r} where {kind} was wanted")


def need(rig: Rig, capability: str) -> None:
    """Skip the test where `capability`, a field of `Capabilities`, is declared as missing."""
    if not getattr(rig.capabilities, capability):
        raise unittest.SkipTest(f"declared as missing: Capabilities.{capability}")


def with_will(rig: Rig) -> Profile:
    """Return a profile that leaves a retained will and no session."""
    will = Outgoing(rig.topic("status"), b"gone", retain=True)
    return Profile(f"{rig.mark}-mortal", will=will, durable=False)


async def until_end(rig: Rig, connection: Connection) -> set[str]:
    """Return the topics, without the test's mark, of all messages up to the one that ends the series."""
    seen: set[str] = set()
    end = "end/of/it"
    async with asyncio.timeout(PATIENCE_S):
        while end not in seen:
            seen.update(m.topic.removeprefix(f"{rig.mark}/") for m in await connection.receive())
    return seen - {end}


@contextlib.asynccontextmanager
async def connected(transport: Transport, profile: Profile) -> AsyncIterator[Connection]:
    """Connect, and close in the end."""
    connection = await transport.connect(profile)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def pair(rig: Rig) -> AsyncIterator[tuple[Connection, Connection]]:
    """Give two connections over good links."""
    transport = rig.transport
    async with (
        connected(transport, rig.profile("one")) as one,
        connected(transport, rig.profile("two")) as two,
    ):
        yield one, two
