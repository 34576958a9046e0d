"""The front: who is asked when, in batches of what size, and what callers hear."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.device.interface import Trained
from fedmq.engines import Front, Job
from fedmq.errors import ConfigError, MisuseError
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fedmq.vectors import Vector

ZERO = np.zeros(2, np.float32)
PATIENT = 30.0


class Scripted:
    """Adds its seed to each number; tells which jobs it was given together, and waits at `gate`."""

    name = "scripted 1"
    layout = Layout((Variable("w", (2,)),))

    def __init__(self, stack: int, threads: int = 1) -> None:
        self.stack, self.threads = stack, threads
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failing = False

    def examples(self, device: str) -> int:
        return int(device)

    def initial(self) -> Vector:
        return ZERO.copy()

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        self.calls.append([job.seed for job in jobs])
        assert self.gate.wait(PATIENT)
        if self.failing:
            raise RuntimeError("no luck today")
        return [Trained(job.model + np.float32(job.seed), self.examples(job.device), 1) for job in jobs]

    def evaluate(self, device: str, model: Vector) -> Mapping[str, float]:
        return {"held_out": float(device), "loss": float(model[0])}


def job(seed: int, model: Vector = ZERO) -> Job:
    return Job("7", model, {}, seed)


def test_a_full_batch_goes_at_once_and_the_rest_when_nobody_comes() -> None:
    engine = Scripted(stack=4)
    with Front(engine) as front:
        results = front.train_all([job(seed) for seed in range(10)])
    assert [int(each.vector[0]) for each in results] == list(range(10))
    assert [seed for call in engine.calls for seed in call] == list(range(10))
    assert all(len(call) <= 4 for call in engine.calls)


def test_callers_in_threads_become_one_batch() -> None:
    engine = Scripted(stack=8)
    with Front(engine, patience_s=PATIENT) as front, ThreadPoolExecutor(8) as pool:
        trainers = [front.trainer(str(number)) for number in range(8)]
        asked = [pool.submit(each.train, ZERO, {}, seed=k) for k, each in enumerate(trainers)]
        results = [each.result(PATIENT) for each in asked]
    assert [int(each.vector[0]) for each in results] == list(range(8))
    assert [each.examples for each in results] == list(range(8))
    assert [sorted(call) for call in engine.calls] == [list(range(8))]


def test_what_comes_while_the_engine_works_waits_together() -> None:
    engine = Scripted(stack=5)
    engine.gate.clear()
    with Front(engine) as front, ThreadPoolExecutor(6) as pool:
        first = pool.submit(front.train, job(0))
        while not engine.calls:  # it is at work now, with one job
            pass
        others = [pool.submit(front.train, job(seed)) for seed in range(1, 6)]
        while len(front._waiting) < 5:
            pass
        engine.gate.set()
        for each in (first, *others):
            each.result(PATIENT)
    assert [sorted(call) for call in engine.calls] == [[0], [1, 2, 3, 4, 5]]


def test_threads_share_what_is_there() -> None:
    """Two threads that are free take half each, rather than one all and the other nothing."""
    engine = Scripted(stack=6, threads=2)
    engine.gate.clear()
    with Front(engine, patience_s=10 * PATIENT) as front, ThreadPoolExecutor(1) as pool:
        while front._idle < 2:
            pass
        asked = pool.submit(front.train_all, [job(seed) for seed in range(6)])
        while len(engine.calls) < 2:
            pass
        engine.gate.set()
        asked.result(PATIENT)
    assert sorted(engine.calls) == [[0, 1, 2], [3, 4, 5]]


def test_an_engine_that_does_not_stack_never_waits() -> None:
    engine = Scripted(stack=1, threads=2)
    with Front(engine, patience_s=10 * PATIENT) as front:
        assert front.train(job(3)).vector[0] == 3
    assert engine.calls == [[3]]


def test_everyone_hears_of_an_error_and_the_front_goes_on() -> None:
    engine = Scripted(stack=3)
    with Front(engine) as front:
        engine.failing = True
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(front.train, job(seed)) for seed in range(3)]
            for each in asked:
                with pytest.raises(RuntimeError, match="no luck"):
                    each.result(PATIENT)
        engine.failing = False
        assert front.train(job(2)).vector[0] == 2


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    engine = Scripted(stack=100)
    engine.gate.clear()
    front = Front(engine, patience_s=PATIENT)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(front.train, job(seed)) for seed in range(2)]
        while len(front._waiting) < 2:
            pass
        engine.gate.set()
        front.close()
        assert [each.result(PATIENT).vector[0] for each in asked] == [0, 1]
    with pytest.raises(MisuseError, match="closed"):
        front.train(job(1))


def test_what_cannot_be_trained_is_refused_before_it_waits() -> None:
    engine = Scripted(stack=2)
    with Front(engine, patience_s=PATIENT) as front:
        with pytest.raises(ConfigError, match="'epochs'"):
            front.trainer("7").train(ZERO, {"epoch": 1}, seed=1)
        for call in (front.train, lambda one: front.train_all([one])):
            with pytest.raises(MisuseError):
                call(job(1, ZERO[:1]))
    assert engine.calls == []


def test_a_shared_trainer_speaks_for_its_device(tmp_path: Path) -> None:
    engine = Scripted(stack=2)
    with Front(engine) as front:
        trainer = front.trainer("7")
        assert (trainer.name, trainer.examples, trainer.layout) == ("scripted 1", 7, engine.layout)
        assert trainer.initial().tolist() == [0, 0]
        assert trainer.evaluate(ZERO + 2) == {"held_out": 7, "loss": 2}
        with pytest.raises(MisuseError, match="no model file"):
            trainer.save(ZERO, tmp_path / "model.keras")


@pytest.mark.parametrize(("stack", "threads", "callers"), [(1, 2, 4), (24, 2, 96), (1024, 1, 256)])
def test_how_many_callers_keep_it_busy(stack: int, threads: int, callers: int) -> None:
    with Front(Scripted(stack, threads)) as front:
        assert front.callers == callers
