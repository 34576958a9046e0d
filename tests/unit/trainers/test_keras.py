"""Training with Keras: the suite for trainers, and our compiled loop against `fit` and against the NumPy engine."""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.descent import Pull, gain
from fedmq.errors import ConfigError
from fedmq.testing.trainer import CLASSES, INPUTS, Points, TrainerConformance, points
from fedmq.trainers.batches import Schedule, layer_seeds
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.trainers.settings import Settings

if TYPE_CHECKING:
    from types import ModuleType

    from fedmq.device.interface import Trainer
    from fedmq.vectors import Vector

pytestmark = pytest.mark.keras

SEED = 3
TASK = {"epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    from tests.unit.trainers import keras_zoo

    return keras_zoo


@functools.cache
def shared_engine() -> Any:
    import keras

    from fedmq.trainers.keras import KerasEngine
    from tests.unit.trainers import keras_zoo

    keras.utils.set_random_seed(1)  # the first weights decide how far a training moves
    return KerasEngine(keras_zoo.normalised)


class TestConformance(TrainerConformance):
    """With batch normalisation and dropout; all trainers share one engine, as simulated devices do."""

    def make(self, train: Points, held_out: Points | None) -> Trainer:
        other = None if held_out is None else (held_out.x, held_out.y)
        trainer: Trainer = shared_engine().trainer(train.x, train.y, held_out=other)
        return trainer


def trainer_of(model: Any, *data: Any, **options: Any) -> Any:
    from fedmq.trainers.keras import KerasTrainer

    given = points(30)
    return KerasTrainer(model, data or (given.x, given.y), **options)


def pick(nest: Any, rows: np.ndarray) -> Any:
    return {name: array[rows] for name, array in nest.items()} if isinstance(nest, dict) else nest[rows]


def fitted(model: Any, first: list[np.ndarray], data: tuple[Any, ...], epochs: int = 2) -> Vector:
    """Return what plain `fit` makes of the same weights and the same batches in the same order."""
    model(pick(data[0], np.arange(1)))
    model.set_weights(first)
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    for state, seed in zip(states, layer_seeds(SEED, len(states)), strict=True):
        state.assign([seed, 0])
    for order, _ in Schedule(30, Settings(epochs, 8)).epochs(SEED):
        rows = [pick(part, order) for part in data]
        weights = rows[2] if len(rows) == 3 else None
        model.fit(rows[0], rows[1], sample_weight=weights, batch_size=8, shuffle=False)
    floats = [value.ravel() for value in model.get_weights() if value.dtype.kind == "f"]
    return np.concatenate(floats)


def first_weights(model: Any, trainer: Any) -> list[np.ndarray]:
    """Return the trainer's first weights as `set_weights` takes them; integers begin at zero."""
    floats = iter(trainer.layout.unpack(trainer.initial()))
    return [
        next(floats) if value.dtype.kind == "f" else np.zeros_like(value) for value in model.get_weights()
    ]


def inputs_for(kind: str) -> tuple[Any, ...]:
    given = points(30)
    return {
        "two_inputs": ({"left": given.x[:, :2], "right": given.x[:, 2:]}, given.y),
        "recurrent": (given.x.reshape(30, 3, 2), given.y),
        "regression": (given.x, given.x @ np.arange(6, dtype=np.float32)),
        "mlp": (given.x, given.y, np.linspace(0, 2, 30, dtype=np.float32)),
    }.get(kind, (given.x, given.y))


class TestAgainstFit:
    @pytest.mark.parametrize(
        "kind",
        [
            "mlp",
            "normalised",
            pytest.param("layer_normalised", marks=pytest.mark.slow),
            pytest.param("two_inputs", marks=pytest.mark.slow),
            pytest.param("recurrent", marks=pytest.mark.slow),
            "regression",
            pytest.param("counting", marks=pytest.mark.slow),
            pytest.param("own_step", marks=pytest.mark.slow),
        ],
    )
    def test_same_batches_give_the_same_weights(self, kind: str, zoo: ModuleType) -> None:
        data = inputs_for(kind)
        model = getattr(zoo, kind)()
        trainer = trainer_of(model, *data)
        first = first_weights(model, trainer)
        trained = trainer.train(trainer.initial(), TASK, seed=SEED).vector
        expected = fitted(getattr(zoo, kind)(), first, data)
        assert trained == pytest.approx(expected, abs=1e-5)
        assert np.abs(trained - trainer.initial()).max() > 1e-3

    @pytest.mark.parametrize(
        "optimizer",
        [
            pytest.param("Nadam(0.01)", marks=pytest.mark.slow),
            pytest.param("SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5)", marks=pytest.mark.slow),
            "Adam(schedules.ExponentialDecay(0.05, 3, 0.5))",
            pytest.param("LossScaleOptimizer(SGD(0.1, momentum=0.9, nesterov=True))", marks=pytest.mark.slow),
        ],
    )
    def test_optimizers_begin_anew_in_each_round(self, optimizer: str, zoo: ModuleType) -> None:
        data = inputs_for("plain")
        model = zoo.mlp(made(optimizer, zoo))
        trainer = trainer_of(model, *data)
        first = first_weights(model, trainer)
        trainer.train(trainer.initial(), TASK, seed=9)
        trained = trainer.train(trainer.initial(), {"batch_size": 8}, seed=SEED).vector
        assert trained == pytest.approx(fitted(zoo.mlp(made(optimizer, zoo)), first, data, 1), abs=1e-5)

    def test_an_optimizer_with_a_past_begins_anew_too(self, zoo: ModuleType) -> None:
        given = points(30)
        model = zoo.mlp("adam")
        model.fit(given.x, given.y)
        trainer = trainer_of(model)
        first = first_weights(model, trainer)
        trained = trainer.train(trainer.initial(), TASK, seed=SEED).vector
        assert trained == pytest.approx(fitted(zoo.mlp("adam"), first, (given.x, given.y)), abs=1e-5)

    def test_figures_are_those_of_fit_and_evaluate(self, zoo: ModuleType) -> None:
        given, other = points(30), points(700, seed=1)
        model = zoo.mlp(metrics=["accuracy", "sparse_top_k_categorical_accuracy"])
        trainer = trainer_of(model, held_out=(other.x, other.y))
        first = first_weights(model, trainer)
        metrics = dict(trainer.train(trainer.initial(), {"epochs": 1, "batch_size": 8}, seed=SEED).metrics)
        model.set_weights(first)
        told = model.evaluate(other.x, other.y, batch_size=512, return_dict=True)
        (order, _) = next(Schedule(30, Settings(batch_size=8)).epochs(SEED))
        seen = model.fit(given.x[order], given.y[order], batch_size=8, shuffle=False).history
        expected = {
            **told,
            **{f"train_{name}": figures[0] for name, figures in seen.items()},
            "held_out": 700.0,
        }
        assert metrics == pytest.approx(expected, abs=1e-5)


def made(optimizer: str, zoo: ModuleType) -> Any:
    return eval(optimizer, vars(zoo.keras.optimizers))  # noqa: S307  # the tests' own text


class TestAgainstNumpy:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("proximal", [0.0, 0.3])
    def test_engines_agree(self, momentum: float, proximal: float, zoo: ModuleType) -> None:
        given = points(30)
        held_out = (given.x, given.y)
        mine = NumpyTrainer(
            Mlp(INPUTS, (8, 5), classes=CLASSES), given.x, given.y, held_out=held_out, momentum=momentum
        )
        other = trainer_of(zoo.mlp(made(f"SGD(0.1, momentum={momentum})", zoo), (8, 5)), held_out=held_out)
        assert other.layout == mine.layout
        assert other.layout.digest == mine.layout.digest
        task = {"epochs": 3, "batch_size": 7, "proximal": proximal, "max_steps": 13}
        one, two = (trainer.train(mine.initial(), task, seed=SEED) for trainer in (mine, other))
        assert one.vector == pytest.approx(two.vector, abs=1e-5)
        assert dict(one.metrics) == pytest.approx(dict(two.metrics), abs=1e-5)
        assert (one.steps, one.examples) == (two.steps, two.examples)

    def test_proximal_pull_reaches_under_loss_scaling_and_to_embeddings(self, zoo: ModuleType) -> None:
        given = points(30)
        words = np.stack([given.y, given.y + 1], axis=1)
        plain = trainer_of(zoo.embedding(made("SGD(0.5)", zoo)), words, given.y)
        scaled = trainer_of(zoo.embedding(made("LossScaleOptimizer(SGD(0.5))", zoo)), words, given.y)
        first = plain.initial()
        one, two, free = (
            trainer.train(first, {**TASK, "proximal": mu}, seed=1).vector
            for trainer, mu in ((plain, 1.0), (scaled, 1.0), (plain, 0.0))
        )
        assert one == pytest.approx(two, abs=1e-5)
        assert np.linalg.norm(one - first) < 0.8 * np.linalg.norm(free - first)

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    @pytest.mark.parametrize("strength", [0.0, 0.7])
    def test_engines_are_pulled_alike(self, momentum: float, strength: float, zoo: ModuleType) -> None:
        given = points(30)
        mine = NumpyTrainer(Mlp(INPUTS, (8,), classes=CLASSES), given.x, given.y, momentum=momentum)
        other = trainer_of(zoo.mlp(made(f"SGD(0.1, momentum={momentum})", zoo), (8,)), given.x, given.y)
        linear = np.random.default_rng(4).normal(size=mine.layout.size).astype(np.float32)
        one, two = (
            trainer.train(mine.initial(), TASK, seed=SEED, pull=Pull(linear, strength))
            for trainer in (mine, other)
        )
        assert one.vector == pytest.approx(two.vector, abs=1e-5)
        assert one.reach == pytest.approx(two.reach)

    @pytest.mark.parametrize(
        ("optimizer", "reach"),
        [
            ("SGD(0.2)", 0.2 * 8),
            ("SGD(0.2, momentum=0.5)", 0.2 * gain(8, 0.5)),
            ("SGD(0.2, momentum=0.5, nesterov=True)", 0.2 * gain(8, 0.5, nesterov=True)),
            ("SGD(0.2, nesterov=True)", 0.2 * 8),
            ("SGD(0.2, clipnorm=1.0)", None),
            ("SGD(0.2, weight_decay=0.01)", None),
            ("SGD(0.2, use_ema=True)", None),
            ("SGD(schedules.ExponentialDecay(0.2, 10, 0.9))", None),
            ("Adam(0.01)", None),
            ("LossScaleOptimizer(SGD(0.2))", None),
        ],
    )
    def test_reach_is_known_where_steps_are_gradients(
        self, optimizer: str, reach: float | None, zoo: ModuleType
    ) -> None:
        given = points(30)
        trainer = trainer_of(zoo.mlp(made(optimizer, zoo), ()), given.x, given.y)
        trained = trainer.train(trainer.initial(), TASK, seed=SEED)
        assert trained.reach == (None if reach is None else pytest.approx(reach))


class TestEngine:
    def test_many_devices_share_one_trace(self, zoo: ModuleType) -> None:
        model = zoo.own_step()
        trainers = [
            trainer_of(model, points(n).x, points(n).y, held_out=(points(9).x, points(9).y))
            for n in range(20, 26)
        ]
        first = trainers[0].initial()
        for trainer in trainers:
            for batch in (4, 7):
                trainer.train(first, {"batch_size": batch, "epochs": batch}, seed=1)
        assert model.python_steps == 2  # one rehearsal, one trace
        trainers[0].train(first, {"proximal": 0.1}, seed=1)
        assert model.python_steps == 3

    def test_trainers_of_one_model_find_one_engine(self, zoo: ModuleType) -> None:
        one, two, other = trainer_of(zoo.mlp), trainer_of(zoo.mlp), trainer_of(zoo.functional_mlp)
        assert np.array_equal(one.initial(), two.initial())
        assert not np.array_equal(one.initial(), other.initial())

    def test_eager_models_train_the_same(self, zoo: ModuleType) -> None:
        compiled, eager = trainer_of(zoo.mlp()), trainer_of(zoo.mlp(run_eagerly=True))
        first = compiled.initial()
        one, two = (trainer.train(first, TASK, seed=1) for trainer in (compiled, eager))
        assert one.vector == pytest.approx(two.vector, abs=1e-6)

    def test_many_epochs_go_in_several_calls(self, zoo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        from fedmq.trainers.keras import sources

        trainer = trainer_of(zoo.mlp("adam"))
        task = {"epochs": 5, "batch_size": 8, "max_steps": 18}
        whole = trainer.train(trainer.initial(), task, seed=1)
        monkeypatch.setattr(sources, "_ORDERED_AT_ONCE", 60)
        parts = trainer.train(trainer.initial(), task, seed=1)
        assert np.array_equal(whole.vector, parts.vector)
        assert whole.metrics == parts.metrics

    def test_a_model_without_accuracy(self, zoo: ModuleType) -> None:
        x, y = inputs_for("regression")
        trainer = trainer_of(zoo.regression, x, y, held_out=(x, y))
        told = trainer.train(trainer.initial(), TASK, seed=1).metrics
        assert set(told) == {"loss", "mae", "held_out", "train_loss", "train_mae"}

    @pytest.mark.parametrize("metric", ["acc", "sparse_categorical_accuracy"])
    def test_the_accuracy_is_called_accuracy(self, metric: str, zoo: ModuleType) -> None:
        given = points(30)
        trainer = trainer_of(zoo.mlp(metrics=[metric]), held_out=(given.x, given.y))
        assert set(trainer.evaluate(trainer.initial())) == {"loss", "accuracy", "held_out"}

    def test_a_schedule_and_a_learning_rate_exclude_each_other(self, zoo: ModuleType) -> None:
        trainer = trainer_of(zoo.mlp(made("SGD(schedules.ExponentialDecay(0.05, 3, 0.5))", zoo)))
        with pytest.raises(ConfigError, match="schedule and the task sets learning_rate"):
            trainer.train(trainer.initial(), {"learning_rate": 0.1}, seed=1)

    def test_double_precision_travels_as_float32(self, zoo: ModuleType) -> None:
        layers = [zoo.keras.Input((INPUTS,)), zoo.Layers.Dense(CLASSES, dtype="float64")]
        trainer = trainer_of(zoo.compiled(zoo.keras.Sequential(layers)))
        trained = trainer.train(trainer.initial(), TASK, seed=1)
        assert trained.vector.dtype == np.float32
        assert trained.metrics["train_loss"] > 0


class TestSaving:
    def test_a_saved_model_is_whole(self, zoo: ModuleType, tmp_path: Any) -> None:
        given = points(30)
        model = zoo.normalised("adam")
        trainer = trainer_of(model)
        trained = trainer.train(trainer.initial(), TASK, seed=1).vector
        trainer.train(trainer.initial(), {"learning_rate": 0.5}, seed=2)
        trainer.save(trained, tmp_path / "model.keras")
        assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
        loaded = zoo.keras.saving.load_model(tmp_path / "model.keras")
        assert np.array_equal(zoo.values(loaded), trained)
        assert float(loaded.optimizer.learning_rate.numpy()) == pytest.approx(0.001)
        again = trainer_of(loaded)
        assert again.layout == trainer.layout
        assert loaded.predict(given.x).shape == (30, CLASSES)

    def test_other_endings_are_refused(self, zoo: ModuleType, tmp_path: Any) -> None:
        trainer = trainer_of(zoo.mlp)
        with pytest.raises(ConfigError, match=r"name it model\.keras"):
            trainer.save(trainer.initial(), tmp_path / "model.h5")
