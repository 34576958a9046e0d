"""Power cuts at every write: aggregator and devices find what they promised, and start again without a person.

Journal, checkpoints, archive, outboxes and residuals are files, not a database: so it is file operations that are
recorded (`tests.chaos.disk`), and what a cut may leave of them is put up again and looked into. Some of what is left
is started again, too, and some of those are cut off once more.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from tests.chaos import belongings, site
from tests.chaos.remains import LUCKS, MIXED
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.remains import Remains

IN_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of our own in it
"""Where there is one, files of the tests lie in it: nobody waits for a disk that is not the one in question."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often the power goes: states looked into, of the whole site and of a device; states started again."""

    looks: int
    lives: int
    device_looks: int
    again: int


QUICK: Final = Plan(looks=250, lives=8, device_looks=250, again=20)
LONG: Final = Plan(looks=2000, lives=120, device_looks=2000, again=20)


@contextmanager
def folder() -> Iterator[Path]:
    """Give an empty folder, in memory where that can be had."""
    where = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as path:
        yield Path(path)


@dataclass
class Seen:
    """What came of it: counts, and a sentence for each cut that broke something."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    states: set[bytes] = field(default_factory=set)

    def add(self, other: Seen) -> None:
        """Add what another process has seen."""
        self.counts += other.counts
        self.lost += other.lost
        self.states |= other.states

    @contextmanager
    def cut(self, what: str, where: str, remains: Remains) -> Iterator[Path]:
        """Put up what a cut left, and count it; whatever is raised is something lost, a start that fails included."""
        self.counts[what] += 1
        self.states.add(_digest(remains))
        with folder() as left:
            remains.put(left)
            try:
                yield left
            except Exception as error:  # noqa: BLE001 - see above
                self.lost.append(f"{type(error).__name__}: {error} ({where})".replace(str(left), ""))


def run(*, quick: bool, seed: int) -> Row:
    """Record and cut, in as many processes as there are cores."""
    seen = Seen()
    if quick:
        seen.add(cut_off(QUICK, seed))
    else:
        workers = os.cpu_count() or 1
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            for found in pool.map(partial(cut_off, LONG), range(seed * 100, seed * 100 + workers)):
                seen.add(found)
    for sentence in seen.lost:
        sys.stdout.write(f"{sentence}\n")
    cuts, lost, states = seen.counts.total(), len(seen.lost), len(seen.states)
    return Row(
        promise="after a power cut at any write, nothing receipted is lost or counted twice, and all start again",
        figure=f"{lost} of {cuts:,} power cuts lost, doubled or blocked anything ({states:,} different states; "
        f"{seen.counts['lives']} started again to the end, {seen.counts['again']} cut off a second time)",
        goal="0 of 500",
        met=not lost and cuts >= 500,
        figures={"cuts": cuts, "lost": lost, "states": states, **seen.counts},
    )


def cut_off(plan: Plan, seed: int) -> Seen:
    """Record a site and devices, and cut them off as planned."""
    logging.disable(logging.CRITICAL)
    seen = Seen()
    try:
        asyncio.run(_cut_off_the_site(plan, seed, seen))
        _cut_off_devices(plan, seed, seen)
    finally:
        logging.disable(logging.NOTSET)
    return seen


async def _cut_off_the_site(plan: Plan, seed: int, seen: Seen) -> None:
    random = Random(seed)
    with folder() as root:
        tape = await site.record(root)
        for number in range(plan.looks):
            point, luck = random.choice(tape.points), LUCKS[number % len(LUCKS)]
            with seen.cut("looks", f"{luck} at {point}", tape.remains(point, luck, random)) as left:
                tape.check(left, tape.owed(point))
        for number in range(plan.lives):
            torn = number % 2  # half of them where a journal is likely to be left with a torn tail
            point, luck = (
                random.choice(tape.appends if torn else tape.points),
                MIXED if torn else LUCKS[number // 2 % 5],
            )
            with seen.cut(
                "lives", f"begun again, {luck} at {point}", tape.remains(point, luck, random)
            ) as left:
                later = await tape.go_on(left, tape.owed(point))
                if number % 4 < 2:
                    _cut_again(later, plan.again, random, seen)


def _cut_again(tape: site.Tape, cuts: int, random: Random, seen: Seen) -> None:
    """Cut off what has been started after a cut."""
    for _ in range(cuts):
        point = random.choice(tape.points)
        with seen.cut("again", f"a second time, at {point}", tape.remains(point, MIXED, random)) as left:
            tape.check(left, tape.owed(point))


def _cut_off_devices(plan: Plan, seed: int, seen: Seen) -> None:
    random, lives = Random(seed), math.ceil(plan.device_looks / 500)
    for life_seed in range(seed * 1000, seed * 1000 + lives):
        with folder() as root:
            life = asyncio.run(belongings.record(root, life_seed))
        for number in range(plan.device_looks // lives):
            point, luck = random.choice(life.points), LUCKS[number % len(LUCKS)]
            where = f"device {life_seed}, {luck} at {point}"
            with seen.cut("device_looks", where, life.remains(point, luck, random)) as left:
                life.check(left, point)


def _digest(remains: Remains) -> bytes:
    digest = hashlib.sha256()
    for name, content in sorted(remains.files.items()):
        digest.update(f"{name} {len(content or b'')}\n".encode() + (content or b""))
    return digest.digest()
