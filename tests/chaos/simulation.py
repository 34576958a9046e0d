"""Thousands of federations in virtual time, with everything going wrong that can: no promise is broken in any.

`fedmq.testing.world` is what runs: the real state machines in shells made of lists, checked after every step. Half of
what it draws are rounds, half are buffers without rounds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Final

from fedmq.testing.violation import Violation
from fedmq.testing.world import World
from tests.chaos.row import Row

WORLDS: Final = 10_000
QUICK_WORLDS: Final = 300
BLOCK: Final = 50
KILLS: Final = ("_restart", "_crash", "_cut", "roll_back", "unlink_aggregator", "_stop", "_rerun")
"""The faults of a world that end or cut somebody; lost, doubled and late messages come on top, uncounted."""
VERDICTS: Final = ("accepted", "duplicate", "late", "rejected")
COUNTS: Final = ("worlds", "violations", "rounds", "models", "receipts", "received", *VERDICTS, *KILLS)


class CountingWorld(World):
    """A world that knows how often what was broken, and what became of the updates that came in."""

    def __init__(self, seed: int, *, asynchronous: bool) -> None:
        """Make the world."""
        self.seen: Counter[str] = Counter()
        super().__init__(seed, asynchronous=asynchronous)

    def note(self, who: str, *what: object) -> None:
        """Count the faults."""
        if who == "fault":
            self.seen[str(what[0])] += 1

    def live(self) -> Counter[str]:
        """Run to the end and return the counts."""
        summary = self.run()
        reports = self.invariants.reports
        self.seen.update(worlds=1, rounds=summary.rounds, models=summary.models, receipts=summary.receipts)
        for verdict in ("received", *VERDICTS):
            self.seen[verdict] += sum(getattr(report, verdict) for report in reports)
        return self.seen


def live(seeds: range, *, asynchronous: bool) -> Counter[str]:
    """Run the worlds of these seeds; a broken promise prints the command that shows it, and counts."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += CountingWorld(seed, asynchronous=asynchronous).live()
        except Violation as violation:
            sys.stdout.write(f"{violation}\n")
            seen["violations"] += 1
    return seen


def run(*, quick: bool, seed: int) -> Row:
    """Run the worlds on every core; the same seeds tell the same story on any machine."""
    worlds = QUICK_WORLDS if quick else WORLDS
    first = seed * WORLDS
    blocks = [range(at, min(at + BLOCK, first + worlds)) for at in range(first, first + worlds, BLOCK)]
    seen: Counter[str] = Counter()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=spawn) as pool:
        for asynchronous, share in ((False, blocks), (True, blocks[: len(blocks) // 5])):
            for counts in pool.map(partial(live, asynchronous=asynchronous), share):
                seen += counts
    kills = seen["_restart"] + seen["_crash"] + seen["_rerun"] + seen["_stop"]
    accounted = sum(seen[verdict] for verdict in VERDICTS)
    return Row(
        promise="a receipted update is never lost and never counted twice; received = accepted + duplicate + late + "
        "rejected",
        figure=f"{seen['violations']} violations in {seen['worlds']:,} worlds with {seen['receipts']:,} receipts, "
        f"{kills:,} kills, {seen['_cut'] + seen['unlink_aggregator']:,} cut links; "
        f"{seen['received'] - accounted} of {seen['received']:,} updates unaccounted for",
        goal=f"0 violations in {worlds:,} worlds and a fifth as many without rounds, 0 unaccounted for",
        met=not seen["violations"] and seen["received"] == accounted and seen["worlds"] >= worlds,
        figures={name.lstrip("_"): float(seen[name]) for name in COUNTS},
    )
