"""One compiled Keras model as functions of flat vectors, each traced once however many devices use it."""

from __future__ import annotations

import enum
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedmq.trainers.batches import layer_seeds
from fedmq.trainers.keras.optimizers import OptimizerState, optimizers_of, pulled
from fedmq.trainers.keras.runtime import keras, tf
from fedmq.trainers.keras.tensors import Examples, cut, figure_names, figure_vector, join, loop, spread
from fedmq.trainers.keras.weights import sort_weights
from fedmq.vectors import Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fedmq.descent import Pull
    from fedmq.trainers.batches import Rows
    from fedmq.vectors import Layout

ROWS_EVALUATED_AT_ONCE: Final = 512


class Begin(enum.Enum):
    """Where in a round a call of a compiled loop stands, and so what comes first in it."""

    ROUND = enum.auto()  # load the weights, set back everything else
    EPOCH = enum.auto()  # set back the metrics
    BATCH = enum.auto()  # go on


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Optimizer steps to be taken in one call of the compiled loop.

    `orders` has shape (epochs, rows); `cuts` are the edges of an epoch's batches, `limits` the steps of each epoch.
    """

    begin: Begin
    examples: Examples
    orders: Rows
    cuts: Rows
    limits: Rows

    @property
    def plan(self) -> tuple[Rows, Rows, Rows]:
        """Orders, cuts and limits, as the compiled loop takes them."""
        return self.orders, self.cuts, self.limits


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Weights after training, and the figures of the last epoch by the names that Keras gives them."""

    vector: Vector
    personal: Vector
    figures: dict[str, float]


