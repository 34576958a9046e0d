"""After a run in which everything went wrong, `fedmq replay` makes every model again; and nothing is kept unasked.

The federation loses, doubles and mixes up messages, its links break, and aggregator and devices are stopped in
mid-round. Where updates are kept, the command has to give each round's model, bit for bit. Where they are not, no byte
of an update may be left in the aggregator's folder once its round's model is durable.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import numpy as np

from fedmq.aggregator.settings import Encoding, Federation
from fedmq.codecs import parse
from fedmq.config.kept import written
from fedmq.device.keepsakes import DiskKeepsakes
from fedmq.device.outbox import DiskOutbox
from fedmq.errors import MessageError
from fedmq.protocol.messages import DELTA, Update
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import preset
from fedmq.store.archive import UPDATES, Archive
from fedmq.testing.federation import ShiftTrainer, rig
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import MemoryBroker
from fedmq.vectors import Layout, Variable
from fedmq.wire.envelope import decode
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmq.testing.federation import Rig
    from fedmq.transport.interface import Outgoing
    from fedmq.vectors import Vector

LAYOUT: Final = Layout((Variable("w", (40, 30)), Variable("b", (30,))))
DEVICES: Final = 4
POLICY: Final = Policy(min_devices=3, quorum=2, soft_deadline_s=0.6, hard_deadline_s=60)
CODEC: Final = "feedback | int8"
WEATHER: Final = Faults(
    drop=0.05,
    duplicate=0.2,
    reorder=0.2,
    cut=0.02,
    delay_s=(0, 0.005),
    reorder_s=0.05,
    topics="fedmq/v1/test/#",
)
PAUSES: Final = {
    "fedmq.protocol.coordinator.CENSUS_S": 0.3,
    "fedmq.protocol.posting.RECEIPT_PAUSE_S": 0.2,
    "fedmq.protocol.participant.FETCH_PAUSE_S": 0.1,
    "fedmq.device.fetching.PATIENCE_S": 0.5,
    "fedmq.device.presence.REFRESH_S": 0.3,
    "fedmq.aggregator.aggregator.REFRESH_S": 0.3,
}
"""Real pauses are for real links; here a second is a long time."""


@contextmanager
def hurried() -> Iterator[None]:
    """Have everybody try again soon."""
    with ExitStack() as patches:
        for name, seconds in PAUSES.items():
            patches.enter_context(patch(name, seconds))
        patches.enter_context(patch("fedmq.transport.backoff.Backoff.delay", lambda *_: 0.02))
        yield


class Tapped(MemoryBroker):
    """A broker that remembers the deltas that went over it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, faults=WEATHER)
        self.deltas: set[bytes] = set()

    def route(self, outgoing: Outgoing) -> None:
        """Look at updates."""
        if "/update/" in outgoing.topic:
            with suppress(MessageError, KeyError):  # a question about an update has no sections
                self.deltas.add(decode(outgoing.payload, Update).sections[DELTA])
        super().route(outgoing)


def _become(number: int, model: Vector) -> Vector:
    chance = np.random.default_rng([number, int(1e6 * np.abs(model).sum())])
    return model + chance.standard_normal(model.size).astype(np.float32)


async def chaos(folder: Path, *, kept: bool, rounds: int, seed: int) -> tuple[Rig, Tapped]:
    """Run a federation in which everything goes wrong."""
    broker, random = Tapped(seed), Random(seed)
    federation = Federation(
        "test",
        policy=POLICY,
        stop=StopWhen(rounds=rounds),
        rule=preset("fedadam"),
        encoding=Encoding(up=parse(CODEC)),
    )
    aggregator = folder / "aggregator"

    def start() -> None:
        archive = Archive(aggregator / UPDATES, written(federation), 2**30) if kept else None
        running.start_aggregator(archive=archive)

    def start_device(number: int) -> None:
        name = f"device-{number}"
        running.start_device(
            name,
            ShiftTrainer(LAYOUT, become=partial(_become, number)),
            outbox=DiskOutbox(folder / name / "outbox"),
            keepsakes=DiskKeepsakes(folder / name / "keepsakes"),
        )

    with hurried():
        async with rig(federation, lambda: broker, aggregator, LAYOUT) as running:
            start()
            for number in range(DEVICES):
                start_device(number)
            while len(running.reports) < rounds:
                await asyncio.sleep(random.uniform(0.1, 1.5))
                if len(running.reports) < rounds:
                    number = random.randrange(DEVICES + 1)
                    await running.stop("aggregator" if number == DEVICES else f"device-{number}")
                    start() if number == DEVICES else start_device(number)
            broker.faults = Faults()
            await running.ended()
    return running, broker


def replayed(folder: Path) -> tuple[int, bool]:
    """Run `fedmq replay` on the folder; return how many rounds it has, and whether all are bit for bit the run's."""
    command = [sys.executable, "-m", "fedmq.cli", "replay", str(folder), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return len(found["courses"][0]["points"]), bool(found["bit_for_bit"])


def left(folder: Path, deltas: set[bytes]) -> int:
    """Return how many of the deltas stand in a file of the folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return sum(any(delta in content for content in contents) for delta in deltas)


async def run(*, quick: bool, seed: int) -> Row:
    """Run and replay, and run without keeping."""
    rounds = 6 if quick else 30
    with tempfile.TemporaryDirectory() as path:
        running, broker = await chaos(Path(path), kept=True, rounds=rounds, seed=seed)
        again, faithful = replayed(running.folder)
        found = left(running.folder, broker.deltas)  # the search would find them
    with tempfile.TemporaryDirectory() as path:
        running, broker = await chaos(Path(path), kept=False, rounds=rounds, seed=seed + 1)
        remaining, sent = left(running.folder, broker.deltas), len(broker.deltas)
    return Row(
        promise="kept updates make every model again; those that need not be kept are gone with their round",
        figure=f"{again} of {rounds} models replayed{'' if faithful else ', NOT'} bit for bit after a run in which "
        f"everything went wrong; {remaining} of {sent} updates left where none were to be kept",
        goal="every model, 0 bytes differing; 0 updates left",
        met=faithful and again == rounds and not remaining and sent > rounds and found > rounds,
        figures={"rounds": rounds, "replayed": again, "sent": sent, "left": remaining, "kept_found": found},
    )
