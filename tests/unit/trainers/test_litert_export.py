"""Exporting Keras models for LiteRT: that they train as Keras does, and one sentence where they cannot."""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.descent import Pull
from fedmq.errors import ConfigError
from fedmq.testing.trainer import INPUTS, points

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

pytest.importorskip("ai_edge_litert")
pytestmark = [pytest.mark.keras, pytest.mark.slow, pytest.mark.timeout(600)]

SEED = 3
ROWS = 20


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    from tests.unit.trainers import litert_zoo

    return litert_zoo


def examples(kind: str) -> tuple[Any, ...]:
    generator = np.random.default_rng(5)
    given = points(ROWS)
    return {
        "images": (generator.normal(size=(ROWS, 17, 15, 2)), given.y),
        "series": (generator.normal(size=(ROWS, 30, 3)), given.y),
        "words": (generator.integers(0, 11, (ROWS, 5)), given.y % 2, generator.uniform(size=ROWS)),
        "numbers": (
            {"left": generator.normal(size=(ROWS, 4, 3)), "right": given.x[:, :2]},
            generator.normal(size=(ROWS, 2)),
        ),
    }.get(kind, (given.x, given.y))


def both(zoo: ModuleType, kind: str, batch_size: int = 8) -> tuple[Any, Any, Any]:
    """Return Keras' trainer and ours, and what the export had to say."""
    from fedmq.trainers.keras import KerasTrainer
    from fedmq.trainers.litert import LitertModel, LitertTrainer
    from fedmq.trainers.litert.export import export

    zoo.keras.utils.set_random_seed(1)
    data = examples(kind)
    personal = zoo.FILES[kind][1] if kind in zoo.FILES else ()
    exported = export(getattr(zoo, kind)(), data, batch_size=batch_size, personal=personal)
    zoo.keras.utils.set_random_seed(1)
    keras = KerasTrainer(getattr(zoo, kind)(), data, held_out=data, personal=personal)
    return keras, LitertTrainer(LitertModel(exported.file), data, held_out=data), exported


class TestAgainstKeras:
    @pytest.mark.parametrize("kind", ["mlp", "adam", "images", "series", "words", "numbers"])
    def test_same_weights(self, kind: str, zoo: ModuleType) -> None:
        """After one step to 1e-6, after fifty to a thousandth of the way; an epoch's last batch is a ragged one."""
        theirs, ours, _ = both(zoo, kind)
        assert ours.layout == theirs.layout
        assert ours.layout.digest == theirs.layout.digest
        first = ours.initial()
        assert np.array_equal(first, theirs.initial())
        for steps in (1, 50):
            task = {"epochs": 20, "batch_size": 8, "max_steps": steps}
            one, two = (trainer.train(first, task, seed=SEED) for trainer in (theirs, ours))
            way = np.abs(one.vector - first).max()
            assert np.abs(one.vector - two.vector).max() < (1e-6 if steps == 1 else 1e-3 * way)
            assert one.steps == two.steps
            assert kind == "numbers" or one.reach == pytest.approx(two.reach)  # bounds make it unknown
            shared = {name: value for name, value in one.metrics.items() if "r2" not in name}
            assert dict(two.metrics) == pytest.approx(shared, abs=2e-4)
            assert way > 1e-4

    def test_pulled_and_held_back_alike(self, zoo: ModuleType) -> None:
        theirs, ours, _ = both(zoo, "adam")
        linear = np.random.default_rng(4).normal(size=ours.layout.size).astype(np.float32)
        task = {"epochs": 3, "batch_size": 8, "proximal": 0.3}
        one, two = (t.train(ours.initial(), task, seed=SEED, pull=Pull(linear, 0.2)) for t in (theirs, ours))
        assert one.vector == pytest.approx(two.vector, abs=1e-5)

    def test_notes_say_what_devices_will_not_do(self, zoo: ModuleType) -> None:
        _, ours, exported = both(zoo, "numbers")
        assert exported.notes == (
            "devices do not report r2_score: only metrics that are means over examples",
        )
        assert set(ours.evaluate(ours.initial())) == {"loss", "mae", "held_out"}

    @pytest.mark.parametrize("name", ["mlp", "cnn", "conv1d"])
    def test_files_of_the_quick_tests_are_still_what_is_exported(self, name: str, zoo: ModuleType) -> None:
        from fedmq.trainers.litert.file import parse, read

        now, then = parse(zoo.exported(name), name), read(zoo.FOLDER / f"{name}.tflite")
        assert now.description.layout == then.description.layout
        assert np.array_equal(now.weights, then.weights)
        assert (now.description.x, now.description.y, now.description.optimizer) == (
            then.description.x, then.description.y, then.description.optimizer
        )  # fmt: skip


