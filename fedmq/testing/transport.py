"""The conformance suite for transports: what `fedmq.transport.interface` promises, in executable form.

Subclass `TransportConformance` in a test module, give it a fixture named ``rig`` that yields a `Rig`, and run it with
pytest and pytest-asyncio in its automatic mode::

    class TestMine(TransportConformance):
        capabilities = Capabilities(refuses=False)

        @pytest.fixture
        async def rig(self):
            async with my_broker() as broker:
                yield Rig(
                    broker.transport(), broker.transport_over_a_bad_link(), broker.cut, self.capabilities
                )

What an implementation cannot do is named in its `Capabilities`; the tests of it are then skipped, with that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import unittest
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.packets import LARGEST_PACKET, NOT_AUTHORIZED, PACKET_TOO_LARGE

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


class TransportConformance:
    """The tests; each takes the fixture ``rig``."""

    async def test_round_trip(self, rig: Rig) -> None:
        """What is published arrives, byte for byte, and is not called retained."""
        async with _pair(rig) as (one, two):
            payloads = [b"x", bytes(range(256)), bytes(min(300_000, one.limits.packet_bytes - 200))]
            await two.subscribe(rig.topic("a/+"))
            for index, payload in enumerate(payloads):
                await one.publish(Outgoing(rig.topic(f"a/{index}"), payload))
            found = await collect(two, len(payloads))
        assert [message.topic for message in found] == [rig.topic(f"a/{index}") for index in range(3)]
        assert [message.payload for message in found] == payloads
        assert not any(message.retained for message in found)

    async def test_properties_travel_or_are_left_out(self, rig: Rig) -> None:
        """Properties never stand in the way."""
        rich = Outgoing(
            rig.topic("rich"),
            b"x",
            expiry_s=60,
            content_type="application/octet-stream",
            correlation=b"\0\1",
            properties={"schlüssel": "wért", "b": ""},
        )
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("rich"))
            await one.publish(rich)
            assert [message.payload for message in await collect(two, 1)] == [b"x"]

    async def test_retained_message_waits_for_a_late_subscriber(self, rig: Rig) -> None:
        """It is marked as retained only for those who come late, and the newest wins."""
        async with _pair(rig) as (one, two):
            await one.subscribe(rig.topic("kept"))
            await one.publish(Outgoing(rig.topic("kept"), b"old", retain=True))
            await one.publish(Outgoing(rig.topic("kept"), b"new", retain=True))
            assert [(m.payload, m.retained) for m in await collect(one, 2)] == [
                (b"old", False),
                (b"new", False),
            ]
            await two.subscribe(rig.topic("kept"))
            assert [(m.payload, m.retained) for m in await collect(two, 1)] == [(b"new", True)]

    async def test_empty_payload_clears_a_retained_message(self, rig: Rig) -> None:
        """Nothing is left for a late subscriber."""
        async with _pair(rig) as (one, two):
            await one.publish(Outgoing(rig.topic("kept"), b"x", retain=True))
            await one.publish(Outgoing(rig.topic("kept"), b"", retain=True))
            await two.subscribe(rig.topic("kept"))
            await one.publish(Outgoing(rig.topic("kept"), b"live"))
            assert [(m.payload, m.retained) for m in await collect(two, 1)] == [(b"live", False)]

    async def test_retained_message_expires(self, rig: Rig) -> None:
        """The chunks of old model versions go away by themselves."""
        _need(rig, "expires")
        async with _pair(rig) as (one, two):
            await one.publish(Outgoing(rig.topic("brief"), b"x", retain=True, expiry_s=1))
            await one.publish(Outgoing(rig.topic("long"), b"y", retain=True, expiry_s=60))
            await asyncio.sleep(2.2)  # the broker's clock is out of our hands; the memory broker's is virtual
            await two.subscribe(rig.topic("brief"))
            await two.subscribe(rig.topic("long"))
            assert [message.payload for message in await collect(two, 1)] == [b"y"]

    async def test_late_joiner_fetches_one_version_chunk_by_chunk(self, rig: Rig) -> None:
        """A wildcard finds all retained chunks of one version, and none of another."""
        async with _pair(rig) as (one, two):
            for version, chunk in itertools.product((6, 7), range(12)):
                payload = bytes([version, chunk])
                await one.publish(Outgoing(rig.topic(f"model/{version}/{chunk}"), payload, retain=True))
            await two.subscribe(rig.topic("model/7/+"))
            found = await collect(two, 12)
        assert sorted(message.payload for message in found) == [bytes([7, chunk]) for chunk in range(12)]
        assert all(message.retained for message in found)

    async def test_wildcards(self, rig: Rig) -> None:
        """+ stands for one level, # for all that follow and for the level before them."""
        topics = ["a", "a/b", "a/c", "a/b/c", "a/b/c/d", "b", "a//b", "a/"]
        wanted = {
            "a": {"a"},
            "a/+": {"a/b", "a/c", "a/"},
            "a/#": {"a", "a/b", "a/c", "a/b/c", "a/b/c/d", "a//b", "a/"},
            "+/b": {"a/b"},
            "a/+/c": {"a/b/c"},
            "a/+/#": {"a/b", "a/c", "a/b/c", "a/b/c/d", "a//b", "a/"},
            "+": {"a", "b"},
        }
        async with _pair(rig) as (one, two):
            for text, expected in wanted.items():
                await two.subscribe(rig.topic(text), rig.topic("end/of/it"))
                for topic in [*topics, "end/of/it"]:
                    await one.publish(Outgoing(rig.topic(topic), b"x"))
                assert await _until_end(rig, two) == expected, text
                await two.unsubscribe(rig.topic(text), rig.topic("end/of/it"))

    async def test_wildcards_do_not_match_dollar_topics(self, rig: Rig) -> None:
        """A wildcard in the first level leaves out topics that begin with $."""
        async with _pair(rig) as (one, two):
            await two.subscribe(f"+/{rig.mark}")
            await one.publish(Outgoing(f"$private/{rig.mark}", b"no"))
            await one.publish(Outgoing(f"public/{rig.mark}", b"yes"))
            assert [message.payload for message in await collect(two, 1)] == [b"yes"]

    async def test_unsubscribe(self, rig: Rig) -> None:
        """Nothing comes any more, and other subscriptions stay."""
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("a"), rig.topic("b"))
            await two.unsubscribe(rig.topic("a"))
            await one.publish(Outgoing(rig.topic("a"), b"no"))
            await one.publish(Outgoing(rig.topic("b"), b"yes"))
            assert [message.payload for message in await collect(two, 1)] == [b"yes"]

    async def test_order_holds_on_each_topic(self, rig: Rig) -> None:
        """Thousands of messages, published without waiting for one another, arrive in order on each topic."""
        topics = [rig.topic(f"order/{name}") for name in "abc"]
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("order/+"))
            sending = asyncio.gather(
                *(one.publish(Outgoing(topics[n % 3], n.to_bytes(4, "big"))) for n in range(3_000))
            )
            found = await collect(two, 3_000)
            await sending
        for index, topic in enumerate(topics):
            assert [int.from_bytes(m.payload, "big") for m in found if m.topic == topic] == [
                *range(index, 3_000, 3)
            ]

    async def test_many_publishes_at_once_keep_to_the_brokers_limit(self, rig: Rig) -> None:
        """More publishes than the broker allows in flight wait for their turn, and all are acknowledged."""
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("many"))
            count = 3 * one.limits.inflight
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(one.publish(Outgoing(rig.topic("many"), b"x")) for _ in range(count)))
            assert len(await collect(two, count)) == count

    async def test_durable_session_gets_what_it_missed(self, rig: Rig) -> None:
        """Subscriptions and messages survive a cut link, in order."""
        _need(rig, "durable")
        profile = rig.profile("durable")
        async with _connected(rig.transport, rig.profile("other")) as other:
            async with _connected(rig.fragile, profile) as first:
                assert not first.limits.session_present
                await first.subscribe(rig.topic("missed/+"))
                await rig.cut()
                await raises(ConnectionLost, first.receive())
            for index in range(40):
                await other.publish(Outgoing(rig.topic(f"missed/{index}"), bytes([index])))
            async with _connected(rig.fragile, profile) as second:
                assert second.limits.session_present
                assert [message.payload for message in await collect(second, 40)] == [
                    bytes([n]) for n in range(40)
                ]

    async def test_what_was_not_acknowledged_comes_again(self, rig: Rig) -> None:
        """Only calling `receive` again acknowledges; what was returned last, and what waited, comes again."""
        _need(rig, "durable")
        profile = rig.profile("durable")
        async with _connected(rig.transport, rig.profile("other")) as other:
            async with _connected(rig.fragile, profile) as first:
                await first.subscribe(rig.topic("work"))
                await other.publish(Outgoing(rig.topic("work"), b"done"))
                await collect(first, 1)
                for payload in (b"open", b"also open", b"open as well"):
                    await other.publish(Outgoing(rig.topic("work"), payload))
                await collect(first, 1)
                # The broker reads in order: once it has answered this, it has seen the acknowledgement of "done".
                await first.publish(Outgoing(rig.topic("elsewhere"), b"x"))
                await rig.cut()
                await raises(ConnectionLost, collect(first, 100))  # what had arrived may still be handed out
            await other.publish(Outgoing(rig.topic("work"), b"new"))
            async with _connected(rig.fragile, profile) as second:
                found = [message.payload for message in await collect(second, 4)]
                assert found == [b"open", b"also open", b"open as well", b"new"]

    async def test_closing_keeps_a_durable_session(self, rig: Rig) -> None:
        """An orderly end is no reason to forget."""
        _need(rig, "durable")
        async with _connected(rig.transport, rig.profile("other")) as other:
            async with _connected(rig.transport, rig.profile("durable")) as first:
                await first.subscribe(rig.topic("missed"))
            await other.publish(Outgoing(rig.topic("missed"), b"x"))
            async with _connected(rig.transport, rig.profile("durable")) as second:
                assert [message.payload for message in await collect(second, 1)] == [b"x"]

    async def test_session_that_is_not_durable_is_forgotten(self, rig: Rig) -> None:
        """It begins anew, with no subscriptions and no messages."""
        profile = rig.profile("brief", durable=False)
        async with _connected(rig.transport, rig.profile("other")) as other:
            async with _connected(rig.transport, profile) as first:
                await first.subscribe(rig.topic("a"))
            await other.publish(Outgoing(rig.topic("a"), b"missed"))
            async with _connected(rig.transport, profile) as second:
                assert not second.limits.session_present
                await other.publish(Outgoing(rig.topic("a"), b"not subscribed"))
                await second.subscribe(rig.topic("a"))
                await other.publish(Outgoing(rig.topic("a"), b"now"))
                assert [message.payload for message in await collect(second, 1)] == [b"now"]

    async def test_a_start_without_durability_forgets_what_was_durable(self, rig: Rig) -> None:
        """The same identity, not durable any more, ends what the broker kept for it."""
        async with _connected(rig.transport, rig.profile("other")) as other:
            async with _connected(rig.transport, rig.profile("fickle")) as first:
                await first.subscribe(rig.topic("a"))
            await other.publish(Outgoing(rig.topic("a"), b"missed"))
            for durable in (False, True):
                async with _connected(rig.transport, rig.profile("fickle", durable=durable)) as again:
                    assert not again.limits.session_present

    async def test_last_will_is_published_when_the_link_breaks(self, rig: Rig) -> None:
        """And it is retained where it says so."""
        async with _pair(rig) as (one, two):
            await one.subscribe(rig.topic("status"))
            mortal = await rig.fragile.connect(_with_will(rig))
            await rig.cut()
            await raises(ConnectionLost, mortal.receive())
            await mortal.close()
            assert [message.payload for message in await collect(one, 1)] == [b"gone"]
            await two.subscribe(rig.topic("status"))
            assert [(m.payload, m.retained) for m in await collect(two, 1)] == [(b"gone", True)]

    async def test_last_will_is_not_published_on_close(self, rig: Rig) -> None:
        """Also not when messages were waiting unread."""
        async with _pair(rig) as (one, two):
            await one.subscribe(rig.topic("status"))
            polite = await rig.fragile.connect(_with_will(rig))
            await polite.subscribe(rig.topic("flood"))
            for _ in range(30):
                await two.publish(Outgoing(rig.topic("flood"), bytes(1_000)))
            await polite.close()
            await polite.close()
            await two.publish(Outgoing(rig.topic("status"), b"sentinel"))
            assert [message.payload for message in await collect(one, 1)] == [b"sentinel"]

    async def test_takeover(self, rig: Rig) -> None:
        """The same identity again ends the older connection and has its session."""
        _need(rig, "takeover")
        async with _connected(rig.transport, rig.profile("other")) as other:
            first = await rig.transport.connect(rig.profile("twin"))
            await first.subscribe(rig.topic("a"))
            waiting = asyncio.ensure_future(first.receive())
            await asyncio.sleep(0)
            async with _connected(rig.transport, rig.profile("twin")) as second:
                await raises(ConnectionLost, waiting)
                await raises(ConnectionLost, first.publish(Outgoing(rig.topic("a"), b"ghost")))
                await first.close()
                await other.publish(Outgoing(rig.topic("a"), b"x"))
                assert [message.payload for message in await collect(second, 1)] == [b"x"]

    async def test_receive_maximum_holds(self, rig: Rig) -> None:
        """A reader that does not call `receive` again is sent no more than it allowed."""
        _need(rig, "receive_maximum")
        profile = rig.profile("slow", receive_maximum=5)
        async with (
            _connected(rig.transport, rig.profile("other")) as other,
            _connected(rig.transport, profile) as slow,
        ):
            await slow.subscribe(rig.topic("flood"))
            sizes: list[int] = []
            for burst in (20, 20):
                for _ in range(burst):
                    await other.publish(Outgoing(rig.topic("flood"), b"x"))
                # What the broker would send beyond the limit is here before the answer to this.
                await slow.publish(Outgoing(rig.topic("elsewhere"), b"x"))
                sizes.append(len(await slow.receive()))
            while sum(sizes) < 40:  # noqa: PLR2004 - both bursts
                sizes.append(len(await asyncio.wait_for(slow.receive(), PATIENCE_S)))
        assert sum(sizes) == 40  # noqa: PLR2004 - both bursts
        assert max(sizes) == 5  # noqa: PLR2004 - the receive maximum

    async def test_too_large_is_an_error_before_sending(self, rig: Rig) -> None:
        """The sentence names topic and limit, and the link is as good as before."""
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("big"))
            limit = one.limits.packet_bytes
            if not rig.capabilities.packet_limit:
                assert limit == LARGEST_PACKET
                return
            assert limit < LARGEST_PACKET
            error = await raises(BrokerRefused, one.publish(Outgoing(rig.topic("big"), bytes(limit))))
            assert isinstance(error, BrokerRefused)
            assert error.code == PACKET_TOO_LARGE
            assert rig.topic("big") in str(error)
            assert f"{limit:,}" in str(error)
            exact = bytes(limit - 200)
            await one.publish(Outgoing(rig.topic("big"), exact))
            assert [message.payload for message in await collect(two, 1)] == [exact]

    async def test_refused_publish_says_so(self, rig: Rig) -> None:
        """A publish that the access control list forbids raises, and names the topic."""
        _need(rig, "refuses")
        topic = f"{rig.forbidden}/{rig.mark}"
        async with _connected(rig.transport, rig.profile("one")) as one:
            error = await raises(BrokerRefused, one.publish(Outgoing(topic, b"x")))
            assert isinstance(error, BrokerRefused)
            assert error.code == NOT_AUTHORIZED
            assert topic in str(error)

    async def test_refused_publish_leaves_the_link_alone(self, rig: Rig) -> None:
        """Only that one message is refused."""
        _need(rig, "refuses_gently")
        async with _connected(rig.transport, rig.profile("one")) as one:
            await raises(BrokerRefused, one.publish(Outgoing(f"{rig.forbidden}/{rig.mark}", b"x")))
            await one.publish(Outgoing(rig.topic("fine"), b"x"))

    async def test_a_cut_link_is_noticed_by_everyone_at_once(self, rig: Rig) -> None:
        """Pending receive, publish and subscribe raise within a second, however large the publish."""
        one = await rig.fragile.connect(rig.profile("one"))
        await one.subscribe(rig.topic("a"))
        large = bytes(min(5_000_000, one.limits.packet_bytes - 200))
        rig.hold()
        waiting: list[asyncio.Future[object]] = [
            asyncio.ensure_future(work)
            for work in (
                one.receive(),
                one.publish(Outgoing(rig.topic("b"), large)),
                one.publish(Outgoing(rig.topic("c"), b"x")),
                one.subscribe(rig.topic("d")),
                one.unsubscribe(rig.topic("a")),
            )
        ]
        await asyncio.sleep(0.1)
        await rig.cut()
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PROMPT_S)
        # A broker in this process may have answered before the cut; what still waited has to raise.
        assert isinstance(outcomes[0], ConnectionLost)
        assert all(outcome is None or isinstance(outcome, ConnectionLost) for outcome in outcomes[1:])
        await raises(ConnectionLost, one.publish(Outgoing(rig.topic("b"), b"x")))
        await one.close()

    async def test_a_cancelled_receive_loses_nothing(self, rig: Rig) -> None:
        """And a cancelled publish leaves the connection usable."""
        async with _pair(rig) as (one, two):
            await two.subscribe(rig.topic("a"))
            found: list[bytes] = []
            for index in range(20):
                waiting = asyncio.ensure_future(two.receive())
                await asyncio.sleep(0)
                sending = asyncio.ensure_future(one.publish(Outgoing(rig.topic("a"), bytes([index]))))
                waiting.cancel()
                await asyncio.wait((waiting,))
                found += [] if waiting.cancelled() else [message.payload for message in waiting.result()]
                await sending
            found += [message.payload for message in await collect(two, 20 - len(found))]
            assert found == [bytes([index]) for index in range(20)]
            cancelled = asyncio.ensure_future(one.publish(Outgoing(rig.topic("a"), b"cancelled")))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait((cancelled,))
            await one.publish(Outgoing(rig.topic("a"), b"after"))

    async def test_two_readers_are_a_mistake(self, rig: Rig) -> None:
        """One task reads a connection."""
        async with _connected(rig.transport, rig.profile("one")) as one:
            waiting = asyncio.ensure_future(one.receive())
            await asyncio.sleep(0)
            await raises(MisuseError, one.receive())
            waiting.cancel()
            await asyncio.wait((waiting,))

    async def test_closing(self, rig: Rig) -> None:
        """It may be done twice, ends a waiting `receive`, and nothing works afterwards."""
        one = await rig.transport.connect(rig.profile("one"))
        waiting = asyncio.ensure_future(one.receive())
        await asyncio.sleep(0)
        await one.close()
        await one.close()
        await raises(ConnectionLost, waiting, within_s=PROMPT_S)
        await raises(ConnectionLost, one.receive())
        await raises(ConnectionLost, one.publish(Outgoing(rig.topic("a"), b"x")))
        await raises(ConnectionLost, one.subscribe(rig.topic("a")))
        await raises(ConnectionLost, one.unsubscribe(rig.topic("a")))

    async def test_impossible_topics_are_a_mistake(self, rig: Rig) -> None:
        """They never reach the broker, which would hang up."""
        async with _connected(rig.transport, rig.profile("one")) as one:
            for topic in ("", "a/+", "a/#", "a\0b", "x" * 65_536):
                await raises(MisuseError, one.publish(Outgoing(topic, b"x")))
            for text in ("", "a+", "a/#/b", "a/b#", "a\0b"):
                await raises(MisuseError, one.subscribe(text))
                await raises(MisuseError, one.unsubscribe(text))
            await one.publish(Outgoing(rig.topic("fine"), b"x"))

    async def test_address_is_for_people(self, rig: Rig) -> None:
        """It holds no password."""
        assert "://" in rig.transport.address
        assert "@" not in rig.transport.address


def _need(rig: Rig, capability: str) -> None:
    if not getattr(rig.capabilities, capability):
        raise unittest.SkipTest(f"declared as missing: Capabilities.{capability}")


def _with_will(rig: Rig) -> Profile:
    will = Outgoing(rig.topic("status"), b"gone", retain=True)
    return Profile(f"{rig.mark}-mortal", will=will, durable=False)


async def _until_end(rig: Rig, connection: Connection) -> set[str]:
    """Return the topics, without the test's mark, of all messages up to the one that ends the series."""
    seen: set[str] = set()
    end = "end/of/it"
    async with asyncio.timeout(PATIENCE_S):
        while end not in seen:
            seen.update(m.topic.removeprefix(f"{rig.mark}/") for m in await connection.receive())
    return seen - {end}


@contextlib.asynccontextmanager
async def _connected(transport: Transport, profile: Profile) -> AsyncIterator[Connection]:
    connection = await transport.connect(profile)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _pair(rig: Rig) -> AsyncIterator[tuple[Connection, Connection]]:
    transport = rig.transport
    async with (
        _connected(transport, rig.profile("one")) as one,
        _connected(transport, rig.profile("two")) as two,
    ):
        yield one, two
