"""Fetching over links that are cut: all of it comes, little of it twice, and nobody waits for what will not come."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import TYPE_CHECKING

import pytest

from fedmq.device.device import Device, Identity
from fedmq.device.fetching import LULL_S, Fetching
from fedmq.errors import TransportError
from fedmq.protocol.frames import Step
from fedmq.testing.federation import ShiftTrainer
from fedmq.transport.backoff import Backoff
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.mailbox import NO_FAULTS, Faults
from fedmq.transport.memory import MemoryBroker
from fedmq.transport.session import Session
from fedmq.wire.chunks import cut
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.transport.interface import Connection, Message

pytestmark = pytest.mark.looptime

TOPICS, RUN, KEY = Topics("test"), b"run-0001", Step(3, key=True)
CHUNKS, WINDOW = (
    40,
    2,
)  # chunks of the frame, and messages that the broker sends without waiting for word of them
BODY = bytes(range(200)) * 4
FRAMES = f"{TOPICS.prefix}/all/model/#"
ROOM = len(BODY) // CHUNKS


class Rover:
    """Half a device: a session that fetches one frame; its link breaks when so many chunks have come."""

    def __init__(self, broker: MemoryBroker, cuts: Sequence[int] = ()) -> None:
        self.broker, self.cuts = broker, list(cuts)
        self.fetching = Fetching(TOPICS)
        self.taken = 0
        self.body: bytes | None = None
        self.fetch: asyncio.Task[None] | None = None
        self.session = Session(
            broker,
            Profile("rover", receive_maximum=WINDOW),
            on_connected=self.connected,
            on_messages=self.messages,
            on_lost=self.lost,
            random=Random(1),
            backoff=Backoff(base_s=0.1, cap_s=0.1),
            early=True,
        )

    async def connected(self, connection: Connection) -> None:
        self.fetching.connected(present=connection.limits.session_present)
        await connection.subscribe(TOPICS.task)
        if self.body is None:
            self.fetch = asyncio.create_task(self.bring(connection))

    async def bring(self, connection: Connection) -> None:
        with contextlib.suppress(TransportError):
            [(_, self.body)] = await self.fetching.fetch(connection, RUN, {KEY: 1000})

    async def messages(self, batch: Sequence[Message]) -> None:
        await asyncio.sleep(0.01)  # the link has its speed
        for message in batch:
            self.taken += self.fetching.take(message)
        if self.cuts and self.taken >= self.cuts[0]:
            self.cuts.pop(0)
            self.broker.cut("rover")

    def lost(self, _: TransportError) -> None:
        if self.fetch is not None:
            self.fetch.cancel()

    async def done(self) -> float:
        """Wait for the frame, and for what comes behind it; return how long the frame took."""
        begin = asyncio.get_running_loop().time()
        while self.body is None:
            await asyncio.sleep(0.05)
        took = asyncio.get_running_loop().time() - begin
        await asyncio.sleep(60.0)
        assert self.body == BODY
        assert set(self.broker._boxes["rover"].filters) == {TOPICS.task}
        return took


async def standing(broker: MemoryBroker) -> None:
    """Have the broker keep a task and a frame."""
    sender = await broker.connect(Profile("aggregator", durable=False))
    await sender.publish(Outgoing(TOPICS.task, b"task", retain=True))
    for chunk in cut(BODY, RUN, b"", ROOM):
        await sender.publish(Outgoing(TOPICS.frame(KEY, chunk.index), encode(chunk), retain=True))
    await sender.close()


@pytest.mark.parametrize("cuts", [(), (10,), (10, 20, 30), range(2, CHUNKS, 2)], ids=len)
async def test_a_cut_costs_what_was_not_acknowledged_and_no_more(cuts: Sequence[int]) -> None:
    """What the broker's session holds is not asked for again: it would come twice, and before anything else."""
    broker = MemoryBroker()
    await standing(broker)
    rover = Rover(broker, cuts)
    async with rover.session:
        await rover.done()
    assert rover.cuts == []
    assert rover.taken <= CHUNKS + WINDOW * len(cuts)


async def test_a_broker_that_has_forgotten_the_session_is_asked_at_once() -> None:
    broker = MemoryBroker()
    await standing(broker)
    rover = Rover(broker, [10])
    async with rover.session:
        while rover.cuts:
            await asyncio.sleep(0.001)
        broker.wipe()
        await standing(broker)
        broker.faults = Faults(drop=1.0, topics=TOPICS.task)  # no queue, nothing behind it
        assert await rover.done() < LULL_S
    assert rover.taken <= CHUNKS + WINDOW


async def test_what_the_session_has_lost_is_asked_for_when_its_queue_is_through() -> None:
    broker = MemoryBroker()
    await standing(broker)
    rover = Rover(broker, [10])
    async with rover.session:
        while rover.cuts:
            await asyncio.sleep(0.001)
        broker._boxes["rover"]._waiting.clear()
        assert await rover.done() < LULL_S
    assert rover.taken <= CHUNKS + WINDOW


async def test_where_the_word_behind_the_queue_is_lost_too_a_silence_will_do() -> None:
    broker = MemoryBroker()
    await standing(broker)
    rover = Rover(broker, [10])
    async with rover.session:
        while rover.cuts:
            await asyncio.sleep(0.001)
        broker._boxes["rover"]._waiting.clear()
        broker.faults = Faults(drop=1.0, topics=TOPICS.task)
        assert LULL_S <= await rover.done() < LULL_S + 1.0
    assert rover.taken <= CHUNKS + WINDOW


async def test_links_that_drop_and_repeat_and_cut_bring_the_whole_frame() -> None:
    for seed in range(10):
        broker = MemoryBroker(seed=seed)
        await standing(broker)
        broker.faults = Faults(drop=0.1, duplicate=0.1, cut=0.1, topics=FRAMES)
        rover = Rover(broker)
        async with rover.session:
            await asyncio.sleep(20.0)
            broker.faults = NO_FAULTS
            broker.cut("rover")
            await rover.done()


async def test_a_device_tells_of_each_connection_whether_the_broker_has_kept_its_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker, told = MemoryBroker(), []
    device = Device(Identity("test", "rover"), broker, ShiftTrainer())
    monkeypatch.setattr(device._fetching, "connected", lambda *, present: told.append(present))
    running = asyncio.create_task(device.run())
    for _ in range(2):
        await asyncio.sleep(100.0)
        broker.cut("fedmq:test:rover")
    await asyncio.sleep(100.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told == [False, True, True]
