"""When a change is added, when dropped, and when the device asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from fedmq.device import keepsakes, settling
from fedmq.device.keepsakes import DiskKeepsakes, Keepsakes, MemoryKeepsakes
from fedmq.device.kept import Origin
from fedmq.device.outbox import MemoryOutbox, Stored
from fedmq.device.residual import Residual
from fedmq.device.settling import Settling
from fedmq.errors import StoreError
from fedmq.protocol.messages import Query, Receipt, Task, TaskKind, Verdict
from fedmq.wire.envelope import decode

RUN, OTHER = b"run-0001", b"run-0002"
ONE, TWO = b"update-1", b"update-2"


def task(round_: int, model: int, *, run: bytes = RUN, kind: TaskKind = TaskKind.TRAIN) -> Task:
    return Task(run, round_, round_, kind, model, b"layout-1", bytes(16), 1.0, 60.0, "float32", 1000)


def receipt(update: bytes, verdict: Verdict) -> Receipt:
    return Receipt(RUN, 1, update, verdict)


@dataclass
class Bench:
    """A device's part that settles, with one update of round 1, trained from model 1, in outbox and keepsakes."""

    keepsakes: Keepsakes = field(default_factory=MemoryKeepsakes)
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.settling = Settling(self.keepsakes, self.outbox, self.begin)
        self.keepsakes.put(Origin(RUN, 1, 1), ONE, {"c": np.ones(2, np.float32)})
        self.outbox.put(Stored(RUN, 1, ONE, b"body"))

    def begin(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        begun = asyncio.create_task(work)
        self.tasks.add(begun)
        return begun

    async def tasked(self, newest: Task, outbox: tuple[bytes, ...] = ()) -> list[tuple[int, bytes, Query]]:
        asked = [
            (round_, update, decode(body, Query))
            for round_, update, body in self.settling.tasked(newest, outbox)
        ]
        await self.settling.done()
        return asked

    async def forgotten(self, verdict: Verdict | None, update: bytes = ONE) -> None:
        self.settling.forget(update, verdict)
        await self.settling.done()

    def begun(self, what: Callable[[], object]) -> set[asyncio.Task[None]]:
        before = set(self.tasks)
        what()
        return self.tasks - before

    @property
    def kept(self) -> list[float]:
        return self.keepsakes.kept(RUN).get("c", np.zeros(2)).tolist()

    @property
    def waits(self) -> bool:
        return ONE in self.keepsakes.waiting()

    @property
    def sends(self) -> bool:
        return ONE in self.outbox.entries()


async def test_an_accepted_change_is_added_when_the_model_has_moved() -> None:
    bench = Bench()
    await bench.tasked(task(1, 1), (ONE,))
    await bench.forgotten(Verdict.ACCEPTED)
    assert (bench.kept, bench.waits, bench.sends) == ([0, 0], True, False)
    assert await bench.tasked(task(2, 2)) == []
    assert (bench.kept, bench.waits) == ([1, 1], False)
    await bench.tasked(task(3, 3))
    assert bench.kept == [1, 1]


async def test_a_receipt_that_comes_behind_the_next_task_counts_as_well() -> None:
    bench = Bench()
    await bench.tasked(task(2, 2), (ONE,))
    await bench.forgotten(Verdict.ACCEPTED)
    assert (bench.kept, bench.waits, bench.sends) == ([1, 1], False, False)


async def test_an_accepted_change_of_a_round_that_was_given_up_is_dropped() -> None:
    bench = Bench()
    await bench.tasked(task(1, 1), (ONE,))
    await bench.forgotten(Verdict.ACCEPTED)
    await bench.tasked(task(2, 1))
    assert (bench.kept, bench.waits) == ([0, 0], False)


async def test_a_round_that_moved_nothing_is_told_by_the_next_task_alone() -> None:
    """The receipt may come when later rounds have moved the model, and it would seem that this one had."""
    bench = Bench()
    assert await bench.tasked(task(1, 1), (ONE,)) == []
    await bench.tasked(task(2, 1), (ONE,))
    assert not bench.waits
    await bench.tasked(task(3, 2), (ONE,))
    await bench.forgotten(Verdict.ACCEPTED)
    assert (bench.kept, bench.sends) == ([0, 0], False)


async def test_an_update_that_may_still_count_waits_though_nothing_has_moved() -> None:
    bench = Bench()
    await bench.tasked(replace(task(2, 1), oldest=1), (ONE,))
    assert bench.waits


@pytest.mark.parametrize(
    ("verdict", "owed"),
    [
        (Verdict.ACCEPTED, [5]),
        (Verdict.LATE, [5, 50]),
        (Verdict.DUPLICATE, [5, 50]),
        (Verdict.REJECTED, []),
    ],
)
async def test_what_is_owed_after_each_verdict(verdict: Verdict, owed: list[float]) -> None:
    bench = Bench()
    residual = Residual(np.array([5], np.float32), np.array([50], np.float32))
    bench.keepsakes.put(Origin(RUN, 1, 1), TWO, {}, residual)
    bench.outbox.put(Stored(RUN, 1, TWO, b"body"))
    await bench.forgotten(verdict, TWO)
    await bench.tasked(task(2, 2), (ONE,))
    assert [float(piece.vector[0]) for piece in bench.keepsakes.owed(RUN)] == owed
    assert TWO not in bench.keepsakes.waiting()
    assert TWO not in bench.outbox.entries()


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.LATE, Verdict.DUPLICATE])
async def test_any_other_verdict_drops_the_change(verdict: Verdict) -> None:
    bench = Bench()
    await bench.tasked(task(1, 1), (ONE,))
    await bench.forgotten(verdict)
    assert (bench.kept, bench.waits, bench.sends) == ([0, 0], False, False)


