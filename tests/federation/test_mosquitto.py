"""Aggregator and devices over a real mosquitto, MQTT 5 and 3.1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.address import Credentials, open_transport
from fedmq.transport.embedded import Embedded
from fedmq.transport.mosquitto import private_mosquitto
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.broker

LAYOUT = Layout((Variable("w", (60_000,)), Variable("b", (17,))))


@pytest.mark.parametrize("protocol", [4, 5])
async def test_rounds_over_a_real_broker(tmp_path: Path, protocol: Literal[4, 5]) -> None:
    policy = Policy(min_devices=5, quorum=5, soft_deadline_s=60, hard_deadline_s=60)
    encoding = Encoding(up=parse("float32"), down=parse("float32"), keyframe_every=2, chunk_bytes=50_000)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=4), encoding=encoding)
    async with private_mosquitto() as broker:

        def transport() -> object:
            return open_transport(broker.address, Credentials(), protocol=protocol)

        async with rig(federation, transport, tmp_path, LAYOUT) as running:  # type: ignore[arg-type]
            running.start_aggregator()
            running.start_devices([ShiftTrainer(LAYOUT, shift=shift) for shift in (1, 2, 3, 4, 5)])
            await running.ended(60)
    np.testing.assert_array_equal(running.model, np.full(LAYOUT.size, 12, np.float32))
    assert [report.accepted for report in running.reports] == [5] * 4


async def test_a_broker_killed_in_mid_federation_is_survived(tmp_path: Path) -> None:
    policy = Policy(min_devices=3, quorum=3, soft_deadline_s=60, hard_deadline_s=60)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=6))
    async with (
        private_mosquitto() as broker,
        rig(federation, lambda: open_transport(broker.address, Credentials()), tmp_path) as running,
    ):
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 3)])
        await running.until(lambda: len(running.reports) >= 2)
        await broker.kill()
        await broker.start()
        await running.ended(90)
    np.testing.assert_array_equal(running.model, np.full(21, 12, np.float32))
    assert all(report.accepted == 3 for report in running.reports)


async def test_rounds_over_the_embedded_broker(tmp_path: Path) -> None:
    """The demo's default where mosquitto is not installed; it is choosy about client identifiers, for one."""
    policy = Policy(min_devices=5, quorum=5, soft_deadline_s=60, hard_deadline_s=60)
    federation = Federation("test", policy=policy, stop=StopWhen(rounds=3))
    async with (
        Embedded() as broker,
        rig(federation, lambda: open_transport(broker.address, Credentials()), tmp_path) as running,
    ):
        running.start_aggregator()
        running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 3, 4, 5)])
        await running.ended(60)
    np.testing.assert_array_equal(running.model, np.full(21, 9, np.float32))
