"""The conformance suite for trainers: what `fedmq.device.interface.Trainer` promises, in executable form.

Subclass `TrainerConformance` in a test module, say how a trainer of yours is made, and run it with pytest::

    class TestMine(TrainerConformance):
        def make(self, train, held_out):
            return MyTrainer(
                train.x, train.y, held_out=None if held_out is None else (held_out.x, held_out.y)
            )

The task is to tell three clouds of points apart: six numbers to an example, and one of three classes. The trainer's
model must take these shapes, learn with SGD at a learning rate of 0.1, and draw something from the seed (the order of
examples, at least); where that SGD has momentum, the class says so in `momentum`. `make` must work in a new process
too: it is called on a bare instance of the class.
"""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmq.descent import Pull, gain
from fedmq.device.interface import steered
from fedmq.errors import ConfigError, MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.device.interface import Setting, SteeredTrainer, Trained, Trainer
    from fedmq.vectors import Vector

INPUTS: Final = 6
CLASSES: Final = 3
EXAMPLES: Final = 50
TINY_RATE: Final = 1e-6
"""At this rate a step that a strong pull makes as long as any leaves the loss's own gradient no say."""
HELD_OUT: Final = 40
SETTINGS: Final[Mapping[str, Setting]] = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}

_PATIENCE_S: Final = 100
_IN_A_NEW_PROCESS: Final = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("conformance_case", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
trainer = getattr(module, sys.argv[2])().fresh()
print("digest", trainer.layout.digest.hex())
"""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Labelled points: `x` of shape (points, 6), float32, and `y` of shape (points,), int64, from 0 to 2."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def points(count: int, seed: int = 0) -> Points:
    """Return `count` points out of three clouds that a linear model can tell apart, all but a few."""
    generator = np.random.Generator(np.random.Philox(seed))
    y = np.arange(count, dtype=np.int64) % CLASSES
    centres = 2 * np.eye(CLASSES, INPUTS)
    x = centres[y] + generator.normal(scale=0.7, size=(count, INPUTS))
    return Points(x.astype(np.float32), y)


class TrainerConformance(ABC):
    """The tests; see the module's docstring."""

    momentum: float = 0.0

    @abstractmethod
    def make(self, train: Points, held_out: Points | None) -> Trainer:
        """Return a new trainer over these examples."""

    def fresh(self, examples: int = EXAMPLES, *, held_out: bool = True) -> Trainer:
        """Return a trainer over the suite's own task."""
        return self.make(points(examples), points(HELD_OUT, seed=1) if held_out else None)

    @pytest.fixture
    def trainer(self) -> Trainer:
        """The trainer under test; some tests make further ones."""
        return self.fresh()

    @pytest.fixture
    def steered(self, trainer: Trainer) -> SteeredTrainer:
        """The same, for what algorithms need; a trainer whose `train` takes no `pull` skips that."""
        found = steered(trainer)
        return pytest.skip("train() takes no pull: no algorithm can steer it") if found is None else found

    # --- what it says of itself

    def test_names_its_engine(self, trainer: Trainer) -> None:
        """A name for people: short and printable."""
        assert trainer.name.isprintable()
        assert 0 < len(trainer.name) <= 100  # noqa: PLR2004  # it travels in every birth certificate

    def test_layouts_of_two_trainers_are_equal(self, trainer: Trainer) -> None:
        """Two devices in one process can average their models."""
        again = self.fresh()
        assert again.layout == trainer.layout
        assert again.layout.digest == trainer.layout.digest

    def test_layout_is_the_same_in_another_process(self, trainer: Trainer) -> None:
        """And so can two devices in two processes, whatever else was built in one of them before."""
        self.fresh()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path)), "PYTHONHASHSEED": "7"}
        command = [sys.executable, "-c", _IN_A_NEW_PROCESS, inspect.getfile(type(self)), type(self).__name__]
        printed = subprocess.run(  # noqa: S603  # our own program
            command, env=environment, capture_output=True, text=True, check=True, timeout=_PATIENCE_S
        ).stdout
        assert f"digest {trainer.layout.digest.hex()}" in printed.splitlines()

    def test_variables_have_names_of_their_own(self, trainer: Trainer) -> None:
        """No two variables are confused."""
        names = [variable.name for variable in trainer.layout.variables]
        assert len(set(names)) == len(names)

    def test_first_weights_are_finite_and_of_the_layout(self, trainer: Trainer) -> None:
        """One float32 for each number of the layout."""
        first = trainer.initial()
        assert first.shape == (trainer.layout.size,)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()

    def test_first_weights_stay_what_they_are(self, trainer: Trainer) -> None:
        """Neither training nor a caller who writes into them changes them."""
        first = trainer.initial()
        kept = first.copy()
        _train(trainer, first)
        first[:] = 7
        assert np.array_equal(trainer.initial(), kept)

    # --- training

    def test_training_learns(self, trainer: Trainer) -> None:
        """The loss falls and most held-out points are told apart."""
        before = trainer.evaluate(trainer.initial())
        trained = _train(trainer, trainer.initial(), epochs=12)
        after = trainer.evaluate(trained.vector)
        assert after["loss"] < before["loss"]
        assert after["accuracy"] > 0.8  # noqa: PLR2004  # chance is a third

    def test_training_leaves_its_input_alone(self, trainer: Trainer) -> None:
        """The model it is given may be read-only, and is the same afterwards."""
        first = trainer.initial()
        kept = first.copy()
        first.setflags(write=False)
        trained = _train(trainer, first)
        assert np.array_equal(first, kept)
        assert not np.shares_memory(trained.vector, first)
        assert trained.vector.shape == first.shape
        assert trained.vector.dtype == np.float32

    def test_results_are_the_callers(self, trainer: Trainer) -> None:
        """A second training does not write into what the first returned."""
        once = _train(trainer, trainer.initial()).vector
        kept = once.copy()
        _train(trainer, once, seed=9)
        assert np.array_equal(once, kept)

    def test_same_arguments_give_the_same_bytes(self, trainer: Trainer) -> None:
        """Again, and in another trainer with the same data, with other trainings in between."""
        first = trainer.initial()
        once = _train(trainer, first)
        _train(trainer, once.vector, seed=4, batch_size=5)
        assert _train(trainer, first).vector.tobytes() == once.vector.tobytes()
        assert _train(self.fresh(), first).vector.tobytes() == once.vector.tobytes()

    def test_another_seed_gives_another_result(self, trainer: Trainer) -> None:
        """The seed decides on something."""
        first = trainer.initial()
        one, other = (_train(trainer, first, seed=seed).vector for seed in (1, 2**64 - 1))
        assert not np.array_equal(one, other)

    def test_a_learning_rate_of_zero_moves_nothing(self, trainer: Trainer) -> None:
        """What an optimizer moves is exactly what it was; statistics may have moved."""
        first = trainer.initial()
        trained = _train(trainer, first, learning_rate=0)
        mask = trainer.layout.trainable
        assert np.array_equal(trained.vector[mask], first[mask])

    def test_one_learning_rate_does_not_stay_for_the_next_round(self, trainer: Trainer) -> None:
        """A round without a learning rate has the trainer's own, whatever the round before asked for."""
        first = trainer.initial()
        own = trainer.train(first, {"batch_size": 8}, seed=1).vector
        _train(trainer, first, learning_rate=0)
        assert np.array_equal(trainer.train(first, {"batch_size": 8}, seed=1).vector, own)

    def test_works_in_a_worker_thread(self, trainer: Trainer) -> None:
        """With the same result as here."""
        first = trainer.initial()
        here = _train(trainer, first).vector
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(_train, trainer, first).result(_PATIENCE_S).vector
        assert np.array_equal(here, there)

    def test_trainers_in_several_threads_do_not_mix(self) -> None:
        """Devices that share an engine in one process are still devices apart."""
        trainers = [self.make(points(EXAMPLES, seed), None) for seed in range(4)]
        first = trainers[0].initial()
        alone = [_train(trainer, first, epochs=20).vector for trainer in trainers]
        together = threading.Barrier(len(trainers))

        def train(trainer: Trainer) -> Vector:
            together.wait(_PATIENCE_S)
            return _train(trainer, first, epochs=20).vector

        with ThreadPoolExecutor(len(trainers)) as pool:
            for vector, expected in zip(pool.map(train, trainers), alone, strict=True):
                assert np.array_equal(vector, expected)

    # --- facts

    @pytest.mark.parametrize(("examples", "batch_size"), [(50, 8), (50, 10), (1, 8), (3, 1000)])
    def test_counts_examples_and_steps(self, examples: int, batch_size: int) -> None:
        """The last batch of an epoch is as small as it comes out; there may be only one, of one example."""
        trainer = self.fresh(examples)
        per_epoch = math.ceil(examples / batch_size)
        for epochs in (1, 3):
            trained = _train(trainer, trainer.initial(), epochs=epochs, batch_size=batch_size)
            assert trained.examples == trainer.examples == examples
            assert trained.steps == epochs * per_epoch
            assert np.isfinite(trained.vector).all()

    def test_takes_no_more_steps_than_allowed(self, trainer: Trainer) -> None:
        """`max_steps` ends a round, within an epoch or between two."""
        for most, taken in ((3, 3), (10, 10), (1000, 14)):
            assert _train(trainer, trainer.initial(), max_steps=most).steps == taken
        one = _train(trainer, trainer.initial(), epochs=1).vector
        assert np.array_equal(_train(trainer, trainer.initial(), epochs=5, max_steps=7).vector, one)

    def test_proximal_term_holds_training_back(self, trainer: Trainer) -> None:
        """FedProx: the larger its mu, the nearer to the model the round began with; zero is none at all."""
        first = trainer.initial()
        none, little, much = (_moved(trainer, first, proximal=mu) for mu in (0, 0.5, 5))
        assert np.array_equal(_train(trainer, first, proximal=0).vector, _train(trainer, first).vector)
        assert none > little > much > 0

    # --- what algorithms ask for

    def test_reach_is_rate_times_steps(self, trainer: Trainer) -> None:
        """With momentum, each gradient counts as often as it enters the weights."""
        for steps in (1, 2, 9):
            trained = _train(trainer, trainer.initial(), max_steps=steps)
            assert trained.reach == pytest.approx(0.1 * gain(steps, self.momentum), rel=1e-6)

    def test_no_pull_is_a_pull_of_nothing(self, steered: SteeredTrainer) -> None:
        """Without terms to the last bit; terms of zero may be added in another order of operations."""
        first = steered.initial()
        none = np.zeros(steered.layout.size, np.float32)
        free = _train(steered, first).vector
        assert np.array_equal(steered.train(first, SETTINGS, seed=3, pull=Pull()).vector, free)
        assert steered.train(first, SETTINGS, seed=3, pull=Pull(none)).vector == pytest.approx(free, abs=1e-5)

    @pytest.mark.parametrize(("linear", "strength"), [(1e5, 0.0), (1e5, 2e5), (3e4, 4e5)])
    @pytest.mark.parametrize("steps", [1, 2, 6])
    def test_pull_acts_as_its_formula_says(
        self, steered: SteeredTrainer, linear: float, strength: float, steps: int
    ) -> None:
        """Gradients become ``gradient + linear + strength * (w - start)``, before momentum."""
        first, mask = steered.initial(), steered.layout.trainable
        terms = linear * np.random.Generator(np.random.Philox(5)).uniform(-1, 1, first.size)
        pull = Pull(terms.astype(np.float32), strength)
        settings = {**SETTINGS, "learning_rate": TINY_RATE, "max_steps": steps}
        moved = steered.train(first, settings, seed=3, pull=pull).vector - first
        way, move = np.zeros(first.size), np.zeros(first.size)
        for _ in range(steps):
            move = self.momentum * move - TINY_RATE * (terms + strength * way)
            way += move
        assert moved[mask] == pytest.approx(way[mask], abs=2e-4)
        assert np.abs(way[mask]).max() > 0.005  # noqa: PLR2004  # else nothing was shown

    def test_pull_leaves_statistics_alone(self, steered: SteeredTrainer) -> None:
        """They have no gradient that a term could be added to."""
        first = steered.initial()
        terms = np.where(steered.layout.trainable, 0, 1e30).astype(np.float32)
        pulled = steered.train(first, SETTINGS, seed=3, pull=Pull(terms)).vector
        assert pulled == pytest.approx(_train(steered, first).vector, abs=1e-5)

    def test_pull_and_the_proximal_setting_add_up(self, steered: SteeredTrainer) -> None:
        """FedProx can be told either way, or half and half."""
        first = steered.initial()
        half = steered.train(first, {**SETTINGS, "proximal": 0.5}, seed=3, pull=Pull(strength=0.5)).vector
        assert half == pytest.approx(_train(steered, first, proximal=1.0).vector, abs=1e-6)

    def test_a_pull_does_not_stay_for_the_next_round(self, steered: SteeredTrainer) -> None:
        """Nor is it changed."""
        first = steered.initial()
        terms = np.ones(first.size, np.float32)
        terms.setflags(write=False)
        before = _train(steered, first).vector
        steered.train(first, SETTINGS, seed=3, pull=Pull(terms, 1.0))
        assert np.array_equal(_train(steered, first).vector, before)

    def test_pull_of_another_layout_is_refused(self, steered: SteeredTrainer) -> None:
        """One number too many."""
        terms = np.zeros(steered.layout.size + 1, np.float32)
        with pytest.raises(MisuseError):
            steered.train(steered.initial(), SETTINGS, seed=3, pull=Pull(terms))

    # --- figures

    def test_evaluation_repeats_and_is_told_by_training(self, trainer: Trainer) -> None:
        """Training reports how the model it was given did, by the same names as `evaluate`."""
        model = _train(trainer, trainer.initial()).vector
        told = trainer.evaluate(model)
        assert told == trainer.evaluate(model)
        assert told["held_out"] == HELD_OUT
        assert 0 <= told["accuracy"] <= 1
        reported = _train(trainer, model).metrics
        assert {name: reported[name] for name in told} == dict(told)

    def test_reports_training_figures(self, trainer: Trainer) -> None:
        """By their names, and finite."""
        metrics = _train(trainer, trainer.initial()).metrics
        assert metrics["train_loss"] > 0
        assert 0 <= metrics["train_accuracy"] <= 1
        assert all(type(value) is float and math.isfinite(value) for value in metrics.values())

    def test_without_held_out_examples_nothing_is_claimed(self) -> None:
        """No figures of an evaluation that never was."""
        trainer = self.fresh(held_out=False)
        assert trainer.evaluate(trainer.initial()) == {}
        assert not {"loss", "accuracy", "held_out"} & set(_train(trainer, trainer.initial()).metrics)

    def test_divergence_is_reported_as_it_is(self, trainer: Trainer) -> None:
        """The vector shows it; figures that are not finite are left out. Not to send it is the device's part."""
        broken = np.full(trainer.layout.size, np.nan, np.float32)
        trained = _train(trainer, broken)
        assert not np.isfinite(trained.vector).all()
        assert trained.steps > 0
        assert all(math.isfinite(value) for value in trained.metrics.values())
        assert np.isfinite(_train(trainer, trainer.initial()).vector).all()

    # --- misuse

    def test_unknown_setting_is_refused_with_the_nearest_known(self, trainer: Trainer) -> None:
        """A misspelt setting is the operator's, who is told how to spell it."""
        with pytest.raises(ConfigError, match="'epochs'"):
            trainer.train(trainer.initial(), {"epoch": 1}, seed=0)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.5),
            ("epochs", True),
            ("batch_size", -1),
            ("batch_size", "8"),
            ("learning_rate", -0.1),
            ("learning_rate", math.nan),
            ("learning_rate", "fast"),
        ],
    )
    def test_settings_out_of_range_are_refused(self, trainer: Trainer, name: str, value: Setting) -> None:
        """With the setting's name, before anything is trained."""
        with pytest.raises(ConfigError, match=name):
            trainer.train(trainer.initial(), {name: value}, seed=0)

    def test_model_of_another_layout_is_refused(self, trainer: Trainer) -> None:
        """One number too few."""
        with pytest.raises(MisuseError):
            _train(trainer, trainer.initial()[:-1])


def _train(trainer: Trainer, model: Vector, seed: int = 3, **settings: Setting) -> Trained:
    return trainer.train(model, {**SETTINGS, **settings}, seed=seed)


def _moved(trainer: Trainer, first: Vector, proximal: float = 0) -> float:
    """Return how far two epochs lead from `first`."""
    trained = trainer.train(first, {**SETTINGS, "proximal": proximal}, seed=3)
    return float(np.linalg.norm((trained.vector - first)[trainer.layout.trainable]))
