"""An aggregator gives rules that need every update its own folder for them."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import preset
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_no_row_goes_to_the_systems_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "is-not-there"))
    policy = Policy(min_devices=3, quorum=3, soft_deadline_s=60, hard_deadline_s=60)
    federation = Federation("test", rule=preset("median"), policy=policy, stop=StopWhen(rounds=2))
    broker = MemoryBroker()
    async with rig(federation, lambda: broker, tmp_path / "federation") as running:
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 99)])
        assert await running.ended() == "2 rounds are done"
    np.testing.assert_array_equal(running.model, np.full(SMALL.size, 4, np.float32))
