"""Steps that fit their length to each number's history: the FedOpt family of Reddi et al. 2021.

All of them divide a running mean of the deltas by the root of what they know of their squares. They differ in how that
grows. None corrects the bias of its first rounds: the mean starts from 0, the square from `tau^2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmq.rules.settings import require
from fedmq.rules.steps.arithmetic import moved, narrow, recall, require_beta, require_rate, wide
from fedmq.rules.steps.interface import Step

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector

Numbers = NDArray[np.float64]


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

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> deltas = np.array([0.001, 1.0], np.float32)  # a thousand times apart, the steps twenty
        >>> Adam().apply(np.zeros(2, np.float32), deltas, {}, layout)[0].round(5)
        array([0.0005, 0.0099], dtype=float32)
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _require_adaptive("adam", self.rate, self.tau, beta1=self.beta1, beta2=self.beta2)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``mean`` and ``square``."""
        push = wide(delta)
        square = recall(memory, "square", layout, self.tau**2)
        square = self.beta2 * square + (1.0 - self.beta2) * np.square(push)
        mean = _mean(push, memory, layout, self.beta1)
        move = self.rate * mean / (np.sqrt(square) + self.tau)
        return moved(model, delta, move, layout), {"mean": narrow(mean), "square": narrow(square)}

    def __str__(self) -> str:
        return f"adam({self.rate:g})"


@dataclass(frozen=True, slots=True)
class Yogi(Step):
    """As `adam`, but what is known of the squares changes by as much as the new square at most.

    Formula: `m = beta1 * m + (1 - beta1) * delta; v = v - (1 - beta2) * delta^2 * sign(v - delta^2);
    model = model + rate * m / (sqrt(v) + tau)`, from `m = 0` and `v = tau^2`. Not bias-corrected.

    Source: Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2 (FedYogi); Zaheer et al. 2018, "Adaptive
    Methods for Nonconvex Optimization" (Yogi).

    Cost: four times that of `replace`; two vectors of memory.

    Use it where `adam` would do but deltas are sparse or come in bursts: after a large delta Adam forgets it at a fixed
    pace, and its steps grow again whatever comes; Yogi's grow only as fast as small deltas can tell. Reddi et al. found
    it the steadiest of the three.

    Configuration: `kind = "yogi"`, `rate` (default 0.01), `beta1` (default 0.9), `beta2` (default 0.99), `tau` (default
    0.001).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> deltas = np.array([0.001, 1.0], np.float32)
        >>> Yogi().apply(np.zeros(2, np.float32), deltas, {}, layout)[0].round(5)
        array([0.0005, 0.0099], dtype=float32)
    """

    rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _require_adaptive("yogi", self.rate, self.tau, beta1=self.beta1, beta2=self.beta2)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``mean`` and ``square``."""
        push = wide(delta)
        new, square = np.square(push), recall(memory, "square", layout, self.tau**2)
        square = square - (1.0 - self.beta2) * new * np.sign(square - new)
        mean = _mean(push, memory, layout, self.beta1)
        move = self.rate * mean / (np.sqrt(square) + self.tau)
        return moved(model, delta, move, layout), {"mean": narrow(mean), "square": narrow(square)}

    def __str__(self) -> str:
        return f"yogi({self.rate:g})"


@dataclass(frozen=True, slots=True)
class Adagrad(Step):
    """The model moves by the delta over the root of the sum of all squares so far, number by number.

    Formula: `m = beta1 * m + (1 - beta1) * delta; v = v + delta^2; model = model + rate * m / (sqrt(v) + tau)`, from
    `m = 0` and `v = tau^2`. Steps only ever shrink, about as one over the root of the number of rounds.

    Source: Reddi et al. 2021, "Adaptive Federated Optimization", algorithm 2 (FedAdagrad), with beta1 = 0 as in their
    experiments; McMahan and Streeter 2010, "Adaptive Bound Optimization for Online Convex Optimization"; Duchi et al.
    2011 (Adagrad).

    Cost: three times that of `replace`, four with beta1; one vector of memory, two with beta1.

    Use it when inputs are sparse (words, item identifiers) and most numbers see a delta now and then: the rare ones
    keep long steps. It needs no schedule. In very long runs it comes to a halt; then `adam` or `yogi`.

    Configuration: `kind = "adagrad"`, `rate` (default 0.1), `beta1` (default 0), `tau` (default 0.001).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> deltas = np.array([0.001, 1.0], np.float32)
        >>> Adagrad().apply(np.zeros(2, np.float32), deltas, {}, layout)[0].round(4)
        array([0.0414, 0.0999], dtype=float32)
    """

    rate: float = 0.1
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _require_adaptive("adagrad", self.rate, self.tau, beta1=self.beta1)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``square``, with beta1 also the ``mean``."""
        push = wide(delta)
        square = recall(memory, "square", layout, self.tau**2) + np.square(push)
        mean = _mean(push, memory, layout, self.beta1)
        move = self.rate * mean / (np.sqrt(square) + self.tau)
        kept = {"mean": narrow(mean)} if self.beta1 else {}
        return moved(model, delta, move, layout), {**kept, "square": narrow(square)}

    def __str__(self) -> str:
        return f"adagrad({self.rate:g})"


def _require_adaptive(kind: str, rate: float, tau: float, **betas: float) -> None:
    require_rate(kind, rate)
    for name, beta in betas.items():
        require_beta(kind, name, beta)
    require(0.0 < tau < math.inf, f"{kind} has tau {tau}, wants a positive finite number")


def _mean(push: Numbers, memory: Memory, layout: Layout, beta: float) -> Numbers:
    return beta * recall(memory, "mean", layout, 0.0) + (1.0 - beta) * push if beta else push
