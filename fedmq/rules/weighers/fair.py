"""The weigher that asks more for those who fare worse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import Refused
from fedmq.rules.needs import MEASURES_LENGTH, Needs
from fedmq.rules.settings import require
from fedmq.rules.weighers.interface import Weighed, Weigher
from fedmq.rules.weighers.metric import reported, require_bounds, require_weights

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim


@dataclass(frozen=True, slots=True)
class QFair(Weigher):
    """An update counts more the worse the model still does on its device; q-fair federated averaging, exactly.

    Formula: `sum_k F_k^q * delta_k / sum_k h_k`, with `h_k = F_k^q + q * F_k^(q-1) * |delta_k|^2 / learning_rate`,
    where `F_k` is the loss of the model that device k was given, on its own data, and the norm is L2 over the trainable
    numbers. It goes in as weight `h_k` and a delta scaled by `F_k^q / h_k`, so the mean gives the quotient. Statistics
    are averaged by `h_k`.

    Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", algorithm 2 (q-FedAvg), divided above and
    below by `L = 1 / learning_rate`: their `Delta w_k` is `-L * delta_k`. `h_k` bounds the curvature of `F^(q+1)`, so
    that a step size tuned at q = 0 fits every q; q = 0 is `uniform`. In a `product` with `by_examples` it is their
    objective with `p_k = n_k / n`.

    Cost: 4 ms for 10 MB, for the scaled copy.

    Use it when the model must serve every device, also those unlike the rest, and their mean may pay for it: `q` from
    0.1 (a little) to 5 (nearly the worst device alone). Devices must hold data back, so that they report the `loss` of
    the model they were given. Not with devices that may lie: a high loss is a loud voice. `learning_rate` is the
    devices' own; the less it is, the shorter the steps.

    Configuration: `kind = "q_fair"`, `q` (default 1), `learning_rate` (default 0.1), `name` (of the metric, default
    loss), `low` (default 0.01; losses below count as this), `high` (default 100; losses above are refused).

    Example:
        >>> from fedmq.rules import Claim
        >>> fares_badly = Claim(examples=1, metrics={"loss": 2.0})
        >>> QFair(q=1.0, learning_rate=0.5).weighed(fares_badly, norm=1.0)  # h = 2 + 1 * 1 / 0.5
        (Weighed(weight=4.0, scale=0.5),)
    """

    q: float = 1.0
    learning_rate: float = 0.1
    name: str = "loss"
    low: float = 0.01
    high: float = 100.0

    def __post_init__(self) -> None:
        require(0.0 <= self.q < math.inf, f"q_fair has q {self.q}, wants a finite number of at least 0")
        require(
            0.0 < self.learning_rate < math.inf,
            f"q_fair has learning_rate {self.learning_rate}, wants a positive finite number",
        )
        require_bounds("q_fair", self.low, self.high)
        require(
            abs(self.q * math.log2(self.low)) < 1000 > self.q * math.log2(self.high),  # noqa: PLR2004 # float64's range
            f"q_fair has q {self.q} and losses from {self.low} to {self.high}, whose powers no number holds",
        )
        require_weights("q_fair", self.low**self.q, self.high**self.q)

    @property
    def needs(self) -> Needs:
        """A small error: see the reason."""
        return Needs("small", str(self), MEASURES_LENGTH)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return `F^q`, what an update of no length weighs; raise Refused where there is no believable loss."""
        return (self._loss(claim) ** self.q,)

    def weighed(self, claim: Claim, norm: float) -> tuple[Weighed, ...]:
        """Return `h` and the scale `F^q / h`; raise Refused where there is no believable loss, or no norm."""
        if not norm < math.inf:
            raise Refused("update's norm is not finite, so it has no weight: did training diverge?")
        loss = self._loss(claim)
        bound = 1.0 + self.q * norm * norm / (self.learning_rate * loss)
        return (Weighed(loss**self.q * bound, 1.0 / bound),)

    def _loss(self, claim: Claim) -> float:
        return reported(claim, self.name, self.low, self.high)

    def __str__(self) -> str:
        return f"q-fair({self.q:g})"
