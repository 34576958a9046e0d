"""What the intake does with updates that come while no journal is open for them, or that answer different rounds."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator import anteroom, intake
from fedmq.aggregator.intake import Intake
from fedmq.aggregator.parcel import Parcel
from fedmq.errors import StoreError
from fedmq.protocol import coordination as co
from fedmq.protocol.messages import DELTA, Facts, Update
from fedmq.store.journal import Journal
from fedmq.transport.interface import Message
from fedmq.wire.envelope import encode
from fedmq.wire.topics import Topics
from tests.unit.protocol.stage import LAYOUT, RUN, task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from fedmq.store.journal import Piece, Spot

TOPICS = Topics("test")


class Desk:
    """An intake whose coordinator welcomes everything."""

    def __init__(self, folder: Path, buffer: int = 9) -> None:
        self.folder, self.offered, self.ready = folder, [], []
        self.intake = Intake(TOPICS, self.dispatch, self.take, ThreadPoolExecutor(1), buffer)
        self.following: Journal | None = None

    offered: list[tuple[str, int]]
    ready: list[tuple[str, int]]

    def dispatch(self, event: co.CoordinatorEvent) -> Sequence[co.CoordinatorEffect]:
        assert isinstance(event, co.Offered)
        self.offered.append((event.device, event.round))
        return [co.Keep(event.device, event.round, event.update)]

    def take(self, parcel: Parcel) -> None:
        self.ready.append((parcel.device, parcel.round))

    def open(self, number: int) -> Journal:
        journal = Journal.create(self.folder / f"{number}.journal", b"task")
        self.intake.open(task(number, update_bytes=10_000), journal)
        return journal

    async def send(self, device: str, number: int, update: bytes = b"update-1") -> None:
        sections = {DELTA: np.ones(3, np.float32).tobytes()}
        payload = encode(Update(RUN, update, 1, LAYOUT, Facts(1, 1), sections))
        await self.intake.take([Message(TOPICS.update(device, number), payload)])

    async def commit(self, count: int) -> None:
        """Let the intake write until so many are ready."""
        writing = asyncio.create_task(self.intake.commit_forever())
        async with asyncio.timeout(10):
            while len(self.ready) < count:
                await asyncio.sleep(0)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def test_what_comes_while_the_model_moves_is_taken_in_by_the_next_round(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.open(1)
    desk.intake.hold()
    desk.intake.hold()
    await desk.send("ada", 1)
    assert desk.offered == []
    desk.intake.close()
    desk.open(2)
    assert desk.offered == [("ada", 1)]
    await desk.send("bob", 2)
    await desk.commit(2)
    assert desk.ready == [("ada", 1), ("bob", 2)]


async def test_only_so_much_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    desk.open(1)
    monkeypatch.setattr(anteroom, "WAITING_BYTES", 100)
    desk.intake.hold()
    await desk.send("ada", 1)
    await desk.send("bob", 1)
    assert desk.offered == [("bob", 1)]
    desk.intake.release()  # the round is open still: for the next one
    assert desk.offered == [("bob", 1)]
    desk.intake.close()
    desk.intake.release()
    assert desk.offered == [("bob", 1), ("ada", 1)]


async def test_more_than_the_buffer_takes_wait_for_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path, buffer=2)
    desk.open(1)
    names = ["ada", "bob", "eve", "kim", "lea"]
    for name in names:
        await desk.send(name, 1)
    assert [device for device, _ in desk.offered] == names[:2]
    desk.intake.refused("bob", 1)
    assert [device for device, _ in desk.offered] == names[:3]
    desk.intake.close()
    desk.open(2)
    assert [device for device, _ in desk.offered] == names


async def test_synchronous_rounds_let_nobody_wait(tmp_path: Path) -> None:
    desk = Desk(tmp_path, buffer=0)
    desk.open(1)
    desk.intake.hold()
    for name in ("ada", "bob"):
        await desk.send(name, 1)
    assert len(desk.offered) == 2


async def test_a_device_may_have_an_update_for_each_of_two_rounds(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.open(2)
    await desk.send("ada", 1, b"update-1")
    await desk.send("ada", 2, b"update-2")
    await desk.commit(2)
    assert desk.intake.parcel("ada", 1, b"update-1") is not None
    assert desk.intake.parcel("ada", 2, b"update-1") is None


async def test_a_replay_offers_each_update_for_the_round_that_it_answers(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    journal = desk.open(2)
    for number, update in ((1, b"update-1"), (2, b"update-2"), (2, b"update-3")):
        await desk.send("ada", number, update)
    await desk.commit(2)
    journal.close()
    again, found = Journal.resume(journal.path) or (None, [])
    assert again is not None
    later = Desk(tmp_path)
    later.intake.open(task(2, update_bytes=10_000), again)
    later.intake.replay(found)
    assert later.ready == [("ada", 1), ("ada", 2)]
    assert later.intake.parcel("ada", 2, b"update-3") is not None


async def test_a_piece_whose_round_closed_while_the_disk_refused_is_not_in_the_next_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    full = desk.open(1)

    def refuse(_: Sequence[Piece]) -> list[Spot]:
        desk.intake.close()
        desk.following = desk.open(2)
        raise StoreError("the disk is full")

    monkeypatch.setattr(full, "append", refuse)
    monkeypatch.setattr(intake, "DISK_PAUSE_S", 0.0)
    await desk.send("ada", 1)
    writing = asyncio.create_task(desk.intake.commit_forever())
    async with asyncio.timeout(10):
        while desk.following is None:
            await asyncio.sleep(0)
        await desk.send("bob", 2)
        while not desk.ready:
            await asyncio.sleep(0)
    writing.cancel()
    assert desk.ready == [("bob", 2)]
    assert [piece.device for piece, _ in desk.following.places()] == ["bob"]
