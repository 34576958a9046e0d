"""What a grace is good for: how many of those who were asked come through where links break, and what that costs.

Figures of the documentation: ``python -m pytest -n 0 tests/scenarios/test_landing.py --log-cli-level=WARNING``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fedmq.protocol.policy import Policy
from fedmq.testing.world import World
from fedmq.testing.world_faults import Faults, Setting

if TYPE_CHECKING:
    from fedmq.protocol.messages import Report

log = logging.getLogger(__name__)

SEEDS, SECONDS = 4, 900.0


def rounds(grace_s: float) -> list[Report]:
    """Run rounds in which an upload takes 6 s, and each of 20 links breaks once a minute, for 15 s on average."""
    policy = Policy(min_devices=16, quorum=1, soft_deadline_s=120.0, hard_deadline_s=120.0, grace_s=grace_s)
    faults = Faults(cut_every_s=3.0)
    setting = Setting(devices=20, policy=policy, chunks=60, keeps_replica=True, faults=faults)
    worlds = [World(seed, setting=setting) for seed in range(SEEDS)]
    for world in worlds:
        world.begin()
        world.run_until(SECONDS)
    return [report for world in worlds for report in world.invariants.reports]


@pytest.mark.slow
def test_with_a_grace_hardly_anybody_is_left_behind() -> None:
    shares = {}
    for grace_s in (0.0, 30.0):
        reports = rounds(grace_s)
        landed, asked = (sum(getattr(r, name) for r in reports) for name in ("accepted", "expected"))
        seconds = sum(report.seconds for report in reports) / len(reports)
        shares[grace_s] = landed / asked
        log.warning("grace %.0f s: %d of %d landed, %.1f s a round", grace_s, landed, asked, seconds)
    assert shares[30.0] > 0.99
    assert 1.0 - shares[0.0] > 3 * (1.0 - shares[30.0])
