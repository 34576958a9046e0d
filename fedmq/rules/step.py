"""Steps: the last slot of a rule. Each says how the model moves when the round's one delta is known.

Statistics (batch norm's mean and variance) always become ``model + delta``, the devices' average: an optimizer's step
could make a variance negative. What follows is said of the trainable numbers.

All arithmetic is float64; models and memory are kept in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import MisuseError
from fedmq.rules.settings import require
from fedmq.vectors import Vector

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout


class Step(Protocol):
    """A move of the model. Pure: model, delta and memory that come in are left as they are."""

    __slots__ = ()

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the new model and the memory for the next round.

        The new model may hold numbers that are not finite; `Rule.finish` refuses it then. Raises MisuseError where a
        remembered vector does not have the model's length.
        """

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:  # noqa: ARG002 # for those that differ
        """Return the model to evaluate and to save, given the one that devices train and what is remembered."""
        return model


@dataclass(frozen=True, slots=True)
class Replace(Step):
    """The model moves by the delta: with the mean and rate 1, it becomes the average of the devices' models.

    Formula: `model + rate * delta`.

    Source: McMahan et al. 2017 (FedAvg) at rate 1; Reddi et al. 2021, "Adaptive Federated Optimization", for other
    rates (server SGD).

    Cost: 10 ms for 10 MB, once a round; no memory.

    Use it first. A rate below 1 steadies rounds with few devices; above 1 it speeds up small steps that all agree.

    Configuration: `kind = "replace"`, `rate` (default 1).
    """

    rate: float = 1.0

    def __post_init__(self) -> None:
        _require_rate("replace", self.rate)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:  # noqa: ARG002 # the slot's signature
        """Return ``model + rate * delta`` and nothing to remember."""
        return _moved(model, delta, self.rate * _wide(delta), layout), {}

    def __str__(self) -> str:
        return "replace" if self.rate == 1.0 else f"replace({self.rate:g})"


@dataclass(frozen=True, slots=True)
class Momentum(Step):
    """The model rolls: each delta adds to a velocity that fades by `beta` a round.

    Formula: `velocity = beta * velocity + delta; model = model + rate * velocity`. The delta is *not* damped by
    `1 - beta`, so deltas that agree move the model up to `rate / (1 - beta)` times as far as one.

    Source: Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", section 3 (FedAvgM), where the delta is the negative of theirs.

    Cost: twice that of `replace`; one vector of memory.

    Use it when devices' data differ and rounds pull to and fro: the common part adds up, the rest cancels. With beta
    0.9 lower `rate` if the model overshoots.

    Configuration: `kind = "momentum"`, `rate` (default 1), `beta` (default 0.9).
    """

    rate: float = 1.0
    beta: float = 0.9

    def __post_init__(self) -> None:
        _require_rate("momentum", self.rate)
        _require_beta("momentum", "beta", self.beta)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``velocity``."""
        velocity = self.beta * _recall(memory, "velocity", layout, 0.0) + _wide(delta)
        return _moved(model, delta, self.rate * velocity, layout), {"velocity": _narrow(velocity)}

    def __str__(self) -> str:
        return (
            f"momentum({self.beta:g})" if self.rate == 1.0 else f"momentum({self.beta:g}, rate {self.rate:g})"
        )


@dataclass(frozen=True, slots=True)
class Adam(Step):
    """The model moves by the delta's running mean over the root of its running square, number by number.

    Formula: `m = beta1 * m + (1 - beta1) * delta; v = beta2 * v + (1 - beta2) * delta^2;
    model = model + rate * m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`. Not bias-corrected.

    Source: Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2 (FedAdam), which starts from
    `v >= tau^2`. Some programs start from `v = 0` and correct the bias: their first rounds differ, later ones do not.

    Cost: four times that of `replace`; two vectors of memory.

    Use it when numbers of the model need steps of very different size (embeddings, rare features), and there are many
    rounds. `rate` is the step of a number in model units, not a factor on the delta: tune it first, on powers of ten.

    Configuration: `kind = "adam"`, `rate` (default 0.01), `beta1` (default 0.9), `beta2` (default 0.99), `tau` (default
    0.001: deltas well below it are not enlarged).
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _require_rate("adam", self.rate)
        _require_beta("adam", "beta1", self.beta1)
        _require_beta("adam", "beta2", self.beta2)
        require(0.0 < self.tau < math.inf, f"adam has tau {self.tau}, wants a positive finite number")

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``mean`` and ``square``."""
        push = _wide(delta)
        mean = self.beta1 * _recall(memory, "mean", layout, 0.0) + (1.0 - self.beta1) * push
        square = self.beta2 * _recall(memory, "square", layout, self.tau**2) + (1.0 - self.beta2) * np.square(
            push
        )
        move = self.rate * mean / (np.sqrt(square) + self.tau)
        return _moved(model, delta, move, layout), {"mean": _narrow(mean), "square": _narrow(square)}

    def __str__(self) -> str:
        return f"adam({self.rate:g})"


def _require_rate(kind: str, rate: float) -> None:
    require(0.0 < rate < math.inf, f"{kind} has rate {rate}, wants a positive finite number")


def _require_beta(kind: str, name: str, beta: float) -> None:
    require(0.0 <= beta < 1.0, f"{kind} has {name} {beta}, wants at least 0 and less than 1")


def _recall(memory: Memory, name: str, layout: Layout, first: float) -> NDArray[np.float64]:
    """Return what is remembered as `name`, or `first` everywhere."""
    known = memory.get(name)
    if known is None:
        return np.full(layout.size, first)
    if known.shape != (layout.size,):
        raise MisuseError(
            f"memory {name!r} has shape {known.shape}, the model ({layout.size},): is it from another model?"
        )
    return _wide(known)


def _moved(model: Vector, delta: Vector, move: NDArray[np.float64], layout: Layout) -> Vector:
    """Return the model, its trainable numbers moved by `move` and its statistics by `delta`."""
    return _narrow(_wide(model) + np.where(layout.trainable, move, delta))


def _wide(vector: Vector) -> NDArray[np.float64]:
    return vector.astype(np.float64)


def _narrow(numbers: NDArray[np.float64]) -> Vector:
    with np.errstate(over="ignore"):  # `Rule.finish` looks for the infinities
        return numbers.astype(np.float32)


STEPS: dict[str, type[Step]] = {
    "replace": Replace,
    "momentum": Momentum,
    "adam": Adam,
}
"""Every step by the `kind` that configuration names it with."""
