"""Training on LiteRT: the suite for trainers on files that were exported once, and what is wrong with other files."""

# ruff: noqa: ANN401  # Keras has no types

from __future__ import annotations

import functools
import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedmq.aggregator.settings import Federation
from fedmq.descent import Pull, gain
from fedmq.errors import ConfigError, MisuseError, StoreError
from fedmq.protocol.policy import Policy, StopWhen
from fedmq.testing.federation import rig
from fedmq.testing.trainer import CLASSES, INPUTS, Points, TrainerConformance, points
from fedmq.trainers.litert import LitertModel, LitertTrainer, from_module
from fedmq.trainers.litert.draws import uniform
from fedmq.trainers.litert.file import DESCRIPTION, ModelFile, digest, parse, read, to_bytes
from fedmq.trainers.numpy import Mlp, NumpyTrainer
from fedmq.transport.memory import MemoryBroker

if TYPE_CHECKING:
    from fedmq.device.interface import Trainer

pytest.importorskip("ai_edge_litert")

FOLDER = Path(__file__).parents[2] / "vectors" / "litert"
TASK = {"epochs": 2, "batch_size": 8}


@functools.cache
def shared(name: str) -> LitertModel:
    return LitertModel(FOLDER / f"{name}.tflite")


def trainer_of(name: str, data: Any = None, **options: Any) -> LitertTrainer:
    given = points(30)
    return LitertTrainer(shared(name), data or (given.x, given.y), **options)


class FileConformance(TrainerConformance):
    name: str

    def make(self, train: Points, held_out: Points | None) -> Trainer:
        other = None if held_out is None else (held_out.x, held_out.y)
        return LitertTrainer(shared(self.name), (train.x, train.y), held_out=other)


class TestMlp(FileConformance):
    name = "mlp"


class TestCnn(FileConformance):
    name = "cnn"


@pytest.mark.slow
class TestConv1D(FileConformance):
    name = "conv1d"
    momentum = 0.5


class TestAgainstNumpy:
    @pytest.mark.parametrize("batch_size", [3, 8, 13, 64])
    @pytest.mark.parametrize("proximal", [0.0, 0.3])
    def test_engines_agree_at_any_batch_size(self, batch_size: int, proximal: float) -> None:
        """The file is for 8 rows: smaller batches are padded, larger ones taken in parts."""
        given, other = points(30), points(530, seed=1)
        held_out = (other.x, other.y)
        mine = NumpyTrainer(Mlp(INPUTS, (8,), classes=CLASSES), given.x, given.y, held_out=held_out)
        litert = trainer_of("mlp", held_out=held_out)
        assert litert.layout == mine.layout
        task = {"epochs": 3, "batch_size": batch_size, "proximal": proximal, "max_steps": 13}
        linear = np.random.default_rng(4).normal(size=mine.layout.size).astype(np.float32)
        one, two = (
            trainer.train(litert.initial(), task, seed=5, pull=Pull(linear, 0.2))
            for trainer in (mine, litert)
        )
        assert one.vector == pytest.approx(two.vector, abs=1e-6)
        assert dict(one.metrics) == pytest.approx(dict(two.metrics), abs=1e-5)
        assert (one.steps, one.examples) == (two.steps, two.examples)
        assert one.reach == pytest.approx(two.reach)

    def test_sample_weights_weigh(self) -> None:
        given = points(16)
        keep = np.arange(16) % 2 == 0
        weighted = trainer_of("mlp", (given.x, given.y, 2 * keep))
        alone = trainer_of("mlp", (given.x[keep], given.y[keep]))
        one = weighted.train(shared("mlp").initial(), {"batch_size": 16}, seed=1).vector
        assert one == pytest.approx(
            alone.train(shared("mlp").initial(), {"batch_size": 8}, seed=1).vector, abs=1e-6
        )


