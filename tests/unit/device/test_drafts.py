"""Updates of several devices that are encoded together are each as alone."""

from __future__ import annotations

import numpy as np
import pytest

from fedmq.device import drafts
from fedmq.device.drafts import finish_all
from fedmq.device.interface import Trained
from fedmq.device.keepsakes import MemoryKeepsakes
from fedmq.device.naming import reckoned
from fedmq.device.outbox import MemoryOutbox, Stored
from fedmq.device.training import Begun, Training
from fedmq.errors import Refused
from fedmq.protocol.messages import Task, TaskKind
from fedmq.trainers.numpy import Mlp, NumpyTrainer

MODEL = Mlp(3, classes=2)
SIZE = MODEL.layout.size


def task(codec: str, update_bytes: int = 9999) -> Task:
    return Task(
        b"run-0001", 3, 3, TaskKind.TRAIN, 7, MODEL.layout.digest, bytes(16), 1.0, 60.0, codec, update_bytes
    )


def begun(number: int, asked: Task) -> tuple[Training, Begun]:
    trainer = NumpyTrainer(MODEL, np.ones((4, 3)), np.zeros(4, np.int64))
    name = f"device-{number}"
    training = Training(name, trainer, MemoryOutbox(), MemoryKeepsakes(), naming=reckoned(name))
    return training, training.begin(asked, np.zeros(SIZE, np.float32))


def trained(number: int, factor: float = 1.0) -> Trained:
    vector = np.random.default_rng(number).normal(size=SIZE).astype(np.float32) * np.float32(factor)
    return Trained(vector, number + 1, 5, {"loss": 0.5})


@pytest.mark.parametrize("codec", ["float32", "fold(2) | rotate(2) | eden", "feedback | int4"])
@pytest.mark.parametrize("at_once", [1, 3 * SIZE, 1 << 20])
def test_each_is_as_alone(codec: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "_AT_ONCE", at_once)
    answers = [(*begun(number, task(codec)), trained(number)) for number in range(7)]
    others = [
        begun(number, task(codec)) for number in range(7)
    ]  # error feedback would count a training twice
    alone = [training.finish(start, trained(number)) for number, (training, start) in enumerate(others)]
    assert finish_all(answers) == alone


def test_devices_with_other_tasks_are_answered_too() -> None:
    asked = [task("float32"), task("int8"), task("float32"), task("int8")]
    answers = [(*begun(number, one), trained(number)) for number, one in enumerate(asked)]
    assert finish_all(answers) == [training.finish(start, result) for training, start, result in answers]


def test_what_goes_wrong_with_one_is_its_own() -> None:
    """Diverged; too long for a rotation; not trained at all; too large for its task. All others are sent."""
    eden, small = task("rotate(2) | eden"), task("rotate(2) | eden", update_bytes=10)
    refusal = Refused("the trainer would not")
    outcomes = finish_all(
        [
            (*begun(0, eden), trained(0)),
            (*begun(1, eden), trained(1, np.inf)),
            (*begun(2, eden), trained(2, 1e25)),
            (*begun(3, eden), refusal),
            (*begun(4, small), trained(4)),
            (*begun(5, eden), trained(5)),
        ]
    )
    assert isinstance(outcomes[0], Stored)
    assert "diverged" in str(outcomes[1])
    assert "norm is beyond" in str(outcomes[2])
    assert outcomes[3] is refusal
    assert "the task allows 10" in str(outcomes[4])
    assert isinstance(outcomes[5], Stored)


def test_nobody_has_nothing_to_send() -> None:
    assert finish_all([]) == []
