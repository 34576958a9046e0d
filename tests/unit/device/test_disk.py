"""A device whose disk is full or read-only says so, and goes on as far as it can."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedmq.aggregator.settings import Federation
from fedmq.device.outbox import DiskOutbox
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    import pytest

POLICY = Policy(min_devices=1, quorum=1, soft_deadline_s=0.3, hard_deadline_s=0.5)


async def test_a_full_disk_costs_the_round_and_not_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker, sync = MemoryBroker(), os.fsync

    def full(handle: int) -> None:
        if len(caplog.text.split("No space left")) < 2 and _writes_an_update(handle):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=1))
    async with rig(federation, lambda: broker, tmp_path / "aggregator") as running:
        running.start_aggregator()
        device = running.start_device("device", ShiftTrainer(), outbox=DiskOutbox(tmp_path / "outbox"))
        await running.ended()
    assert "no update for round 1" in caplog.text
    assert "check the disk" in caplog.text
    assert device.counters.verdicts == {"accepted": 1}


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
