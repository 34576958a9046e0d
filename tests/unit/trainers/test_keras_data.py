"""Forms of data for Keras, what does not fit, and user modules."""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.errors import ConfigError
from fedmq.testing.trainer import CLASSES, INPUTS, points

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.keras

TASK = {"epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    from tests.unit.trainers import keras_zoo

    return keras_zoo


def trainer_of(model: Any, data: Any, **options: Any) -> Any:
    from fedmq.trainers.keras import KerasTrainer

    return KerasTrainer(model, data, **options)


def dataset(zoo: ModuleType, rows: int = 30, batch: int = 8) -> Any:
    given = points(rows)
    return zoo.tf.data.Dataset.from_tensor_slices((given.x, given.y)).batch(batch)


class TestDatasets:
    def test_one_that_fits_is_the_same_as_arrays(self, zoo: ModuleType) -> None:
        model, given = zoo.mlp(), points(30)
        held, arrays = (trainer_of(model, data) for data in (dataset(zoo), (given.x, given.y)))
        first = held.initial()
        assert held.examples == 30
        assert np.array_equal(
            held.train(first, TASK, seed=1).vector, arrays.train(first, TASK, seed=1).vector
        )

    @pytest.mark.slow
    def test_one_that_does_not_fit_is_streamed_as_it_comes(self, zoo: ModuleType) -> None:
        model = zoo.normalised("adam", rate=0.0)
        trainer = trainer_of(model, dataset(zoo), held_out=dataset(zoo), memory_bytes=100)
        given = points(30)
        arrays = trainer_of(model, (given.x, given.y), held_out=(given.x, given.y))
        first = trainer.initial()
        trained = trainer.train(first, {"epochs": 2, "batch_size": 3}, seed=1)
        assert (trained.examples, trained.steps) == (30, 8)
        model.set_weights(zoo_weights(model, trainer))
        model.optimizer.learning_rate.assign(0.001)
        for variable in model.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape, variable.dtype))
        seen = model.fit(dataset(zoo), epochs=2, shuffle=False).history
        assert trained.vector == pytest.approx(zoo.values(model), abs=1e-5)
        assert trained.metrics["train_loss"] == pytest.approx(seen["loss"][-1], abs=1e-5)
        assert dict(trainer.evaluate(first)) == pytest.approx(dict(arrays.evaluate(first)), abs=1e-5)

    def test_a_stream_stops_after_the_most_steps(self, zoo: ModuleType) -> None:
        trainer = trainer_of(zoo.mlp, dataset(zoo), memory_bytes=0)
        for most, taken in ((1, 1), (4, 4), (6, 6), (9, 8)):
            trained = trainer.train(trainer.initial(), {**TASK, "max_steps": most}, seed=1)
            assert trained.steps == taken
        one_epoch = trainer.train(trainer.initial(), {"epochs": 1}, seed=1).vector
        assert np.array_equal(
            trainer.train(trainer.initial(), {**TASK, "max_steps": 4}, seed=1).vector, one_epoch
        )

    def test_without_end(self, zoo: ModuleType) -> None:
        with pytest.raises(ConfigError, match=r"without end: take off its repeat\(\)"):
            trainer_of(zoo.mlp, dataset(zoo).repeat())

    def test_empty(self, zoo: ModuleType) -> None:
        with pytest.raises(ConfigError, match="training data is empty"):
            trainer_of(zoo.mlp, dataset(zoo).take(0))

    def test_without_batches(self, zoo: ModuleType) -> None:
        with pytest.raises(ConfigError, match="single number where rows were wanted"):
            trainer_of(zoo.mlp, dataset(zoo).unbatch())

    def test_ragged(self, zoo: ModuleType) -> None:
        ragged = zoo.tf.ragged.constant([[1.0], [1.0, 2.0]])
        with pytest.raises(ConfigError, match="rows of different lengths"):
            trainer_of(zoo.mlp, zoo.tf.data.Dataset.from_tensor_slices(ragged).batch(2))

    def test_inputs_alone(self, zoo: ModuleType) -> None:
        class Autoencoder(zoo.keras.Model):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.code, self.back = zoo.Layers.Dense(2), zoo.Layers.Dense(INPUTS)

            def call(self, inputs: Any) -> Any:
                return self.back(self.code(inputs))

            def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
                return zoo.tf.reduce_mean(zoo.tf.square(x - y_pred))

        model = Autoencoder()
        model.compile(optimizer="sgd")
        x = points(30).x
        arrays, held = (
            trainer_of(model, (x,)),
            trainer_of(model, zoo.tf.data.Dataset.from_tensor_slices(x).batch(8)),
        )
        first = arrays.initial()
        one, two = (trainer.train(first, TASK, seed=1) for trainer in (arrays, held))
        assert np.array_equal(one.vector, two.vector)
        assert set(one.metrics) == {"train_loss"}


