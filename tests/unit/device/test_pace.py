"""What a device does of all that the whole fleet would do at once: in its own moment, of the time that it is told."""

from __future__ import annotations

import asyncio

import pytest

from fedmq.device.device import Device, Identity
from fedmq.protocol import participation as pa
from fedmq.protocol.messages import Beacon
from fedmq.protocol.pacing import LONGEST_S
from fedmq.testing.federation import ShiftTrainer
from fedmq.transport.memory import MemoryBroker

pytestmark = pytest.mark.looptime

RUN = b"run-0001"


def beacon(epoch: int, spread_s: float = 0.0) -> Beacon:
    return Beacon(alive=True, run=RUN, epoch=epoch, spread_s=spread_s)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When devices came back to their updates."""
    times: list[float] = []

    def note(_: Device, event: pa.ParticipantEvent) -> None:
        assert event == pa.Connected()
        times.append(asyncio.get_running_loop().time())

    monkeypatch.setattr(Device, "_dispatch", note)
    return times


def device(number: int = 0) -> Device:
    made = Device(Identity("test", f"device-{number}"), MemoryBroker(), ShiftTrainer())
    made._connection = object()  # type: ignore[assignment]  # there is one
    return made


async def test_a_fleet_comes_back_to_its_updates_one_after_the_other(told: list[float]) -> None:
    """All hear at once that the aggregator has begun another life."""
    begin = asyncio.get_running_loop().time()
    for number in range(200):
        one = device(number)
        one._herald(beacon(1, 17.0), live=False)
        one._herald(beacon(2, 17.0), live=True)
    await asyncio.sleep(20.0)
    passed = sorted(time - begin for time in told)
    assert len(passed) == 200
    assert passed[-1] <= 17.0
    assert max(sum(second <= time < second + 1 for time in passed) for second in range(17)) < 30


async def test_a_few_devices_come_back_at_once(told: list[float]) -> None:
    one = device()
    one._herald(beacon(1), live=False)
    one._herald(beacon(2), live=True)
    await asyncio.sleep(0.01)
    assert len(told) == 1


async def test_a_beacon_that_only_tells_another_time_is_no_new_life(told: list[float]) -> None:
    one = device()
    one._herald(beacon(1), live=False)
    one._herald(beacon(1, 17.0), live=True)
    await asyncio.sleep(20.0)
    assert (told, one._spread_s) == ([], 17.0)


async def test_a_link_that_is_lost_meanwhile_ends_the_waiting(told: list[float]) -> None:
    one = device()
    one._herald(beacon(1, 17.0), live=False)
    one._herald(beacon(2, 17.0), live=True)
    one._connection = object()  # type: ignore[assignment]  # another one, which has done so itself
    await asyncio.sleep(20.0)
    assert told == []


async def test_a_device_that_was_stopped_does_not_come_back(told: list[float]) -> None:
    """The next life has its outbox by then."""
    one = device()
    one._herald(beacon(1, 17.0), live=False)
    one._herald(beacon(2, 17.0), live=True)
    await one._close()
    await asyncio.sleep(20.0)
    assert told == []


async def test_nobody_waits_for_days_whatever_a_beacon_says(told: list[float]) -> None:
    one = device()
    one._herald(beacon(1, 1e8), live=False)
    assert one._spread_s == LONGEST_S
    assert one._session._backoff.base_s == LONGEST_S
    assert told == []


async def test_the_will_of_an_aggregator_tells_no_time(told: list[float]) -> None:
    one = device()
    one._herald(beacon(1, 17.0), live=False)
    one._herald(Beacon(alive=False, run=RUN, epoch=1), live=True)
    assert (one._spread_s, told) == (17.0, [])
