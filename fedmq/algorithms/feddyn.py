"""FedDyn: each device's objective is bent, round by round, until all have their minimum at the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.algorithms.algorithm import Algorithm, Kept, Setting, recalled, spread
from fedmq.algorithms.govern import Census, Governed, governed
from fedmq.descent import Pull
from fedmq.rules.needs import REMEMBERS, Needs
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedmq.rules import AnyRule, Fold, Reduced
    from fedmq.vectors import Layout, Vector

GRADIENT = "feddyn.gradient"
"""Name of the gradient that a device keeps: one number for each trainable one of the model."""

DRIFT = "algorithm.drift"
"""Name of the aggregator's h in the rule's memory."""


@dataclass(frozen=True, slots=True)
class FedDyn(Algorithm):
    """Each device's objective is bent, round by round, until all have their minimum at the same place.

    Formula: device k minimises `f_k(w) - <g_k, w> + alpha / 2 * ||w - w_t||^2`, sends `delta_k = w_k - w_t`, and keeps
    `g_k' = g_k - alpha * delta_k`, which is f_k's gradient at w_k where it found the minimum. The aggregator keeps
    `h' = h - alpha * |P| / m * delta` for the reduced delta of |P| updates of a fleet of m, and gives the step
    `delta - h' / alpha`. All begin at zero. Statistics are averaged and nothing else.

    Source: Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", algorithm 1,
    https://openreview.net/forum?id=B7v4QMR6Z9w. The paper's mean is the weigher `uniform`, its step `replace`; under
    another weigher h is the weighted mean of the g_k.

    Cost: no bytes; one vector of memory at the aggregator, one that a device stores and writes.

    Use it when devices' data differ much, and bytes are dear: it corrects for drift as SCAFFOLD does, at half the
    bytes. Devices have to come near their minimum in each round: give them epochs. h grows without bound where they do
    not, or where few of many devices report. Try alpha of 0.001, 0.01 and 0.1; smaller moves faster, and overshoots
    sooner.

    Configuration: `kind = "feddyn"`, `alpha` (default 0.01), `fleet` (m; default: the most devices that were ever there
    at once. Set it where devices sleep between rounds).

    Example:
        >>> FedDyn(alpha=0.1).telling
        {'algorithm': 'feddyn', 'algorithm.alpha': 0.1}
    """

    kind: ClassVar[str] = "feddyn"
    alpha: float = 0.01
    fleet: int | None = None

    def __post_init__(self) -> None:
        require(0.0 < self.alpha < math.inf, f"feddyn has alpha {self.alpha}, wants a positive finite number")
        require(
            self.fleet is None or self.fleet >= 1, f"feddyn has fleet {self.fleet}, wants at least 1, or none"
        )

    @property
    def telling(self) -> Mapping[str, Setting]:
        """Its name and alpha."""
        return {"algorithm": self.kind, "algorithm.alpha": self.alpha}

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", self.kind, REMEMBERS)

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:
        """Have the step move by the reduced delta and the drift that it makes good."""
        census = Census(self.fleet, present)
        return governed(rule, self.kind, lambda inner: Undrifted(inner, self.alpha, census))

    def pull(self, model: Vector, layout: Layout, kept: Kept) -> Pull:  # noqa: ARG002 # the interface's signature
        """Return the device's gradient with the sign turned, and the spring."""
        return Pull(spread(-recalled(kept, GRADIENT, layout), layout), self.alpha)

    def learn(self, delivered: Vector, layout: Layout) -> Kept:
        """Return the change of ``g_k``."""
        return {GRADIENT: np.float32(-self.alpha) * delivered[layout.trainable]}

    def __str__(self) -> str:
        return (
            f"feddyn({self.alpha:g})"
            if self.fleet is None
            else f"feddyn({self.alpha:g}, fleet of {self.fleet})"
        )


@dataclass(frozen=True, slots=True)
class Undrifted(Governed):
    """A rule that remembers how far its deltas have led, and makes it good."""

    alpha: float
    census: Census

    def reduced(self, fold: Fold) -> Reduced:
        """Return the delta that the step is to take."""
        reduced, mask = self.rule.reduced(fold), fold.layout.trainable
        share = fold.count / self.census.count(fold)
        mean = reduced.delta[mask].astype(np.float64)
        drift = recalled(fold.memory, DRIFT, fold.layout) - self.alpha * share * mean
        delta = reduced.delta.copy()
        delta[mask] = mean - drift / self.alpha
        remembered = {DRIFT: drift.astype(np.float32), **self.census.remembered(fold)}
        return replace(reduced, delta=delta, memory={**reduced.memory, **remembered})
