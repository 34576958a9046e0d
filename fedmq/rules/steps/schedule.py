"""The step whose rate changes from round to round."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from fedmq.rules.memory import as_figure, prefixed, scoped
from fedmq.rules.settings import require
from fedmq.rules.steps.arithmetic import recall_figure
from fedmq.rules.steps.interface import Step
from fedmq.rules.steps.plain import Replace

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector

Curve: TypeAlias = Literal["constant", "staircase", "cosine", "polynomial", "inverse"]


@dataclass(frozen=True, slots=True)
class Scheduled(Step):
    """Another step, its rate times a factor that changes from round to round.

    Formula: `rate * max(least, factor(t))`, where `t` counts rounds from 0 after the warm-up, and `factor(t)` is 1
    (`constant`), `gamma^floor(t / rounds)` (`staircase`), `(1 + cos(pi * t / rounds)) / 2` (`cosine`),
    `(1 - t / rounds)^power` (`polynomial`), both of these with t at most `rounds`, or `(1 + t / rounds)^-power`
    (`inverse`). In the first `warmup` rounds it is `1 / warmup`, `2 / warmup` and so on, on a line up to 1.

    Source: Loshchilov and Hutter 2017, "SGDR" (cosine, without restarts); Goyal et al. 2017, "Accurate, Large Minibatch
    SGD" (linear warm-up, staircase); Robbins and Monro 1951 (inverse); Li et al. 2020, "On the Convergence of FedAvg on
    Non-IID Data", for why the rate must fall: with a fixed one FedAvg stops short of the optimum.

    Cost: that of the step inside; memory of one number more.

    Use it when the last rounds rock to and fro (let it fall), or the first ones throw the model about (warm up: most
    of all with `adam` and `momentum`). For `cosine` and `polynomial` set `rounds` to the length of the run.

    Configuration: `kind = "scheduled"`, `step` (the step inside, one that has a rate), `curve` (constant, staircase,
    cosine, polynomial or inverse), `rounds` (default 100: the length of the curve, or of a stair), `warmup` (rounds,
    default 0), `power` (default 0.5), `gamma` (default 0.5), `least` (default 0.001).

    Example:
        >>> half = Scheduled(curve="staircase", rounds=10)
        >>> [half.factor(number) for number in (0, 9, 10, 25)]
        [1.0, 1.0, 0.5, 0.25]
        >>> [Scheduled(warmup=4).factor(number) for number in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    step: Step = dataclasses.field(default_factory=Replace)
    curve: Curve = "cosine"
    rounds: int = 100
    warmup: int = 0
    power: float = 0.5
    gamma: float = 0.5
    least: float = 1e-3

    def __post_init__(self) -> None:
        require(
            hasattr(self.step, "rate"),
            f"scheduled has step {self.step}, which has no rate: schedule the step inside it instead",
        )
        curves = {"constant", "staircase", "cosine", "polynomial", "inverse"}
        require(
            self.curve in curves,
            f"scheduled has curve {self.curve!r}, wants one of {', '.join(sorted(curves))}",
        )
        require(self.rounds >= 1, f"scheduled has rounds {self.rounds}, wants at least 1")
        require(self.warmup >= 0, f"scheduled has warmup {self.warmup}, wants at least 0")
        require(
            0.0 < self.power < math.inf, f"scheduled has power {self.power}, wants a positive finite number"
        )
        require(0.0 < self.gamma <= 1.0, f"scheduled has gamma {self.gamma}, wants more than 0 and at most 1")
        require(0.0 < self.least <= 1.0, f"scheduled has least {self.least}, wants more than 0 and at most 1")

    def factor(self, number: int) -> float:
        """Return the factor of the round of this number, which counts from 0."""
        if number < self.warmup:
            return (number + 1) / self.warmup
        return max(self.least, self._curve(number - self.warmup))

    def apply(self, model: Vector, delta: Vector, memory: Memory, layout: Layout) -> tuple[Vector, Memory]:
        """Return the model, moved at this round's rate, and the step's memory with the number of ``rounds``."""
        number = int(recall_figure(memory, "rounds", 0.0))
        inner, remembered = self._at(number).apply(model, delta, scoped(memory, "step."), layout)
        return inner, {"rounds": as_figure(number + 1), **prefixed(remembered, "step.")}

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return what the step inside does."""
        return self.step.serving(model, scoped(memory, "step."), layout)

    def _at(self, number: int) -> Step:
        rated: Any = self.step
        return cast("Step", dataclasses.replace(rated, rate=rated.rate * self.factor(number)))

    def _curve(self, number: int) -> float:
        along = number / self.rounds
        match self.curve:
            case "staircase":
                return float(self.gamma ** (number // self.rounds))
            case "cosine":
                return (1.0 + math.cos(math.pi * min(along, 1.0))) / 2.0
            case "polynomial":
                return float((1.0 - min(along, 1.0)) ** self.power)
            case "inverse":
                return float((1.0 + along) ** -self.power)
            case _:
                return 1.0

    def __str__(self) -> str:
        start = f"{self.warmup} rounds of warm-up, " if self.warmup else ""
        length = "" if self.curve == "constant" else f" over {self.rounds}"
        return f"{self.step}, {start}{self.curve}{length}"
