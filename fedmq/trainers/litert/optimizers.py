"""What moves weights that lie in an interpreter: Keras' SGD in NumPy, and any other optimizer as Keras traced it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from fedmq.descent import gain
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fedmq.trainers.litert.file import Description, Optimizer
    from fedmq.trainers.litert.model import Interpreter

    Floats = Sequence[NDArray[np.float32]]


class Mover(Protocol):
    """An optimizer in one round."""

    def move(self, weights: Floats, gradients: Floats) -> None:
        """Take a step: write to `weights`, in place; `gradients` may be overwritten."""


class Sgd:
    """Keras' SGD, operation by operation: same roundings, but for the order in which a compiler may take them."""

    def __init__(self, optimizer: Optimizer, rate: float, shapes: Sequence[tuple[int, ...]]) -> None:
        self._rate = np.float32(rate)
        self._momentum = np.float32(optimizer.momentum)
        self._nesterov = optimizer.nesterov
        self._moves = [np.zeros(shape, np.float32) for shape in shapes] if optimizer.momentum else []

    def move(self, weights: Floats, gradients: Floats) -> None:
        """Take a step."""
        for gradient in gradients:
            np.multiply(gradient, self._rate, out=gradient)
        if not self._moves:
            for weight, step in zip(weights, gradients, strict=True):
                np.subtract(weight, step, out=weight)
            return
        for weight, step, move in zip(weights, gradients, self._moves, strict=True):
            np.subtract(np.multiply(move, self._momentum, out=move), step, out=move)
            np.add(weight, move * self._momentum - step if self._nesterov else move, out=weight)


class Traced:
    """Any other optimizer of Keras, as it was traced when the model was exported."""

    def __init__(self, description: Description, rate: float | None, interpreter: Interpreter) -> None:
        self._numbers = description.trainable
        self._rate = {} if rate is None else {"rate": np.asarray(rate, np.float32)}
        self._states = [np.full(s.shape, s.first, s.dtype) for s in description.optimizer.states]
        self._interpreter = interpreter

    def move(self, weights: Floats, gradients: Floats) -> None:
        """Take a step."""
        given = dict(self._rate)
        for number, weight, gradient in zip(self._numbers, weights, gradients, strict=True):
            given |= {f"w{number}": weight, f"g{number}": gradient}
        given |= {f"o{place}": state for place, state in enumerate(self._states)}
        found = self._interpreter.update(given)
        for number, weight in zip(self._numbers, weights, strict=True):
            weight[...] = found[f"n{number}"]
        self._states = [found[f"m{place}"] for place in range(len(self._states))]


def mover(description: Description, rate: float | None, interpreter: Interpreter) -> Mover:
    """Return the optimizer of a round at this rate, None where a schedule decides."""
    optimizer = description.optimizer
    if optimizer.kind == "traced":
        return Traced(description, rate, interpreter)
    return Sgd(optimizer, rate or 0.0, [description.variables[i].shape for i in description.trainable])


def chosen_rate(optimizer: Optimizer, asked: float | None) -> float | None:
    """Return a round's learning rate: what the task asked for, else what the model was compiled with.

    None where a schedule decides; raises ConfigError where the task asks for a rate all the same.
    """
    if asked is not None and optimizer.rate is None:
        raise ConfigError(
            "the model was compiled with a learning rate schedule and the task sets learning_rate: leave out one"
        )
    return optimizer.rate if asked is None else asked


def reach(optimizer: Optimizer, asked: float | None, steps: int) -> float | None:
    """Return how far `steps` steps carry a gradient of one, None where that cannot be said (`Trained.reach`)."""
    rate = chosen_rate(optimizer, asked)
    if optimizer.kind == "traced" or rate is None:
        return None
    return rate * gain(steps, optimizer.momentum, nesterov=optimizer.momentum > 0 and optimizer.nesterov)
