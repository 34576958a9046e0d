"""Which Keras models an engine takes, and the sentence where it does not."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.engines import Job
from fedmq.engines.choice import load
from fedmq.engines.numpy.layers import ConvolutionSizes, DenseSizes
from fedmq.errors import ConfigError
from fedmq.trainers.module import Supply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedmq.engines.numpy.networks import Sizes

HEAD = """
import keras
from keras import layers

def compiled(body, optimizer="sgd", loss=None, inputs=4, **options):
    network = keras.Sequential([keras.Input((inputs,)), *body])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss, metrics=["accuracy"], **options)
    return network

class Own(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)

def data(device):
    raise AssertionError

def model():
    """
IMAGE = "layers.Reshape((2, 1, 2))"
POOL = "layers.MaxPooling2D((2, 1))"
ROW = "layers.Flatten(), layers.Dense(3)"
DENSE = "[layers.Dense(5, activation='relu'), layers.Dense(3)]"


def test_jax_says_that_it_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    keras = ModuleType("keras")
    keras.__dict__["backend"] = SimpleNamespace(backend=lambda: "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.delitem(sys.modules, "fedmq.engines.jax", raising=False)
    monkeypatch.delitem(sys.modules, "fedmq.engines.jax.runtime", raising=False)
    with pytest.raises(ConfigError, match=r"Keras already runs on tensorflow in this process"):
        load("jax")


@pytest.fixture
def supplies() -> dict[str, Supply]:
    generator = np.random.Generator(np.random.Philox(1))

    def draw(rows: int) -> tuple[Any, Any]:
        return generator.normal(size=(rows, 4)).astype(np.float32), generator.integers(0, 3, rows)

    return {f"d{rows}": Supply(draw(rows), draw(4)) for rows in (3, 9)}


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], str]:
    def write(says: str) -> str:
        path = tmp_path / f"mine_{abs(hash(says))}.py"
        path.write_text(f"{HEAD}{says}\n")
        return str(path)

    return write


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("return compiled([layers.Dense(5, activation='tanh'), layers.Dense(3)])", "the activation tanh"),
        ("return compiled([layers.Dense(5), layers.Dropout(0.5), layers.Dense(3)])", "a Dropout layer"),
        (f"return compiled([{IMAGE}, layers.Conv2D(2, 1, strides=2), {ROW}])", "in steps of one"),
        (f"return compiled([{IMAGE}, layers.Conv2D(2, 1, groups=2), {ROW}])", "no plain convolution"),
        (f"return compiled([{IMAGE}, layers.MaxPooling2D(1), {ROW}])", "right behind a convolution"),
        (
            f"return compiled([{IMAGE}, layers.Conv2D(2, 1), {POOL}, layers.MaxPooling2D(1), {ROW}])",
            "right behind a convolution",
        ),
        (
            f"return compiled([{IMAGE}, layers.Conv2D(2, 1), layers.MaxPooling2D((2, 1), strides=1), {ROW}])",
            "windows side by side",
        ),
        (f"return compiled([{IMAGE}, layers.ReLU(), layers.Conv2D(2, 1), {ROW}])", "or the first layer"),
        (f"return compiled([{IMAGE}, layers.Conv2D(2, 1), layers.ReLU(6), {ROW}])", "another activation"),
        (
            f"return compiled([{IMAGE}, layers.Conv2D(2, 1), layers.Reshape((1, 2, 2)), {ROW}])",
            "another shape than a row",
        ),
        ("return compiled([layers.Reshape((2, 2)), layers.Dense(3), layers.Flatten()])", "numbers in a row"),
        (
            f"return compiled([layers.Dense(4), {IMAGE}, layers.Conv2D(2, 1), {ROW}])",
            "another shape than a row",
        ),
        (
            "return compiled([layers.Dense(4, activation='softmax'), layers.Dense(3)])",
            "a softmax before its last layer",
        ),
        ("return compiled([layers.Dense(3, activation='relu')])", "no Dense one that gives scores"),
        ("return compiled([layers.BatchNormalization(), layers.Dense(3)])", "a BatchNormalization layer"),
        (f"return compiled({DENSE}, 'adam')", "more than SGD"),
        (f"return compiled({DENSE}, loss='mse')", "no SparseCategoricalCrossentropy"),
        ("return compiled([layers.Dense(3, kernel_regularizer='l2')])", "more than a kernel and a bias"),
        (
            "x = keras.Input((4,)); own = keras.Model(x, layers.Dense(3)(x)); own.compile('sgd', 'mse'); return own",
            "no Sequential",
        ),
    ],
)
def test_what_numpy_cannot_train(says: str, why: str, module: Callable[[str], str]) -> None:
    from fedmq.engines.keras import first_model
    from fedmq.engines.numpy.reading import read

    with pytest.raises(ConfigError, match=why):
        read(first_model(module(says), {}))


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.parametrize(
    ("body", "layers"),
    [
        (
            f"{IMAGE}, layers.Conv2D(4, (1, 2), padding='same'), {POOL}, layers.ReLU(), {ROW}",
            (ConvolutionSizes((1, 2), 4, same=True, relu=True, pool=(2, 1)), DenseSizes(3, relu=False)),
        ),
        (
            f"{IMAGE}, layers.Conv2D(4, 1), layers.Activation('relu'), layers.Conv2D(2, 1), {ROW}",
            (
                ConvolutionSizes((1, 1), 4, same=False, relu=True),
                ConvolutionSizes((1, 1), 2, same=False, relu=False),
                DenseSizes(3, relu=False),
            ),
        ),
        (
            "layers.Dense(5), layers.ReLU(), layers.Dense(3)",
            (DenseSizes(5, relu=True), DenseSizes(3, relu=False)),
        ),
    ],
)
def test_what_numpy_reads(body: str, layers: tuple[Sizes, ...], module: Callable[[str], str]) -> None:
    from fedmq.engines.keras import first_model
    from fedmq.engines.numpy.reading import read

    found = read(first_model(module(f"return compiled([{body}])"), {})).network
    assert found.layers == layers
    assert found.image == ((4,) if "Conv2D" not in body else (2, 1, 2))


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.parametrize(
    ("says", "why"),
    [
        (
            f"own = Own([keras.Input((4,)), *{DENSE}])\n    own.compile('sgd', 'mse')\n    return own",
            "has a train_step of its own",
        ),
        (f"return compiled({DENSE}, run_eagerly=True)", "run_eagerly"),
        (f"return compiled({DENSE}, keras.optimizers.SGD(use_ema=True))", "use_ema"),
        (f"return compiled({DENSE}, 'adam')", "no stateless form"),
        ("return compiled([layers.BatchNormalization(), layers.Dense(3)])", "all rows of a batch"),
        (f"return compiled({DENSE}, inputs=5)", "cannot be stacked"),
        (f"return keras.Sequential([keras.Input((4,)), *{DENSE}])", "not compiled"),
        ("return 3", "the model is a int"),
    ],
)
def test_what_tensorflow_cannot_stack(
    says: str, why: str, module: Callable[[str], str], supplies: dict[str, Supply]
) -> None:
    make = importlib.import_module("fedmq.engines.tensorflow").from_module
    with pytest.raises(ConfigError, match=why):
        make(module(says), supplies, {"way": "stacked"})


@pytest.mark.slow
@pytest.mark.keras
def test_what_tensorflow_cannot_stack_it_trains_one_at_a_time(
    module: Callable[[str], str], supplies: dict[str, Supply], tmp_path: Path
) -> None:
    make = importlib.import_module("fedmq.engines.tensorflow").from_module
    path = module("return compiled([layers.BatchNormalization(), layers.Dense(3)], 'adam')")
    engine = make(path, supplies, {"seed": 1})
    assert engine.name.endswith("one device at a time")
    found = engine.train([Job("d9", engine.initial(), {"batch_size": 4}, 1)])[0]
    assert (found.examples, found.steps, found.reach) == (9, 3, None)
    assert found.metrics["held_out"] == 4
    engine.save(found.vector, tmp_path / "model.keras")
    assert (tmp_path / "model.keras").is_file()


@pytest.mark.slow
@pytest.mark.keras
def test_data_that_cannot_be_stacked_are_named_by_device(
    module: Callable[[str], str], supplies: dict[str, Supply]
) -> None:
    make = importlib.import_module("fedmq.engines.tensorflow").from_module
    path = module(f"return compiled({DENSE})")
    x, y = np.ones((3, 4), np.float32), np.asarray([0, 1, 3])
    with pytest.raises(ConfigError, match="wrong: the training data has labels from 0 to 3"):
        make(path, {**supplies, "wrong": Supply((x, y))}, {"way": "stacked"})
    with pytest.raises(ConfigError, match="other and of d3 differ"):
        make(path, {**supplies, "other": Supply((x[:, :2], y % 3))}, {"way": "stacked"})
    with pytest.raises(ConfigError, match="give auto, single or stacked"):
        make(path, supplies, {"way": "both"})
