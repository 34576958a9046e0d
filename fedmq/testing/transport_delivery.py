"""The conformance suite for transports: what is published arrives, once it is asked for."""

from __future__ import annotations

import asyncio
import itertools

from fedmq.testing.transport_rig import (
    PATIENCE_S,
    Rig,
    collect,
    need,
    pair,
    until_end,
)
from fedmq.transport.interface import Outgoing


class Delivery:
    """Messages, retained ones, filters and order."""

    async def test_round_trip(self, rig: Rig) -> None:
        """What is published arrives, byte for byte, and is not called retained."""
        async with pair(rig) as (one, two):
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
        async with pair(rig) as (one, two):
            await two.subscribe(rig.topic("rich"))
            await one.publish(rich)
            assert [message.payload for message in await collect(two, 1)] == [b"x"]

    async def test_retained_message_waits_for_a_late_subscriber(self, rig: Rig) -> None:
        """It is marked as retained only for those who come late, and the newest wins."""
        async with pair(rig) as (one, two):
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
        async with pair(rig) as (one, two):
            await one.publish(Outgoing(rig.topic("kept"), b"x", retain=True))
            await one.publish(Outgoing(rig.topic("kept"), b"", retain=True))
            await two.subscribe(rig.topic("kept"))
            await one.publish(Outgoing(rig.topic("kept"), b"live"))
            assert [(m.payload, m.retained) for m in await collect(two, 1)] == [(b"live", False)]

    async def test_retained_message_expires(self, rig: Rig) -> None:
        """The chunks of old model versions go away by themselves."""
        need(rig, "expires")
        async with pair(rig) as (one, two):
            await one.publish(Outgoing(rig.topic("brief"), b"x", retain=True, expiry_s=1))
            await one.publish(Outgoing(rig.topic("long"), b"y", retain=True, expiry_s=60))
            await asyncio.sleep(2.2)  # the broker's clock is out of our hands; the memory broker's is virtual
            await two.subscribe(rig.topic("brief"))
            await two.subscribe(rig.topic("long"))
            assert [message.payload for message in await collect(two, 1)] == [b"y"]

    async def test_late_joiner_fetches_one_version_chunk_by_chunk(self, rig: Rig) -> None:
        """A wildcard finds all retained chunks of one version, and none of another."""
        async with pair(rig) as (one, two):
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
        async with pair(rig) as (one, two):
            for text, expected in wanted.items():
                await two.subscribe(rig.topic(text), rig.topic("end/of/it"))
                for topic in [*topics, "end/of/it"]:
                    await one.publish(Outgoing(rig.topic(topic), b"x"))
                assert await until_end(rig, two) == expected, text
                await two.unsubscribe(rig.topic(text), rig.topic("end/of/it"))

    async def test_wildcards_do_not_match_dollar_topics(self, rig: Rig) -> None:
        """A wildcard in the first level leaves out topics that begin with $."""
        async with pair(rig) as (one, two):
            await two.subscribe(f"+/{rig.mark}")
            await one.publish(Outgoing(f"$private/{rig.mark}", b"no"))
            await one.publish(Outgoing(f"public/{rig.mark}", b"yes"))
            assert [message.payload for message in await collect(two, 1)] == [b"yes"]

    async def test_unsubscribe(self, rig: Rig) -> None:
        """Nothing comes any more, and other subscriptions stay."""
        async with pair(rig) as (one, two):
            await two.subscribe(rig.topic("a"), rig.topic("b"))
            await two.unsubscribe(rig.topic("a"))
            await one.publish(Outgoing(rig.topic("a"), b"no"))
            await one.publish(Outgoing(rig.topic("b"), b"yes"))
            assert [message.payload for message in await collect(two, 1)] == [b"yes"]

    async def test_order_holds_on_each_topic(self, rig: Rig) -> None:
        """Thousands of messages, published without waiting for one another, arrive in order on each topic."""
        topics = [rig.topic(f"order/{name}") for name in "abc"]
        async with pair(rig) as (one, two):
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
        async with pair(rig) as (one, two):
            await two.subscribe(rig.topic("many"))
            count = 3 * one.limits.inflight
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(one.publish(Outgoing(rig.topic("many"), b"x")) for _ in range(count)))
            assert len(await collect(two, count)) == count
