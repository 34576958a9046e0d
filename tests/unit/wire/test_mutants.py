"""A long run of mutated messages: each is read as a message, or refused, in bounded time and memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from fedmq.errors import MessageError
from fedmq.wire.envelope import decode, encode
from tests.unit.wire import samples
from tests.unit.wire.mutations import NASTY, WAYS

if TYPE_CHECKING:
    from fedmq.protocol.messages import Message

SAMPLES: tuple[Message, ...] = (
    samples.BIRTH, samples.BEACON, samples.TASK, samples.MANIFEST, samples.CHUNK, samples.UPDATE, samples.RECEIPT,
    samples.REPORT, samples.FRAME,
)  # fmt: skip


def mutant(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        piece = chance.choice(NASTY) if chance.random() < 0.5 else chance.randbytes(chance.randint(1, 4))
        data = chance.choice(WAYS)(data, chance.randint(0, len(data)), piece)
    return data


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_hundred_thousand_mutants(message: Message) -> None:
    kind, whole, chance, slowest = type(message), encode(message), random.Random(1), 0.0
    outcomes = {True: 0, False: 0}
    for _ in range(100_000):
        wrong = mutant(whole, chance)
        begun = time.process_time()
        outcomes[taken(wrong, kind)] += 1
        slowest = max(slowest, time.process_time() - begun)
    assert min(outcomes.values()) > 1000  # it saw both sides
    assert slowest < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_no_mutant_takes_memory(message: Message) -> None:
    kind, whole, chance = type(message), encode(message), random.Random(2)
    tracemalloc.start()
    try:
        for _ in range(10_000):
            taken(mutant(whole, chance), kind)
        assert tracemalloc.get_traced_memory()[1] < 400_000  # msgpack writes through 256 KiB
    finally:
        tracemalloc.stop()


def taken(data: bytes, kind: type[Message]) -> bool:
    try:
        message = decode(data, kind)
    except MessageError:
        return False
    encode(message)  # what is taken can be sent on
    return True
