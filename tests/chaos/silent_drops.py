"""Thousands of updates into a queue that holds a part of them: the broker says "Success" and drops; none is missing.

The aggregator is gone while its fleet answers, and its queue at the broker has mosquitto's default length. When it
comes back it finds what fitted; everything else was acknowledged, and thrown away.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

from fedmq.aggregator.aggregator import REFRESH_S
from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy
from fedmq.protocol.posting import RECEIPT_PAUSE_S
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import DEFAULTS, NAME, Fleet, broker_log, fleet, names
from tests.chaos.ledger import Audit
from tests.chaos.row import Row

DEVICES: Final = 3_000
DEPTH: Final = 1_000
"""mosquitto's default for `max_queued_messages`."""
BATCH: Final = 100
"""Devices that connect at a time."""
QUICK_DEVICES: Final = 150
QUICK_DEPTH: Final = 30
QUICK_PAUSE_S: Final = 1.0
PATIENCE_S: Final = 300.0
GONE: Final = "are in no outbox and have no receipt"


@dataclass(frozen=True, slots=True)
class Flood:
    """What came of it: messages acknowledged, seconds from the aggregator's return to the round's end."""

    acknowledged: int
    accepted: int
    seconds: float
    sent: int
    dropped: bool
    found: Audit


async def run(*, quick: bool, seed: int) -> Row:
    """Flood the queue, bring the aggregator back, count."""
    devices, depth = (QUICK_DEVICES, QUICK_DEPTH) if quick else (DEVICES, DEPTH)
    with (
        patch("fedmq.protocol.posting.RECEIPT_PAUSE_S", QUICK_PAUSE_S if quick else RECEIPT_PAUSE_S),
        patch("fedmq.aggregator.aggregator.REFRESH_S", QUICK_PAUSE_S if quick else REFRESH_S),
    ):
        seen = await flood(devices, depth)
    return Row(
        promise="silent drops repaired: what the broker acknowledged and threw away is sent again",
        figure=f"{seen.acknowledged:,} updates acknowledged into a queue of {depth:,}, {seen.accepted:,} counted "
        f"{seen.seconds:.1f} s after the aggregator's return, in {seen.sent:,} messages; "
        f"{seen.found.said or 'none lost, none twice'}",
        goal=f"{devices:,} counted, each once",
        met=seen.accepted == seen.found.updates == devices and seen.dropped and not seen.found.violations,
        figures={
            "updates": float(devices),
            "counted": float(seen.accepted),
            "seconds": seen.seconds,
            "messages": float(seen.sent),
            "violations": float(len(seen.found.violations)),
        },
    )


async def flood(devices: int, depth: int, patience_s: float = PATIENCE_S) -> Flood:
    """Have every device answer while the aggregator is away."""
    policy = Policy(
        min_devices=devices, quorum=devices, soft_deadline_s=patience_s, hard_deadline_s=patience_s
    )
    settings = [line for line in DEFAULTS if not line.startswith("max_queued_messages")]
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        async with (
            Mosquitto([*settings, f"max_queued_messages {depth}"]) as broker,
            fleet(Federation(NAME, policy=policy), Path(folder), lambda _: broker.address) as running,
        ):
            running.pause = (barrier := asyncio.Barrier(devices + 1)).wait
            running.start_aggregator()
            for first in range(0, devices, BATCH):
                for name in names(devices)[first : first + BATCH]:
                    running.start_device(name)
                await running.until(lambda: running.linked == len(running.devices), patience_s, "every link")
            await running.until(lambda: barrier.n_waiting == devices, patience_s, "a task for all")
            await running.kill("aggregator")
            await barrier.wait()
            await running.until(
                lambda: all(device.sent.acknowledged for device in running.devices.values()),
                patience_s,
                "every acknowledgement",
            )
            acknowledged, began = running.sent.acknowledged, time.monotonic()
            running.start_aggregator()
            try:
                await running.until(lambda: running.reports, patience_s, "the end of the round")
            except TimeoutError as slow:
                raise TimeoutError(f"{slow}; {gone(running)} updates {GONE}") from None
            report, seconds = running.reports[0], time.monotonic() - began
            await running.until(
                lambda: all(device.accepted for device in running.devices.values()), 60, "every receipt"
            )
            dropped = "being dropped for client" in broker_log(broker)
            return Flood(
                acknowledged, report.accepted, seconds, running.sent.messages, dropped, running.audit()
            )


def gone(running: Fleet) -> int:
    """Return how many devices have neither their update nor a word on it."""
    waiting = (device for device in running.devices.values() if not device.counters.verdicts)
    return sum(not device._outbox.entries() for device in waiting)
