"""A Keras model as functions of arrays alone: weights and a batch in, gradients and figures out."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmq.errors import ConfigError
from fedmq.trainers.keras.runtime import keras, tf
from fedmq.trainers.litert.export.converting import layers_of
from fedmq.trainers.litert.export.slopes import builtin_gradients, gelu
from fedmq.trainers.litert.file import DRAW, SHARE, VALID, Draw
from fedmq.trainers.shares import map_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fedmq.trainers.shares import Nest

    Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True, slots=True)
class Given:
    """What `Tracing` is told: a built and compiled model, its float weights in layout order, and its data's form.

    `x` is a batch of inputs, for its structure; `ports` are the names of its arrays; `rows` the size of a batch.
    """

    model: keras.Model
    weights: Sequence[keras.Variable]
    seeds: Sequence[keras.Variable]
    x: Nest
    ports: Sequence[str]
    rows: int
    metrics: Sequence[keras.metrics.Mean]


@dataclass(slots=True)
class Tracing:
    """The functions that become signatures; tracing `gradients` fills in `updated` and `draws`."""

    given: Given
    updated: tuple[int, ...] = ()
    draws: tuple[Draw, ...] = ()
    penalised: bool = False
    _drawn: dict[int, list[Draw]] = field(default_factory=dict)

    def gradients(self, inputs: Tensors) -> Tensors:
        """Return gradients of the trainable weights, statistics as a forward pass leaves them, and figures."""
        weights = self._weights(inputs)
        trainable = [i for i, weight in enumerate(self.given.weights) if weight.trainable]
        with builtin_gradients():
            output, state, loss = self._forward(inputs, weights, training=True)
        slopes = tf.gradients(loss, [weights[i] for i in trainable])
        found = {f"g{i}": _dense(slope, weights[i]) for i, slope in zip(trainable, slopes, strict=True)}
        changed = {i: state[i] for i in state if state[i] is not weights[i]}
        self.updated = tuple(sorted(changed))
        found |= {f"s{i}": tf.identity(value) for i, value in changed.items()}
        return {**found, "figures": self._figures(inputs, output, loss)}

    def evaluate(self, inputs: Tensors) -> Tensors:
        """Return the figures of a batch that nothing is learned from."""
        output, _, loss = self._forward(inputs, self._weights(inputs), training=False)
        return {"figures": self._figures(inputs, output, loss)}

    def _weights(self, inputs: Tensors) -> list[tf.Tensor]:
        return [inputs[f"w{i}"] for i in range(len(self.given.weights))]

    def _forward(
        self, inputs: Tensors, weights: Sequence[tf.Tensor], *, training: bool
    ) -> tuple[tf.Tensor, dict[int, tf.Tensor], tf.Tensor]:
        """Return the model's output, its weights that are not trained by number, and the loss."""
        model = self.given.model
        values = {id(variable): value for variable, value in zip(self.given.weights, weights, strict=True)}
        trained = [values[id(variable)] for variable in model.trainable_variables]
        seeds = {id(variable): np.zeros(variable.shape, variable.dtype) for variable in self.given.seeds}
        rest = [(values | seeds)[id(variable)] for variable in model.non_trainable_variables]
        names = iter(self.given.ports)
        x = map_arrays(lambda _: inputs[next(names)], self.given.x)
        with self._as_traced(inputs, training=training):
            output, after, losses = model.stateless_call(
                trained, rest, x, return_losses=True, training=training
            )
            loss = self._loss(inputs, x, output, losses, training=training)
        numbers = {id(variable): i for i, variable in enumerate(self.given.weights)}
        pairs = zip(model.non_trainable_variables, after, strict=True)
        state = {numbers[id(variable)]: value for variable, value in pairs if id(variable) in numbers}
        return output, state, loss

    def _loss(self, inputs: Tensors, x: Any, output: tf.Tensor, losses: Any, *, training: bool) -> tf.Tensor:  # noqa: ANN401  # Keras has no types
        model, y = self.given.model, inputs["y"]
        self.penalised = self.penalised or bool(losses)
        model._losses_override = list(losses)  # noqa: SLF001  # as Keras' own stateless trainer does
        try:
            return model.compute_loss(x, y, output, sample_weight=inputs[SHARE], training=training)
        finally:
            model._losses_override = []  # noqa: SLF001  # (same)

    def _figures(self, inputs: Tensors, output: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
        found = [tf.cast(loss, tf.float32)]
        for metric in self.given.metrics:
            zero = [tf.zeros(()), tf.zeros(())]
            with _swapped(
                keras.src.backend.numpy, "signbit", lambda x: tf.less(x, 0)
            ):  # argmax tells -0 from 0
                found += metric.stateless_update_state(zero, inputs["y"], output, sample_weight=inputs[VALID])
        return tf.stack([tf.cast(figure, tf.float32) for figure in found])

    @contextmanager
    def _as_traced(self, inputs: Tensors, *, training: bool) -> Iterator[None]:
        """Lead Keras' layers, for one pass, around what a LiteRT file cannot do; the model is the same afterwards."""
        with ExitStack() as stack:
            for layer in layers_of(self.given.model):
                if isinstance(layer, keras.layers.BatchNormalization) and training:
                    stack.enter_context(_swapped(layer, "call", _masked(layer, inputs[VALID])))
                if isinstance(layer, keras.layers.RNN):
                    stack.enter_context(_swapped(layer, "unroll", value=True))
            stack.enter_context(_swapped(tf.nn, "gelu", gelu))
            self._drawn = {}
            stack.enter_context(self._drawing(inputs))
            yield
            if training:
                self._note_draws()

    @contextmanager
    def _drawing(self, inputs: Tensors) -> Iterator[None]:
        """Have uniform random numbers come out of inputs, and remember which ones from which generator."""
        numbers = {id(variable): i for i, variable in enumerate(self.given.seeds)}
        marks: dict[int, tuple[tf.Tensor, int]] = {}

        def mark(generator: keras.random.SeedGenerator, ordered: bool = True) -> tf.Tensor:  # noqa: FBT001, FBT002, ARG001  # Keras' own
            found = tf.constant([0, 0])
            marks[id(found)] = found, numbers.get(id(generator.state), -1)
            return found

        def drop(x: tf.Tensor, rate: float, *, noise_shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
            shape = tuple(int(size) for size in tf.get_static_value(noise_shape))
            uniform = self._draw(inputs, shape, marks.get(id(seed), (seed, -1))[1])
            return x * tf.cast(uniform >= rate, x.dtype) * (1 / (1 - rate))

        with (
            _swapped(keras.random.SeedGenerator, "next", mark),
            _swapped(tf.nn.experimental, "stateless_dropout", drop),
        ):
            yield

    def _draw(self, inputs: Tensors, shape: tuple[int, ...], generator: int) -> tf.Tensor:
        if generator < 0 or not shape or shape[0] != self.given.rows:
            raise ConfigError(
                "a layer draws random numbers that are not under a round's seed, or the same for a whole batch: "
                "take keras.layers.Dropout without noise_shape, or train this model with Keras"
            )
        mine = self._drawn.setdefault(generator, [])
        name = f"{DRAW}{generator}_{len(mine)}"
        mine.append(Draw(name, shape[1:], generator, len(mine), 0))
        return inputs.get(name, tf.zeros(shape))  # the first tracing is to learn what is drawn

    def _note_draws(self) -> None:
        self.draws = tuple(
            Draw(draw.name, draw.shape, draw.generator, draw.place, len(group))
            for group in self._drawn.values()
            for draw in group
        )


def updates(
    optimizer: keras.Optimizer, weights: Sequence[keras.Variable], numbers: Sequence[int], inputs: Tensors
) -> Tensors:
    """Return what Keras' `optimizer` makes of these weights, their gradients and its own states.

    `numbers` are the weights' numbers in the names of `inputs`.
    """
    rate = optimizer.learning_rate if "rate" in inputs else None
    kept = [variable for variable in optimizer.variables if variable is not rate]
    before = [(variable, inputs[f"o{place}"]) for place, variable in enumerate(kept)]
    before += [(weight, inputs[f"w{i}"]) for i, weight in zip(numbers, weights, strict=True)]
    before += [] if rate is None else [(rate, inputs["rate"])]
    with _undistributed(optimizer), keras.StatelessScope(state_mapping=before) as scope:
        optimizer.apply([inputs[f"g{i}"] for i in numbers], list(weights))
        found = {
            f"n{i}": weight for i, weight in zip(numbers, map(scope.get_current_value, weights), strict=True)
        }
        found |= {f"m{place}": scope.get_current_value(variable) for place, variable in enumerate(kept)}
    return {name: tf.identity(value) for name, value in found.items()}


@contextmanager
def _undistributed(optimizer: keras.Optimizer) -> Iterator[None]:
    """Have Keras' optimizer work as on its other backends: on TensorFlow it distributes, which wants real variables."""
    base = next(kind for kind in type(optimizer).__mro__ if kind.__name__ == "BaseOptimizer")
    keys = {id(variable): optimizer._var_key(variable) for variable in optimizer._trainable_variables}  # noqa: SLF001  # no public way
    with ExitStack() as stack:
        stack.enter_context(_swapped(optimizer, "_var_key", lambda variable: keys[id(variable)]))
        for name in ("assign", "assign_add", "assign_sub", "_apply_weight_decay", "_backend_update_step"):
            stack.enter_context(_swapped(optimizer, name, getattr(base, name).__get__(optimizer)))
        yield


def _masked(layer: keras.layers.BatchNormalization, valid: tf.Tensor) -> Any:  # noqa: ANN401  # a bound method's stand-in
    """Return the layer's `call`, with rows that only fill a batch up left out of its statistics."""
    call = layer.call

    def masked(inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:  # noqa: FBT001
        if layer.axis not in {-1, len(inputs.shape) - 1} or mask is not None:
            raise ConfigError(
                f"layer {layer.name!r} normalises over axis {layer.axis}, or under a mask: "
                "LiteRT trains it over the last axis only"
            )
        rows = tf.reshape(tf.cast(valid, tf.bool), [-1, *([1] * (len(inputs.shape) - 2))])
        return call(inputs, training=training, mask=tf.broadcast_to(rows, inputs.shape[:-1]))

    return masked


@contextmanager
def _swapped(owner: Any, name: str, value: Any) -> Iterator[None]:  # noqa: ANN401
    """Have `owner` hold `value` under that name for a while, past Keras' tracking of attributes."""
    put = owner.__dict__.__setitem__ if not isinstance(owner, type) else lambda n, v: setattr(owner, n, v)
    own = name in vars(owner)
    before = vars(owner).get(name)
    put(name, value)
    try:
        yield
    finally:
        if own:
            put(name, before)
        else:
            del owner.__dict__[name]


def _dense(slope: Any, weight: tf.Tensor) -> tf.Tensor:  # noqa: ANN401
    """Return a slope as one array: an embedding's comes in rows, a weight's that plays no part not at all."""
    return weight * 0.0 if slope is None else tf.convert_to_tensor(slope)