async def test_another_run_drops_the_change() -> None:
    bench = Bench()
    assert await bench.tasked(task(1, 9, run=OTHER)) == []
    assert not bench.waits


async def test_the_end_settles_and_asks_nothing() -> None:
    bench = Bench()
    assert await bench.tasked(task(2, 2, kind=TaskKind.STOP)) == []
    assert bench.waits
    await bench.forgotten(Verdict.ACCEPTED)
    assert bench.kept == [1, 1]


async def test_updates_that_change_nothing_leave_the_outbox_at_once() -> None:
    bench = Bench()
    bench.outbox.put(Stored(RUN, 2, TWO, b"body"))
    bench.settling.forget(TWO, Verdict.ACCEPTED)
    assert TWO not in bench.outbox.entries()


async def test_asks_for_the_verdict_of_an_update_that_was_forgotten_without_one() -> None:
    bench = Bench()
    assert await bench.tasked(task(1, 1)) == []  # its round is open: it would count as an update
    assert await bench.tasked(task(2, 2), (ONE,)) == []  # it is still being sent
    await bench.forgotten(None)
    assert (bench.waits, bench.sends) == (True, False)
    ((round_, update, question),) = await bench.tasked(task(2, 2))
    assert (round_, update, question) == (1, ONE, Query(RUN, ONE, 0))
    bench.settling.heard(receipt(ONE, Verdict.RETRY))
    bench.settling.heard(receipt(TWO, Verdict.ACCEPTED))
    await bench.settling.done()
    assert len(await bench.tasked(task(3, 3))) == 1  # and again
    bench.settling.heard(receipt(ONE, Verdict.ACCEPTED))
    await bench.settling.done()
    assert (bench.kept, bench.waits) == ([1, 1], False)


@pytest.mark.parametrize(("verdict", "kept"), [(Verdict.ACCEPTED, [1, 1]), (Verdict.LATE, [0, 0])])
async def test_training_waits_for_the_verdict(verdict: Verdict, kept: list[float]) -> None:
    bench = Bench()
    await bench.tasked(task(2, 2))
    waiting = asyncio.create_task(bench.settling.up_to_date(task(2, 2)))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.settling.heard(receipt(ONE, verdict))
    await waiting
    assert bench.kept == kept


async def test_training_does_not_wait_for_ever_nor_for_its_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    await bench.settling.up_to_date(task(1, 1))
    monkeypatch.setattr(settling, "PATIENCE_S", 0.01)
    await bench.settling.up_to_date(task(2, 2))
    assert bench.waits


async def test_a_receipt_before_any_task_is_noted(tmp_path: Path) -> None:
    """As after a restart, when the broker had kept it."""
    bench = Bench(DiskKeepsakes(tmp_path))
    await bench.forgotten(Verdict.ACCEPTED)
    assert bench.keepsakes.waiting()[ONE].accepted
    again = Bench(DiskKeepsakes(tmp_path))
    again.keepsakes.accept(ONE)
    await again.tasked(task(9, 7))
    assert again.kept == [1, 1]


# --- a disk that refuses ----------------------------------------------------------------------------------------------


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(settling, "DISK_PAUSE_S", 0.01)
    return Bench(DiskKeepsakes(tmp_path))


@pytest.mark.parametrize("fails", ["remove", "rename", "whole_file"])
async def test_what_the_disk_refuses_is_done_when_it_is_back_and_done_once(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    refused: list[object] = []
    real = getattr(keepsakes, fails)

    def full(*arguments: Path) -> object:
        if len(refused) < 3:
            refused.append(arguments)
            raise StoreError("the disk is full")
        return real(*arguments)

    monkeypatch.setattr(keepsakes, fails, full)
    await asyncio.gather(*on_disk.begun(lambda: on_disk.settling.forget(ONE, Verdict.ACCEPTED)))
    await asyncio.gather(*on_disk.begun(lambda: list(on_disk.settling.tasked(task(2, 2), ()))))
    assert len(refused) == 3
    assert on_disk.kept == [1.0, 1.0]
    assert not on_disk.waits
    assert ONE not in on_disk.outbox.entries()
    assert caplog.text.count("CRITICAL") == 1
    assert DiskKeepsakes(on_disk.keepsakes._folder).kept(RUN)["c"].tolist() == [1.0, 1.0]  # type: ignore[attr-defined]


async def test_a_device_that_is_stopped_does_not_wait_for_its_disk(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update and change stay, and so the next life asks for the verdict."""

    def full(*_: object) -> None:
        raise StoreError("the disk is read-only")

    monkeypatch.setattr(settling, "DISK_PAUSE_S", 3600.0)
    monkeypatch.setattr(keepsakes, "rename", full)
    on_disk.settling.forget(ONE, Verdict.ACCEPTED)
    async with asyncio.timeout(10):
        await on_disk.settling.done()
    assert on_disk.waits
    assert ONE in on_disk.outbox.entries()


async def test_an_update_that_nothing_waits_for_is_removed_when_the_disk_is_back(
    on_disk: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[bytes] = []
    real = MemoryOutbox.forget

    def full(outbox: MemoryOutbox, update: bytes) -> None:
        if len(refused) < 3:
            refused.append(update)
            raise StoreError("the disk is full")
        real(outbox, update)

    monkeypatch.setattr(MemoryOutbox, "forget", full)
    on_disk.outbox.put(Stored(RUN, 1, TWO, b"body"))
    await asyncio.gather(*on_disk.begun(lambda: on_disk.settling.forget(TWO, None)))
    assert TWO not in on_disk.outbox.entries()
