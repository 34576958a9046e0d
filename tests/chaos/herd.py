"""A broker restarts under a thousand devices: they come back within a minute, and do not trample it down.

While the broker is down there is nobody to trample: what counts are the attempts that are due from its return on.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import NAME, PERSISTENT, fleet, names
from tests.chaos.row import Row
from tests.chaos.weather import Weather

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES: Final = 1_000
QUICK_DEVICES: Final = 100
DOWN_S: Final = 2.0
QUICK_DOWN_S: Final = 0.3
GOAL_PER_S: Final = 100
GOAL_S: Final = 60.0
BATCH: Final = 50


@dataclass(frozen=True, slots=True)
class Return:
    """How a fleet came back: the busiest second, when the last device was there, CONNECTs in all.

    peak: by when the devices wanted to connect. arrived: by when the proxy saw them. They share a process here, and
    where that has to wait for its processor, many come at once that had not meant to.
    """

    peak: int
    arrived: int
    seconds: float
    connects: int


async def run(*, quick: bool, seed: int) -> Row:
    """Restart the broker and watch."""
    devices = QUICK_DEVICES if quick else DEVICES
    seen = await stampede(devices, seed, QUICK_DOWN_S if quick else DOWN_S)
    return Row(
        promise="no thundering herd: after a broker restart the fleet comes back evenly",
        figure=f"{devices:,} devices: at most {seen.peak} CONNECTs due in any second (arrived: {seen.arrived}), "
        f"all back {seen.seconds:.1f} s after the restart, {seen.connects:,} CONNECTs in all",
        goal=f"at most {GOAL_PER_S} CONNECTs in any second, all back within {GOAL_S:.0f} s",
        met=seen.peak <= GOAL_PER_S and seen.seconds <= GOAL_S,
        figures={
            "peak_per_s": float(seen.peak),
            "arrived_per_s": float(seen.arrived),
            "back_s": seen.seconds,
            "connects": float(seen.connects),
        },
    )


async def stampede(devices: int, seed: int, down_s: float) -> Return:
    """Take the broker away from under a fleet, give it back, and wait for all."""
    policy = Policy(min_devices=devices + 1, quorum=1)  # no round opens: nothing but links is at work
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        async with (
            Mosquitto(PERSISTENT) as broker,
            Weather(broker.port, seed=seed) as weather,
            fleet(Federation(NAME, policy=policy), Path(folder), lambda _: weather.address) as running,
        ):
            running.start_aggregator()
            for first in range(0, devices, BATCH):
                for name in names(devices)[first : first + BATCH]:
                    running.start_device(name)
                await running.until(lambda: running.linked == len(running.devices), 120, "every link")
            await broker.kill()
            await asyncio.sleep(down_s)
            before = len(weather.seen.connects)
            await broker.start()
            began = time.monotonic()
            await running.until(lambda: running.linked == devices, 300, "every device's return")
            seconds = time.monotonic() - began
            connects = weather.seen.connects[before:]
            due = sorted(at for device in running.devices.values() for at in device.due if at >= began)
            return Return(busiest(due), busiest(connects), seconds, len(connects))


def busiest(times: Sequence[float], window_s: float = 1.0) -> int:
    """Return how many of the times, which are in order, lie within one window at the most."""
    most = first = 0
    for last, time_s in enumerate(times):
        while times[first] <= time_s - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most
