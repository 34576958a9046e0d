"""Two networks for handwritten digits in bare NumPy, for benchmarks that train them thousands of times.

They learn what the same networks learn in `fedmq.trainers` (plain SGD, cross-entropy, the same mini-batches), and
nothing else: no metrics of the training, no momentum, no terms of an algorithm. That makes them two and more times as
fast on one core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from fedmq.device.interface import Trained
from fedmq.errors import MisuseError
from fedmq.trainers.batches import Schedule
from fedmq.trainers.numpy import Mlp
from fedmq.trainers.settings import Settings
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fedmq.descent import Pull
    from fedmq.device.interface import Setting
    from fedmq.vectors import Vector

    Matrix = NDArray[np.float32]
    Weights = list[Matrix]

_EVALUATED_AT_ONCE: Final = 250


@dataclass(frozen=True, slots=True)
class Examples:
    """A device's data as its network takes them; `lit` are the inputs that are not zero in every example."""

    x: Matrix
    y: NDArray[np.int64]
    lit: NDArray[np.int64]


class Network(Protocol):
    """What is learned: weights from a vector and back, one step on a batch, and what it says of examples."""

    @property
    def layout(self) -> Layout:
        """The model's layout."""

    def initial(self, seed: int) -> Vector:
        """Return the first weights."""

    def take(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> Examples:
        """Return the data as `step` and `scores` take them: all that can be computed once."""

    def open(self, vector: Vector, examples: Examples) -> Weights:
        """Return copies of the weights that training on these examples moves."""

    def close(self, weights: Weights, vector: Vector, examples: Examples) -> Vector:
        """Return `vector` with the weights of `open` in their places."""

    def step(self, weights: Weights, x: Matrix, y: NDArray[np.int64], rate: np.float32) -> None:
        """Move the weights, in place, down the gradient of the batch's mean cross-entropy."""

    def scores(self, weights: Weights, x: Matrix) -> Matrix:
        """Return one number per example and class."""


@dataclass(frozen=True, slots=True)
class Perceptron:
    """784 inputs, one hidden layer (ReLU), ten classes: 101,770 parameters with 128 hidden units.

    Pixels that are dark in all of a device's images have no gradient: their rows stay out of the products.
    """

    hidden: int = 128

    @property
    def layout(self) -> Layout:
        """That of `Mlp`."""
        return Mlp(784, (self.hidden,), classes=10).layout

    def initial(self, seed: int) -> Vector:
        """Return the first weights of `Mlp`."""
        return Mlp(784, (self.hidden,), classes=10).initial(seed)

    def take(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> Examples:
        """Flatten the images and keep the pixels that are lit somewhere."""
        flat = x.reshape(len(x), -1)
        lit = np.flatnonzero(flat.any(axis=0))
        return Examples(np.ascontiguousarray(flat[:, lit]), y, lit)

    def open(self, vector: Vector, examples: Examples) -> Weights:
        """Return the weights, of the first layer only the lit pixels' rows."""
        first, *rest = self.layout.unpack(vector)
        return [first[examples.lit], *(array.copy() for array in rest)]

    def close(self, weights: Weights, vector: Vector, examples: Examples) -> Vector:
        """Put the lit pixels' rows back among the others."""
        first = self.layout.unpack(vector)[0].copy()
        first[examples.lit] = weights[0]
        return self.layout.pack([first, *weights[1:]])

    def step(self, weights: Weights, x: Matrix, y: NDArray[np.int64], rate: np.float32) -> None:
        """Move the weights."""
        kernel, bias, last, _ = weights
        hidden = _relu(x @ kernel, bias)
        error = _head_step(weights, hidden, y, rate, last)
        _descend(kernel, bias, x, error)

    def scores(self, weights: Weights, x: Matrix) -> Matrix:
        """Return one number per example and class."""
        kernel, bias, last, last_bias = weights
        return _relu(x @ kernel, bias) @ last + last_bias


@dataclass(frozen=True, slots=True)
class Convolutional:
    """Convolutions of 16 (5 by 5) and 32 (3 by 3) channels, both with strides of 2, a layer of 96, ten classes.

    156,650 parameters. Padding is TensorFlow's "same".
    """

    channels: tuple[int, int] = (16, 32)
    hidden: int = 96

    @property
    def layout(self) -> Layout:
        """Kernels of shape (height, width, in, out) and (in, out), each with a bias."""
        return Layout(tuple(v for name, shape in self._kernels.items() for v in _with_bias(name, shape)))

    def initial(self, seed: int) -> Vector:
        """Return weights as Keras makes them by default: kernels Glorot-uniform, biases zero."""
        generator = np.random.Generator(np.random.Philox(seed))
        arrays: list[Matrix] = []
        for shape in self._kernels.values():
            limit = math.sqrt(6 / (math.prod(shape[:-2]) * sum(shape[-2:])))
            arrays += [generator.uniform(-limit, limit, shape).astype(np.float32), _zeros(shape[-1])]
        return self.layout.pack(arrays)

    def take(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> Examples:
        """Cut the images into the patches that the first convolution looks at."""
        patches = _patches(x.reshape(-1, 28, 28, 1), 5, (1, 2))
        return Examples(patches.reshape(len(x), -1), y, np.arange(0))

    def open(self, vector: Vector, examples: Examples) -> Weights:  # noqa: ARG002 - a network's signature
        """Return the weights, kernels as matrices."""
        return [array.reshape(-1, array.shape[-1]).copy() for array in self.layout.unpack(vector)]

    def close(self, weights: Weights, vector: Vector, examples: Examples) -> Vector:  # noqa: ARG002 - (same)
        """Return the weights as a vector."""
        arrays = self.layout.unpack(vector)
        return self.layout.pack([new.reshape(old.shape) for new, old in zip(weights, arrays, strict=True)])

    def step(self, weights: Weights, x: Matrix, y: NDArray[np.int64], rate: np.float32) -> None:
        """Move the weights."""
        first, first_bias, second, second_bias, dense, dense_bias, last, _ = weights
        seen, maps, looked, flat, hidden = self._forward(weights, x)
        error = _head_step(weights, hidden, y, rate, last)
        back: Matrix = error @ dense.T
        np.multiply(back, flat > 0, out=back)
        back = back.reshape(-1, second.shape[1])
        looks: Matrix = (back @ second.T).reshape(len(y), 7, 7, -1)
        inner = _unpatched(looks, 3, (0, 1), maps.shape)
        np.multiply(inner, maps > 0, out=inner)
        inner = inner.reshape(-1, first.shape[1])
        _descend(dense, dense_bias, flat, error)
        _descend(second, second_bias, looked, back)
        _descend(first, first_bias, seen, inner)

    def scores(self, weights: Weights, x: Matrix) -> Matrix:
        """Return one number per example and class."""
        return self._forward(weights, x)[-1] @ weights[6] + weights[7]

    def _forward(self, weights: Weights, x: Matrix) -> tuple[Matrix, ...]:
        """Return what each layer sees: patches of the image, maps, patches of these, and two flat layers."""
        first, first_bias, second, second_bias, dense, dense_bias = weights[:6]
        seen = x.reshape(-1, 25)
        maps = _relu(seen @ first, first_bias).reshape(len(x), 14, 14, -1)
        looked = _patches(maps, 3, (0, 1)).reshape(-1, len(second))
        flat = _relu(looked @ second, second_bias).reshape(len(x), -1)
        return seen, maps, looked, flat, _relu(flat @ dense, dense_bias)

    @property
    def _kernels(self) -> dict[str, tuple[int, ...]]:
        few, many = self.channels
        return {
            "conv": (5, 5, 1, few),
            "conv_1": (3, 3, few, many),
            "dense": (49 * many, self.hidden),
            "dense_1": (self.hidden, 10),
        }


@dataclass(frozen=True, slots=True)
class BareTrainer:
    """A network on one device's examples: a `SteeredTrainer`, whose algorithms may not steer."""

    network: Network
    data: Examples
    held_out: Examples | None = None
    seed: int = 0
    rate: float = 0.1
    name: str = field(default="bare NumPy", init=False)

    @property
    def layout(self) -> Layout:
        """The network's layout."""
        return self.network.layout

    @property
    def examples(self) -> int:
        """How many examples it trains on."""
        return len(self.data.y)

    def initial(self) -> Vector:
        """Return the first weights."""
        return self.network.initial(self.seed)

    def train(
        self, model: Vector, settings: Mapping[str, Setting], *, seed: int, pull: Pull | None = None
    ) -> Trained:
        """Train from `model`: the mini-batches, and so the result up to rounding, are those of fedmq's trainers."""
        if pull is not None and (pull.strength or pull.linear is not None):
            raise MisuseError("a bare trainer follows no algorithm: take one of fedmq's own")
        schedule = Schedule(self.examples, Settings.parse(settings))
        weights = self.network.open(model, self.data)
        rate, cuts = np.float32(self.rate), schedule.cuts.tolist()
        for order, limit in schedule.epochs(seed):
            for start, stop in pairwise(cuts[: limit + 1]):
                rows = order[start:stop]
                self.network.step(weights, self.data.x[rows], self.data.y[rows], rate)
        vector = self.network.close(weights, model, self.data)
        return Trained(vector, self.examples, schedule.steps, {}, self.rate * schedule.steps)

    def evaluate(self, model: Vector) -> Mapping[str, float]:
        """Return ``loss``, ``accuracy`` and ``held_out`` of `model`; nothing where no examples are held out."""
        if self.held_out is None:
            return {}
        kept, loss, right = self.held_out, 0.0, 0
        weights = self.network.open(model, kept)
        for start in range(0, len(kept.y), _EVALUATED_AT_ONCE):
            y = kept.y[start : start + _EVALUATED_AT_ONCE]
            scores = self.network.scores(weights, kept.x[start : start + _EVALUATED_AT_ONCE])
            right += int(np.count_nonzero(scores.argmax(axis=1) == y))
            loss -= float(np.log(_softmax(scores)[np.arange(len(y)), y] + 1e-30).sum())
        return {"loss": loss / len(kept.y), "accuracy": right / len(kept.y), "held_out": float(len(kept.y))}


def _head_step(
    weights: Weights, hidden: Matrix, y: NDArray[np.int64], rate: np.float32, last: Matrix
) -> Matrix:
    """Move the last layer; return what the layer below it has to go down by, times the rate."""
    bias = weights[-1]
    error = _softmax(hidden @ last + bias)
    error[np.arange(len(y)), y] -= 1
    error *= rate / np.float32(len(y))
    back: Matrix = error @ last.T
    back *= hidden > 0
    _descend(last, bias, hidden, error)
    return back


def _descend(kernel: Matrix, bias: Matrix, given: Matrix, error: Matrix) -> None:
    """Move a layer that was given `given` down by its error; sums over rows are ten times faster as a product."""
    kernel -= np.matmul(given.T, error, out=_scratch(kernel.shape))
    bias -= (np.ones(len(error), np.float32) @ error).reshape(bias.shape)


@lru_cache(maxsize=64)
def _scratch(shape: tuple[int, ...]) -> Matrix:
    """Return memory to compute in: taking it anew for each step would cost a quarter of the time."""
    return np.empty(shape, np.float32)


def _softmax(scores: Matrix) -> Matrix:
    """Turn scores into probabilities, in place."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _relu(sums: Matrix, bias: Matrix) -> Matrix:
    """Add the bias and cut off what is below zero, in place."""
    sums += bias
    return np.maximum(sums, 0, out=sums)


def _patches(maps: Matrix, side: int, pad: tuple[int, int]) -> Matrix:
    """Return (examples, height, width, side * side * channels): what a kernel with strides of 2 sees at each place."""
    count, height, width, channels = maps.shape
    padded = np.zeros((count, height + sum(pad), width + sum(pad), channels), np.float32)
    padded[:, pad[0] : pad[0] + height, pad[0] : pad[0] + width] = maps
    image, row, column, _ = padded.strides
    view = np.lib.stride_tricks.as_strided(
        padded,
        (count, height // 2, width // 2, side, side * channels),  # a kernel's row lies in one piece
        (image, 2 * row, 2 * column, row, padded.itemsize),
    )
    return view.reshape(count, height // 2, width // 2, -1)


def _unpatched(patches: Matrix, side: int, pad: tuple[int, int], shape: tuple[int, ...]) -> Matrix:
    """Return the sum, at each place of maps of that shape, over the patches that it is part of."""
    count, height, width, channels = shape
    padded = np.zeros((count, height + sum(pad), width + sum(pad), channels), np.float32)
    parts = patches.reshape(*patches.shape[:3], side * side, channels)
    for place, (down, right) in enumerate(np.ndindex(side, side)):
        window = padded[:, down : down + height - 1 : 2, right : right + width - 1 : 2]
        window += parts[:, :, :, place]
    return padded[:, pad[0] : pad[0] + height, pad[0] : pad[0] + width]


def _with_bias(name: str, shape: tuple[int, ...]) -> tuple[Variable, Variable]:
    return Variable(f"{name}/kernel", shape), Variable(f"{name}/bias", shape[-1:])


def _zeros(size: int) -> Matrix:
    return np.zeros(size, np.float32)
