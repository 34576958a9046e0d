"""The session over the in-process broker, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import BrokerRefused, ConnectionLost, MisuseError, TransportError
from fedmq.transport.backoff import Backoff
from fedmq.transport.interface import Message, Outgoing, Profile
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import Abilities, MemoryBroker
from fedmq.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fedmq.transport.interface import Connection

pytestmark = pytest.mark.looptime

ME = Profile("me")


class Owner:
    """A session with its three callbacks, which note what happened and do what the test says."""

    early = False

    def __init__(self, transport: object, *, profile: Profile = ME, backoff: Backoff | None = None) -> None:
        self.connections: list[Connection] = []
        self.batches: list[list[bytes]] = []
        self.losses: list[TransportError] = []
        self.pauses: list[float] = []
        self.greeted: Callable[[Connection], Awaitable[None]] = self.subscribe
        self.work: Callable[[Sequence[Message]], Awaitable[None]] = self.nothing
        self.session = Session(
            transport,  # type: ignore[arg-type]  # some tests bring half a transport
            profile,
            on_connected=self.connected,
            on_messages=self.messages,
            on_lost=self.losses.append,
            random=Random(1),
            backoff=backoff or Backoff(base_s=1.0, cap_s=60.0, steady_s=30.0),
            sleep=self.sleep,
            early=self.early,
        )

    @staticmethod
    async def subscribe(connection: Connection) -> None:
        await connection.subscribe("t/#")

    @staticmethod
    async def nothing(batch: Sequence[Message]) -> None:
        pass

    async def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        await self.greeted(connection)

    async def messages(self, batch: Sequence[Message]) -> None:
        self.batches.append([message.payload for message in batch])
        await self.work(batch)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(seconds)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for batch in self.batches for payload in batch]


@pytest.fixture(params=[False, True], ids=["greets first", "early"], autouse=True)
def early(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of reading: what holds for one holds for the other."""
    monkeypatch.setattr(Owner, "early", request.param)
    chosen: bool = request.param
    return chosen


async def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.1)


async def publish(broker: MemoryBroker, *payloads: bytes, topic: str = "t/x") -> None:
    sender = await broker.connect(Profile("sender"))
    for payload in payloads:
        await sender.publish(Outgoing(topic, payload))
    await sender.close()


async def test_it_hands_on_what_arrives() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a", b"b")
        await until(lambda: owner.payloads == [b"a", b"b"])
    assert broker.connected == ()
    assert owner.losses == []


async def test_it_connects_again_and_greets_again() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    async with owner.session as session:
        for round_ in range(5):
            await until(lambda: session.connection)
            assert len(owner.connections) == round_ + 1
            broker.cut("me")
            await until(lambda: not session.connection)
            await publish(broker, bytes([round_]))
        await until(lambda: len(owner.payloads) == 5)
    assert owner.payloads == [bytes([n]) for n in range(5)]
    assert len(owner.losses) == 5
    assert all(isinstance(error, ConnectionLost) for error in owner.losses)


async def test_a_batch_is_acknowledged_only_when_its_work_is_done() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    done = asyncio.Event()

    async def work(batch: Sequence[Message]) -> None:
        await done.wait()

    owner.work = work
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a")
        await until(lambda: owner.payloads == [b"a"])
        broker.cut("me")
        await asyncio.sleep(5.0)
        assert len(owner.connections) == 1  # nobody is reading, so nobody has noticed
        done.set()
        await until(lambda: owner.payloads == [b"a", b"a"])
        await until(lambda: len(owner.connections) == 2)
        broker.cut("me")
        await publish(broker, b"b")
        await until(lambda: owner.payloads == [b"a", b"a", b"b"])


async def test_what_comes_before_the_broker_answers_is_taken_up_early(early: bool) -> None:  # noqa: FBT001 - a fixture
    """Else it would come again over the next link, and if that lasts no longer, over the one after."""
    broker = MemoryBroker()
    owner = Owner(broker)
    async with owner.session as session:
        await until(lambda: session.connection)
        broker.cut("me")
        await publish(broker, b"a", b"b")

        async def unanswered(connection: Connection) -> None:
            await asyncio.sleep(40.0)
            await connection.subscribe("t/#")

        owner.greeted = unanswered
        for _ in range(3):
            await asyncio.sleep(30.0)
            assert session.connection is None
            broker.cut("me")
        assert owner.payloads == ([b"a", b"b"] if early else [])
        await until(lambda: session.connection)
        await until(lambda: owner.payloads == [b"a", b"b"])


