"""The weigher by how new the model was that an update started from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import Refused
from fedmq.rules.staleness import Decay, require_decay, spelt, worth
from fedmq.rules.weighers.interface import LEAST_WEIGHT, Weigher

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim


@dataclass(frozen=True, slots=True)
class ByFreshness(Weigher):
    """An update counts less the more models have come out since the one it started from.

    Formula: `w = worth(s)`, the curves of the guard `staleness_discount`: `(1 + s)^-a` (`polynomial`), `e^(-a s)`
    (`exponential`), or 1 up to `b` and `1 / (a (s - b) + 1)` above (`hinge`).

    Source: Xie, Koyejo and Gupta 2019, "Asynchronous Federated Optimization", section 5.2, for the curves; as weights
    of a mean, Chen et al. 2019, "Communication-Efficient Federated Deep Learning with Asynchronous Model Update and
    Temporally Weighted Aggregation", with `(e/2)^-s`.

    Cost: none that can be measured.

    Use it with an asynchronous policy whose steps average several updates, fresh and stale ones, and ought not to be
    shorter when all are stale. Where they ought, which is what FedAsync and FedBuff do, take `staleness_discount`
    instead: weights are relative, and an update that comes alone has the whole of the result whatever it weighs.

    Configuration: `kind = "by_freshness"`, `decay` (polynomial, exponential or hinge), `a` (how steep, default 0.5),
    `b` (hinge only: the staleness that costs nothing, default 4).

    Example:
        >>> from fedmq.rules import Claim
        >>> ByFreshness().weigh(Claim(examples=1, staleness=3))
        (0.5,)
    """

    decay: Decay = "polynomial"
    a: float = 0.5
    b: float = 4.0

    def __post_init__(self) -> None:
        require_decay("by_freshness", self.decay, self.a, self.b)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return what an update of this staleness is worth; raise Refused where that is nearly nothing."""
        weight = worth(claim.staleness, self.decay, self.a, self.b)
        if weight < LEAST_WEIGHT:
            raise Refused(
                f"update started {claim.staleness} models ago and would weigh next to nothing: "
                "train again from the current one"
            )
        return (weight,)

    def __str__(self) -> str:
        return f"by freshness {spelt(self.decay, self.a, self.b)}"
