"""SCAFFOLD: control variates take out of each local step what separates the device from the fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.algorithms.algorithm import Algorithm, Kept, Setting, controlled, prefixed, recalled, spread
from fedmq.algorithms.govern import Census, Governed, governed
from fedmq.descent import Pull
from fedmq.errors import Refused
from fedmq.rules.needs import REMEMBERS, Needs
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fedmq.rules import AnyRule, Fold, Reduced
    from fedmq.vectors import Layout, Vector

CONTROL = "scaffold.control"
"""Name of the control variates: of a device's own one among what it keeps, of the fleet's in front of its variables."""


@dataclass(frozen=True, slots=True)
class Scaffold(Algorithm):
    """Control variates take out of each local step what separates the device from the fleet.

    Formula: device i takes steps along `gradient + c - c_i`, from the model x to y. Then, option II of the paper, with
    `reach` = steps times learning rate: `c_i' = c_i - c + (x - y) / reach`, and it sends `y - x` and `c_i' - c_i`. The
    aggregator reduces both alike, moves the model by its step, and `c` by `|S| / N` times the reduced change, for |S|
    updates of a fleet of N. All begin at zero. Under a weigher, `c` becomes the devices' weighted mean, as suits the
    weighted objective; under `uniform` it is the paper's. The paper's global rate is the rate of the step `replace`.

    Where updates travel in a codec that loses digits, a device moves its c_i by what the aggregator decodes, so that
    `c` stays the mean of the c_i; what was lost is in the next round's change.

    Source: Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", algorithm 1,
    https://arxiv.org/abs/1910.06378. With momentum, `reach` counts each gradient as often as it enters the weights
    (see `fedmq.descent.gain`), which makes `c_i'` a weighted mean of gradients, as option II is an unweighted one.

    Cost: twice the bytes, in both directions: models and updates carry the control variate behind the model. A device
    stores and writes one more vector, and shows the aggregator its mean gradient more directly than by its delta alone.

    Use it when devices' data differ much and the same devices come back: it needs fewer rounds, and allows more local
    steps, than FedAvg. Not where each device takes part once or twice: its c_i is then old or zero. Needs SGD, with or
    without momentum, at a constant rate: devices with another optimizer decline the task, and say why.

    Configuration: `kind = "scaffold"`, `fleet` (N; default: the most devices that were ever there at once. Set it where
    devices sleep between rounds).

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> Scaffold().extend(Layout((Variable("w", (2, 3)), Variable("mean", (3,), "statistic")))).sizes
        (6, 3, 6)
    """

    kind: ClassVar[str] = "scaffold"
    fleet: int | None = None

    def __post_init__(self) -> None:
        require(
            self.fleet is None or self.fleet >= 1,
            f"scaffold has fleet {self.fleet}, wants at least 1, or none",
        )

    @property
    def telling(self) -> Mapping[str, Setting]:
        """Its name: a device needs no more."""
        return {"algorithm": self.kind}

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", self.kind, REMEMBERS)

    def extend(self, layout: Layout) -> Layout:
        """Put the control variate behind the model: one number for each trainable one."""
        return controlled(layout, CONTROL)

    def govern(self, rule: AnyRule, present: int = 0) -> AnyRule:
        """Have the control variate move by ``|S| / N`` of the reduced change."""
        census = Census(self.fleet, present)
        return governed(rule, self.kind, lambda inner: Controlled(inner, census))

    def pull(self, model: Vector, layout: Layout, kept: Kept) -> Pull:
        """Return ``c - c_i``."""
        control = model[layout.size :].astype(np.float64)
        return Pull(spread(control - recalled(kept, CONTROL, layout), layout))

    def answer(self, model: Vector, trained: Vector, reach: float | None, layout: Layout) -> Vector:
        """Return the model's change, and the control variate's behind it."""
        if not reach:
            raise Refused(
                "scaffold needs the length of the local steps, and this trainer's optimizer has none: "
                "train with SGD at a constant learning rate above zero"
            )
        delta = trained - model[: layout.size]
        change = -delta[layout.trainable].astype(np.float64) / reach - model[layout.size :]
        return np.concatenate((delta, change.astype(np.float32)))

    def fed_back(self, layout: Layout) -> NDArray[np.bool_]:
        """Return the mask of the model: each change of ``c_i`` is what is missing of it, and so makes good losses."""
        return ~prefixed(self.extend(layout), CONTROL)

    def learn(self, delivered: Vector, layout: Layout) -> Kept:
        """Return the change of ``c_i``."""
        return {CONTROL: delivered[layout.size :]}

    def __str__(self) -> str:
        return "scaffold" if self.fleet is None else f"scaffold(fleet of {self.fleet})"


@dataclass(frozen=True, slots=True)
class Controlled(Governed):
    """A rule whose fold has control variates behind the model: they move by the share of the fleet that reported."""

    census: Census

    def reduced(self, fold: Fold) -> Reduced:
        """Return the fold's updates made one, the control variate's change for all of the fleet."""
        reduced = self.rule.reduced(fold)
        delta = reduced.delta.copy()
        delta[prefixed(fold.layout, CONTROL)] *= np.float32(fold.count / self.census.count(fold))
        return replace(reduced, delta=delta, memory={**reduced.memory, **self.census.remembered(fold)})
