"""The same updates in any order, with any duplication, over bad links: the same model, to the last bit.

First the arithmetic alone, every preset's fold in many orders; then whole federations, whose broker doubles, delays and
mixes up what it carries, each followed to its last round.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import numpy as np

from fedmq.aggregator.intake import Intake
from fedmq.aggregator.settings import Federation
from fedmq.errors import ConfigError, Refused
from fedmq.protocol import coordinator, posting
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.rules import PRESETS, Claim, preset
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.mailbox import Faults
from fedmq.transport.memory import MemoryBroker
from tests.chaos.row import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedmq.rules import AnyRule
    from fedmq.vectors import Vector
    from fedmq.wire.topics import UpdateTopic

UPDATES: Final = 12
DEVICES: Final = 5
ROUNDS: Final = 4
POLICY: Final = Policy(min_devices=DEVICES, quorum=DEVICES, soft_deadline_s=60, hard_deadline_s=60)
WEATHER: Final = Faults(
    duplicate=0.5, reorder=0.5, delay_s=(0, 0.003), reorder_s=0.01, topics="fedmq/v1/test/up/+/update/#"
)

Given = tuple["Vector", Claim]


def folded(rule: AnyRule, given: Sequence[Given], model: Vector, folder: Path) -> bytes:
    """Return the model that these updates make, in this order; `folder` is for rules that need all of them at once."""
    fold = rule.zero(SMALL, {}, folder)
    for delta, claim in given:
        rule.absorb(fold, delta, claim)
    return rule.finish(fold, model).model.tobytes()


def made_up(chance: np.random.Generator) -> list[Given]:
    """Return updates of very different sizes: where sums round, their order shows."""
    scales = 10.0 ** chance.uniform(-6, 3, UPDATES)
    return [
        (
            (scale * chance.standard_normal(SMALL.size)).astype(np.float32),
            Claim(int(chance.integers(1, 1000)), int(chance.integers(1, 50)), {"loss": chance.random()}),
        )
        for scale in scales
    ]


def differing(name: str, sets: int, orders: int, seed: int, folder: Path) -> int:
    """Return how many orders gave other bytes than the first."""
    chance, random, wrong = np.random.default_rng(seed), Random(seed), 0
    for _ in range(sets):
        rule, given, model = preset(name), made_up(chance), chance.standard_normal(SMALL.size).astype("<f4")
        expected = folded(rule, given, model, folder)
        for _ in range(orders):
            random.shuffle(given)
            wrong += folded(rule, given, model, folder) != expected
    return wrong


def floats_alone(sets: int, orders: int, seed: int) -> float:
    """Return the share of numbers that a float32 running mean gives otherwise in another order: so it can fail."""
    chance, other = np.random.default_rng(seed), 0
    for _ in range(sets):
        deltas = [delta for delta, _ in made_up(chance)]
        first = sum(deltas, np.zeros(SMALL.size, np.float32))
        for _ in range(orders):
            chance.shuffle(deltas)
            other += int((sum(deltas, np.zeros(SMALL.size, np.float32)) != first).sum())
    return other / (sets * orders * SMALL.size)


async def course(weather: Faults, seed: int) -> tuple[bytes, int]:
    """Run a federation through some weather; return the model, and how many updates came that had come before."""
    broker, came = MemoryBroker(seed=seed, faults=weather), Counter[bytes]()
    take = Intake._update

    def counted(self: Intake, place: UpdateTopic, payload: bytes) -> None:
        came[payload] += 1
        take(self, place, payload)

    with tempfile.TemporaryDirectory() as folder:
        federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=ROUNDS), rule=preset("fedadam"))
        async with rig(federation, lambda: broker, Path(folder)) as running:
            running.start_aggregator()
            for number in range(DEVICES):
                become = partial(_become, number)
                running.start_device(f"device-{number}", ShiftTrainer(become=become, examples=7 * number + 1))
            with patch.object(Intake, "_update", counted):
                await running.until(lambda: len(running.reports) == ROUNDS, seconds=60)
            return running.model.tobytes(), came.total() - len(came)


def _become(number: int, model: Vector) -> Vector:
    """Return what hangs on every bit of the model, so that one that differs is seen in the end."""
    chance = np.random.default_rng([number, *model.view(np.uint32)])
    return model + chance.standard_normal(model.size).astype(np.float32)


async def run(*, quick: bool, seed: int) -> Row:
    """Shuffle and shake."""
    sets, orders = (3, 6) if quick else (20, 100)
    wrong, tried = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(PRESETS):
            with suppress(ConfigError, Refused):  # of one that takes other updates than these
                wrong += differing(name, sets, orders, seed, Path(folder))
                tried += sets * orders
    shaken, other, duplicates = 5 if quick else 100, 0, 0
    with patch.object(coordinator, "CENSUS_S", 0.05), patch.object(posting, "RECEIPT_PAUSE_S", 0.1):
        calm, _ = await course(Faults(), seed)
        for number in range(shaken):
            found, doubled = await course(WEATHER, seed * 1000 + number)
            other, duplicates = other + (found != calm), duplicates + doubled
    running = floats_alone(sets, orders, seed)
    return Row(
        promise="the same updates, in any order and with any duplication: the same model bytes",
        figure=f"{wrong} of {tried:,} orders and {other} of {shaken} federations ({duplicates} updates "
        f"twice) gave other bytes; a float32 running sum gives {running:.0%} of the numbers otherwise",
        goal="0 differing bytes",
        met=not wrong and not other and tried > 0 and duplicates > 0 and running > 0,
        figures={
            "orders": tried,
            "orders_wrong": wrong,
            "federations": shaken,
            "federations_wrong": other,
            "duplicates": duplicates,
            "float32_differing_share": running,
        },
    )