class Network:
    """A built model's weights, optimizers and compiled loops.

    Model vector and personal weights are loaded at the start of each round and evaluation, and all other state is set
    back: nothing of one device is left for the next. Not for two threads at once.
    """

    def __init__(self, model: keras.Model, personal: Sequence[str]) -> None:
        self._model = model
        self._weights = sort_weights(model, personal)
        self._other = [(variable, variable.numpy()) for variable in self._weights.other]
        self._optimizers = [OptimizerState(model.optimizer, model.trainable_variables)]
        self._functions: dict[Hashable, Callable[..., tf.Tensor]] = {}
        self._names: dict[Hashable, tuple[list[str], list[str]]] = {}
        self.initial: Vector = join(self._weights.shared).numpy()
        self.initial_personal: Vector = join(self._weights.personal).numpy()

    @property
    def layout(self) -> Layout:
        """The layout of the model vector."""
        return self._weights.layout

    def rehearse(self, examples: Examples) -> None:
        """Train and test on one example, uncompiled, once for each signature.

        That lets Keras create what it creates late (metrics, states of further optimizers) outside of a loop, and
        raises whatever Keras raises on data that do not fit. It changes the weights; every round loads its own.
        """
        if examples.signature in self._names:
            return
        one = tf.nest.map_structure(lambda tensor: tensor[:1], examples.parts)
        figures = self._model.train_step(one), self._model.test_step(one)
        if not self._names:
            self._optimizers += [OptimizerState(extra, ()) for extra in optimizers_of(self._model)]
        self._names[examples.signature] = figure_names(figures[0]), figure_names(figures[1])

    def train(  # noqa: PLR0913, PLR0917  # what a round begins with
        self,
        vector: Vector,
        personal: Vector,
        stretches: Iterable[Stretch],
        rate: float | None,
        pull: Pull,
        seed: int,
    ) -> Outcome:
        """Train from these weights over all `stretches`, of which the first begins the round."""
        start = (*self._start(vector, personal, seed), *self._steering(rate, pull))
        shared, own, figures, names = *start[:2], tf.zeros(0), list[str]()
        for part in stretches:
            call = self._training(part.begin, part.examples, pulled=_pulls(pull))
            shared, own, figures = call(*start, part.examples.parts, *map(tf.constant, part.plan))
            names = self._names[part.examples.signature][0]
        if any(optimizer.averages for optimizer in self._optimizers):
            shared, own = self._averaged()
        return Outcome(shared.numpy(), own.numpy(), _named(names, figures))

    def reach(self, rate: float | None, steps: int) -> float | None:
        """Return how far `steps` steps carry a gradient of one; None where there are several optimizers."""
        return self._optimizers[0].reach(rate, steps) if len(self._optimizers) == 1 else None

    def evaluate(self, vector: Vector, personal: Vector, parts: Iterable[Examples]) -> dict[str, float]:
        """Return Keras' figures for these weights on all examples of `parts`."""
        start = self._start(vector, personal, 0)
        begin, figures, names = Begin.ROUND, tf.zeros(0), list[str]()
        for examples in parts:
            figures = self._testing(begin, examples)(*start, examples.parts)
            names = self._names[examples.signature][1]
            begin = Begin.BATCH
        return _named(names, figures)

    def save(self, vector: Vector, personal: Vector, path: Path) -> None:
        """Write the model with these weights, and optimizers as before the first step, to a ``.keras`` file."""
        self._load(*self._start(vector, personal, 0))
        for optimizer in self._optimizers:
            optimizer.reset()
        self._model.save(path)

    def _start(self, vector: Vector, personal: Vector, seed: int) -> tuple[tf.Tensor, ...]:
        seeds = layer_seeds(seed, len(self._weights.seeds))
        return tf.constant(vector), tf.constant(personal), tf.constant(seeds)

    def _steering(self, rate: float | None, pull: Pull) -> tuple[tf.Tensor, ...]:
        """Return the round's learning rate and the pull's two terms, the linear one empty where there is no pull."""
        linear = pull.linear
        if linear is None:
            linear = np.zeros(self.layout.size if _pulls(pull) else 0, np.float32)
        chosen = self._optimizers[0].chosen_rate(rate)
        return tf.constant(chosen, tf.float32), tf.constant(pull.strength, tf.float32), tf.constant(linear)

    def _training(self, begin: Begin, examples: Examples, *, pulled: bool) -> Callable[..., tf.Tensor]:
        key = ("train", begin, pulled, examples.signature)
        if key not in self._functions:
            width = len(self._names[examples.signature][0])
            inputs = [_NUMBER, _NUMBER, _VECTOR, examples.specs, _MATRIX, _INTEGERS, _INTEGERS]
            self._functions[key] = self._compiled(self._training_of(begin, width, pulled=pulled), inputs)
        return self._functions[key]

    def _testing(self, begin: Begin, examples: Examples) -> Callable[..., tf.Tensor]:
        key = ("test", begin, examples.signature)
        if key not in self._functions:
            width = len(self._names[examples.signature][1])
            self._functions[key] = self._compiled(self._testing_of(begin, width), [examples.specs])
        return self._functions[key]

    def _compiled(
        self, function: Callable[..., tf.Tensor], inputs: list[tf.TensorSpec]
    ) -> Callable[..., tf.Tensor]:
        if self._model.run_eagerly:
            return function
        signature = [_VECTOR, _VECTOR, _INTEGERS, *inputs]
        general = tf.function(function, input_signature=signature, autograph=False)
        # The one trace, called directly: looking it up by its arguments takes a good part of a small model's round.
        concrete: Callable[..., tf.Tensor] = general.get_concrete_function()
        return concrete

    # What follows runs in compiled functions; where the model is compiled with `run_eagerly`, as it stands.

    def _training_of(self, begin: Begin, width: int, *, pulled: bool) -> Callable[..., tf.Tensor]:
        def train(  # noqa: PLR0913, PLR0917  # a graph's inputs
            vector: tf.Tensor,
            personal: tf.Tensor,
            seeds: tf.Tensor,
            rate: tf.Tensor,
            strength: tf.Tensor,
            linear: tf.Tensor,
            parts: tf.Tensor,
            orders: tf.Tensor,
            cuts: tf.Tensor,
            limits: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            if begin is Begin.ROUND:
                self._load(vector, personal, seeds)
                self._reset_optimizers(rate)
            with self._pulled(vector, linear, strength) if pulled else nullcontext():
                figures = self._epochs(begin, parts, (orders, cuts, limits), tf.zeros(width))
            return join(self._weights.shared), join(self._weights.personal), figures

        return train

    def _testing_of(self, begin: Begin, width: int) -> Callable[..., tf.Tensor]:
        def test(vector: tf.Tensor, personal: tf.Tensor, seeds: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
            if begin is Begin.ROUND:
                self._load(vector, personal, seeds)
                self._model.reset_metrics()
            return self._tested(parts, tf.zeros(width))

        return test

    def _load(self, vector: tf.Tensor, personal: tf.Tensor, seeds: tf.Tensor) -> None:
        spread(vector, self._weights.shared)
        spread(personal, self._weights.personal)
        for i, state in enumerate(self._weights.seeds):
            state.assign(tf.cast(tf.stack([seeds[i], 0]), state.dtype))
        for variable, first in self._other:
            variable.assign(tf.constant(first))

    def _reset_optimizers(self, rate: tf.Tensor) -> None:
        for optimizer in self._optimizers:
            optimizer.reset()
        self._optimizers[0].set_rate(rate)

    def _pulled(
        self, vector: tf.Tensor, linear: tf.Tensor, strength: tf.Tensor
    ) -> AbstractContextManager[None]:
        shared = self._weights.shared
        pairs = zip(cut(vector, shared), cut(linear, shared), strict=True)
        terms = {id(weight): pair for weight, pair in zip(shared, pairs, strict=True)}
        return pulled(self._model.optimizer, terms, strength)

    def _epochs(
        self, begin: Begin, parts: tf.Tensor, plan: tuple[tf.Tensor, tf.Tensor, tf.Tensor], figures: tf.Tensor
    ) -> tf.Tensor:
        """Take the steps of a `Stretch` whose orders, cuts and limits are `plan`; return the last step's figures."""
        orders, cuts, limits = plan

        def run(epoch: tf.Tensor, figures: tf.Tensor) -> tf.Tensor:
            if begin is not Begin.BATCH:
                self._model.reset_metrics()
            order = orders[epoch]
            return loop(limits[epoch], lambda i, _: self._step(parts, order[cuts[i] : cuts[i + 1]]), figures)

        return loop(tf.shape(limits, tf.int64)[0], run, figures)

    def _step(self, parts: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        batch = tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), parts)
        return figure_vector(self._model.train_step(batch))

    def _tested(self, parts: tf.Tensor, figures: tf.Tensor) -> tf.Tensor:
        def test(number: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
            start = number * ROWS_EVALUATED_AT_ONCE
            rows = slice(start, start + ROWS_EVALUATED_AT_ONCE)
            batch = tf.nest.map_structure(lambda tensor: tensor[rows], parts)
            return figure_vector(self._model.test_step(batch))

        rows = tf.shape(tf.nest.flatten(parts)[0], tf.int64)[0]
        return loop(-(-rows // ROWS_EVALUATED_AT_ONCE), test, figures)

    def _averaged(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Let optimizers put their moving averages in place of the weights, as `fit` does at its end."""
        for state in self._optimizers:
            state.optimizer.finalize_variable_values(self._model.trainable_variables)
        return join(self._weights.shared), join(self._weights.personal)


_VECTOR: Final = tf.TensorSpec([None], tf.float32)
_NUMBER: Final = tf.TensorSpec([], tf.float32)
_INTEGERS: Final = tf.TensorSpec([None], tf.int64)
_MATRIX: Final = tf.TensorSpec([None, None], tf.int64)


def _pulls(pull: Pull) -> bool:
    return pull.linear is not None or pull.strength > 0


def _named(names: list[str], figures: tf.Tensor) -> dict[str, float]:
    return dict(zip(names, figures.numpy().tolist(), strict=True))
