"""The NumPy engine: the suite for trainers, and its arithmetic against finite differences and a textbook."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedmq.errors import ConfigError
from fedmq.testing.trainer import CLASSES, INPUTS, Points, TrainerConformance, points
from fedmq.trainers.numpy import Mlp, NumpyTrainer, from_module

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.device.interface import Trainer
    from fedmq.vectors import Vector

MODEL = Mlp(INPUTS, (9, 5), classes=CLASSES)


def pair(given: Points) -> tuple[np.ndarray, np.ndarray]:
    return given.x, given.y


class TestConformance(TrainerConformance):
    model = Mlp(INPUTS, (16,), classes=CLASSES)
    momentum = 0.0

    def make(self, train: Points, held_out: Points | None) -> Trainer:
        other = None if held_out is None else pair(held_out)
        return NumpyTrainer(self.model, train.x, train.y, held_out=other, momentum=self.momentum)


class TestConformanceOfSoftmaxRegressionWithMomentum(TestConformance):
    model = Mlp(INPUTS, classes=CLASSES)
    momentum = 0.9


def loss_of(trainer: NumpyTrainer, vector: Vector) -> float:
    return trainer.evaluate(vector)["loss"]


def test_step_follows_the_numerical_gradient() -> None:
    given = pair(points(20))
    trainer = NumpyTrainer(MODEL, *given, held_out=given)
    first = trainer.initial() + np.float32(0.1)
    rate = 0.5
    step = trainer.train(first, {"batch_size": 20, "learning_rate": rate}, seed=0).vector - first
    shift = np.float32(1e-2)
    for i in range(0, first.size, 7):
        nudge = np.zeros_like(first)
        nudge[i] = shift
        slope = (loss_of(trainer, first + nudge) - loss_of(trainer, first - nudge)) / (2 * shift)
        assert step[i] == pytest.approx(-rate * slope, abs=3e-3)


def test_momentum_is_the_textbooks() -> None:
    """Softmax regression from zero on one example: the first gradients are known by hand."""
    x, y = np.asarray([[1.0, 0.0]]), np.asarray([0])
    trainer = NumpyTrainer(Mlp(2, classes=2), x, y, momentum=0.5)
    zero = np.zeros(6, np.float32)
    one = trainer.train(zero, {"learning_rate": 1.0}, seed=0).vector
    assert one.tolist() == [0.5, -0.5, 0, 0, 0.5, -0.5]
    two = trainer.train(zero, {"learning_rate": 1.0, "epochs": 2}, seed=0).vector
    second = 1 / (1 + np.exp(2))  # the probability of the wrong class after the first step: scores 1 and -1
    assert two == pytest.approx(
        [0.75 + second, -0.75 - second, 0, 0, 0.75 + second, -0.75 - second], abs=1e-6
    )


def test_proximal_gradient_is_mu_times_the_way_gone() -> None:
    x, y = np.asarray([[1.0, 0.0]]), np.asarray([0])
    trainer = NumpyTrainer(Mlp(2, classes=2), x, y)
    zero = np.zeros(6, np.float32)
    free = trainer.train(zero, {"learning_rate": 1.0, "epochs": 2}, seed=0).vector
    held = trainer.train(zero, {"learning_rate": 1.0, "epochs": 2, "proximal": 0.25}, seed=0).vector
    assert free - held == pytest.approx([0.125, -0.125, 0, 0, 0.125, -0.125], abs=1e-6)


def test_layout_names_follow_keras() -> None:
    assert [(v.name, v.shape) for v in MODEL.layout.variables] == [
        ("dense/kernel", (6, 9)),
        ("dense/bias", (9,)),
        ("dense_1/kernel", (9, 5)),
        ("dense_1/bias", (5,)),
        ("dense_2/kernel", (5, 3)),
        ("dense_2/bias", (3,)),
    ]


def test_first_weights_follow_the_seed() -> None:
    given = pair(points(4))
    one, same, other = (NumpyTrainer(MODEL, *given, seed=seed).initial() for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    kernel, bias = MODEL.layout.unpack(one)[:2]
    assert 0 < np.abs(kernel).max() <= np.sqrt(6 / 15)
    assert not bias.any()


def test_evaluates_more_rows_than_fit_at_once() -> None:
    many = points(2500)
    trainer = NumpyTrainer(MODEL, many.x, many.y, held_out=pair(many))
    whole = trainer.evaluate(trainer.initial())
    parts = [
        NumpyTrainer(MODEL, many.x, many.y, held_out=(many.x[a:b], many.y[a:b])).evaluate(trainer.initial())
        for a, b in ((0, 1000), (1000, 2500))
    ]
    for name in ("loss", "accuracy"):
        assert whole[name] == pytest.approx(0.4 * parts[0][name] + 0.6 * parts[1][name])
    assert whole["held_out"] == 2500


def test_examples_of_any_shape_are_flattened() -> None:
    given = points(10)
    square, flat = (NumpyTrainer(MODEL, x, given.y) for x in (given.x.reshape(10, 2, 3), given.x))
    first = flat.initial()
    assert np.array_equal(square.train(first, {}, seed=1).vector, flat.train(first, {}, seed=1).vector)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((4, 5)), np.zeros(4, int), "5 numbers per example, the model takes 6"),
        (np.zeros((4, 6)), np.asarray([0, 1, 2, 3]), "from 0 to 3, the model tells 3 classes apart"),
        (np.zeros((4, 6)), np.asarray([0, -1, 2, 1]), "from -1 to 2"),
        (np.zeros((4, 6)), np.zeros(4), "labels of type float32"),
        (np.zeros((4, 6)), np.zeros((4, 3), int), r"labels of shape \(4, 3\)"),
        (np.zeros((4, 6)), np.zeros(3, int), r"\[3, 4\] rows"),
        (np.zeros((0, 6)), np.zeros(0, int), "is empty"),
        (3.0, np.zeros(1, int), "single number"),
        (np.asarray([[1.0], [1.0, 2.0]], dtype=object), np.zeros(2, int), "different lengths"),
    ],
)
def test_data_that_do_not_fit_are_refused(x: np.ndarray, y: np.ndarray, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        NumpyTrainer(MODEL, x, y)
    fine = points(4)
    with pytest.raises(ConfigError, match="held-out data"):
        NumpyTrainer(MODEL, fine.x, fine.y, held_out=(x, y))


@pytest.mark.parametrize("sizes", [(0, (), 2), (3, (0,), 2), (3, (), -1), (3, (), 2.0)])
def test_sizes_must_be_whole(sizes: tuple[int, tuple[int, ...], int]) -> None:
    inputs, hidden, classes = sizes
    with pytest.raises(ConfigError, match="layer's size"):
        Mlp(inputs, hidden, classes=classes)


@pytest.mark.parametrize("option", ["learning_rate", "momentum"])
def test_options_must_be_finite(option: str) -> None:
    given = points(4)
    with pytest.raises(ConfigError, match=option):
        NumpyTrainer(MODEL, given.x, given.y, **{option: float("inf")})  # type: ignore[arg-type]


MODULE = """
import numpy as np
from fedmq.trainers.numpy import Mlp