async def test_a_federation_of_keras_and_litert_learns_one_model(zoo: ModuleType, tmp_path: Path) -> None:
    from fedmq.aggregator.settings import Federation
    from fedmq.protocol.policy import Policy, StopWhen
    from fedmq.testing.federation import rig
    from fedmq.trainers.keras import KerasEngine
    from fedmq.trainers.litert import LitertModel, LitertTrainer
    from fedmq.transport.memory import MemoryBroker

    model, engine = LitertModel(zoo.FOLDER / "cnn.tflite"), KerasEngine(zoo.cnn)
    parts = [points(30, seed) for seed in range(4)]
    trainers = [
        engine.trainer(part.x, part.y) if number % 2 else LitertTrainer(model, (part.x, part.y))
        for number, part in enumerate(parts)
    ]
    policy = Policy(min_devices=4, quorum=4, soft_deadline_s=60, hard_deadline_s=90)
    federation = Federation("mixed", policy=policy, stop=StopWhen(rounds=6), training={"batch_size": 8})
    broker, judge = (
        MemoryBroker(),
        LitertTrainer(model, (parts[0].x, parts[0].y), held_out=(parts[1].x, parts[1].y)),
    )
    async with rig(federation, lambda: broker, tmp_path, judge.layout) as running:
        running.start_aggregator(model.initial())
        running.start_devices(trainers)
        await running.ended(90)
        assert judge.evaluate(running.model)["accuracy"] > 0.8


class TestRefusals:
    def refused(
        self, zoo: ModuleType, layers: list[Any], shape: tuple[int, ...] = (INPUTS,), **options: Any
    ) -> str:
        """Return what the export says of a model of these layers."""
        from fedmq.trainers.litert.export import export

        x = np.zeros((9, *shape), np.float32)
        model = zoo.compiled(zoo.keras.Sequential([zoo.keras.Input(shape), *layers]), **options)
        with pytest.raises(ConfigError) as caught:
            export(model, (x, points(9).y), batch_size=4)
        return str(caught.value)

    def test_layers_are_named(self, zoo: ModuleType) -> None:
        layers = zoo.Layers
        deep = [layers.Conv3D(2, 2, name="deep"), layers.Flatten(), layers.Dense(3)]
        assert (
            "layer 'deep' cannot be trained by LiteRT, which has no Conv3DBackpropFilterV2"
            in self.refused(zoo, deep, (3, 3, 3, 1))
        )
        grouped = [layers.Conv2D(4, 3, groups=2, name="split"), layers.Flatten(), layers.Dense(3)]
        assert "layer 'split' convolves in groups" in self.refused(zoo, grouped, (5, 5, 4))
        double = [layers.Dense(3, dtype="float64", name="wide")]
        assert "wide/kernel" in self.refused(zoo, double)

    def test_a_loss_that_mixes_examples_is_found_by_trying(self, zoo: ModuleType) -> None:
        ops, losses = zoo.keras.ops, zoo.keras.losses

        def mixed(y: Any, output: Any) -> Any:
            return ops.mean(losses.sparse_categorical_crossentropy(y, output, from_logits=True))

        said = self.refused(zoo, [zoo.Layers.Dense(3)], loss=mixed)
        assert "does not train as Keras does" in said

    def test_optimizers_and_losses(self, zoo: ModuleType) -> None:
        dense, optimizers = zoo.Layers.Dense, zoo.keras.optimizers
        assert "averages weights" in self.refused(zoo, [dense(3)], optimizer=optimizers.SGD(use_ema=True))
        none = zoo.keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
        assert "has reduction 'none'" in self.refused(zoo, [dense(3)], loss=none)

    def test_models_with_their_own_steps_and_data_sets(self, zoo: ModuleType) -> None:
        from fedmq.trainers.keras.runtime import tf
        from fedmq.trainers.litert.export import export
        from tests.unit.trainers import keras_zoo

        given = points(9)
        with pytest.raises(ConfigError, match="has a train_step of its own"):
            export(keras_zoo.own_step(), (given.x, given.y))
        streamed = tf.data.Dataset.from_tensor_slices((given.x, given.y)).batch(3)
        with pytest.raises(ConfigError, match=r"is a tf\.data\.Dataset"):
            export(zoo.mlp(), streamed)
        with pytest.raises(ConfigError, match="several targets"):
            export(zoo.mlp(), (given.x, {"one": given.y}))


class TestCommand:
    MODULE = """
import numpy as np

def model():
    import keras
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return network

def data(device):
    from fedmq.testing.trainer import points
    part = points(30, seed=sum(device.encode()))
    return (part.x, part.y), (part.x[:10], part.y[:10])
"""

    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(self.MODULE)
        monkeypatch.chdir(tmp_path)
        return path

    def test_it_writes_the_file_beside_the_module(self, module: Path) -> None:
        from click.testing import CliRunner

        from fedmq.cli import main
        from fedmq.trainers.litert import from_module

        done = CliRunner().invoke(main, ["export", str(module), "--batch-size", "10", "--seed", "4"])
        assert done.exit_code == 0, done.output
        trainer = from_module(str(module), "pi")
        told = f"mine.tflite: {trainer.layout.size} parameters in"
        assert done.output.startswith(told)
        assert trainer.layout.digest.hex() in done.output
        assert not [path for path in module.parent.iterdir() if path.suffix not in {".py", ".tflite"}]
