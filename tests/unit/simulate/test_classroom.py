"""Devices of one process on one engine: batches, everyone's own answer, and everyone's own failure."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.codecs import parse
from fedmq.device.interface import Trained
from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.outbox import MemoryOutbox
from fedmq.device.training import Training
from fedmq.engines import Front
from fedmq.errors import ConfigError, Refused
from fedmq.protocol.messages import DELTA, Task, TaskKind, Update
from fedmq.simulate.classroom import Classroom
from fedmq.testing.federation import SMALL
from fedmq.wire.envelope import decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedmq.device.outbox import Stored
    from fedmq.engines import Job
    from fedmq.vectors import Vector

ZERO = np.zeros(SMALL.size, np.float32)
TASK = Task(b"run-0001", 3, 3, TaskKind.TRAIN, 7, SMALL.digest, bytes(16), 1.0, 60.0, "float32", 9999, {})


class Counting:
    """Moves each model by the device's number; notes which jobs came together."""

    name = "counting 1"
    layout = SMALL

    def __init__(self, stack: int = 4, threads: int = 1) -> None:
        self.stack, self.threads = stack, threads
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.trouble: Exception | None = None

    def examples(self, device: str) -> int:
        return int(device) + 1

    def initial(self) -> Vector:
        return ZERO

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        self.calls.append([job.device for job in jobs])
        assert self.gate.wait(30)
        if self.trouble is not None:
            raise self.trouble
        shifts = [np.float32(job.device) if job.device != "9" else np.float32("nan") for job in jobs]
        return [
            Trained(job.model + shift, self.examples(job.device), 1)
            for job, shift in zip(jobs, shifts, strict=True)
        ]

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        return {}


class Room:
    """A classroom, and whom to ask in it."""

    def __init__(self, engine: Counting) -> None:
        self.front = Front(engine)
        self.classroom = Classroom(engine)

    def training(self, device: int) -> Training:
        return Training(str(device), self.front.trainer(str(device)), MemoryOutbox(), MemoryKeepsakes())

    async def answers(self, devices: Sequence[int], task: Task = TASK) -> list[Stored | BaseException]:
        asked = (self.classroom.answer(self.training(device), task, ZERO) for device in devices)
        return await asyncio.gather(*asked, return_exceptions=True)

    def close(self) -> None:
        self.classroom.close()
        self.front.close()


def shift(answer: Stored | BaseException) -> float:
    """Return by how much the answer moves the model."""
    assert not isinstance(answer, BaseException), answer
    return float(parse("float32").decode(decode(answer.body, Update).sections[DELTA], SMALL.sizes)[0])


async def test_everyone_gets_the_own_answer_out_of_full_batches() -> None:
    engine = Counting(stack=4)
    room = Room(engine)
    answers = await room.answers(range(8))
    assert [shift(answer) for answer in answers] == list(range(8))
    assert engine.calls == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    room.close()


async def test_who_is_left_over_does_not_wait_for_more() -> None:
    engine = Counting(stack=4)
    room = Room(engine)
    answers = await room.answers(range(6))
    assert [shift(answer) for answer in answers] == list(range(6))
    assert engine.calls == [["0", "1", "2", "3"], ["4", "5"]]
    room.close()


async def test_as_many_batches_run_as_the_engine_has_threads() -> None:
    engine = Counting(stack=1, threads=2)
    engine.gate.clear()
    room = Room(engine)
    asked = asyncio.ensure_future(room.answers(range(4)))
    while len(engine.calls) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert sorted(engine.calls) == [["0"], ["1"]]  # which thread is first is chance
    engine.gate.set()
    assert [shift(answer) for answer in await asked] == list(range(4))
    room.close()


async def test_each_hears_what_is_wrong_with_its_own_answer_only() -> None:
    engine = Counting(stack=4)
    room = Room(engine)
    asked = [
        room.classroom.answer(room.training(1), TASK, ZERO),
        room.classroom.answer(room.training(2), replace(TASK, training={"epoch": 1}), ZERO),
        room.classroom.answer(room.training(9), TASK, ZERO),
        room.classroom.answer(room.training(3), TASK, ZERO),
    ]
    first, unknown, diverged, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (shift(first), shift(last)) == (1, 3)
    assert isinstance(unknown, ConfigError)
    assert isinstance(diverged, Refused)
    assert "diverged" in str(diverged)
    assert engine.calls == [["1", "9", "3"]]
    room.close()


@pytest.mark.parametrize("trouble", [ConfigError("not with this model"), RuntimeError("a bug")])
async def test_trouble_of_the_engine_reaches_all_of_the_batch_and_ends_with_it(trouble: Exception) -> None:
    engine = Counting(stack=2)
    room = Room(engine)
    engine.trouble = trouble
    assert await room.answers([1, 2]) == [trouble, trouble]
    engine.trouble = None
    assert [shift(answer) for answer in await room.answers([1, 2])] == [1, 2]
    room.close()


async def test_who_stops_waiting_is_not_in_the_others_way() -> None:
    engine = Counting(stack=2)
    engine.gate.clear()
    room = Room(engine)
    quick, patient = (
        asyncio.ensure_future(room.classroom.answer(room.training(number), TASK, ZERO)) for number in (1, 2)
    )
    await asyncio.sleep(0)
    quick.cancel()
    engine.gate.set()
    assert shift(await patient) == 2
    assert quick.cancelled()
    room.close()