def model():
    return Mlp(2, (4,), classes=2)

def data(device):
    x = np.full((int(device[-1]), 2), 0.5)
    return {returns}
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


class TestFromModule:
    def test_data_by_device(self, tmp_path: Path) -> None:
        name = written(tmp_path, MODULE.format(returns="x, np.zeros(len(x), int)"))
        assert [from_module(name, device).examples for device in ("pi-2", "pi-5")] == [2, 5]
        assert from_module(name, "pi-2").evaluate(np.zeros(22, np.float32)) == {}

    def test_held_out_data_and_options(self, tmp_path: Path) -> None:
        name = written(
            tmp_path, MODULE.format(returns="(x, np.zeros(len(x), int)), (x, np.ones(len(x), int))")
        )
        trainer = from_module(name, "pi-3", {"seed": 5, "learning_rate": 0.5, "momentum": 0.9})
        assert trainer.evaluate(trainer.initial())["held_out"] == 3
        assert np.array_equal(trainer.initial(), Mlp(2, (4,), classes=2).initial(5))

    def test_unknown_option(self, tmp_path: Path) -> None:
        name = written(tmp_path, MODULE.format(returns="x, x"))
        with pytest.raises(ConfigError, match="did you mean 'momentum'"):
            from_module(name, "pi-1", {"momentun": 0.9})

    def test_other_model(self, tmp_path: Path) -> None:
        name = written(tmp_path, "def model():\n    return 3\ndef data(device):\n    return 1, 2\n")
        with pytest.raises(ConfigError, match="returned int: return an Mlp"):
            from_module(name, "pi-1")

    def test_data_without_labels(self, tmp_path: Path) -> None:
        name = written(tmp_path, MODULE.format(returns="x"))
        with pytest.raises(ConfigError, match=r"returned ndarray where \(x, y\) was wanted"):
            from_module(name, "pi-1")