async def test_a_connection_is_greeted_before_anything_of_it_is_taken_up() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    async with owner.session as session:
        await until(lambda: session.connection)
        broker.cut("me")
        await publish(broker, b"a")
        greeted: list[list[bytes]] = []

        async def notes(connection: Connection) -> None:
            greeted.append(owner.payloads)
            await connection.subscribe("t/#")

        owner.greeted = notes
        owner.session._on_messages = lambda batch: owner.batches.append([each.payload for each in batch])
        await until(lambda: owner.payloads == [b"a"])
    assert greeted == [[]]


async def test_a_batch_that_waits_for_a_connection_does_not_keep_the_next_from_coming() -> None:
    """Not where the broker says no before it has said yes, either."""
    broker = MemoryBroker()
    owner = Owner(broker)
    async with owner.session as session:
        await until(lambda: session.connection)
        broker.cut("me")
        await publish(broker, b"a")

        async def refused(_: Connection) -> None:
            await asyncio.sleep(1.0)
            owner.greeted = owner.subscribe
            raise BrokerRefused("not today", code=0x87)

        async def work(_: Sequence[Message]) -> None:
            await session.publish(Outgoing("receipt", b"for a", retain=True))

        owner.greeted, owner.work = refused, work
        await until(lambda: broker.retained("receipt"))
    assert isinstance(owner.losses[-1], BrokerRefused)


async def test_work_may_wait_for_the_connection_that_comes_next() -> None:
    """A receipt published from within a batch, over a link that breaks, must not wait for ever."""
    broker = MemoryBroker()
    owner = Owner(broker)
    running, most = 0, 0

    async def work(batch: Sequence[Message]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if len(owner.batches) == 1:
            broker.cut("me")
        await owner.session.publish(
            Outgoing("receipts", b"".join(message.payload for message in batch), retain=True)
        )
        running -= 1

    owner.work = work
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a")
        await until(lambda: len(owner.connections) == 2)
        await until(
            lambda: owner.payloads == [b"a", b"a"]
        )  # its acknowledgement was lost with its connection
        await publish(broker, b"b")
        await until(lambda: owner.payloads == [b"a", b"a", b"b"])
        await until(lambda: broker.retained("receipts") == {"receipts": b"b"})
    assert most == 1


async def test_publish_waits_for_a_connection_and_repeats_until_acknowledged() -> None:
    broker = MemoryBroker(seed=3)
    broker.stop()
    owner = Owner(broker, backoff=Backoff(base_s=0.1, cap_s=1.0))
    listener_found: list[bytes] = []
    async with owner.session as session:
        waiting = [asyncio.create_task(session.publish(Outgoing("u/x", bytes([n])))) for n in range(50)]
        await asyncio.sleep(5.0)
        assert not any(task.done() for task in waiting)
        broker.start()
        listener = await broker.connect(Profile("listener"))
        await listener.subscribe("u/#")
        broker.faults = Faults(cut=0.2, topics="u/#")
        await asyncio.wait_for(asyncio.gather(*waiting), 600.0)
        broker.faults = Faults()
        listener = await broker.connect(Profile("listener"))
        while len(set(listener_found)) < 50:
            listener_found += [
                message.payload for message in await asyncio.wait_for(listener.receive(), 10.0)
            ]
    assert set(listener_found) == {bytes([n]) for n in range(50)}


async def test_publish_that_is_refused_raises_at_once() -> None:
    broker = MemoryBroker(abilities=Abilities(may_publish=lambda _, topic: topic != "no"))
    async with Owner(broker).session as session:
        with pytest.raises(BrokerRefused, match="'no'"):
            await session.publish(Outgoing("no", b"x"))
        await session.publish(Outgoing("yes", b"x"))


async def test_try_publish_does_not_wait() -> None:
    broker = MemoryBroker()
    async with Owner(broker).session as session:
        with pytest.raises(ConnectionLost, match="not connected to memory"):
            await session.try_publish(Outgoing("a", b"x"))
        await until(lambda: session.connection)
        await session.try_publish(Outgoing("a", b"x", retain=True))
        assert broker.retained() == {"a": b"x"}


async def test_failures_wait_with_full_jitter_and_a_steady_link_starts_anew() -> None:
    broker = MemoryBroker()
    broker.stop()
    owner = Owner(broker)
    async with owner.session as session:
        await until(lambda: len(owner.pauses) == 9, 2_000.0)
        broker.start()
        await until(lambda: session.connection)
        await asyncio.sleep(31.0)
        broker.cut("me")
        await until(lambda: len(owner.pauses) == 10)
    windows = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 1.0]
    assert all(0.0 <= pause <= window for pause, window in zip(owner.pauses, windows, strict=True))
    assert max(owner.pauses) > 16.0
    assert len(owner.losses) == 10


