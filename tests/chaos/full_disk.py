"""The aggregator's disk fills up, or turns read-only: no receipt is given, and it goes on when there is room again.

The disk is a small tmpfs of its own, which takes the rights of root.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedmq.aggregator.settings import Federation
from fedmq.protocol.policy import Policy
from fedmq.transport.mosquitto import Mosquitto
from tests.chaos.fleet import DEFAULTS, NAME, Fleet, fleet, names, wide
from tests.chaos.ledger import ACCEPTED, Audit
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES: Final = 20
NUMBERS: Final = 8_000
"""An update is 32 kB: no page that is left over on a full disk has room for one."""
DISK_MB: Final = 24
GOAL_S: Final = 10.0
FULL_S: Final = 8.0
QUICK_FULL_S: Final = 2.0
TIMES: Final = 3


class NotAllowed(Exception):
    """No disk can be mounted here; the text says why."""


@dataclass(slots=True)
class Pauses:
    """Seconds from space coming back to the next receipt, and receipts that were given while there was none."""

    full: list[float] = field(default_factory=list)
    read_only: list[float] = field(default_factory=list)
    receipts: int = 0
    found: Audit = field(default_factory=Audit)


async def run(*, quick: bool, seed: int) -> Row:
    """Fill the disk in mid-round, again and again, and let it turn read-only once."""
    promise, goal = (
        "a full disk is a pause",
        f"no receipt meanwhile, resumes within {GOAL_S:.0f} s; no violation",
    )
    try:
        with small_disk() as disk:
            seen = await pauses(disk, 1 if quick else TIMES, QUICK_FULL_S if quick else FULL_S)
    except NotAllowed as reason:
        return Row(promise, f"not measured: {reason}", goal, met=True, figures={"measured": 0.0})
    worst = max(*seen.full, *seen.read_only)
    return Row(
        promise=promise,
        figure=f"{seen.receipts} receipts while the disk was full ({len(seen.full)} times) or read-only "
        f"({len(seen.read_only)}); the next one {max(seen.full):.1f} s after space came back, "
        f"{max(seen.read_only):.1f} s after it could be written again; {seen.found.said or 'none lost, none twice'}",
        goal=goal,
        met=not seen.receipts and worst <= GOAL_S and not seen.found.violations,
        figures={
            "measured": 1.0,
            "resumes_s": worst,
            "receipts": float(seen.receipts),
            "violations": float(len(seen.found.violations)),
        },
    )


async def pauses(disk: Path, times: int, full_s: float) -> Pauses:
    """Have rounds run on the disk, and take it away from them."""
    policy = Policy(min_devices=DEVICES, quorum=DEVICES, soft_deadline_s=120, hard_deadline_s=120)
    seen, trained = Pauses(), asyncio.Barrier(DEVICES + 1)
    with tempfile.TemporaryDirectory(prefix="fedmq-chaos-") as folder:
        (Path(folder) / "aggregator").symlink_to(disk, target_is_directory=True)
        async with (
            Mosquitto(DEFAULTS) as broker,
            fleet(
                Federation(NAME, policy=policy),
                Path(folder),
                lambda _: broker.address,
                layout=wide(NUMBERS),
                pause=trained.wait,
            ) as running,
        ):
            running.start_aggregator()
            await read_only(disk, running, trained, seen)
            for _ in range(times):
                await full(disk, running, trained, seen, full_s)
            seen.found = running.audit()
    return seen


async def read_only(disk: Path, running: Fleet, trained: asyncio.Barrier, seen: Pauses) -> None:
    """Make the disk read-only before the first round, when no file is open; give it back, and time the round."""
    await running.until(lambda: running.aggregator and running.aggregator._session.connection, 60, "a link")
    remount(disk, "ro")
    for name in names(DEVICES):
        running.start_device(name)
    await running.until(lambda: running.present == DEVICES, 60, "every device")
    await asyncio.sleep(1.5)
    seen.receipts += receipts(running) + trained.n_waiting  # nobody may even have been asked
    remount(disk, "rw")
    began = time.monotonic()
    await trained.wait()
    seen.read_only.append(await next_receipt(running, began))


async def full(disk: Path, running: Fleet, trained: asyncio.Barrier, seen: Pauses, full_s: float) -> None:
    """Fill the disk up once the round's files are there, let the updates come, and make room again."""
    await running.until(lambda: trained.n_waiting == DEVICES and not pending(running), 60, "an open round")
    ballast, before = fill(disk), receipts(running)
    await trained.wait()
    await asyncio.sleep(full_s)
    seen.receipts += receipts(running) - before
    ballast.unlink()
    seen.full.append(await next_receipt(running, time.monotonic()))


def pending(running: Fleet) -> int:
    """Return how many journals of closed rounds still have to give their space back."""
    assert running.aggregator is not None
    return running.aggregator._books.unemptied


async def next_receipt(running: Fleet, began: float) -> float:
    """Return how long the next receipt took to come; let its round end before the next disaster."""
    before = DEVICES * len(running.reports)
    await running.until(lambda: receipts(running) > before, 60, "a receipt")
    seconds = time.monotonic() - began
    await running.until(lambda: receipts(running) == before + DEVICES, 60, "every receipt")
    return seconds


def receipts(running: Fleet) -> int:
    """Return how many devices were told that their update counts, over all rounds."""
    return sum(device.counters.verdicts.get(ACCEPTED, 0) for device in running.devices.values())


# --- the disk ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """Give a folder that is a disk of its own. Raises NotAllowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotAllowed("mounting a small disk takes Linux and the rights of root")
    with tempfile.TemporaryDirectory(prefix="fedmq-disk-") as folder:
        try:
            _mount("-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder)
        except subprocess.CalledProcessError as error:
            raise NotAllowed(f"no disk can be mounted: {error.stderr.decode().strip()}") from None
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, how: str) -> None:
    """Make the disk ``ro`` or ``rw``."""
    _mount("-o", f"remount,{how}", str(disk))


def fill(disk: Path) -> Path:
    """Take all the room that is left; return the file that has it."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
