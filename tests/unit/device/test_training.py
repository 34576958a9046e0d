"""From a task to an update and what is kept of it, without an event loop."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fedmq.algorithms import Scaffold
from fedmq.codecs import parse
from fedmq.device.interface import Trained
from fedmq.device.keepsakes import MemoryKeepsakes, Origin
from fedmq.device.outbox import MemoryOutbox
from fedmq.device.training import Training
from fedmq.errors import ConfigError, Refused
from fedmq.protocol.messages import DELTA, Setting, Task, TaskKind, Update
from fedmq.protocol.seeds import update_seed
from fedmq.testing.federation import ShiftTrainer
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.vectors import Vector
from fedmq.wire.envelope import decode

RUN = b"run-0001"
MODEL = Mlp(3, classes=2)
LAYOUT = Scaffold().extend(MODEL.layout)
TRAINING: dict[str, Setting] = {"epochs": 2, "learning_rate": 0.1}


def trainer() -> NumpyTrainer:
    chance = np.random.default_rng(2)
    return NumpyTrainer(MODEL, chance.normal(size=(20, 3)), chance.integers(0, 2, 20))


SCAFFOLD: dict[str, Setting] = {**TRAINING, "algorithm": "scaffold"}


def task(training: dict[str, Setting], codec: str = "float32", update_bytes: int = 9999) -> Task:
    return Task(
        RUN, 3, 3, TaskKind.TRAIN, 7, MODEL.layout.digest, bytes(16), 1.0, 60.0, codec, update_bytes, training
    )


def whole(seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(size=LAYOUT.size).astype(np.float32)


class Bench:
    def __init__(self) -> None:
        self.outbox, self.keepsakes = MemoryOutbox(), MemoryKeepsakes()
        self.training = Training("device", trainer(), self.outbox, self.keepsakes)


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_scaffold_trains_sends_and_keeps(codec: str) -> None:
    bench, model = Bench(), whole()
    asked = task(SCAFFOLD, codec)
    stored = bench.training.answer(asked, model)
    assert bench.outbox.get(stored.update) == stored.body
    update = decode(stored.body, Update)
    seed = update_seed(RUN, 3, update.update)
    delta = parse(codec).decode(update.sections[DELTA], LAYOUT.sizes, seed=seed)
    assert bench.keepsakes.waiting() == {stored.update: Origin(RUN, 3, 7)}
    bench.keepsakes.settle(stored.update, added=True)
    kept = bench.keepsakes.kept(RUN)["scaffold.control"]
    assert (
        kept.tobytes() == delta[MODEL.layout.size :].tobytes()
    )  # what the aggregator decodes, to the last bit
    size = MODEL.layout.size
    reach = 2 * 1 * 0.1  # two epochs of one batch
    np.testing.assert_allclose(
        kept, -delta[:size] / reach - model[size:], atol=1e-5 if codec == "float32" else 0.1
    )


def test_what_is_kept_steers_the_next_training() -> None:
    """With c_i = c, the second training is as if there were no control at all."""
    bench, model = Bench(), whole()
    plain = decode(bench.training.answer(task(TRAINING), model[: MODEL.layout.size]).body, Update)
    bench.keepsakes.put(Origin(RUN, 2, 6), b"update-1", {"scaffold.control": model[MODEL.layout.size :]})
    bench.keepsakes.settle(b"update-1", added=True)
    other = decode(bench.training.answer(task(SCAFFOLD), model).body, Update)
    moved = np.frombuffer(other.sections[DELTA], "<f4")[: MODEL.layout.size]
    np.testing.assert_allclose(moved, np.frombuffer(plain.sections[DELTA], "<f4"), atol=1e-6)
    another = Training("device", trainer(), MemoryOutbox(), MemoryKeepsakes())
    free = decode(another.answer(task(SCAFFOLD), model).body, Update)
    assert np.abs(np.frombuffer(free.sections[DELTA], "<f4")[: MODEL.layout.size] - moved).max() > 0.01


def test_without_an_algorithm_nothing_is_kept() -> None:
    bench = Bench()
    bench.training.answer(task(TRAINING), whole()[: MODEL.layout.size])
    assert not bench.keepsakes.waiting()


@pytest.mark.parametrize(
    ("training", "size", "says"),
    [
        ({"algorithm": "scaffold"}, MODEL.layout.size, "holds 8 numbers, scaffold wants 16"),
        ({}, LAYOUT.size, "holds 16 numbers, plain wants 8"),
        ({"algorithm": "moon"}, LAYOUT.size, "knows plain"),
        ({"algorithm": "scaffold", "learning_rate": 0.0}, LAYOUT.size, "above zero"),
    ],
)
def test_tasks_that_do_not_fit_are_declined(training: dict[str, Setting], size: int, says: str) -> None:
    bench = Bench()
    with pytest.raises(Refused, match=says):
        bench.training.answer(task(training), whole()[:size])
    assert not bench.outbox.entries()
    assert not bench.keepsakes.waiting()


def test_divergence_and_length_are_declined_and_leave_nothing() -> None:
    bench, model = Bench(), whole()
    with pytest.raises(Refused, match="diverged"):
        bench.training.answer(task(SCAFFOLD), np.full_like(model, np.nan))
    with pytest.raises(Refused, match="the task allows 50"):
        bench.training.answer(task(SCAFFOLD, update_bytes=50), model)
    with pytest.raises(ConfigError, match="'epoch'"):
        bench.training.answer(task({"epoch": 1}), model[: MODEL.layout.size])
    assert not bench.outbox.entries()
    assert not bench.keepsakes.waiting()


def test_a_trainer_that_takes_no_pull_declines_what_steers() -> None:
    class Plain(ShiftTrainer):
        def train(self, model: Vector, settings: Mapping[str, Setting], *, seed: int) -> Trained:  # type: ignore[override]
            return super().train(model, settings, seed=seed)

    training = Training("device", Plain(MODEL.layout), MemoryOutbox(), MemoryKeepsakes())
    with pytest.raises(Refused, match="shift cannot be steered"):
        training.answer(task(SCAFFOLD), whole())
    assert training.answer(task(TRAINING), whole()[: MODEL.layout.size]).body