async def test_a_link_that_keeps_breaking_at_once_is_no_success() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    async def breaks(connection: Connection) -> None:
        broker.cut("me")
        await connection.subscribe("t/#")

    owner.greeted = breaks
    async with owner.session:
        await until(lambda: len(owner.pauses) == 8, 2_000.0)
    assert max(owner.pauses) > 10.0


class Refusing:
    """A broker that knows nobody."""

    address = "memory://refusing"
    asked = 0

    async def connect(self, profile: Profile) -> Connection:
        self.asked += 1
        raise BrokerRefused(
            "memory://refusing refused the connection: wrong user name or password", code=0x86
        )


async def test_refused_means_slow_and_loud(caplog: pytest.LogCaptureFixture) -> None:
    transport = Refusing()
    with caplog.at_level(logging.ERROR, "fedmq.transport.session"):
        async with Owner(transport).session:
            await asyncio.sleep(600.0)
    assert 600.0 / 60.0 <= transport.asked <= 600.0 / 30.0 + 1
    assert "wrong user name or password; next try in" in caplog.text


async def test_a_refused_subscription_closes_the_connection_and_waits() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    async def refused(connection: Connection) -> None:
        raise BrokerRefused("the broker refused the subscription", code=0x87)

    owner.greeted = refused
    async with owner.session as session:
        await until(lambda: owner.pauses)
        assert broker.connected == ()
        assert session.connection is None
    assert owner.pauses[0] >= 30.0


@pytest.mark.parametrize("place", ["greeted", "work"])
async def test_a_bug_in_a_callback_ends_run_with_it(place: str) -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    async def buggy(_: object) -> None:
        if place == "greeted" or owner.batches:
            raise ZeroDivisionError

    setattr(owner, place, buggy)
    if place == "work":
        await (await broker.connect(ME)).subscribe("t/#")
        await publish(broker, b"a")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(owner.session.run(), 60.0)
    assert broker.connected == ()
    with pytest.raises(ConnectionLost, match="closed"):
        await owner.session.publish(Outgoing("a", b"x"))


async def test_lost_within_work_is_a_lost_connection() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    async def loses(batch: Sequence[Message]) -> None:
        if len(owner.batches) == 1:
            broker.cut("me")
            await owner.session.try_publish(Outgoing("a", b"x"))

    owner.work = loses
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a")
        await until(lambda: owner.payloads == [b"a", b"a"])
    assert len(owner.losses) == 1


async def test_refused_within_work_brings_the_batch_again() -> None:
    broker = MemoryBroker(abilities=Abilities(may_publish=lambda _, topic: topic != "no"))
    owner = Owner(broker)

    async def refused(batch: Sequence[Message]) -> None:
        if len(owner.batches) == 1:
            await owner.session.publish(Outgoing("no", b"x"))

    owner.work = refused
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a")
        await until(lambda: owner.payloads == [b"a", b"a"])
    assert [type(error) for error in owner.losses] == [BrokerRefused]


