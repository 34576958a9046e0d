"""The conformance suite for transports: refusals, broken links, and mistakes."""

from __future__ import annotations

import asyncio

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError
from fedmq.testing.transport_rig import (
    PROMPT_S,
    Rig,
    collect,
    connected,
    need,
    pair,
    raises,
)
from fedmq.transport.interface import Outgoing
from fedmq.transport.packets import LARGEST_PACKET, NOT_AUTHORIZED, PACKET_TOO_LARGE


class Faults:
    """What goes wrong is said at once, to the one it concerns."""

    async def test_too_large_is_an_error_before_sending(self, rig: Rig) -> None:
        """The sentence names topic and limit, and the link is as good as before."""
        async with pair(rig) as (one, two):
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
        need(rig, "refuses")
        topic = f"{rig.forbidden}/{rig.mark}"
        async with connected(rig.transport, rig.profile("one")) as one:
            error = await raises(BrokerRefused, one.publish(Outgoing(topic, b"x")))
            assert isinstance(error, BrokerRefused)
            assert error.code == NOT_AUTHORIZED
            assert topic in str(error)

    async def test_refused_publish_leaves_the_link_alone(self, rig: Rig) -> None:
        """Only that one message is refused."""
        need(rig, "refuses_gently")
        async with connected(rig.transport, rig.profile("one")) as one:
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
        async with pair(rig) as (one, two):
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
        async with connected(rig.transport, rig.profile("one")) as one:
            waiting = asyncio.ensure_future(one.receive())
            await asyncio.sleep(0)
            await raises(MisuseError, one.receive())
            waiting.cancel()
            await asyncio.wait((waiting,))

    async def test_impossible_topics_are_a_mistake(self, rig: Rig) -> None:
        """They never reach the broker, which would hang up."""
        async with connected(rig.transport, rig.profile("one")) as one:
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
