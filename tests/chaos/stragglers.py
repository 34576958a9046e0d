"""Devices that are slow or never answer do not hold up a round: in virtual time, thousands of rounds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from fedmq.protocol.policy import Policy
from fedmq.testing.world import World
from fedmq.testing.world_faults import Faults, Setting
from tests.chaos.row import Row

if TYPE_CHECKING:
    from fedmq.protocol.messages import Report

DEVICES: Final = 20
POLICY: Final = Policy(min_devices=10, quorum=10, soft_deadline_s=60.0, hard_deadline_s=90.0)
SLACK_S: Final = 5.0
"""What it takes in these worlds to move the model once the deadline has passed."""
WEATHERS: Final = {
    "drop_out": Faults(train_fails=0.3),
    "straggle": Faults(straggle=0.3),
    "die": Faults(crash_every_s=15.0, will_lost=1.0),
}
"""Three in ten never answer, and give no sign of it; or take up to 100 s; or a device dies every 15 s, will unheard."""


@dataclass(frozen=True, slots=True)
class Held:
    """What rounds came to."""

    reports: list[Report]

    def share(self, deadline_s: float) -> float:
        """Return the share of rounds that had ended by then."""
        return sum(report.seconds <= deadline_s + SLACK_S for report in self.reports) / len(self.reports)

    @property
    def stepped(self) -> float:
        """The share of rounds that moved the model."""
        return sum(report.outcome == "stepped" for report in self.reports) / len(self.reports)


def live(faults: Faults, seed: int, rounds: int) -> Held:
    """Run one federation for so many rounds."""
    world = World(seed, setting=Setting(devices=DEVICES, policy=POLICY, storm_s=1e9, faults=faults))
    reports = world.invariants.reports
    world.begin()
    world.run_until(rounds * 2 * POLICY.hard_deadline_s, lambda: len(reports) >= rounds)
    return Held(reports)


def run(*, quick: bool, seed: int) -> Row:
    """Run each weather."""
    rounds = 60 if quick else 400
    worlds = 1 if quick else 3
    found: dict[str, Held] = {}
    for name, faults in WEATHERS.items():
        lives = [live(faults, seed * 100 + number, rounds) for number in range(worlds)]
        found[name] = Held([report for held in lives for report in held.reports])
    figures: dict[str, float] = {}
    for name, held in found.items():
        seconds = [report.seconds for report in held.reports]
        figures |= {
            f"{name}_rounds": float(len(held.reports)),
            f"{name}_by_soft": held.share(POLICY.soft_deadline_s),
            f"{name}_by_hard": held.share(POLICY.hard_deadline_s),
            f"{name}_stepped": held.stepped,
            f"{name}_median_s": median(seconds),
            f"{name}_longest_s": max(seconds),
        }
    least = min(held.share(POLICY.hard_deadline_s) for held in found.values())
    rounds_in_all = sum(len(held.reports) for held in found.values())
    return Row(
        promise="stragglers and drop-outs never stall a round",
        figure=f"{least:.1%} of {rounds_in_all:,} rounds ended by their deadline, "
        f"{figures['drop_out_by_soft']:.1%} by the soft one under 30 % drop-out",
        goal="99 % of rounds",
        met=least >= 0.99 and rounds_in_all >= 3 * rounds * worlds,
        figures=figures,
    )
