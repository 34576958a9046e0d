"""Differences: devices send how their updates differ from what the aggregator expects of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.algorithms.algorithm import Algorithm, Kept, Setting
from fedmq.algorithms.govern import Census, Governed, governed
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fedmq.rules import AnyRule, Fold, Reduced
    from fedmq.vectors import Layout, Vector

EXPECTED = "differences.expected"
"""Name of h_i among what a device keeps."""

MEAN = "algorithm.expected"
"""Name of the aggregator's h in the rule's memory."""


@dataclass(frozen=True, slots=True)
class Differences(Algorithm):
    """Devices send how their updates differ from what is expected of them, so that codecs lose less and less.

    Formula: device i sends `C(delta_i - h_i)`, where C is the codec of updates, and keeps `h_i' = h_i + rate * C(...)`.
    The aggregator reduces what was decoded to one m, gives the step `h + m`, and keeps `h' = h + rate * |S| / N * m`,
    for |S| updates of a fleet of N: so h stays the mean of the h_i. All begin at zero. Under a weigher h is the
    weighted mean.

    Source: Richtarik, Sokolov and Fatkhullin 2021, "EF21: A New, Simpler, Theoretically Better, and Practically Faster
    Error Feedback", algorithm 2, https://arxiv.org/abs/2106.05203 (rate 1, and all devices in every round: h' is then
    the step); Mishchenko, Gorbunov, Takac and Richtarik 2019, "Distributed Learning with Compressed Gradient
    Differences" (DIANA, algorithm 1), https://arxiv.org/abs/1901.09269, for unbiased codecs and rates below 1. Both
    send gradients; here updates take their place.

    Cost: no bytes; one vector of memory at the aggregator, one that a device stores and writes.

    Use it when the same devices come back often, their data differ, and updates travel in a codec that loses most of
    them: what a device sends each time is lost less and less, since only changes travel. Where devices come back
    seldom, h_i is old, and the codec's own `feedback` does better. The two do the same thing in two ways: a codec with
    `feedback` is refused. Guards look at differences, not at updates; one that changes them, as a clip does, leaves h
    beside the mean of the h_i.

    Configuration: `kind = "differences"`, `rate` (above 0 and at most 1, the default. A codec that draws a share p of
    the numbers at random, and makes them 1 / p times as large, wants about p: at 1 its noise would add up in h_i),
    `fleet` (N; default: the most devices that were ever there at once. Set it where devices sleep between rounds).

    Example:
        >>> Differences(rate=0.5).telling
        {'algorithm': 'differences', 'algorithm.rate': 0.5}
    """

    kind: ClassVar[str] = "differences"
    feeds_back: ClassVar[bool] = True
    rate: float = 1.0
    fleet: int | None = None

    def __post_init__(self) -> None:
        require(0.0 < self.rate <= 1.0, f"differences has rate {self.rate}, wants above 0 and at most 1")
        require(
            self.fleet is None or self.fleet >= 1,
            f"differences has fleet {self.fleet}, wants at least 1, or none",
        )

    @property
    def telling(self) -> Mapping[str, Setting]:
        """Its name and the rate."""
        return {"algorithm": self.kind, "algorithm.rate": self.rate}

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:
        """Have the step move by what was expected and what was decoded."""
        census = Census(self.fleet, present)
        return governed(rule, self.kind, lambda inner: Expecting(inner, self.rate, census))

    def lessen(self, delta: Vector, layout: Layout, kept: Kept) -> Vector:  # noqa: ARG002 # the interface's signature
        """Return the difference from what is expected."""
        return (delta - _known(kept, EXPECTED, delta.size)).astype(np.float32)

    def fed_back(self, layout: Layout) -> NDArray[np.bool_]:
        """Return a mask of nothing: what was lost of a difference is in the next one."""
        return np.zeros(layout.size, np.bool_)

    def learn(self, delivered: Vector, layout: Layout) -> Kept:  # noqa: ARG002 # the interface's signature
        """Return the change of ``h_i``."""
        return {EXPECTED: np.float32(self.rate) * delivered}

    def __str__(self) -> str:
        told = [f"{self.rate:g}"] if self.rate != 1.0 else []
        told += [] if self.fleet is None else [f"fleet of {self.fleet}"]
        return f"differences({', '.join(told)})" if told else "differences"


@dataclass(frozen=True, slots=True)
class Expecting(Governed):
    """A rule that remembers the mean of what devices have sent, and adds it to what they send."""

    rate: float
    census: Census

    def reduced(self, fold: Fold) -> Reduced:
        """Return the delta that the step is to take."""
        reduced = self.rule.reduced(fold)
        expected = _known(fold.memory, MEAN, fold.layout.size).astype(np.float64)
        moved = self.rate * (fold.count / self.census.count(fold)) * reduced.delta
        remembered = {MEAN: (expected + moved).astype(np.float32), **self.census.remembered(fold)}
        delta = (expected + reduced.delta).astype(reduced.delta.dtype)
        return replace(reduced, delta=delta, memory={**reduced.memory, **remembered})


def _known(vectors: Mapping[str, Vector], name: str, size: int) -> Vector:
    """Return the vector of that name; zeros where there is none of this size."""
    known = vectors.get(name)
    return np.zeros(size, np.float32) if known is None or known.shape != (size,) else known
