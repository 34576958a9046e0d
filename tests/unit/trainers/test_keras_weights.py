"""Names and kinds of a Keras model's weights, and personal layers."""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.errors import ConfigError, StoreError
from fedmq.testing.trainer import CLASSES, INPUTS, points

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytestmark = pytest.mark.keras

TASK = {"epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    from tests.unit.trainers import keras_zoo

    return keras_zoo


def trainer_of(model: Any, seed: int = 0, **options: Any) -> Any:
    from fedmq.trainers.keras import KerasTrainer

    given = points(30, seed)
    return KerasTrainer(model, (given.x, given.y), **options)


def layout_of(model: Any, personal: tuple[str, ...] = ()) -> Any:
    from fedmq.trainers.keras.weights import sort_weights

    return sort_weights(model, personal).layout


def names_of(model: Any) -> list[str]:
    return [variable.name for variable in layout_of(model).variables]


class TestNames:
    def test_numbers_begin_anew_in_each_model(self, zoo: ModuleType) -> None:
        for _ in range(2):
            assert names_of(zoo.mlp(widths=(8, 5))) == [
                "dense/kernel",
                "dense/bias",
                "dense_1/kernel",
                "dense_1/bias",
                "dense_2/kernel",
                "dense_2/bias",
            ]

    def test_sequential_and_functional_are_one_network(self, zoo: ModuleType) -> None:
        assert layout_of(zoo.mlp()).digest == layout_of(zoo.functional_mlp()).digest

    def test_wrapped_layers(self, zoo: ModuleType) -> None:
        one, two = names_of(zoo.recurrent()), names_of(zoo.recurrent())
        assert one == two
        assert "bidirectional/forward_simple_rnn/simple_rnn_cell/kernel" in one

    def test_names_that_users_gave_are_kept(self, zoo: ModuleType) -> None:
        layers = [
            zoo.Layers.Dense(4, name="block_7"),
            zoo.Layers.Dense(4, name="block_2"),
            zoo.Layers.Dense(CLASSES),
        ]
        names = names_of(zoo.keras.Sequential([zoo.keras.Input((INPUTS,)), *layers]))
        assert names == [
            "block_7/kernel",
            "block_7/bias",
            "block_2/kernel",
            "block_2/bias",
            "dense/kernel",
            "dense/bias",
        ]

    def test_weights_without_a_name(self, zoo: ModuleType) -> None:
        class Nameless(zoo.Layers.Layer):  # type: ignore[misc, name-defined]
            def build(self, _: object) -> None:
                self.scale = self.add_weight(shape=(3,))
                self.shift = self.add_weight(shape=(3,))

            def call(self, inputs: Any) -> Any:
                return inputs * self.scale + self.shift

        for _ in range(2):
            model = zoo.keras.Sequential([*zoo.dense(4), Nameless(name="own")])
            assert names_of(model)[-2:] == ["own/variable", "own/variable_1"]

    def test_doubles_are_told_apart(self, zoo: ModuleType) -> None:
        class Twice(zoo.Layers.Layer):  # type: ignore[misc, name-defined]
            def build(self, _: object) -> None:
                self.one, self.two = (self.add_weight(name="same", shape=(3,)) for _ in range(2))

            def call(self, inputs: Any) -> Any:
                return inputs * self.one + self.two

        model = zoo.keras.Sequential([*zoo.dense(4), Twice(name="own")])
        assert names_of(model)[-2:] == ["own/same", "own/same~2"]


class TestKinds:
    def test_moving_averages_are_statistics(self, zoo: ModuleType) -> None:
        layout = layout_of(zoo.normalised())
        statistics = [variable.name for variable in layout.variables if variable.kind == "statistic"]
        assert statistics == ["batch_normalization/moving_mean", "batch_normalization/moving_variance"]
        assert layout.trainable.sum() == layout.size - 32

    def test_integers_and_seeds_are_left_out(self, zoo: ModuleType) -> None:
        assert names_of(zoo.counting()) == ["counting/share", "dense/kernel", "dense/bias"]
        assert not [name for name in names_of(zoo.normalised("adam")) if "seed" in name or "adam" in name]

    def test_frozen_layers_are_statistics(self, zoo: ModuleType) -> None:
        model = zoo.mlp()
        model.layers[0].trainable = False
        zoo.compiled(model)
        trainer = trainer_of(model)
        moved = trainer.train(trainer.initial(), TASK, seed=1).vector != trainer.initial()
        assert not moved[~trainer.layout.trainable].any()
        assert (~trainer.layout.trainable).sum() == INPUTS * 8 + 8
        assert moved[trainer.layout.trainable].all()


class TestPersonalLayers:
    def test_they_are_not_in_the_vector(self, zoo: ModuleType) -> None:
        trainer = trainer_of(zoo.normalised, personal=("batch_norm*", "dense_1"))
        assert [variable.name for variable in trainer.layout.shared] == ["dense/kernel", "dense/bias"]
        assert trainer.initial().size == INPUTS * 16 + 16

    def test_nested_layers_by_path(self, zoo: ModuleType) -> None:
        block = zoo.keras.Sequential([zoo.keras.Input((INPUTS,)), zoo.Layers.Dense(4)], name="encoder")
        model = zoo.keras.Sequential([block, zoo.Layers.Dense(CLASSES)])
        shared = {variable.name for variable in layout_of(model, ("encoder/dense",)).shared}
        assert shared == {"dense_1/kernel", "dense_1/bias"}

    def test_devices_keep_their_own(self, zoo: ModuleType) -> None:
        """Two devices take turns on one engine, or have one each: it makes no difference."""
        model = zoo.mlp(made_adam(zoo))
        first = model.get_weights()

        def alone(seed: int) -> list[Any]:
            again = zoo.mlp(made_adam(zoo))
            again.set_weights(first)
            return rounds(trainer_of(again, seed, personal=("dense_1",)))

        expected = [alone(0), alone(1)]
        pair = [trainer_of(model, seed, personal=("dense_1",)) for seed in (0, 1)]
        together = [
            [trainer.train(pair[0].initial(), TASK, seed=r).vector for trainer in pair] for r in range(3)
        ]
        for r in range(3):
            for i in range(2):
                assert together[r][i] == pytest.approx(expected[i][r], abs=1e-6)
        assert not np.allclose(together[0][0], together[2][0])

    def test_they_survive_a_restart(self, zoo: ModuleType, tmp_path: Path) -> None:
        keep = tmp_path / "pi-1.npz"
        model = zoo.mlp()
        trainer = trainer_of(model, personal=("dense_1",), keep=keep)
        given = points(30)
        trainer.train(trainer.initial(), TASK, seed=1)
        second = trainer.train(trainer.initial(), TASK, seed=2).vector
        keep.unlink()
        trainer = trainer_of(model, personal=("dense_1",), keep=keep)
        trainer.train(trainer.initial(), TASK, seed=1)
        restarted = trainer_of(model, personal=("dense_1",), keep=keep, held_out=(given.x, given.y))
        assert np.array_equal(restarted.train(trainer.initial(), TASK, seed=2).vector, second)
        assert [path.name for path in tmp_path.iterdir()] == ["pi-1.npz"]

    def test_diverged_ones_are_not_kept(self, zoo: ModuleType) -> None:
        trainer = trainer_of(zoo.mlp, personal=("dense_1",))
        broken = np.full_like(trainer.initial(), np.nan)
        assert np.isnan(trainer.train(broken, TASK, seed=1).vector).any()
        assert np.isfinite(trainer.train(trainer.initial(), TASK, seed=1).vector).all()

    def test_files_of_other_models_are_refused(self, zoo: ModuleType, tmp_path: Path) -> None:
        keep = tmp_path / "pi-1.npz"
        trainer = trainer_of(zoo.mlp, personal=("dense_1",), keep=keep)
        trainer.train(trainer.initial(), TASK, seed=1)
        with pytest.raises(ConfigError, match="personal weights of another model"):
            trainer_of(zoo.mlp, personal=("dense",), keep=keep)
        keep.write_bytes(b"no archive")
        with pytest.raises(ConfigError, match="no personal weights that can be read"):
            trainer_of(zoo.mlp, personal=("dense_1",), keep=keep)

    def test_a_file_that_cannot_be_written(self, zoo: ModuleType, tmp_path: Path) -> None:
        trainer = trainer_of(zoo.mlp, personal=("dense_1",), keep=tmp_path / "absent" / "pi-1.npz")
        with pytest.raises(StoreError, match="cannot be written"):
            trainer.train(trainer.initial(), TASK, seed=1)

    @pytest.mark.parametrize(
        ("patterns", "says"),
        [
            (("dense_2",), "no layer with weights is called 'dense_2': did you mean"),
            (("*",), "not all of them personal"),
        ],
    )
    def test_patterns_that_cannot_be_meant(
        self, patterns: tuple[str, ...], says: str, zoo: ModuleType
    ) -> None:
        with pytest.raises(ConfigError, match=says):
            trainer_of(zoo.mlp, personal=patterns)


def made_adam(zoo: ModuleType) -> Any:
    return zoo.keras.optimizers.Adam(0.01)


def rounds(trainer: Any) -> list[Any]:
    return [trainer.train(trainer.initial(), TASK, seed=r).vector for r in range(3)]
