"""The step that keeps an average of its models beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from fedmq.rules.memory import as_figure, prefixed, scoped
from fedmq.rules.settings import require
from fedmq.rules.steps.arithmetic import narrow, recall, recall_figure, require_beta, wide
from fedmq.rules.steps.interface import Step
from fedmq.rules.steps.plain import Replace

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector

Averaging: TypeAlias = Literal["exponential", "equal"]


@dataclass(frozen=True, slots=True)
class ModelAverage(Step):
    """Another step, and the average of its models: this is evaluated and saved, while devices train the model itself.

    Formula: `average = decay * average + (1 - decay) * model` (`exponential`), or the mean of the models, each counted
    once (`equal`), from round number `start` on, whose model is the first average. Statistics are averaged with the
    rest.

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; Izmailov et al. 2018,
    "Averaging Weights Leads to Wider Optima and Better Generalization" (SWA, `equal`); Caldarola et al. 2022,
    "Improving Generalization in Federated Learning by Seeking Flat Minima", for federations. SWA recomputes the
    statistics of batch norm on training data; here is none, so they are averaged.

    Cost: that of the step inside, and 10 ms for 10 MB once a round; memory of one vector more.

    Use it when rounds differ (few devices in each, uneven data) and the last model is no better than the one before it:
    their average is, at no cost to the devices. `exponential` follows a model that is still on its way, some
    `1 / (1 - decay)` rounds behind; `equal` is for the last quarter of a run, with `start` there.

    Configuration: `kind = "model_average"`, `step` (the step inside), `averaging` (exponential or equal), `decay`
    (default 0.9), `start` (the first round that counts, from 0; default 0).

    Example:
        >>> import numpy as np
        >>> from fedmq.vectors import Layout, Variable
        >>> layout, step = Layout((Variable("w", (1,)),)), ModelAverage(averaging="equal")
        >>> model, memory = np.zeros(1, np.float32), {}
        >>> for delta in (1.0, 1.0, 1.0):
        ...     model, memory = step.apply(model, np.array([delta], np.float32), memory, layout)
        >>> model, step.serving(model, memory, layout)  # the models were 1, 2 and 3
        (array([3.], dtype=float32), array([2.], dtype=float32))
    """

    step: Step = field(default_factory=Replace)
    averaging: Averaging = "exponential"
    decay: float = 0.9
    start: int = 0

    def __post_init__(self) -> None:
        require(
            self.averaging in {"exponential", "equal"},
            f"model_average has averaging {self.averaging!r}, wants exponential or equal",
        )
        require_beta("model_average", "decay", self.decay)
        require(self.start >= 0, f"model_average has start {self.start}, wants at least 0")

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the model of the step inside and its memory, the ``average`` and the number of ``rounds``."""
        number = int(recall_figure(memory, "rounds", 0.0))
        fast, inner = self.step.apply(model, delta, scoped(memory, "step."), layout)
        remembered = {"rounds": as_figure(number + 1), **prefixed(inner, "step.")}
        if number < self.start:
            return fast, remembered
        return fast, {**remembered, "average": self._average(fast, number - self.start, memory, layout)}

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the average, or the model itself before there is one."""
        inner = self.step.serving(model, scoped(memory, "step."), layout)
        return narrow(recall(memory, "average", layout, 0.0)) if "average" in memory else inner

    def _average(self, fast: Vector, number: int, memory: Memory, layout: Layout) -> Vector:
        """Return the average with one model more, the first of which has `number` 0."""
        if number == 0:
            return fast.copy()
        keep = self.decay if self.averaging == "exponential" else number / (number + 1)
        return narrow(keep * recall(memory, "average", layout, 0.0) + (1.0 - keep) * wide(fast))

    def __str__(self) -> str:
        how = f"{self.decay:g}" if self.averaging == "exponential" else "equal"
        return f"{self.step}, averaged({how}{f' from {self.start}' if self.start else ''})"
