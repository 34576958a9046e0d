"""The aggregator tells how large the fleet is, as devices come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmq.aggregator.settings import Federation
from fedmq.protocol.messages import Beacon, Birth
from fedmq.protocol.policy import Policy
from fedmq.store.checkpoint import CheckpointFolder
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
    policy = Policy(min_devices=2, quorum=1, soft_deadline_s=60, hard_deadline_s=60)

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
        await running.until(lambda: saved_fleet(tmp_path) >= 200)
        await running.stop("aggregator")
        for number in range(300):
            await connection.publish(Outgoing(TOPICS.status(f"device-{number}"), b"", retain=True))
        running.start_aggregator()
        await running.until(lambda: told().alive and told().epoch > epoch)
        assert told().spread_s >= 4  # although nobody has been announced yet
        await connection.close()


def saved_fleet(folder: Path) -> int:
    kept = CheckpointFolder(folder).load()
    return kept[0].progress.fleet if kept else 0


async def test_an_aggregator_that_waits_for_devices_calls_them_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their births may have been dropped, by a queue that has no room for them at any time."""
    monkeypatch.setattr("fedmq.aggregator.aggregator.REFRESH_S", 0.02)
    monkeypatch.setattr("fedmq.aggregator.aggregator.LONGEST_REFRESH_S", 0.04)
    broker = MemoryBroker()
    epochs: list[int] = []
    async with rig(Federation("test"), lambda: broker, tmp_path) as running:
        connection = await broker.connect(Profile("watcher"))
        await connection.subscribe(TOPICS.beacon)
        running.start_aggregator()
        while len(set(epochs)) < 4:
            epochs += [decode(each.payload, Beacon).epoch for each in await connection.receive()]
        await connection.close()
    assert epochs == sorted(epochs)
