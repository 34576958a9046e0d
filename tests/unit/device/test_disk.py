"""A device whose disk is full or read-only says so, and goes on as far as it can."""

from __future__ import annotations

import errno
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.aggregator.settings import Federation
from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.kept import End, Origin
from fedmq.device.outbox import DiskOutbox, MemoryOutbox, Stored, next_session
from fedmq.device.training import Training
from fedmq.errors import MisuseError, StoreError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.store import files
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from fedmq.protocol.messages import Task
    from fedmq.vectors import Vector

POLICY = Policy(min_devices=1, quorum=1, soft_deadline_s=0.3, hard_deadline_s=0.5)


async def test_while_the_disk_is_full_an_update_waits_and_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, sync = MemoryBroker(), os.fsync
    refused: list[int] = []

    def full(handle: int) -> None:
        if len(refused) < 3 and _writes_an_update(handle):
            refused.append(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    for module in ("device.storing", "store.trouble"):
        monkeypatch.setattr(f"fedmq.{module}.DISK_PAUSE_S", 0.02)
    policy = Policy(min_devices=1, quorum=1, soft_deadline_s=60.0, hard_deadline_s=60.0)
    federation, trainer = Federation("test", policy=policy, stop=StopWhen(rounds=1)), ShiftTrainer()
    caplog.set_level(logging.WARNING)
    async with rig(federation, lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        device = running.start_device("device", trainer, outbox=DiskOutbox(tmp_path / "outbox"))
        await running.ended()
    assert (len(refused), trainer.trainings) == (3, 1)
    assert device.counters.verdicts == {"accepted": 1}
    alerts = [record.message for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(alerts) == 1
    assert "an update cannot be stored, the device waits" in alerts[0]
    assert "check the disk" in alerts[0]
    assert "the disk takes writes again" in caplog.text


async def test_an_update_that_cannot_even_be_made_costs_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing that could wait."""
    broker, tries = MemoryBroker(), []

    def fail(self: Training, task: Task, model: Vector) -> Stored:
        tries.append(task.round)
        if len(tries) == 1:
            raise StoreError("what is kept cannot be read")
        return answer(self, task, model)

    answer = Training.answer
    monkeypatch.setattr(Training, "answer", fail)
    federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=1))
    async with rig(federation, lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        device = running.start_device("device", ShiftTrainer())
        await running.ended()
    assert tries == [1, 2]
    assert "no update for round 1: what is kept cannot be read" in caplog.text
    assert device.counters.verdicts == {"accepted": 1}


def test_nothing_is_stored_before_anything_was_trained() -> None:
    training = Training("device", ShiftTrainer(), MemoryOutbox(), MemoryKeepsakes())
    assert not training.is_unstored
    with pytest.raises(MisuseError):
        training.store()


def test_what_is_kept_of_an_update_is_written_once_however_often_its_outbox_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end may have been settled meanwhile."""
    outbox, keepsakes = MemoryOutbox(), MemoryKeepsakes()
    training = Training("device", ShiftTrainer(), outbox, keepsakes)
    origin, update = Origin(b"run-0001", 1, 1), Stored(b"run-0001", 1, b"update-1", b"body")
    change = {"c": np.ones(2, np.float32)}
    training._unstored = partial(training._put, origin, update, change, None)
    with monkeypatch.context() as broken:
        broken.setattr(outbox, "put", _read_only_store, raising=False)
        with pytest.raises(StoreError):
            training.store()
    keepsakes.settle(b"update-1", End.RETURNED)
    assert training.store() is update
    assert not keepsakes.waiting()
    assert not training.is_unstored


def _read_only_store(_: Stored) -> None:
    raise StoreError("the disk is read-only")


def _writes_an_update(handle: int) -> bool:
    return ".update" in str(Path(f"/proc/self/fd/{handle}").readlink())


async def test_a_disk_that_became_read_only_keeps_a_settled_update_and_the_device_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, unlink = MemoryBroker(), Path.unlink

    def read_only(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".update":
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", read_only)
    federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=2))
    async with rig(federation, lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        device = running.start_device("device", ShiftTrainer(), outbox=DiskOutbox(tmp_path / "outbox"))
        await running.ended()
    assert "a settled update stays on disk" in caplog.text
    assert device.counters.verdicts == {"accepted": 2}


def test_an_update_that_could_not_be_removed_is_still_in_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = DiskOutbox(tmp_path)
    outbox.put(Stored(b"run-0001", 1, b"update-1", b"body"))
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", _read_only)
        with pytest.raises(StoreError):
            outbox.forget(b"update-1")
    assert outbox.entries()
    outbox.forget(b"update-1")
    assert not outbox.entries()
    assert not list(tmp_path.iterdir())


def test_an_update_may_be_forgotten_by_two_threads_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipt came twice."""
    outbox, remove = DiskOutbox(tmp_path), files.remove
    outbox.put(Stored(b"run-0001", 1, b"update-1", b"body"))

    def overtaken(path: Path) -> None:
        monkeypatch.setattr("fedmq.device.outbox.remove", remove)
        outbox.forget(b"update-1")
        remove(path)

    monkeypatch.setattr("fedmq.device.outbox.remove", overtaken)
    outbox.forget(b"update-1")
    assert not outbox.entries()


def _read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_device_starts_on_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert next_session(tmp_path) == 1
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _read_only)
        assert next_session(tmp_path) == 2
        assert "cannot note that it did" in caplog.text
    assert next_session(tmp_path) == 2