async def test_a_federation_of_two_engines_learns_one_model(tmp_path: Path) -> None:
    """NumPy and LiteRT devices, side by side; Keras with LiteRT is in the slow tests."""
    parts = [points(30, seed) for seed in range(4)]
    model = Mlp(INPUTS, (8,), classes=CLASSES)
    held = (points(40, 9).x, points(40, 9).y)
    trainers = [
        NumpyTrainer(model, part.x, part.y) if number % 2 else trainer_of("mlp", (part.x, part.y))
        for number, part in enumerate(parts)
    ]
    policy = Policy(min_devices=4, quorum=4)
    federation = Federation("mixed", policy=policy, stop=StopWhen(rounds=6), training={"batch_size": 8})
    broker, judge = MemoryBroker(), trainer_of("mlp", held_out=held)
    first = shared("mlp").initial()
    async with rig(federation, lambda: broker, tmp_path, judge.layout) as running:
        running.start_aggregator(first)
        running.start_devices(trainers)
        await running.ended()
        assert judge.evaluate(running.model)["accuracy"] > 0.8 > judge.evaluate(first)["accuracy"]


class TestTracedOptimizer:
    """The file has Adam, batch normalisation, dropout and a head that stays on the device."""

    def test_trains_and_begins_anew_in_each_round(self) -> None:
        given = points(48)
        trainer = trainer_of("adam", (given.x, given.y), held_out=(given.x, given.y))
        before = trainer.evaluate(trainer.initial())["loss"]
        other = trainer_of("adam", (given.x, given.y), held_out=(given.x, given.y))
        trained = trainer.train(trainer.initial(), {"batch_size": 8, "epochs": 5}, seed=1)
        assert trained.metrics["train_loss"] < before
        assert trained.reach is None
        other.train(other.initial(), {"batch_size": 8, "learning_rate": 0.0}, seed=9)
        again = other.train(other.initial(), {"batch_size": 8, "epochs": 5}, seed=1)
        assert np.array_equal(again.vector, trained.vector)

    def test_statistics_move_without_a_learning_rate(self) -> None:
        trainer = trainer_of("adam")
        first = trainer.initial()
        trained = trainer.train(first, {"batch_size": 8, "learning_rate": 0}, seed=1).vector
        moved = trained != first
        assert np.array_equal(trained[trainer.layout.trainable], first[trainer.layout.trainable])
        assert moved[~trainer.layout.trainable].all()

    def test_a_batch_that_must_be_seen_whole_is_not_taken_in_parts(self) -> None:
        trainer = trainer_of("adam")
        with pytest.raises(ConfigError, match="batch_size is 9, the model was exported for 8"):
            trainer.train(trainer.initial(), {"batch_size": 9}, seed=1)

    def test_the_head_stays_here_and_survives_a_restart(self, tmp_path: Path) -> None:
        keep = tmp_path / "me.npz"
        trainer = trainer_of("adam", held_out=(points(9).x, points(9).y), keep=keep)
        assert "head/kernel" not in {variable.name for variable in trainer.layout.shared}
        before = trainer.evaluate(trainer.initial())
        trainer.train(trainer.initial(), TASK, seed=1)
        after = trainer.evaluate(trainer.initial())
        assert before != after
        again = trainer_of("adam", held_out=(points(9).x, points(9).y), keep=keep)
        assert again.evaluate(trainer.initial()) == after


class TestSharing:
    def test_interpreters_are_lent_and_no_more_are_made_than_used_at_once(self) -> None:
        model = LitertModel(FOLDER / "mlp.tflite")
        with model.interpreter() as one, model.interpreter() as two:
            assert one is not two
        with model.interpreter() as again, model.interpreter() as more:
            assert {again, more} == {one, two}

    def test_an_interpreter_comes_back_after_an_error(self) -> None:
        model = LitertModel(FOLDER / "mlp.tflite")
        with pytest.raises(RuntimeError), model.interpreter() as one:
            raise RuntimeError
        with model.interpreter() as two:
            assert one is two

    def test_what_was_trained_before_has_no_say(self) -> None:
        """Not even NaN: rows that fill a batch up are zeros, not what the last device left there."""
        given = points(8)
        clean = trainer_of("mlp", (given.x[:3], given.y[:3]))
        expected = clean.train(clean.initial(), TASK, seed=1).vector
        broken = trainer_of("mlp", (np.full_like(given.x, np.nan), given.y))
        broken.train(clean.initial(), TASK, seed=1)
        assert np.array_equal(clean.train(clean.initial(), TASK, seed=1).vector, expected)

    def test_many_devices_in_a_few_threads(self) -> None:
        trainers = [trainer_of("mlp", (points(9, i).x, points(9, i).y)) for i in range(40)]
        first = trainers[0].initial()
        alone = [trainer.train(first, TASK, seed=1).vector for trainer in trainers]
        with ThreadPoolExecutor(3) as pool:
            together = pool.map(lambda trainer: trainer.train(first, TASK, seed=1).vector, trainers)
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


