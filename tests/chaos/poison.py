"""Millions of damaged messages: each is taken or refused in a sentence, soon, and memory stays flat.

Three ways in: every decoder of updates (`tests.fuzz.decoders`), every message of the wire, and a whole aggregator that
gets nothing but damaged updates for a while, and whose round then ends as if nothing had been.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import threading
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from fedmq.aggregator.settings import Federation
from fedmq.config.kept import written
from fedmq.protocol.messages import DELTA, Facts, Task, Update
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.replay.course import Replay
from fedmq.store.archive import UPDATES, Archive, read_archive
from fedmq.testing.federation import SMALL, ShiftTrainer, rig
from fedmq.transport.interface import Outgoing, Profile
from fedmq.transport.memory import MemoryBroker
from fedmq.wire.envelope import decode, encode
from fedmq.wire.topics import Topics
from tests.chaos.row import Row
from tests.fuzz.decoders import mutate, mutated
from tests.unit.wire.test_mutants import SAMPLES, mutant, taken

TOPICS: Final = Topics("test")
POLICY: Final = Policy(min_devices=1, quorum=1, soft_deadline_s=3000, hard_deadline_s=3000)
BLOCK: Final = 20_000
GROWN_BYTES: Final = 1_000_000
"""Most that Python's own memory may have grown from the first tenth of the messages to the last."""
PATIENCE_S: Final = 1.0
"""Processor time for one message of the wire."""


def damage_messages(count: int, seed: int) -> tuple[int, int]:
    """Damage messages of every type; return how many were read and refused. Anything else is raised."""
    chance, whole = Random(seed), [(type(message), encode(message)) for message in SAMPLES]
    read = 0
    for turn in range(count):
        kind, content = whole[turn % len(whole)]
        damaged, began = mutant(content, chance), time.process_time()
        read += taken(damaged, kind)
        assert time.process_time() - began < PATIENCE_S, f"{kind.__name__}: {damaged.hex()} takes too long"
    return read, count - read


def damage_updates(count: int, seed: int) -> tuple[int, int]:
    """Damage encoded deltas of every codec; the same."""
    found = mutate(count, seed).values()
    return sum(read for read, _ in found), sum(refused for _, refused in found)


def growth(count: int, seed: int) -> int:
    """Return by how many bytes Python's memory has grown over the last nine tenths of the messages."""
    damage_messages(count // 10, seed)
    damage_updates(count // 10, seed)
    gc.collect()
    tracemalloc.start()
    try:
        damage_messages(count, seed + 1)
        damage_updates(count, seed + 1)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def poison(count: int, seed: int) -> tuple[int, int, bool]:
    """Send an aggregator damaged updates; return how many it accounts for, growth, and if the model is right."""
    broker, gate, chance = MemoryBroker(), threading.Event(), Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation("test", policy=POLICY, stop=StopWhen(rounds=1))
        async with rig(federation, lambda: broker, Path(folder)) as running:
            running.start_aggregator(archive=Archive(Path(folder) / UPDATES, written(federation), 2**30))
            running.start_device("honest", ShiftTrainer(shift=2, gate=lambda: gate.wait(600)))
            await running.until(lambda: broker.retained(TOPICS.task))
            task = decode(broker.retained(TOPICS.task)[TOPICS.task], Task)
            link = await broker.connect(Profile("attacker"))
            tracemalloc.start()
            before = 0
            for number in range(count):
                update = Update(
                    task.run,
                    number.to_bytes(8, "big"),
                    1,
                    task.layout,
                    Facts(5),
                    {DELTA: bytes(4 * SMALL.size)},
                )
                spoilt = mutated(encode(update)[:-8], chance)
                await link.publish(Outgoing(TOPICS.update(f"device-{number % 50}", 1), spoilt))
                if number == count // 10:
                    before = tracemalloc.get_traced_memory()[0]
            aggregator = running.aggregator
            assert aggregator is not None
            tally = aggregator._coordinator.ledger.tally
            await running.until(lambda: tally.received >= count, seconds=60)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            gate.set()
            await running.ended()
            (report,) = running.reports
            parts = report.accepted + report.duplicate + report.late + report.rejected
            # Some that were damaged are good updates of another content: the model is what the accepted ones make.
            recording = read_archive(Path(folder) / UPDATES)
            same = all(points[0].same for points in Replay(recording, []).run())
            right = same and recording.rounds[0].updates == report.accepted and report.received == parts
            return parts - 1, grown, right and bool(np.isfinite(running.model).all())


async def run(*, quick: bool, seed: int) -> Row:
    """Damage on every core; then watch memory, and an aggregator, alone."""
    messages, updates, sent = (40_000, 20_000, 1_000) if quick else (9_000_000, 1_000_000, 50_000)
    read = refused = 0
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        for damage, count in ((damage_messages, messages), (damage_updates, updates)):
            seeds = range(seed * 1000, seed * 1000 + count // BLOCK)
            for took, left in pool.map(partial(damage, BLOCK), seeds):
                read, refused = read + took, refused + left
    grown = growth(1_000 if quick else 50_000, seed)
    accounted, heap, right = await poison(sent, seed)
    return Row(
        promise="a poison message costs one counter",
        figure=f"0 of {read + refused:,} damaged messages raised anything but a refusal ({read:,} could be read); "
        f"memory grew by {grown / 1e3:.0f} kB; {accounted:,} of {sent:,} sent to an aggregator accounted for, its "
        f"memory grew by {heap / 1e3:.0f} kB, its model is {'right' if right else 'WRONG'}",
        goal="0 of 10 million raise, memory flat (within 1 MB)",
        met=grown < GROWN_BYTES and heap < GROWN_BYTES and accounted == sent and right and refused > 0,
        figures={
            "messages": read + refused,
            "read": read,
            "refused": refused,
            "grown_bytes": grown,
            "sent": sent,
            "accounted": accounted,
            "aggregator_grown_bytes": heap,
        },
    )
