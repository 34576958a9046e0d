"""More devices than the broker's queue for the aggregator holds births: all are found, without a word from the broker.

With mosquitto's default of 1,000 this takes a thousand devices; here the queue is shorter, and the fleet's pace slower
in proportion.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.mosquitto import Mosquitto

pytestmark = pytest.mark.broker

DEVICES = 30
DEPTH = 5
# (By MQTT 3.1.1: where a client says itself how much may be under way to it, as by MQTT 5, that much fits besides.)
SHORT_QUEUE = ("max_inflight_messages 1", f"max_queued_messages {DEPTH}", "max_queued_bytes 0")


async def test_devices_whose_births_the_brokers_queue_dropped_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were all there before the aggregator was, and each subscription brings the same few births."""
    monkeypatch.setattr("fedmq.protocol.pacing.A_SECOND", 20)
    monkeypatch.setattr("fedmq.aggregator.aggregator.REFRESH_S", 1.0)
    monkeypatch.setattr("fedmq.protocol.posting.RECEIPT_PAUSE_S", 0.5)  # updates do not fit either
    policy = Policy(min_devices=DEVICES, quorum=DEVICES, soft_deadline_s=60, hard_deadline_s=60)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=1))
    async with (
        Mosquitto(SHORT_QUEUE) as broker,
        rig(
            federation, lambda: open_transport(broker.address, Credentials(), protocol=4), tmp_path
        ) as running,
    ):
        running.start_devices([ShiftTrainer(shift=1)] * DEVICES)
        await running.until(lambda: all(device._connection for device in running.devices.values()))
        running.start_aggregator()
        await running.ended(60)
        assert broker._folder is not None
        assert "being dropped for client" in Path(broker._folder.name, "log").read_text()
    assert [report.accepted for report in running.reports] == [DEVICES]