class TestFiles:
    def test_writing_and_reading_agree(self) -> None:
        content = (FOLDER / "mlp.tflite").read_bytes()
        assert to_bytes(parse(content, "mlp")) == content

    def test_a_missing_file_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="make it with `fedmq export`"):
            read(tmp_path / "model.tflite")

    @pytest.mark.parametrize("length", [0, 1, 100, 10_000, 20_000, -1])
    def test_a_file_cut_short_is_damaged(self, length: int) -> None:
        with pytest.raises(ConfigError, match="is damaged, or no file of `fedmq export`"):
            parse((FOLDER / "mlp.tflite").read_bytes()[:length], "it")

    @pytest.mark.parametrize("place", [0, 64, 1000, 5000, 9000, 18_000, 20_000])
    def test_a_flipped_bit_is_found_before_litert_sees_it(self, place: int) -> None:
        content = bytearray((FOLDER / "mlp.tflite").read_bytes())
        content[place] ^= 16
        with pytest.raises(ConfigError, match="it is damaged"):
            parse(bytes(content), "it")

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 2},
            {"batch_size": 0},
            {"batch_size": "8"},
            {"batch_size": 2**40},
            {"surprise": 1},
            {"variables": [["a", [2**40], "trainable", "shared"]]},
            {"variables": []},
            {"updated": [99]},
            {"optimizer": {"kind": "other", "rate": 0.1}},
            {"x": None},
        ],
    )
    def test_a_description_out_of_range_is_refused(self, change: dict[str, Any], tmp_path: Path) -> None:
        """Whatever it says of itself, nothing is allocated by it."""
        content = changed(
            FOLDER / "mlp.tflite", tmp_path, lambda said: json.dumps({**json.loads(said), **change})
        )
        with pytest.raises(ConfigError, match="export it again"):
            parse(content, "it")

    @pytest.mark.parametrize("text", ["[]", "7", "{", '"' + "x" * 100, "[" * 100_000])
    def test_a_description_that_is_none_is_refused(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="export it again"):
            parse(changed(FOLDER / "mlp.tflite", tmp_path, lambda _: text), "it")

    def test_a_compressed_member_is_refused_unread(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.tflite"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(DESCRIPTION, b" " * 10_000_000)
        with pytest.raises(ConfigError, match="compressed, or larger"):
            read(path)

    def test_a_model_that_is_not_what_the_description_says(self) -> None:
        file = read(FOLDER / "mlp.tflite")
        other = replace(file.description, batch_size=9)
        with pytest.raises(ConfigError, match=r"has no x of shape \(9, 6\)"):
            LitertModel(ModelFile(file.model, other, file.weights))

    def test_a_model_that_litert_cannot_open(self) -> None:
        file = read(FOLDER / "mlp.tflite")
        garbage = b"\x20\x00\x00\x00TFL3" + bytes(1000)
        with pytest.raises(ConfigError, match="LiteRT cannot open the model"):
            LitertModel(ModelFile(garbage, replace(file.description, sha256=digest(garbage)), file.weights))


def changed(source: Path, folder: Path, text: Any) -> bytes:
    """Return the file's content with another description."""
    file = read(source)
    path = folder / "changed.tflite"
    path.write_bytes(file.model)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "a") as target:
        for name in archive.namelist():
            content = archive.read(name)
            target.writestr(name, text(content) if name == DESCRIPTION else content)
    return path.read_bytes()