def zoo_weights(model: Any, trainer: Any) -> list[Any]:
    floats = iter(trainer.layout.unpack(trainer.initial()))
    return [next(floats) if value.dtype.kind == "f" else value for value in model.get_weights()]


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("x", "y", "says"),
        [
            (np.zeros((4, 5)), np.zeros(4, int), r"examples of shape \(5,\), the model takes \(6,\)"),
            (np.zeros((4, 6, 1)), np.zeros(4, int), r"examples of shape \(6, 1\), the model takes \(6,\)"),
            (
                np.zeros((4, 6)),
                np.asarray([0, 1, 2, 3]),
                "labels from 0 to 3, the model tells 3 classes apart",
            ),
            (np.zeros((4, 6)), np.zeros(4), "labels of type float32"),
            (np.zeros((4, 6)), np.zeros((4, 2), int), "training data does not fit the model"),
            (np.zeros((4, 6)), np.zeros(5, int), r"parts of \[4, 5\] rows"),
            (np.zeros((0, 6)), np.zeros(0, int), "training data is empty"),
        ],
    )
    def test_data(self, x: Any, y: Any, says: str, zoo: ModuleType) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            trainer_of(zoo.mlp, (x, y))
        assert "\n" not in str(caught.value)

    def test_held_out_data(self, zoo: ModuleType) -> None:
        given = points(4)
        with pytest.raises(ConfigError, match="held-out data has labels from 0 to 7"):
            trainer_of(zoo.mlp, (given.x, given.y), held_out=(given.x, np.asarray([0, 7, 1, 1])))

    def test_missing_inputs(self, zoo: ModuleType) -> None:
        given = points(4)
        with pytest.raises(ConfigError, match="training data does not fit the model"):
            trainer_of(zoo.two_inputs, ({"left": given.x[:, :2]}, given.y))

    def test_a_last_axis_may_be_missing_as_in_fit(self, zoo: ModuleType) -> None:
        model = zoo.compiled(zoo.keras.Sequential([zoo.keras.Input((1,)), zoo.Layers.Dense(CLASSES)]))
        trainer = trainer_of(model, (np.zeros(4), points(4).y))
        assert trainer.train(trainer.initial(), TASK, seed=1).examples == 4

    def test_a_broken_subclass(self, zoo: ModuleType) -> None:
        class Broken(zoo.keras.Model):  # type: ignore[misc, name-defined]
            def call(self, inputs: Any) -> Any:
                raise RuntimeError("of its own making")

        with pytest.raises(ConfigError, match="of its own making"):
            trainer_of(zoo.compiled(Broken()), (points(4).x, points(4).y))

    def test_models(self, zoo: ModuleType) -> None:
        data = points(4).x, points(4).y
        frozen = zoo.mlp()
        frozen.trainable = False
        for model, says in (
            (zoo.keras.Sequential(zoo.dense(4)), "not compiled"),
            (lambda: 3, "the model is a int: return a compiled keras.Model"),
            (zoo.compiled(frozen), "has nothing to train"),
        ):
            with pytest.raises(ConfigError, match=says):
                trainer_of(model, data)

    def test_another_backend(self, zoo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zoo.keras.backend, "backend", lambda: "jax")
        with pytest.raises(ConfigError, match="Keras runs on jax"):
            trainer_of(zoo.mlp(), (points(4).x, points(4).y))


MODULE = """
import numpy as np
import keras
from fedmq.testing.trainer import points

calls = []

def model():
    calls.append(1)
    made = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    made.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return made

def data(device):
    given = points(int(device[-1]) + 3)
    return (given.x, given.y), (given.x, given.y)
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(MODULE)
    return str(path)


class TestFromModule:
    def test_devices_share_one_model(self, module: str, zoo: ModuleType) -> None:
        from fedmq.trainers.keras import from_module

        trainers = [from_module(module, f"pi-{i}", {"seed": 4}) for i in range(3)]
        assert [trainer.examples for trainer in trainers] == [3, 4, 5]
        assert trainers[2].evaluate(trainers[2].initial())["held_out"] == 5
        made = sys.modules[vars(trainers[0]._engine)["_made_from"].__module__]
        assert made.calls == [1]
        del trainers
        zoo.keras.utils.set_random_seed(99)
        again = from_module(module, "pi-0", {"seed": 4})
        assert made.calls == [1, 1]
        assert np.array_equal(again.initial(), from_module(module, "pi-1", {"seed": 4}).initial())

    def test_the_seed_makes_the_first_weights(self, module: str, zoo: ModuleType) -> None:
        from fedmq.trainers.keras import from_module

        first = [from_module(module, "pi-0", {"seed": seed}).initial() for seed in (4, 4, 5)]
        assert np.array_equal(first[0], first[1])
        assert not np.array_equal(first[0], first[2])

    def test_personal_layers_are_kept_in_a_folder(self, module: str, tmp_path: Path, zoo: ModuleType) -> None:
        from fedmq.trainers.keras import from_module

        options = {"personal": ["dense_1"], "keep": str(tmp_path)}
        trainer = from_module(module, "pi-1", options)
        trainer.train(trainer.initial(), TASK, seed=1)
        assert (tmp_path / "pi-1.npz").exists()
        with pytest.raises(ConfigError, match="cannot name a file"):
            from_module(module, "../pi-1", options)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"thread": 1}, "trainer option 'thread' is not known: did you mean 'threads'"),
            ({"threads": 0}, "threads is 0"),
            ({"seed": -1}, "seed is -1"),
            ({"personal": "dense"}, "personal is 'dense': give a list"),
            ({"personal": [1]}, r"personal is \[1\]: give a list"),
        ],
    )
    def test_options(self, options: dict[str, object], says: str, module: str, zoo: ModuleType) -> None:
        from fedmq.trainers.keras import from_module

        with pytest.raises(ConfigError, match=says):
            from_module(module, "pi-1", options)


THREADS = """
from fedmq.trainers.keras import configure_threads
configure_threads(1)
import os, tensorflow as tf
tf.constant(1) + 1
configure_threads(1)
print(tf.config.threading.get_intra_op_parallelism_threads(), os.environ["TF_CPP_MIN_LOG_LEVEL"])
try:
    configure_threads(2)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_threads_are_set_before_the_first_model() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True, timeout=100
    ).stdout.splitlines()
    assert printed[0] == "1 2"
    assert printed[1].startswith("ConfigError TensorFlow is already running and cannot change to 2 threads")
