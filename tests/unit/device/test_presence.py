"""What a device does of all that the whole fleet would do at once: in its own moment, of the time that it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fedmq.device.device import Device, Identity
from fedmq.device.presence import REFRESH_S
from fedmq.protocol import participation as pa
from fedmq.protocol.messages import Beacon, Birth
from fedmq.protocol.pacing import LONGEST_S
from fedmq.testing.federation import ShiftTrainer
from fedmq.transport.interface import Profile
from fedmq.transport.memory import MemoryBroker
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from fedmq.transport.interface import Outgoing

pytestmark = pytest.mark.looptime

RUN = b"run-0001"


def beacon(epoch: int, spread_s: float = 0.0) -> Beacon:
    return Beacon(alive=True, run=RUN, epoch=epoch, spread_s=spread_s)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When devices came back to their updates."""
    times: list[float] = []

    def note(one: Device, event: pa.ParticipantEvent) -> None:
        if event != pa.Paced(one._presence.spread_s):
            assert event == pa.Connected()
            times.append(asyncio.get_running_loop().time())

    monkeypatch.setattr(Device, "_dispatch", note)
    return times


class Announced:
    """A connection that notes births, and when they came."""

    def __init__(self) -> None:
        self.births: list[tuple[float, Birth]] = []

    async def publish(self, outgoing: Outgoing) -> None:
        assert outgoing.retain
        self.births.append((asyncio.get_running_loop().time(), decode(outgoing.payload, Birth)))

    async def subscribe(self, *_: str) -> None:
        pass


def device(number: int = 0) -> Device:
    made = Device(Identity("test", f"device-{number}"), MemoryBroker(), ShiftTrainer())
    made._connection = Announced()  # type: ignore[assignment]  # there is one
    return made


async def test_a_fleet_comes_back_to_its_updates_one_after_the_other(told: list[float]) -> None:
    """All hear at once that the aggregator has begun another life."""
    begin = asyncio.get_running_loop().time()
    for number in range(200):
        one = device(number)
        one._presence.herald(beacon(1, 17.0), live=False)
        one._presence.herald(beacon(2, 17.0), live=True)
    await asyncio.sleep(20.0)
    passed = sorted(time - begin for time in told)
    assert len(passed) == 200
    assert passed[-1] <= 17.0
    assert max(sum(second <= time < second + 1 for time in passed) for second in range(17)) < 30


async def test_a_few_devices_come_back_at_once(told: list[float]) -> None:
    one = device()
    one._presence.herald(beacon(1), live=False)
    one._presence.herald(beacon(2), live=True)
    await asyncio.sleep(0.01)
    assert len(told) == 1


async def test_a_beacon_that_only_tells_another_time_is_no_new_life(told: list[float]) -> None:
    one = device()
    one._presence.herald(beacon(1), live=False)
    one._presence.herald(beacon(1, 17.0), live=True)
    await asyncio.sleep(20.0)
    assert (told, one._presence.spread_s) == ([], 17.0)


async def test_a_link_that_is_lost_meanwhile_ends_the_waiting(told: list[float]) -> None:
    one = device()
    one._presence.herald(beacon(1, 17.0), live=False)
    one._presence.herald(beacon(2, 17.0), live=True)
    one._connection = other = Announced()  # type: ignore[assignment]  # another one, which has done so itself
    await asyncio.sleep(20.0)
    assert (told, other.births) == ([], [])


async def test_a_device_that_was_stopped_does_not_come_back(told: list[float]) -> None:
    """The next life has its outbox by then."""
    one = device()
    one._presence.herald(beacon(1, 17.0), live=False)
    one._presence.herald(beacon(2, 17.0), live=True)
    await one._close()
    await asyncio.sleep(20.0)
    assert told == []


async def test_nobody_waits_for_days_whatever_a_beacon_says(told: list[float]) -> None:
    one = device()
    one._presence.herald(beacon(1, 1e8), live=False)
    assert one._presence.spread_s == LONGEST_S
    assert one._session._backoff.base_s == LONGEST_S
    assert told == []


