"""A fleet under bad weather for as long as one likes: memory flat, nothing leaked, every round accounted for.

    python -m tests.chaos.soak --minutes 10 --seed 1

Links are cut and go silent all the time; every few seconds somebody is killed or stopped, and started again: the
broker, the aggregator, a device. Fleet and aggregator share the process that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import NAME, PERSISTENT, Fleet, fleet, names
from tests.chaos.ledger import Audit
from tests.chaos.row import Row
from tests.chaos.weather import Forecast, Weather

DEVICES: Final = 200
MINUTES: Final = 30.0
QUICK_DEVICES: Final = 20
QUICK_MINUTES: Final = 0.1
FORECAST: Final = Forecast(latency_s=0.01, jitter_s=0.02, cut=0.2, stall=0.02)
PAUSE_S: Final = (0.5, 6.0)
"""From one fault to the next; the links' own come on top."""
TRAINING_S: Final = 2.0
SAMPLE_S: Final = 2.0
WARM: Final = 0.4
"""Share of the time that is left out of the slope: caches fill, the allocator finds its size."""
GOAL_MB_PER_HOUR: Final = 20.0
GOAL_TASKS: Final = 10
GOAL_FILES: Final = 10
CALM_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds: seconds since the start, resident bytes, tasks of the event loop, open files."""

    seconds: float
    resident: int
    tasks: int
    files: int


@dataclass(slots=True)
class Soaked:
    """What came of it; `before` and `after` are calm moments with every link up."""

    before: Sample
    after: Sample
    samples: list[Sample] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    found: Audit = field(default_factory=Audit)
    rounds: int = 0
    received: int = 0
    verdicts: int = 0

    @property
    def mb_per_hour(self) -> float:
        """The slope of the resident memory after the warm-up."""
        late = self.samples[int(len(self.samples) * WARM) :]
        seconds, resident = zip(*((sample.seconds, sample.resident) for sample in late), strict=True)
        return float(np.polyfit(seconds, resident, 1)[0]) * 3600 / 1e6


async def run(*, quick: bool, seed: int) -> Row:
    """Soak for as long as the form takes."""
    devices, minutes = (QUICK_DEVICES, QUICK_MINUTES) if quick else (DEVICES, MINUTES)
    return row(await soak(devices, minutes, seed), devices, minutes, sloped=not quick)


def row(seen: Soaked, devices: int, minutes: float, *, sloped: bool) -> Row:
    """Say what came of it. A run of seconds has no slope to speak of."""
    tasks, files = seen.after.tasks - seen.before.tasks, seen.after.files - seen.before.files
    slope = seen.mb_per_hour if sloped else 0.0
    faults = ", ".join(f"{count} {what}" for what, count in sorted(seen.faults.items()))
    return Row(
        promise="soak: memory flat, no task or file descriptor leaked, every round accounted for",
        figure=f"{devices} devices, {minutes:g} minutes ({faults}): "
        + (f"memory {slope:+.1f} MB an hour at {seen.after.resident / 1e6:.0f} MB, " if sloped else "")
        + f"{tasks:+d} tasks, {files:+d} files; {seen.rounds} rounds, {seen.received:,} updates received, "
        f"{seen.verdicts:,} verdicts; {seen.found.said or 'none lost, none twice'}",
        goal=f"at most {GOAL_MB_PER_HOUR:.0f} MB an hour, {GOAL_TASKS} tasks and {GOAL_FILES} files more; received = "
        "accepted + duplicate + late + rejected; no violation",
        met=slope <= GOAL_MB_PER_HOUR
        and tasks <= GOAL_TASKS
        and files <= GOAL_FILES
        and seen.received == seen.verdicts
        and not seen.found.violations,
        figures={
            "mb_per_hour": slope,
            "resident_mb": seen.after.resident / 1e6,
            "tasks": float(tasks),
            "files": float(files),
            "rounds": float(seen.rounds),
            "received": float(seen.received),
            "faults": float(seen.faults.total()),
            "violations": float(len(seen.found.violations)),
        },
    )


async def soak(devices: int, minutes: float, seed: int) -> Soaked:
    """Let a federation live under faults, and measure it."""
    random, luck = Random(f"soak {seed}"), Random(f"trainings {seed}")
    policy = Policy(min_devices=devices // 2, quorum=devices // 4, soft_deadline_s=10, hard_deadline_s=20)
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        async with (
            Mosquitto(PERSISTENT) as broker,
            Weather(broker.port, FORECAST, seed=seed) as weather,
            fleet(
                Federation(NAME, policy=policy),
                Path(folder),
                lambda _: weather.address,
                pause=lambda: asyncio.sleep(luck.uniform(0.0, TRAINING_S)),
            ) as running,
        ):
            running.start_aggregator()
            for name in names(devices):
                running.start_device(name)
            before = await calm(running, weather)
            seen = Soaked(before, before)
            await storm(Trouble(running, broker, weather, random, seen), minutes * 60)
            seen.faults["cut links"], seen.faults["silent links"] = weather.seen.cuts, weather.seen.stalls
            seen.after = await calm(running, weather)
            seen.found = running.audit()
            seen.rounds = len(running.reports)
            for report in running.reports:
                seen.received += report.received
                seen.verdicts += report.accepted + report.duplicate + report.late + report.rejected
            return seen


async def calm(running: Fleet, weather: Weather) -> Sample:
    """Let nothing go wrong until every link is up and a round has passed; then look."""
    weather.forecast, forecast = Forecast(), weather.forecast
    await running.until(lambda: running.linked == len(running.devices), CALM_S, "every link")
    rounds = len(running.reports)
    await running.until(lambda: len(running.reports) >= rounds + 1, CALM_S, "a calm round")
    gc.collect()
    tasks, least = kinds(), sample(0.0)
    while len(running.reports) < rounds + 3:
        tasks &= kinds()  # what comes and goes, as with each training, is none of the least
        await asyncio.sleep(0.02)
    weather.forecast = forecast
    return replace(least, tasks=tasks.total())


def kinds() -> Counter[str]:
    """Return how many tasks there are of each kind."""
    return Counter(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())


async def storm(trouble: Trouble, seconds: float) -> None:
    """Make trouble for so long, and take samples."""
    began = time.monotonic()
    making = asyncio.create_task(trouble.make_forever())
    try:
        while (passed := time.monotonic() - began) < seconds:
            done, _ = await asyncio.wait({making}, timeout=min(SAMPLE_S, seconds - passed))
            if done:
                making.result()
            trouble.seen.samples.append(sample(time.monotonic() - began))
    finally:
        trouble.over = True
        await asyncio.gather(making)


class Trouble:
    """Whatever can happen to a party."""

    def __init__(
        self, running: Fleet, broker: Mosquitto, weather: Weather, random: Random, seen: Soaked
    ) -> None:
        self.running, self.broker, self.weather, self.random, self.seen = (
            running,
            broker,
            weather,
            random,
            seen,
        )
        self.over = False

    async def make_forever(self) -> None:
        """Make trouble until it is over, and leave everybody alive."""
        kinds = {
            "device kills": (self.kill_device, 8),
            "device restarts": (self.restart_device, 4),
            "aggregator kills": (self.kill_aggregator, 2),
            "broker kills": (self.kill_broker, 1),
            "blackouts": (self.black_out, 1),
        }
        while not self.over:
            await asyncio.sleep(self.random.uniform(*PAUSE_S))
            (what,) = self.random.choices(list(kinds), [weight for _, weight in kinds.values()])
            self.seen.faults[what] += 1
            await kinds[what][0]()

    async def kill_device(self) -> None:
        """Kill a device and start it again."""
        name = self.random.choice(sorted(self.running.devices))
        await self.running.kill(name)
        await asyncio.sleep(self.random.uniform(0.0, 1.0))
        self.running.start_device(name)

    async def restart_device(self) -> None:
        """Stop a device in good order and start it again."""
        name = self.random.choice(sorted(self.running.devices))
        await self.running.stop(name)
        self.running.start_device(name)

    async def kill_aggregator(self) -> None:
        """Kill the aggregator and start it again."""
        await self.running.kill("aggregator")
        self.running.start_aggregator()

    async def kill_broker(self) -> None:
        """Kill the broker and start it again."""
        await self.broker.kill()
        await asyncio.sleep(self.random.uniform(0.0, 1.0))
        await self.broker.start()

    async def black_out(self) -> None:
        """Cut every link at once."""
        self.weather.cut()


def sample(seconds: float) -> Sample:
    """Look at this process."""
    return Sample(seconds, resident_bytes(), len(asyncio.all_tasks()), open_files())


def resident_bytes() -> int:
    """Return this process's resident memory; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def open_files() -> int:
    """Return how many files and sockets this process has open; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- names are enough
    return 0


def main() -> int:
    """Soak as long as one was told to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long (default: %(default)g)")
    parser.add_argument("--devices", type=int, default=DEVICES, help="how many (default: %(default)d)")
    parser.add_argument("--seed", type=int, default=0, help="for everything that is random")
    given = parser.parse_args()
    seen = asyncio.run(soak(given.devices, given.minutes, given.seed))
    told = row(seen, given.devices, given.minutes, sloped=given.minutes >= 1)
    sys.stdout.write(json.dumps(asdict(told), indent=2) + "\n")
    each = max(1, len(seen.samples) // 20)
    for one in seen.samples[::each]:
        sys.stdout.write(
            f"{one.seconds:7.0f} s  {one.resident / 1e6:7.1f} MB  {one.tasks:6} tasks  {one.files:6} files\n"
        )
    return int(not told.met)


if __name__ == "__main__":
    sys.exit(main())
