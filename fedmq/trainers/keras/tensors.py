"""Between flat vectors, users' arrays and what TensorFlow's graphs work on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.trainers.keras.runtime import keras, tf

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples as tensors: `parts` is (x,), (x, y) or (x, y, weights), whose shapes but for rows are `signature`."""

    parts: tuple[tf.Tensor, ...]
    rows: int
    signature: Hashable

    @classmethod
    def of(cls, parts: tuple[object, ...], rows: int) -> Examples:
        """Make tensors of arrays."""
        tensors = tf.nest.map_structure(tf.constant, parts)
        kinds = tf.nest.map_structure(lambda tensor: (tensor.dtype.name, tuple(tensor.shape[1:])), tensors)
        return cls(tensors, rows, str(kinds))

    @property
    def specs(self) -> tf.TensorSpec:
        """What a compiled function is told of them: all but the number of rows."""
        return tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), self.parts)


def join(weights: Sequence[keras.Variable]) -> tf.Tensor:
    """Return the values of `weights` as one float32 vector."""
    flat = [tf.reshape(tf.cast(weight.value, tf.float32), [-1]) for weight in weights]
    return tf.concat(flat, axis=0) if flat else tf.zeros(0)


def cut(vector: tf.Tensor, weights: Sequence[keras.Variable]) -> list[tf.Tensor]:
    """Return the pieces of `vector` that belong to `weights`, in their shapes and types."""
    pieces = tf.split(vector, [math.prod(weight.shape) for weight in weights]) if weights else []
    pairs = zip(pieces, weights, strict=True)
    return [tf.cast(tf.reshape(piece, weight.shape), weight.dtype) for piece, weight in pairs]


def spread(vector: tf.Tensor, weights: Sequence[keras.Variable]) -> None:
    """Give each weight its piece of `vector`."""
    for weight, piece in zip(weights, cut(vector, weights), strict=True):
        weight.assign(piece)


def figure_names(figures: tf.Tensor) -> list[str]:
    """Return the names of what a step of Keras returned: a number, or a dictionary of numbers by name."""
    return ["_".join(map(str, path)) or "loss" for path, _ in keras.tree.flatten_with_path(figures)]


def figure_vector(figures: tf.Tensor) -> tf.Tensor:
    """Return what a step of Keras returned as one vector, in the order of `figure_names`."""
    return tf.stack([tf.reduce_mean(tf.cast(figure, tf.float32)) for figure in keras.tree.flatten(figures)])


def loop(steps: tf.Tensor, body: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], first: tf.Tensor) -> tf.Tensor:
    """Return the last of ``figures = body(number, figures)`` over the numbers below `steps`, strictly in turn."""

    def advance(number: tf.Tensor, figures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number + 1, body(number, figures)

    start = (tf.constant(0, tf.int64), first)
    return tf.while_loop(lambda number, _: number < steps, advance, start, parallel_iterations=1)[1]