async def test_the_waits_for_receipts_go_by_what_the_aggregator_tells() -> None:
    one = device()
    one._presence.herald(beacon(1, 1e8), live=False)
    assert one._participant._spread_s == LONGEST_S
    one._presence.herald(beacon(1, 17.0), live=True)
    assert one._participant._spread_s == 17.0


async def test_the_will_of_an_aggregator_tells_no_time(told: list[float]) -> None:
    one = device()
    one._presence.herald(beacon(1, 17.0), live=False)
    one._presence.herald(Beacon(alive=False, run=RUN, epoch=1), live=True)
    assert (one._presence.spread_s, told) == (17.0, [])


# --- births, again ----------------------------------------------------------------------------------------------------


async def test_a_fleet_announces_itself_again_to_an_aggregator_that_begins_anew(told: list[float]) -> None:
    """One after the other: the broker's queue for the aggregator need not hold as many births as there are devices."""
    begin, link = asyncio.get_running_loop().time(), Announced()
    for number in range(100):
        one = device(number)
        one._connection = link  # type: ignore[assignment]
        one._presence.herald(beacon(1, 17.0), live=False)
        one._presence.herald(beacon(2, 17.0), live=True)
    await asyncio.sleep(20.0)
    assert len(told) == len(link.births) == 100
    assert all(birth.alive for _, birth in link.births)
    passed = [time - begin for time, _ in link.births]
    assert max(sum(second <= time < second + 1 for time in passed) for second in range(17)) < 20


async def test_a_device_that_comes_after_the_aggregator_has_announced_itself_already(
    told: list[float],
) -> None:
    one = device()
    one._connection = link = Announced()  # type: ignore[assignment]  # all of a connection that is used
    one._presence.herald(beacon(1, 17.0), live=False)
    await asyncio.sleep(20.0)
    assert (told, link.births) == ([], [])


async def test_after_a_long_silence_devices_announce_themselves_again_at_different_times(
    told: list[float],
) -> None:
    """Their births may have been dropped, all at the same moment."""
    begin, links, looks = asyncio.get_running_loop().time(), [], []
    for number in range(20):
        one = device(number)
        one._presence._clock = asyncio.get_running_loop().time
        one._presence._heard = begin
        one._connection = link = Announced()  # type: ignore[assignment]  # all of a connection that is used
        links.append(link)
        looks.append(asyncio.create_task(one._presence.refresh_forever()))
    await asyncio.sleep(1.5 * REFRESH_S + 1.0)
    for look in looks:
        look.cancel()
    passed = [link.births[0][0] - begin for link in links]
    assert min(passed) >= REFRESH_S
    assert max(passed) - min(passed) > 0.25 * REFRESH_S
    assert told == []


async def test_while_something_comes_there_is_no_silence() -> None:
    one = device()
    one._presence._clock = asyncio.get_running_loop().time
    one._connection = link = Announced()  # type: ignore[assignment]  # all of a connection that is used
    looking = asyncio.create_task(one._presence.refresh_forever())
    for _ in range(10):
        one._on_messages([])
        await asyncio.sleep(0.5 * REFRESH_S)
    assert link.births == []
    await asyncio.sleep(3.0 * REFRESH_S)
    looking.cancel()
    assert link.births


async def test_a_device_that_leaves_has_the_last_word() -> None:
    broker = MemoryBroker()
    one = Device(Identity("test", "device-0"), broker, ShiftTrainer())
    running = asyncio.create_task(one.run())
    while one._connection is None:
        await asyncio.sleep(0.01)
    watcher = await broker.connect(Profile("watcher"))
    await watcher.subscribe(one.topics.status("device-0"))
    one._presence.herald(beacon(1, 0.001), live=False)
    one._presence.herald(beacon(2, 0.001), live=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(1.0)
    words = [decode(message.payload, Birth).alive for message in await watcher.receive()]
    assert words[-1] is False
    assert decode(broker.retained("#")[one.topics.status("device-0")], Birth).alive is False