async def test_an_older_batchs_trouble_leaves_the_new_connection_alone() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    async def stale(batch: Sequence[Message]) -> None:
        if len(owner.batches) == 1:
            old = owner.connections[0]
            broker.cut("me")
            await owner.session.publish(Outgoing("a", b"over the new one"))
            await old.publish(Outgoing("a", b"over the old one"))

    owner.work = stale
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"a")
        await until(lambda: owner.payloads == [b"a", b"a"])
        await asyncio.sleep(60.0)
    assert len(owner.connections) == 2


async def test_publishing_through_the_session_while_greeting_is_a_mistake() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    owner.greeted = lambda _: owner.session.publish(Outgoing("a", b"x"))
    with pytest.raises(MisuseError, match="connection that it is given"):
        await asyncio.wait_for(owner.session.run(), 60.0)


async def test_closing_ends_those_who_wait_to_publish() -> None:
    broker = MemoryBroker()
    broker.stop()
    session = Owner(broker).session
    async with session:
        waiting = asyncio.create_task(session.publish(Outgoing("a", b"x")))
        await asyncio.sleep(1.0)
    with pytest.raises(ConnectionLost, match="closed"):
        await waiting
    await session.close()
    with pytest.raises(MisuseError, match="runs once"):
        await session.run()


async def test_closing_publishes_nothing_and_no_will_goes_out() -> None:
    broker = MemoryBroker()
    owner = Owner(broker, profile=Profile("me", will=Outgoing("status", b"gone", retain=True)))
    async with owner.session as session:
        await until(lambda: session.connection)
    assert broker.retained() == {}


async def test_cancelling_run_disconnects_in_order() -> None:
    broker = MemoryBroker()
    owner = Owner(broker, profile=Profile("me", will=Outgoing("status", b"gone", retain=True)))
    cut_short = asyncio.Event()

    async def endless(batch: Sequence[Message]) -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            cut_short.set()

    owner.work = endless
    running = asyncio.create_task(owner.session.run())
    await until(lambda: owner.session.connection)
    await publish(broker, b"a")
    await until(lambda: owner.batches)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cut_short.is_set()
    assert broker.connected == ()
    assert broker.retained() == {}


async def test_closing_from_within_a_batch_lets_it_finish() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    finished = asyncio.Event()

    async def last(batch: Sequence[Message]) -> None:
        await owner.session.close()
        await asyncio.sleep(1.0)
        finished.set()

    owner.work = last
    running = asyncio.create_task(owner.session.run())
    await until(lambda: owner.session.connection)
    await publish(broker, b"stop")
    await asyncio.wait_for(running, 60.0)
    assert finished.is_set()
    assert broker.connected == ()


async def test_closing_while_greeting() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)

    last_words: list[str] = []

    async def leaves(connection: Connection) -> None:
        await owner.session.close()
        last_words.append("it has returned")

    owner.greeted = leaves
    await asyncio.wait_for(owner.session.run(), 60.0)
    assert broker.connected == ()
    assert last_words


async def test_messages_may_go_to_an_ordinary_function() -> None:
    broker, heard = MemoryBroker(), list[bytes]()
    owner, troubles = Owner(broker), [ConnectionLost("gone while it was looked at")]

    def take(batch: Sequence[Message]) -> None:
        heard.extend(message.payload for message in batch)
        if heard[-1] == b"lost" and troubles:
            raise troubles.pop()

    owner.session._on_messages = take
    async with owner.session as session:
        await until(lambda: session.connection)
        await publish(broker, b"one")
        await until(lambda: heard == [b"one"])
        await publish(broker, b"lost")
        await until(lambda: heard == [b"one", b"lost", b"lost"])  # it was not acknowledged, and came again
        assert len(owner.losses) == 1


async def test_a_bug_in_an_ordinary_function_ends_run_with_it() -> None:
    broker = MemoryBroker()
    owner = Owner(broker)
    owner.session._on_messages = lambda batch: batch[0].nothing  # type: ignore[attr-defined]
    await (await broker.connect(ME)).subscribe("t/#")
    await publish(broker, b"a")
    with pytest.raises(AttributeError):
        await asyncio.wait_for(owner.session.run(), 60.0)
