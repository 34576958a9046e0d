"""A device whose link breaks in the middle of a long update, while everybody else is done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.errors import ConnectionLost
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import Rig, ShiftTrainer, rig
from fedmq.transport.memory import Abilities, MemoryBroker
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.transport.interface import Outgoing, Profile
    from fedmq.transport.memory import MemoryConnection

LONG = Layout((Variable("w", (8000,)),))
PACKET_BYTES, CHUNKS = 9000, 4
TORN = "fedmq:test:torn"


class TornLink(MemoryBroker):
    """A broker whose link to one device breaks at the third chunk of its update, and stays down until it is mended."""

    def __init__(self) -> None:
        super().__init__(abilities=Abilities(packet_bytes=PACKET_BYTES))
        self.mended = threading.Event()
        self.chunks = 0
        self.broke = False

    def route(self, outgoing: Outgoing) -> None:
        if "/up/torn/update/" in outgoing.topic:
            if self.chunks == 2 and not self.broke:
                self.broke = True
                self.cut(TORN)
                raise ConnectionLost("cut in the middle of an update")
            self.chunks += 1
        super().route(outgoing)

    async def connect(self, profile: Profile) -> MemoryConnection:
        if profile.identity == TORN and self.broke and not self.mended.is_set():
            raise ConnectionLost("the link is down")
        return await super().connect(profile)


def federation(grace_s: float) -> Federation:
    policy = Policy(quorum=1, soft_deadline_s=60, hard_deadline_s=60, grace_s=grace_s)
    encoding = Encoding(up=parse("float32"), chunk_bytes=8000)
    return Federation("test", policy=policy, encoding=encoding, stop=StopWhen(rounds=1))


async def tear(running: Rig, broker: TornLink) -> None:
    """Have the link broken in mid-update, and everybody else done after that."""
    gate = threading.Event()
    aggregator = running.start_aggregator()
    running.start_device("steady", ShiftTrainer(LONG, gate=lambda: gate.wait(20)))
    running.start_device("torn", ShiftTrainer(LONG))
    await running.until(lambda: broker.broke and "torn" not in aggregator._coordinator.present)
    gate.set()
    await running.until(lambda: running.devices["steady"].counters.verdicts.get("accepted"))


async def test_a_device_that_is_back_in_time_counts_and_sends_only_the_rest(tmp_path: Path) -> None:
    broker = TornLink()
    async with rig(federation(30.0), lambda: broker, tmp_path, LONG) as running:
        await tear(running, broker)
        assert not running.reports
        broker.mended.set()
        await running.ended()
    assert [report.accepted for report in running.reports] == [2]
    assert broker.chunks == CHUNKS


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
async def test_a_device_that_is_not_is_left_behind_long_before_the_deadline(
    tmp_path: Path, grace_s: float
) -> None:
    broker = TornLink()
    async with rig(federation(grace_s), lambda: broker, tmp_path, LONG) as running:
        await tear(running, broker)
        await running.until(lambda: running.reports)
    assert [report.accepted for report in running.reports] == [1]
