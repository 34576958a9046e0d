"""Faults that real brokers, sockets and processes bring to light, and the row that notices each."""

from __future__ import annotations

from functools import partial
from typing import Final
from unittest.mock import patch

from fedmq.aggregator.postbox import Postbox
from fedmq.protocol.messages import Receipt
from tests.chaos import broker_kills, silent_drops
from tests.chaos.faults import fault
from tests.chaos.kills import Aim, Plan, massacre
from tests.chaos.row import Mutant

AGGREGATOR: Final = Plan(hosts=1, each=4, broker=0, aggregator=4, devices=0)
STUCK_S: Final = 25.0
UNWRITTEN: Final = ("journal about to be written",)


class Forgetful(Postbox):
    """Loses the first receipt for each device."""

    def post(self, device: str, receipt: Receipt) -> None:
        """Send it from the second time on."""
        lost: set[str] = vars(self).setdefault("lost", set())
        if device in lost:
            super().post(device, receipt)
        lost.add(device)


async def drown(name: str, seed: int) -> str:
    """Flood a short queue; slowness alone is not held against anybody."""
    with fault(name), patch("fedmq.protocol.posting.RECEIPT_PAUSE_S", silent_drops.QUICK_PAUSE_S):
        try:
            seen = await silent_drops.flood(60, 20, STUCK_S)
        except TimeoutError as stuck:
            said = str(stuck)
            return said if f" 0 updates {silent_drops.GONE}" not in said and silent_drops.GONE in said else ""
    return seen.found.said


async def repeat(name: str, seed: int) -> str:
    """Have every device send its update once more when it has its verdict."""
    with (
        fault(name),
        patch("fedmq.protocol.posting.RECEIPT_PAUSE_S", silent_drops.QUICK_PAUSE_S),
        patch("fedmq.aggregator.aggregator.Postbox", Forgetful),
    ):
        return (await silent_drops.flood(30, 1_000, STUCK_S)).found.said


async def roll_back(name: str, seed: int) -> str:
    """Have the broker come back with an old state."""
    with fault(name):
        _, found = await broker_kills.storm(8, 3, seed, training_s=0.5, patience_s=STUCK_S * 4)
    return found.said


async def kill(name: str, places: tuple[str, ...], seed: int) -> str:
    """Kill the aggregator at chosen places; that rounds stop is not enough, something must be wrong in the books."""
    aim = Aim(places, share=1.0)
    found = (await massacre(AGGREGATOR, seed, fault=name, aim=aim, ends_s=STUCK_S)).found
    return found.said if any("did not come" not in sentence for sentence in found.violations) else ""


MUTANTS: Final = (
    Mutant(
        "trusts_puback_for_real",
        "the outbox forgets an update when the broker acknowledges it",
        "silent_drops",
        partial(drown, "trusts_puback"),
    ),
    Mutant(
        "version_goes_back",
        "a device believes whatever task and model the broker tells of",
        "broker_kills",
        partial(roll_back, "version_goes_back"),
    ),
    Mutant(
        "receipt_before_commit_for_real",
        "the receipt goes out when the update comes, before it is in the journal",
        "kills",
        partial(kill, "receipt_before_commit", UNWRITTEN),
    ),
    Mutant(
        "no_dedup_for_real",
        "every copy of an update is taken for a new one",
        "silent_drops",
        partial(repeat, "no_dedup"),
    ),
    Mutant(
        "journal_not_replayed_for_real",
        "an interrupted round begins with nothing in it",
        "kills",
        partial(kill, "journal_not_replayed", UNWRITTEN),
    ),
)
