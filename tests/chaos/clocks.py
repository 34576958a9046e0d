"""Devices whose clocks are ten years off, or jump: nothing on the wire and in the model hangs on them.

Every look at the system's clock in this process gives another time, up to ten years to either side, for the aggregator
too: who uses it for a decision would be found by what comes of it. Time that only goes forward is another clock
(``time.monotonic``), which no setting of the date touches.
"""

from __future__ import annotations

import ast
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import fedmq
from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.memory import MemoryBroker
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

YEARS_S: Final = 10 * 365.25 * 86_400
POLICY: Final = Policy(min_devices=3, quorum=3, soft_deadline_s=60, hard_deadline_s=60)
PACKAGES: Final = (
    "protocol",
    "wire",
    "device",
    "aggregator",
    "transport",
    "store",
    "rules",
    "codecs",
    "algorithms",
)
ALLOWED: Final = frozenset({"device/metering.py"})
"""Counts a link's bytes by the day, where a device is told to: its own day, and nobody else's business."""
WALL: Final = frozenset({"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today"})


def readers() -> Iterator[str]:
    """Yield where the package reads a clock that people set."""
    root = Path(fedmq.__file__).parent
    for path in sorted(path for name in PACKAGES for path in (root / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if _reads_a_clock(node):
                yield f"{path.relative_to(root)}:{node.lineno}"  # type: ignore[attr-defined]


def _reads_a_clock(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(alias.name in WALL for alias in node.names)
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return node.value.id in {"time", "datetime", "date"} and node.attr in WALL


async def course(rounds: int) -> tuple[bytes, int, int]:
    """Run a small federation; return the model, and how many updates were accepted and received."""
    broker, policy = MemoryBroker(), POLICY
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation("test", policy=policy, stop=StopWhen(rounds=rounds))
        async with rig(federation, lambda: broker, Path(folder)) as running:
            running.start_aggregator()
            running.start_devices([ShiftTrainer(shift=shift) for shift in (1, 2, 3)])
            await running.ended()
            accepted = sum(report.accepted for report in running.reports)
            received = sum(report.received for report in running.reports)
            return running.model.tobytes(), accepted, received


async def run(*, quick: bool, seed: int) -> Row:
    """Run the same federation by good clocks and by wild ones."""
    rounds, random, real = 3 if quick else 30, Random(seed), time.time
    good = await course(rounds)
    with patch.object(time, "time", lambda: real() + random.uniform(-YEARS_S, YEARS_S)):
        wild = await course(rounds)
    found = [place for place in readers() if place.partition(":")[0] not in ALLOWED]
    return Row(
        promise="wrong clocks do no harm",
        figure=f"the same model after {rounds} rounds, {wild[1]} of {wild[2]} updates accepted; "
        f"{len(found)} places read a clock that people set{': ' if found else ''}{', '.join(found)}",
        goal="the same bytes, 0 places",
        met=good == wild and wild[1] == wild[2] == 3 * rounds and not found,
        figures={"rounds": rounds, "accepted": wild[1], "same": good[0] == wild[0], "places": len(found)},
    )
