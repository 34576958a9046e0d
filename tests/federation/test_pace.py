"""The aggregator tells how large the fleet is, as devices come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.aggregator.settings import Federation
from fedmq.protocol.messages import Beacon, Birth
from fedmq.protocol.policy import Policy
from fedmq.testing.federation import SMALL, rig
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.memory import MemoryBroker
from fedmq.wire.envelope import decode, encode
from fedmq.wire.topics import Topics

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOPICS = Topics("test")


async def test_a_beacon_follows_the_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmq.aggregator.aggregator.PACE_S", 0.02)
    broker = MemoryBroker()
    policy = Policy(min_devices=300, quorum=1, soft_deadline_s=60, hard_deadline_s=60)

    def told() -> Beacon:
        return decode(broker.retained(TOPICS.beacon)[TOPICS.beacon], Beacon)

    async with rig(Federation("test", policy=policy), lambda: broker, tmp_path) as running:
        running.start_aggregator()
        await running.until(lambda: broker.retained(TOPICS.beacon))
        await running.until(lambda: told().alive)
        assert told().spread_s == 0
        epoch = told().epoch
        connection = await broker.connect(Profile("births"))
        birth = encode(Birth(alive=True, session=1, layout=SMALL.digest))
        for number in range(300):
            await connection.publish(Outgoing(TOPICS.status(f"device-{number}"), birth, retain=True))
        await running.until(lambda: told().spread_s >= 4)
        assert told().epoch == epoch  # nobody is to think that the aggregator has begun anew
        await connection.close()
