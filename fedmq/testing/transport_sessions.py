"""The conformance suite for transports: what outlives a connection, and what ends with it."""

from __future__ import annotations

import asyncio

from fedmq.errors import ConnectionLost
from fedmq.testing.transport_rig import (
    PATIENCE_S,
    PROMPT_S,
    Rig,
    collect,
    connected,
    need,
    pair,
    raises,
    with_will,
)
from fedmq.transport.interface import Outgoing


class Sessions:
    """Durable sessions, last wills, takeovers, closing, and how much may be under way."""

    async def test_durable_session_gets_what_it_missed(self, rig: Rig) -> None:
        """Subscriptions and messages survive a cut link, in order."""
        need(rig, "durable")
        profile = rig.profile("durable")
        async with connected(rig.transport, rig.profile("other")) as other:
            async with connected(rig.fragile, profile) as first:
                assert not first.limits.session_present
                await first.subscribe(rig.topic("missed/+"))
                await rig.cut()
                await raises(ConnectionLost, first.receive())
            for index in range(40):
                await other.publish(Outgoing(rig.topic(f"missed/{index}"), bytes([index])))
            async with connected(rig.fragile, profile) as second:
                assert second.limits.session_present
                assert [message.payload for message in await collect(second, 40)] == [
                    bytes([n]) for n in range(40)
                ]

    async def test_what_was_not_acknowledged_comes_again(self, rig: Rig) -> None:
        """Only calling `receive` again acknowledges; what was returned last, and what waited, comes again."""
        need(rig, "durable")
        profile = rig.profile("durable")
        async with connected(rig.transport, rig.profile("other")) as other:
            async with connected(rig.fragile, profile) as first:
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
            async with connected(rig.fragile, profile) as second:
                found = [message.payload for message in await collect(second, 4)]
                assert found == [b"open", b"also open", b"open as well", b"new"]

    async def test_closing_keeps_a_durable_session(self, rig: Rig) -> None:
        """An orderly end is no reason to forget."""
        need(rig, "durable")
        async with connected(rig.transport, rig.profile("other")) as other:
            async with connected(rig.transport, rig.profile("durable")) as first:
                await first.subscribe(rig.topic("missed"))
            await other.publish(Outgoing(rig.topic("missed"), b"x"))
            async with connected(rig.transport, rig.profile("durable")) as second:
                assert [message.payload for message in await collect(second, 1)] == [b"x"]

    async def test_session_that_is_not_durable_is_forgotten(self, rig: Rig) -> None:
        """It begins anew, with no subscriptions and no messages."""
        profile = rig.profile("brief", durable=False)
        async with connected(rig.transport, rig.profile("other")) as other:
            async with connected(rig.transport, profile) as first:
                await first.subscribe(rig.topic("a"))
            await other.publish(Outgoing(rig.topic("a"), b"missed"))
            async with connected(rig.transport, profile) as second:
                assert not second.limits.session_present
                await other.publish(Outgoing(rig.topic("a"), b"not subscribed"))
                await second.subscribe(rig.topic("a"))
                await other.publish(Outgoing(rig.topic("a"), b"now"))
                assert [message.payload for message in await collect(second, 1)] == [b"now"]

    async def test_a_start_without_durability_forgets_what_was_durable(self, rig: Rig) -> None:
        """The same identity, not durable any more, ends what the broker kept for it."""
        async with connected(rig.transport, rig.profile("other")) as other:
            async with connected(rig.transport, rig.profile("fickle")) as first:
                await first.subscribe(rig.topic("a"))
            await other.publish(Outgoing(rig.topic("a"), b"missed"))
            for durable in (False, True):
                async with connected(rig.transport, rig.profile("fickle", durable=durable)) as again:
                    assert not again.limits.session_present

    async def test_last_will_is_published_when_the_link_breaks(self, rig: Rig) -> None:
        """And it is retained where it says so."""
        async with pair(rig) as (one, two):
            await one.subscribe(rig.topic("status"))
            mortal = await rig.fragile.connect(with_will(rig))
            await rig.cut()
            await raises(ConnectionLost, mortal.receive())
            await mortal.close()
            assert [message.payload for message in await collect(one, 1)] == [b"gone"]
            await two.subscribe(rig.topic("status"))
            assert [(m.payload, m.retained) for m in await collect(two, 1)] == [(b"gone", True)]

    async def test_last_will_is_not_published_on_close(self, rig: Rig) -> None:
        """Also not when messages were waiting unread."""
        async with pair(rig) as (one, two):
            await one.subscribe(rig.topic("status"))
            polite = await rig.fragile.connect(with_will(rig))
            await polite.subscribe(rig.topic("flood"))
            for _ in range(30):
                await two.publish(Outgoing(rig.topic("flood"), bytes(1_000)))
            await polite.close()
            await polite.close()
            await two.publish(Outgoing(rig.topic("status"), b"sentinel"))
            assert [message.payload for message in await collect(one, 1)] == [b"sentinel"]

    async def test_takeover(self, rig: Rig) -> None:
        """The same identity again ends the older connection and has its session."""
        need(rig, "takeover")
        async with connected(rig.transport, rig.profile("other")) as other:
            first = await rig.transport.connect(rig.profile("twin"))
            await first.subscribe(rig.topic("a"))
            waiting = asyncio.ensure_future(first.receive())
            await asyncio.sleep(0)
            async with connected(rig.transport, rig.profile("twin")) as second:
                await raises(ConnectionLost, waiting)
                await raises(ConnectionLost, first.publish(Outgoing(rig.topic("a"), b"ghost")))
                await first.close()
                await other.publish(Outgoing(rig.topic("a"), b"x"))
                assert [message.payload for message in await collect(second, 1)] == [b"x"]

    async def test_receive_maximum_holds(self, rig: Rig) -> None:
        """A reader that does not call `receive` again is sent no more than it allowed."""
        need(rig, "receive_maximum")
        profile = rig.profile("slow", receive_maximum=5)
        async with (
            connected(rig.transport, rig.profile("other")) as other,
            connected(rig.transport, profile) as slow,
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
