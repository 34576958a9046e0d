"""A thousand devices after their broker was away: how many come back in one second, and when the last one does."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import BrokerRefused, ConnectionLost, TransportError
from fedmq.protocol.pacing import spread_s
from fedmq.transport.interface import Profile
from fedmq.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.transport.interface import Message

pytestmark = pytest.mark.looptime

DEVICES = 1000
SECONDS = 60.0
MOST = 100


class Broker:
    """Takes connections but while it is away, and refuses so many when it comes back; notes when each was asked for."""

    address = "mqtt://broker"

    def __init__(self, refusals: int) -> None:
        self.away: TransportError | None = None
        self.refusals = refusals
        self.asked: list[float] = []
        self.back: list[float] = []
        self.links: list[Link] = []

    async def connect(self, _: Profile) -> Link:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if self.away is not None:
            raise self.away
        if len(self.links) >= DEVICES and self.refusals:
            self.refusals -= 1
            raise BrokerRefused("the broker is busy", code=0x89)
        self.back.append(now)
        self.links.append(Link())
        return self.links[-1]

    def fall(self) -> None:
        self.away = ConnectionLost("connection refused")
        self.asked, self.back = [], []
        for link in self.links:
            link.cut.set()


class Link:
    """A connection on which nothing comes until it is cut."""

    def __init__(self) -> None:
        self.cut = asyncio.Event()

    async def receive(self) -> Sequence[Message]:
        await self.cut.wait()
        raise ConnectionLost("the connection was cut")

    async def close(self) -> None:
        pass


async def nothing(_: object) -> None:
    pass


def most_in_a_second(times: list[float]) -> int:
    times = sorted(times)
    return max(sum(1 for time in times if begin <= time < begin + 1.0) for begin in times[::5])


async def comeback(spread: float | None, away_s: float, refusals: int = 0) -> tuple[int, float]:
    """Return the most CONNECTs in any second, and when the last device was back, from the broker's return on."""
    broker = Broker(refusals)
    sessions = []
    for number in range(DEVICES):
        profile = Profile(f"device-{number}")
        session = Session(
            broker,  # type: ignore[arg-type]  # half a transport
            profile,
            on_connected=nothing,
            on_messages=nothing,
            random=Random(number),
        )
        if spread is not None:
            session.pace(spread)
        sessions.append(asyncio.create_task(session.run()))
    while len(broker.back) < DEVICES:
        await asyncio.sleep(1.0)
    await asyncio.sleep(SECONDS)
    begin = asyncio.get_running_loop().time() + away_s
    broker.fall()
    await asyncio.sleep(away_s)
    broker.away = None
    while len(broker.back) < DEVICES:
        await asyncio.sleep(1.0)
    for running in sessions:
        running.cancel()
    await asyncio.gather(*sessions, return_exceptions=True)
    return most_in_a_second([time for time in broker.asked if time >= begin]), max(broker.back) - begin


@pytest.mark.parametrize(
    ("away_s", "refusals"),
    [
        pytest.param(0.1, 0, marks=pytest.mark.slow),
        pytest.param(5.0, 0, marks=pytest.mark.slow),
        pytest.param(30.0, 0, marks=pytest.mark.slow),
        (2.0, 300),
    ],
)
async def test_a_thousand_devices_come_back_one_after_the_other(away_s: float, refusals: int) -> None:
    most, last = await comeback(spread_s(DEVICES), away_s, refusals)
    assert (most <= MOST, last <= SECONDS) == (True, True), (most, last)


@pytest.mark.slow
async def test_without_a_word_from_the_aggregator_they_come_all_at_once() -> None:
    most, _ = await comeback(None, 0.1)
    assert most > 5 * MOST