class TestData:
    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ([1, 2], "is a list where"),
            ((points(5).x,), "is a tuple where"),
            ((points(5).x[:, :5], points(5).y), r"examples of shape \(5,\) for x, the model takes \(6,\)"),
            (({"left": points(5).x}, points(5).y), "has inputs x/left, the model takes x"),
            ((points(5).x, {"one": points(5).y}), "several targets"),
            ((points(5).x, points(5).y + 1), "labels from 1 to 3"),
            ((points(5).x, points(5).y.astype(np.float32)), "labels of type float32"),
            ((points(5).x, points(5).y, np.ones((5, 2))), "sample weights that are not one number"),
            ((points(5).x, points(4).y), r"parts of \[4, 5\] rows"),
        ],
    )
    def test_data_that_do_not_fit_are_refused(self, data: Any, sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            LitertTrainer(shared("mlp"), data)

    def test_a_last_axis_of_one_may_be_there_or_not(self) -> None:
        given = points(12)
        one, two = (
            trainer_of("mlp", (given.x, given.y)),
            trainer_of("mlp", (given.x[..., None], given.y[:, None])),
        )
        first = one.initial()
        assert np.array_equal(one.train(first, TASK, seed=1).vector, two.train(first, TASK, seed=1).vector)

    def test_a_pull_of_another_layout_leaves_the_interpreter_usable(self) -> None:
        trainer = trainer_of("mlp")
        with pytest.raises(MisuseError):
            trainer.train(trainer.initial(), TASK, seed=1, pull=Pull(np.zeros(3, np.float32)))
        assert trainer.train(trainer.initial(), {"max_steps": 2}, seed=1).reach == pytest.approx(
            0.1 * gain(1)
        )


class TestFromModule:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A module with nothing but data, as a Raspberry Pi has it, and the model's file beside it."""
        text = "import numpy as np\ndef data(device):\n    return np.ones((5, 6), 'f'), np.zeros(5, int)\n"
        (tmp_path / "mine.py").write_text(text)
        (tmp_path / "mine.tflite").write_bytes((FOLDER / "mlp.tflite").read_bytes())
        return tmp_path

    def test_the_file_lies_beside_the_module(self, folder: Path) -> None:
        one, two = (from_module(str(folder / "mine.py"), name) for name in ("pi-1", "pi-2"))
        assert one.examples == 5
        assert one.name.startswith("litert 2.")
        assert one._model is two._model

    def test_a_file_written_anew_is_read_anew(self, folder: Path) -> None:
        one = from_module(str(folder / "mine.py"), "pi-1")
        (folder / "mine.tflite").write_bytes((FOLDER / "conv1d.tflite").read_bytes())
        assert from_module(str(folder / "mine.py"), "pi-1").layout != one.layout

    def test_options(self, folder: Path) -> None:
        (folder / "mine.tflite").rename(folder / "other.tflite")
        with pytest.raises(StoreError, match=r"mine\.tflite cannot be read"):
            from_module(str(folder / "mine.py"), "pi")
        assert from_module(str(folder / "mine.py"), "pi", {"model": "other.tflite", "seed": 3}).examples == 5
        with pytest.raises(ConfigError, match="'model'"):
            from_module(str(folder / "mine.py"), "pi", {"modle": "other.tflite"})

    def test_a_module_by_name_wants_its_file_named(self) -> None:
        with pytest.raises(ConfigError, match="set option model to the file"):
            from_module("fedmq.demos.mnist", "pi")

    def test_no_framework_is_imported(self, folder: Path) -> None:
        program = (
            "import sys; from fedmq.trainers.litert import from_module\n"
            "t = from_module(sys.argv[1], 'pi'); t.train(t.initial(), {}, seed=1)\n"
            "print([name for name in ('tensorflow', 'keras', 'scipy', 'pandas') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder / "mine.py")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "[]\n"
        assert not done.stderr


def test_random_numbers_are_tensorflows() -> None:
    """``tf.random.stateless_uniform`` of TensorFlow 2.21, seeds (1, 2) and (2**31 - 1, 77)."""
    assert uniform((1, 2), (2, 2)).reshape(-1)[:3] == pytest.approx(
        [0.8440604, 0.19204533, 0.9962232], abs=1e-7
    )
    assert uniform((2**31 - 1, 77), (3,)) == pytest.approx([0.16970706, 0.23224044, 0.81268597], abs=1e-7)
