"""What the intake knows of an update that came in part: whatever has happened to its chunks since."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmq.aggregator import intake
from fedmq.aggregator.intake import Intake
from fedmq.aggregator.keeping import _places
from fedmq.errors import StoreError
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import DELTA, Facts, Query, Update
from fedmq.protocol.spans import Spans, within
from fedmq.store.journal import Journal
from fedmq.transport.interface import Message
from fedmq.wire.chunks import chunk_count, cut
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics
from tests.unit.protocol.stage import LAYOUT, RUN, task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedmq.aggregator.parcel import Parcel
    from fedmq.store.journal import Piece, Spot

TOPICS = Topics("test")
ID = b"update-1"
BODY = encode(Update(RUN, ID, 1, LAYOUT, Facts(1, 1), {DELTA: bytes(range(250))}))
ROOM = 40
COUNT = chunk_count(len(BODY), ROOM)


class Desk:
    """An intake whose coordinator welcomes every update and every question."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: list[bytes] = []
        self.searched: list[Spans] = []
        self.intake = Intake(TOPICS, self.dispatch, self.ready, ThreadPoolExecutor(1))
        self.journal = Journal.create(folder / "round.journal", b"task")
        self.intake.open(task(update_bytes=10_000), self.journal)

    def restart(self) -> None:
        """Begin another life with what is in the journal."""
        self.journal.close()
        found = Journal.resume(self.journal.path)
        assert found is not None
        self.intake = Intake(TOPICS, self.dispatch, self.ready, ThreadPoolExecutor(1))
        self.journal, pieces = found
        self.intake.open(task(update_bytes=10_000), self.journal)
        self.intake.replay(pieces)

    def dispatch(self, event: co.CoordinatorEvent) -> Sequence[co.CoordinatorEffect]:
        if isinstance(event, co.Searched):
            self.searched.append(event.missing)
        if isinstance(event, co.Searched | co.Garbled):
            return []
        assert isinstance(event, co.Offered)
        name = event.device, event.round, event.update
        return [co.Keep(*name) if event.question is None else co.Search(*name, event.question)]

    def ready(self, parcel: Parcel) -> None:
        source = self.intake.source(parcel)
        assert source is not None
        self.whole.append(source.read().sections[DELTA])

    async def send(self, indexes: Sequence[int], room: int = ROOM) -> None:
        chunks = cut(BODY, RUN, ID, room, indexes=indexes)
        await self.intake.take(
            [Message(TOPICS.update("ada", 1, chunk.index), encode(chunk)) for chunk in chunks]
        )

    async def ask(self, count: int = COUNT, update: bytes = ID) -> None:
        await self.intake.take([Message(TOPICS.query("ada", 1), encode(Query(RUN, update, count)))])

    async def commit(self) -> None:
        """Let the intake write what waits, and answer."""
        writing = asyncio.create_task(self.intake.commit_forever())
        async with asyncio.timeout(10):
            while self.intake._waiting or self.intake._asked or self.intake._arrived.is_set():
                await asyncio.sleep(0)
            while self.intake._waiting_bytes:
                await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing

    async def missing(self, count: int = COUNT, update: bytes = ID) -> list[int]:
        await self.ask(count, update)
        await self.commit()
        return list(within(self.searched.pop(), count))


async def test_a_question_is_answered_with_what_is_not_durable_after_a_restart_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.send([0, 1, 4])
    wanted = [index for index in range(COUNT) if index not in {0, 1, 4}]
    assert await desk.missing() == wanted
    desk.restart()
    assert await desk.missing() == wanted
    await desk.send(wanted)
    await desk.commit()
    assert desk.whole == [bytes(range(250))]
    assert await desk.missing() == []


async def test_of_an_unknown_update_everything_is_missing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert await desk.missing() == list(range(COUNT))
    await desk.send([0])
    assert await desk.missing(update=b"update-2") == list(range(COUNT))
    assert await desk.missing() == list(range(1, COUNT))


async def test_the_answer_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    append, refusals = desk.journal.append, list[list[Spans]]()

    def refuse_once(pieces: Sequence[Piece]) -> list[Spot]:
        if not refusals:
            refusals.append(list(desk.searched))
            raise StoreError("the disk is full")
        return append(pieces)

    monkeypatch.setattr(desk.journal, "append", refuse_once)
    monkeypatch.setattr(intake, "DISK_PAUSE_S", 0.0)
    await desk.send([0])
    assert await desk.missing() == list(range(1, COUNT))
    assert refusals == [[]]


async def test_a_question_for_the_verdict_alone_is_not_searched_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.ask(0)
    await desk.commit()
    assert desk.searched == []


async def test_an_unreadable_question_costs_one_counter(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.intake.take([Message(TOPICS.query("ada", 1), b"what?")])
    assert (desk.intake.garbled, desk.searched) == (1, [])


async def test_a_retained_question_is_ignored(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.intake.take([Message(TOPICS.query("ada", 1), encode(Query(RUN, ID, 1)), retained=True)])
    await desk.commit()
    assert desk.searched == []


async def test_an_update_that_is_cut_otherwise_since_begins_anew(tmp_path: Path) -> None:
    """As when a device comes back over a broker that takes smaller packets; a restart knows no other."""
    desk, smaller = Desk(tmp_path), 30
    count = chunk_count(len(BODY), smaller)
    await desk.send([0, 1, 2])
    assert await desk.missing(count) == list(range(count))
    await desk.send([0, 1, 2], smaller)
    await desk.commit()
    desk.restart()
    assert await desk.missing(count) == list(range(3, count))
    await desk.send(range(3, count), smaller)
    await desk.commit()
    assert desk.whole == [bytes(range(250))]
    assert len(_places(desk.journal, [("ada", ID)])) == count


async def test_an_update_that_began_in_chunks_may_come_whole(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.send([0, 1])
    for _ in range(2):
        await desk.intake.take([Message(TOPICS.update("ada", 1), BODY)])
    await desk.commit()
    assert desk.whole == [bytes(range(250))]
    await desk.send([2])
    assert desk.intake.garbled == 1
    desk.restart()
    assert desk.whole == [bytes(range(250))] * 2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rooms=st.lists(st.integers(20, 120), min_size=1, max_size=4),
    lost=st.data(),
)
def test_question_and_answer_bring_every_update_in(
    tmp_path: Path, rooms: list[int], lost: st.DataObject
) -> None:
    """Links lose any chunks and change their packet limit; once they lose nothing, one question is enough."""

    async def live() -> None:
        desk = Desk(tmp_path)
        for room in rooms:
            count = chunk_count(len(BODY), room)
            wanted = await desk.missing(count)
            await desk.send([index for index in wanted if lost.draw(st.booleans())], room)
            if lost.draw(st.booleans()):
                await desk.commit()
                desk.restart()
        count = chunk_count(len(BODY), rooms[-1])
        await desk.send(await desk.missing(count), rooms[-1])
        await desk.commit()
        assert set(desk.whole) == {bytes(range(250))}
        assert await desk.missing(count) == []

    asyncio.run(live())
