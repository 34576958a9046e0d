"""FedNova: updates are compared step for step, so that devices which take more steps do not pull harder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.algorithms.algorithm import Algorithm
from fedmq.algorithms.govern import Governed, governed
from fedmq.descent import gain
from fedmq.errors import Refused
from fedmq.rules import Guard, Rule
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.settings import require
from fedmq.vectors import Layout, Variable

if TYPE_CHECKING:
    from pathlib import Path

    from fedmq.rules import AnyRule, Claim, Fold, Outcome, Prepared, Reduced
    from fedmq.vectors import Vector

STEPS = Variable("fednova.steps", (1,), "statistic")
"""The number that rides behind each delta through the fold: the update's local steps."""


@dataclass(frozen=True, slots=True)
class FedNova(Algorithm):
    """Updates are compared step for step, so that devices which take more steps do not pull harder.

    Formula: `tau_eff * reduce_i(w_i, delta_i / a_i)` is what the step gets, where `a_i` is the number of local steps,
    and `tau_eff = reduce_i(w_i, a_i)`: the reducer makes one of the a_i just as of the deltas. With the mean that is
    the paper's `sum_i p_i a_i * sum_i p_i delta_i / a_i`. With `momentum` m on the devices, `a_i` is the L1 norm of how
    often gradients enter the weights (`fedmq.descent.gain`). Statistics are averaged and nothing else.

    Guards see deltas as devices sent them; norms among the round's figures are those of one step.

    Source: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
    section 4, equation 9 with the weights p_i in tau_eff, https://arxiv.org/abs/2007.07481.

    Cost: 3 ms for 10 MB for each update; no bytes: steps are among the facts that every update carries. Devices are
    told nothing of it.

    Use it when devices take different numbers of local steps: different amounts of data at the same epochs, or slow
    ones that stop early. Steps are the device's word: `most_steps` bounds what a lie can do.

    Configuration: `kind = "fednova"`, `momentum` (of the devices' SGD, default 0), `most_steps` (an update that claims
    more is refused, default 100,000).

    Example:
        >>> print(FedNova(momentum=0.9).govern(Rule()))
        finite, examples(1..10000000), per step(0.9) | uniform | mean | replace
    """

    kind: ClassVar[str] = "fednova"
    momentum: float = 0.0
    most_steps: int = 100_000

    def __post_init__(self) -> None:
        require(
            0.0 <= self.momentum < 1.0, f"fednova has momentum {self.momentum}, wants at least 0, less than 1"
        )
        require(self.most_steps >= 1, f"fednova has most_steps {self.most_steps}, wants at least 1")

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:  # noqa: ARG002 # the interface's signature
        """Divide behind the last guard, multiply before the step."""
        return governed(rule, self.kind, self._normalised)

    def _normalised(self, rule: Rule) -> AnyRule:
        return Normalised(replace(rule, guards=(*rule.guards, PerStep(self.momentum, self.most_steps))))

    def __str__(self) -> str:
        return f"fednova({self.momentum:g})" if self.momentum else "fednova"


@dataclass(frozen=True, slots=True)
class PerStep(Guard):
    """Divides an update by its local steps; the last number of the vector becomes these."""

    momentum: float = 0.0
    most_steps: int = 100_000

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return what one step did; raise Refused where the claim of steps is not to be believed."""
        if not 1 <= claim.steps <= self.most_steps:
            raise Refused(
                f"update claims {claim.steps} local steps, between 1 and {self.most_steps} are believed"
            )
        steps = gain(claim.steps, self.momentum)
        divided = np.where(layout.trainable, delta / np.float32(steps), delta)
        divided[-1] = steps
        return divided

    def __str__(self) -> str:
        return f"per step({self.momentum:g})" if self.momentum else "per step"


@dataclass(frozen=True, slots=True)
class Normalised(Governed):
    """A rule whose fold holds deltas of one step each, and the steps behind them.

    The fold is of a layout with one number more than the model's; what comes in and goes out has the model's length.
    """

    def zero(self, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return an empty fold."""
        return self.rule.zero(_longer(layout), memory, folder)

    def prepare(self, fold: Fold, delta: Vector, claim: Claim) -> Prepared:
        """Check one update without changing anything."""
        if delta.shape != (fold.layout.size - 1,):
            raise Refused(
                f"update has shape {delta.shape}, the model ({fold.layout.size - 1},): "
                "was the device built for another model?"
            )
        return self.rule.prepare(fold, np.append(delta, delta.dtype.type(0)), claim)

    def reduced(self, fold: Fold) -> Reduced:
        """Return what one step did, times the steps that an update took."""
        reduced = self.rule.reduced(fold)
        delta, steps = reduced.delta, float(reduced.delta[-1])
        longer = np.where(fold.layout.trainable, delta.astype(np.float64) * steps, delta)
        return replace(reduced, delta=longer.astype(np.float32))

    def stepped(self, fold: Fold, reduced: Reduced, model: Vector) -> Outcome:
        """Move `model`; the outcome's measurements have the mean ``steps`` as well."""
        outcome = self.rule.stepped(fold, reduced, np.append(model, np.float32(0)))
        measured = {**outcome.measurements, "steps": float(reduced.delta[-1])}
        return replace(outcome, model=outcome.model[:-1].copy(), measurements=measured)

    def load(self, data: bytes, layout: Layout, memory: Memory = EMPTY, folder: Path | None = None) -> Fold:
        """Return the fold that `dump` wrote."""
        return self.rule.load(data, _longer(layout), memory, folder)

    def serving(self, model: Vector, memory: Memory, layout: Layout) -> Vector:
        """Return the model to evaluate and to save."""
        return self.rule.serving(np.append(model, np.float32(0)), memory, _longer(layout))[:-1]


def _longer(layout: Layout) -> Layout:
    return Layout((*layout.variables, STEPS))
