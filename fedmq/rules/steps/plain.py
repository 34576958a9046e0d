"""Steps along the delta: as far as it says, or with the swing of those before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.rules.steps.arithmetic import moved, narrow, recall, require_beta, require_rate, wide
from fedmq.rules.steps.interface import Step

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class Replace(Step):
    """The model moves by the delta: with the mean and rate 1, it becomes the average of the devices' models.

    Formula: `model + rate * delta`.

    Source: McMahan et al. 2017 (FedAvg) at rate 1; Reddi et al. 2021, "Adaptive Federated Optimization", for other
    rates (server SGD).

    Cost: 10 ms for 10 MB, once a round; no memory.

    Use it first. A rate below 1 steadies rounds with few devices; above 1 it speeds up small steps that all agree.

    Configuration: `kind = "replace"`, `rate` (default 1).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> model, delta = np.array([1.0, 2.0], np.float32), np.array([0.5, -1.0], np.float32)
        >>> Replace(rate=0.5).apply(model, delta, {}, layout)[0]
        array([1.25, 1.5 ], dtype=float32)
    """

    rate: float = 1.0

    def __post_init__(self) -> None:
        require_rate("replace", self.rate)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:  # noqa: ARG002 # the slot's signature
        """Return ``model + rate * delta`` and nothing to remember."""
        return moved(model, delta, self.rate * wide(delta), layout), {}

    def __str__(self) -> str:
        return "replace" if self.rate == 1.0 else f"replace({self.rate:g})"


@dataclass(frozen=True, slots=True)
class Momentum(Step):
    """The model rolls: each delta adds to a velocity that fades by `beta` a round.

    Formula: `velocity = beta * velocity + delta; model = model + rate * velocity`. The delta is *not* damped by
    `1 - beta`, so deltas that agree move the model up to `rate / (1 - beta)` times as far as one. With `nesterov` the
    last line is `model = model + rate * (delta + beta * velocity)`: the velocity that the next round would have if
    nothing new came.

    Source: Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", section 3 (FedAvgM), where the delta is the negative of theirs; Nesterov's form after Sutskever et
    al. 2013, "On the Importance of Initialization and Momentum in Deep Learning", as PyTorch and optax write it.

    Cost: twice that of `replace`; one vector of memory.

    Use it when devices' data differ and rounds pull to and fro: the common part adds up, the rest cancels. With beta
    0.9 lower `rate` if the model overshoots, or try `nesterov`, which turns round one round earlier.

    Configuration: `kind = "momentum"`, `rate` (default 1), `beta` (default 0.9), `nesterov` (default false).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> layout, step = Layout((Variable("w", (1,)),)), Momentum(beta=0.5)
        >>> model, memory = np.zeros(1, np.float32), {}
        >>> for _ in range(3):  # moves of 1, 1.5 and 1.75
        ...     model, memory = step.apply(model, np.ones(1, np.float32), memory, layout)
        >>> model
        array([4.25], dtype=float32)
    """

    rate: float = 1.0
    beta: float = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        require_rate("momentum", self.rate)
        require_beta("momentum", "beta", self.beta)

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the moved model and the ``velocity``."""
        push = wide(delta)
        velocity = self.beta * recall(memory, "velocity", layout, 0.0) + push
        direction = push + self.beta * velocity if self.nesterov else velocity
        return moved(model, delta, self.rate * direction, layout), {"velocity": narrow(velocity)}

    def __str__(self) -> str:
        rate = "" if self.rate == 1.0 else f", rate {self.rate:g}"
        return f"{'nesterov' if self.nesterov else 'momentum'}({self.beta:g}{rate})"
