"""What the in-process broker does beyond the conformance suite: bad luck, time, and being stopped."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from fedmq.errors import ConnectionLost, MisuseError
from fedmq.testing.transport import collect
from fedmq.transport.interface import Message, Outgoing, Profile
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import Abilities, MemoryBroker, MemoryConnection

pytestmark = pytest.mark.looptime

COUNT = 400


async def pair(broker: MemoryBroker, *, text: str = "t/#") -> tuple[MemoryConnection, MemoryConnection]:
    """Connect a sender, and a receiver that has subscribed."""
    sender, receiver = await broker.connect(Profile("sender")), await broker.connect(Profile("receiver"))
    await receiver.subscribe(text)
    return sender, receiver


async def send(sender: MemoryConnection, count: int = COUNT, topic: str = "t/x") -> None:
    for number in range(count):
        await sender.publish(Outgoing(topic, number.to_bytes(4, "big")))


def numbers(messages: list[Message]) -> list[int]:
    return [int.from_bytes(message.payload, "big") for message in messages]


async def everything(connection: MemoryConnection) -> list[Message]:
    """Receive until nothing comes for a (virtual) minute."""
    found: list[Message] = []
    try:
        while True:
            found += await asyncio.wait_for(connection.receive(), 60.0)
    except TimeoutError:
        return found


async def test_without_faults_all_arrives_once_and_in_order() -> None:
    sender, receiver = await pair(MemoryBroker())
    await send(sender)
    assert numbers(await everything(receiver)) == [*range(COUNT)]


async def test_drop_loses_about_its_share_and_says_success() -> None:
    broker = MemoryBroker(seed=1, faults=Faults(drop=0.25))
    sender, receiver = await pair(broker)
    await send(sender)
    found = numbers(await everything(receiver))
    assert found == sorted(set(found))
    assert COUNT - len(found) == broker.dropped == pytest.approx(COUNT / 4, rel=0.2)


async def test_duplicates_come_twice_and_are_acknowledged_twice() -> None:
    sender, receiver = await pair(MemoryBroker(seed=1, faults=Faults(duplicate=0.25)))
    await send(sender)
    found = numbers(await everything(receiver))
    assert sorted(set(found)) == [*range(COUNT)]
    assert len(found) - COUNT == pytest.approx(COUNT / 4, rel=0.2)
    assert max(found.count(number) for number in set(found)) == 2


async def test_delay_takes_its_time_and_keeps_the_order() -> None:
    sender, receiver = await pair(MemoryBroker(seed=1, faults=Faults(delay_s=(2.0, 5.0))))
    start = asyncio.get_running_loop().time()
    await send(sender)
    first = list(await receiver.receive())
    assert 2.0 <= asyncio.get_running_loop().time() - start <= 5.0
    assert numbers(first + await everything(receiver)) == [*range(COUNT)]


async def test_delay_that_ends_lets_nothing_overtake() -> None:
    broker = MemoryBroker(seed=1, faults=Faults(delay_s=(5.0, 5.0)))
    sender, receiver = await pair(broker)
    await send(sender, 1)
    broker.faults = Faults()
    await sender.publish(Outgoing("t/x", (1).to_bytes(4, "big")))
    assert numbers(await everything(receiver)) == [0, 1]


async def test_reorder_loses_nothing() -> None:
    sender, receiver = await pair(MemoryBroker(seed=1, faults=Faults(reorder=0.1, reorder_s=3.0)))
    await send(sender)
    found = numbers(await everything(receiver))
    assert sorted(found) == [*range(COUNT)]
    assert sum(a > b for a, b in pairwise(found)) > COUNT / 40


async def test_cut_loses_nothing_of_a_durable_session() -> None:
    broker = MemoryBroker(seed=1)
    sender, receiver = await pair(broker)
    broker.faults = Faults(cut=0.05)
    sent, cuts = 0, 0
    while sent < COUNT:
        try:
            await send_one(sender, sent)
            sent += 1
        except ConnectionLost:
            sender = await broker.connect(Profile("sender"))
    found: set[int] = set()
    while len(found) < COUNT:
        try:
            found |= set(numbers(list(await receiver.receive())))
        except ConnectionLost:
            cuts += 1
            receiver = await broker.connect(Profile("receiver"))
            assert receiver.limits.session_present
    assert found == {*range(COUNT)}
    assert cuts > 5


async def send_one(sender: MemoryConnection, number: int) -> None:
    await sender.publish(Outgoing("t/x", number.to_bytes(4, "big")))


async def test_a_publish_cut_in_the_middle_may_or_may_not_have_arrived() -> None:
    arrived = set()
    for seed in range(20):
        broker = MemoryBroker(seed=seed)
        sender, receiver = await pair(broker)
        broker.faults = Faults(cut=1.0, topics="t/cut")
        with pytest.raises(ConnectionLost):
            await sender.publish(Outgoing("t/cut", b"x", retain=True))
        arrived.add(bool(broker.retained("t/cut")))
        await receiver.close()
    assert arrived == {True, False}


async def test_faults_keep_to_their_topics() -> None:
    broker = MemoryBroker(seed=1, faults=Faults(drop=1.0, topics="t/bad/#"))
    sender, receiver = await pair(broker)
    await send(sender, 5, "t/bad/x")
    await send(sender, 5, "t/good")
    assert {message.topic for message in await everything(receiver)} == {"t/good"}


@pytest.mark.parametrize(
    "wrong",
    [{"drop": -0.1}, {"cut": 1.1}, {"delay_s": (2.0, 1.0)}, {"delay_s": (-1.0, 1.0)}, {"reorder_s": -1.0}],
)
def test_faults_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(MisuseError):
        Faults(**wrong)  # type: ignore[arg-type]  # that is the point


async def story(seed: int) -> tuple[list[int], int]:
    broker = MemoryBroker(
        seed=seed, faults=Faults(drop=0.1, duplicate=0.1, reorder=0.1, delay_s=(0.0, 1.0), reorder_s=2.0)
    )
    sender, receiver = await pair(broker)
    await send(sender)
    return numbers(await everything(receiver)), broker.dropped


async def test_a_seed_tells_one_story() -> None:
    assert await story(7) == await story(7)
    assert await story(7) != await story(8)


async def test_the_queue_of_a_session_is_bounded_and_the_newest_are_dropped() -> None:
    broker = MemoryBroker(abilities=Abilities(queue=10))
    sender, receiver = await pair(broker)
    await receiver.close()
    await send(sender, 25)
    assert broker.dropped == 15
    assert numbers(await everything(await broker.connect(Profile("receiver")))) == [*range(10)]


async def test_a_session_expires() -> None:
    broker = MemoryBroker()
    brief = Profile("brief", expiry_s=100)
    await (await broker.connect(brief)).close()
    await asyncio.sleep(99.0)
    again = await broker.connect(brief)
    assert again.limits.session_present
    await asyncio.sleep(500.0)  # it does not expire while it is connected
    await again.close()
    await asyncio.sleep(101.0)
    assert broker.identities == ()
    assert not (await broker.connect(brief)).limits.session_present


async def test_messages_expire_in_the_queue() -> None:
    broker = MemoryBroker()
    sender, receiver = await pair(broker)
    await receiver.close()
    await sender.publish(Outgoing("t/x", b"brief", expiry_s=10))
    await sender.publish(Outgoing("t/x", b"long", expiry_s=1_000))
    await asyncio.sleep(11.0)
    found = await everything(await broker.connect(Profile("receiver")))
    assert [message.payload for message in found] == [b"long"]


async def test_retained_messages_can_be_looked_at() -> None:
    broker = MemoryBroker()
    sender, _ = await pair(broker)
    await sender.publish(Outgoing("m/1", b"a", retain=True, expiry_s=10))
    await sender.publish(Outgoing("m/2", b"b", retain=True))
    await sender.publish(Outgoing("n", b"c", retain=True))
    assert broker.retained("m/+") == {"m/1": b"a", "m/2": b"b"}
    await asyncio.sleep(10.0)
    assert broker.retained() == {"m/2": b"b", "n": b"c"}


async def test_a_stopped_broker_lets_nobody_in_and_forgets_nothing() -> None:
    broker = MemoryBroker()
    sender, receiver = await pair(broker)
    await sender.publish(Outgoing("t/x", b"kept", retain=True))
    broker.stop()
    assert broker.connected == ()
    with pytest.raises(ConnectionLost):
        await receiver.receive()
    with pytest.raises(ConnectionLost, match="stopped"):
        await broker.connect(Profile("receiver"))
    broker.start()
    receiver = await broker.connect(Profile("receiver"))
    assert [message.payload for message in await collect(receiver, 1)] == [b"kept"]
    assert broker.retained() == {"t/x": b"kept"}


async def test_a_wiped_broker_has_forgotten_everything() -> None:
    broker = MemoryBroker()
    sender, receiver = await pair(broker)
    await sender.publish(Outgoing("t/x", b"x", retain=True))
    broker.wipe()
    with pytest.raises(ConnectionLost):
        await receiver.receive()
    assert (broker.retained(), broker.identities) == ({}, ())
    assert not (await broker.connect(Profile("receiver"))).limits.session_present
    await send(await broker.connect(Profile("sender")), 1)


async def test_a_will_that_ends_another_session_on_its_way() -> None:
    """One link cut by a delivery publishes a will, whose delivery cuts the next: no session may be left half gone."""
    broker = MemoryBroker(seed=1)
    for name in "abc":
        will = Outgoing("t/will", name.encode())
        connection = await broker.connect(Profile(name, will=will, durable=False))
        await connection.subscribe("t/#")
    sender = await broker.connect(Profile("sender"))
    broker.faults = Faults(cut=1.0, topics="t/will")
    assert broker.cut("a")
    assert not broker.cut("a")
    assert broker.connected == ("sender",)
    assert broker.identities == ("sender",)
    await send(sender, 1)


async def test_thousands_of_sessions_do_not_slow_down_a_message_to_one() -> None:
    broker = MemoryBroker()
    for number in range(2_000):
        connection = await broker.connect(Profile(f"device-{number}"))
        await connection.subscribe(f"down/device-{number}/receipt", "all/#")
    sender = await broker.connect(Profile("sender"))
    looked_at = len(broker._subscriptions.match("down/device-7/receipt"))
    await sender.publish(Outgoing("down/device-7/receipt", b"x"))
    assert looked_at == 1
