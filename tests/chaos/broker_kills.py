"""The broker is killed in mid-round, with mosquitto's default persistence: every round still ends with every device.

What mosquitto held it has lost, as it saves only each half hour. One save is forced early on, so that it comes back
each time with tasks and models that are long over: those must take nobody back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import NAME, PERSISTENT, Fleet, fleet, names
from tests.chaos.ledger import Audit
from tests.chaos.row import Row

DEVICES: Final = 200
KILLS: Final = 20
FLEETS: Final = 4
"""Fleets that share the kills, side by side: most of the time is waiting."""
QUICK_DEVICES: Final = 20
QUICK_KILLS: Final = 2
APART_S: Final = 31.0
"""From a broker's return to its next death. A device that loses link after link waits longer each time, until one has
lasted for half a minute; that is meant for brokers that keep dying, and not what is measured here."""
GOAL_S: Final = 30.0
SAVED_AT: Final = 2
"""Round after which the broker saves what it holds; to this it comes back."""
DOWN_S: Final = (0.2, 2.0)
TRAINING_S: Final = 3.0


async def run(*, quick: bool, seed: int) -> Row:
    """Kill the broker again and again, and see how long the open round takes from there."""
    devices, kills = (QUICK_DEVICES, QUICK_KILLS) if quick else (DEVICES, KILLS)
    fleets, training_s, apart_s = (1, 0.5, 0.0) if quick else (FLEETS, TRAINING_S, APART_S)
    storms = [
        storm(devices, kills // fleets, seed * fleets + number, training_s=training_s, apart_s=apart_s)
        for number in range(fleets)
    ]
    seen = await asyncio.gather(*storms)
    ends = sorted(end for each, _ in seen for end in each)
    said = "; ".join(found.said for _, found in seen if found.said)
    rounds, updates = (sum(getattr(found, name) for _, found in seen) for name in ("rounds", "updates"))
    return Row(
        promise="broker killed with default persistence: the round ends with every live device counted",
        figure=f"{kills} kills in mid-round, {devices} devices: the rounds ended with all of them, at most "
        f"{ends[-1]:.1f} s after the kill (median {median(ends):.1f} s); {updates:,} updates counted in {rounds} "
        f"rounds, {said or 'none lost, none twice, no step back'}",
        goal=f"all {devices} counted, at most {GOAL_S:.0f} s after the kill; no violation",
        met=ends[-1] <= GOAL_S and not said and updates == devices * rounds,
        figures={
            "kills": float(kills),
            "worst_s": ends[-1],
            "median_s": median(ends),
            "rounds": float(rounds),
            "updates": float(updates),
            "violations": float(sum(len(found.violations) for _, found in seen)),
        },
    )


async def storm(
    devices: int, kills: int, seed: int, *, training_s: float, apart_s: float = 0.0, patience_s: float = 240.0
) -> tuple[list[float], Audit]:
    """Return the seconds from each kill to the end of the round that it struck, and the audit."""
    random, luck = Random(f"broker kills {seed}"), Random(f"trainings {seed}")
    gate = asyncio.Event()
    gate.set()

    async def pause() -> None:
        await gate.wait()
        await asyncio.sleep(luck.uniform(0.0, training_s))

    policy = Policy(min_devices=devices, quorum=1, soft_deadline_s=patience_s, hard_deadline_s=patience_s)
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        async with (
            Mosquitto(PERSISTENT) as broker,
            fleet(
                Federation(NAME, policy=policy),
                Path(folder),
                lambda _: broker.address,
                pause=pause,
            ) as running,
        ):
            running.start_aggregator()
            for name in names(devices):
                running.start_device(name)
            await running.until(lambda: len(running.reports) >= SAVED_AT, patience_s, "the first rounds")
            await save(broker, running)
            ends = []
            for _ in range(kills):
                gate.clear()  # devices wait: rounds in between would only keep the machine busy
                await asyncio.sleep(apart_s)
                gate.set()
                ends.append(await strike(broker, running, random, patience_s))
            found = running.audit()
            twice = found.told["duplicate"]
            found.require(not twice, f"{twice} times a device trained for a round that it had answered")
            return ends, found


async def save(broker: Mosquitto, running: Fleet) -> None:
    """Have the broker save what it holds, and let the federation move on from there."""
    os.kill(broker.pid, signal.SIGUSR1)
    await running.until(lambda: len(running.reports) >= SAVED_AT + 2, 60, "rounds after the broker's save")


async def strike(broker: Mosquitto, running: Fleet, random: Random, patience_s: float) -> float:
    """Kill the broker at some moment of a round, start it again, and see the round to its end."""
    devices, share = len(running.devices), random.uniform(0.02, 0.98)
    await running.until(
        lambda: share * devices <= running.accepted < devices,
        patience_s,
        f"{share:.0%} of a round",
    )
    struck = running.round
    await broker.kill()
    killed = time.monotonic()
    await asyncio.sleep(random.uniform(*DOWN_S))
    await broker.start()
    await running.until(
        lambda: any(report.round == struck for report in running.reports), patience_s, "the end of the round"
    )
    return time.monotonic() - killed
