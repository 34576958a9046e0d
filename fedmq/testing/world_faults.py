"""What a simulated world is made of, and what goes wrong in it: drawn from a seed, or written down for one test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedmq.protocol.policy import Policy

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and how often.

    Shares are of 1. Times ending in ``_s`` are virtual seconds; those of ``_every_s`` are means between two faults of a
    kind. Zero switches a fault off.

    drop, duplicate: share of updates and receipts that are lost, or come twice, with no link broken.
    stray: share of messages that are under way for up to 40 s, and so overtake each other.
    cut_every_s: one device's link breaks, and it notices up to 20 s later.
    crash_every_s, wipe: one device's process ends; this share of times with its disk.
    will_lost: share of last wills that never come; others come up to 30 s late.
    status_lost: share of births and wills that stand at the broker, but found its queue for the aggregator full.
    restart_every_s: the aggregator's process ends, and begins again from its checkpoint and journal.
    offline_every_s: the aggregator's link breaks.
    rollback_every_s: the broker is killed and comes back with older retained messages and empty queues.
    stop_every_s: somebody stops the federation, and starts it again a little later.
    rerun_every_s: the aggregator's disk is lost, and a new run begins.
    straggle: share of trainings that take up to 100 s.
    train_fails, fetch_fails, step_fails: share of these that fail.
    spoil: share of updates that do not decode.
    disk_full: share of the journal's commits that wait for 20 s.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    stray: float = 0.0
    cut_every_s: float = 0.0
    crash_every_s: float = 0.0
    wipe: float = 0.0
    will_lost: float = 0.0
    status_lost: float = 0.0
    restart_every_s: float = 0.0
    offline_every_s: float = 0.0
    rollback_every_s: float = 0.0
    stop_every_s: float = 0.0
    rerun_every_s: float = 0.0
    straggle: float = 0.0
    train_fails: float = 0.0
    fetch_fails: float = 0.0
    step_fails: float = 0.0
    spoil: float = 0.0
    disk_full: float = 0.0

    @classmethod
    def draw(cls, random: Random) -> Faults:
        """Draw a storm: each fault is there or not, seldom or often."""
        return cls(
            drop=random.choice((0.0, 0.02, 0.2)),
            duplicate=random.choice((0.0, 0.05, 0.3)),
            stray=random.choice((0.0, 0.05, 0.2)),
            cut_every_s=random.choice((0.0, 15.0, 60.0)),
            crash_every_s=random.choice((0.0, 30.0, 90.0)),
            wipe=random.choice((0.0, 0.5)),
            will_lost=random.choice((0.0, 0.5)),
            status_lost=random.choice((0.0, 0.0, 0.3, 0.9)),
            restart_every_s=random.choice((0.0, 20.0, 60.0)),
            offline_every_s=random.choice((0.0, 60.0)),
            rollback_every_s=random.choice((0.0, 0.0, 100.0)),
            stop_every_s=random.choice((0.0, 0.0, 60.0)),
            rerun_every_s=random.choice((0.0, 0.0, 0.0, 150.0)),
            straggle=random.choice((0.0, 0.1)),
            train_fails=random.choice((0.0, 0.05)),
            fetch_fails=random.choice((0.0, 0.1, 0.4)),
            step_fails=random.choice((0.0, 0.1)),
            spoil=random.choice((0.0, 0.1)),
            disk_full=random.choice((0.0, 0.1)),
        )


CALM: Final = Faults()


@dataclass(frozen=True, slots=True)
class Setting:
    """One world: how many devices, how rounds are run, how long the storm lasts.

    chunks: messages that an update is cut into. keyframe_every: versions from one whole model to the next.
    keeps_replica: devices keep the model on disk. mourned: when the storm is over one device is dead, its will here.
    """

    devices: int = 4
    policy: Policy = field(default_factory=lambda: Policy(soft_deadline_s=30.0, hard_deadline_s=60.0))
    chunks: int = 1
    keyframe_every: int = 3
    keeps_replica: bool = False
    mourned: bool = False
    storm_s: float = 250.0
    faults: Faults = CALM

    @classmethod
    def draw(cls, random: Random, *, asynchronous: bool = False) -> Setting:
        """Draw a small world with a storm in it."""
        devices = random.randint(2, 5)
        min_devices = random.randint(1, devices)
        soft = random.choice((20.0, 40.0))
        faults = Faults.draw(random)
        # A broker that was rolled back shows a dead device as alive, and nobody is left to correct it.
        mourned = devices > min_devices and not faults.rollback_every_s and random.choice((True, False))
        quorum = random.randint(1, min_devices)
        # Where a cohort is drawn, it must be able to make the quorum more often than not.
        fraction = random.choice((1.0, 0.6)) if quorum <= devices // 2 else 1.0
        buffer = random.randint(quorum, devices + 1) if asynchronous else 0
        grace = random.choice((0.0, 5.0, 15.0, 30.0))
        policy = Policy(
            fraction=fraction,
            over_selection=1.0 if asynchronous else random.choice((1.0, 1.0, 1.3)),
            min_devices=min_devices,
            quorum=quorum,
            soft_deadline_s=soft,
            hard_deadline_s=soft * random.choice((1.0, 1.5)),
            grace_s=grace,
            buffer=buffer,
            max_staleness=random.choice((0, 1, 3, 8)) if asynchronous else 0,
            adaptive=not asynchronous and random.choice((False, False, True)),
        )
        return cls(
            devices=devices,
            policy=policy,
            chunks=random.choice((1, 1, 2, 8)),
            keyframe_every=random.choice((1, 3)),
            keeps_replica=random.choice((True, False)),
            mourned=mourned,
            storm_s=random.choice((60.0, 120.0, 200.0)),
            faults=faults,
        )
