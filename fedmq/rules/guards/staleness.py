"""Guards against updates that started from an old model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import Refused
from fedmq.rules.guards.interface import Guard
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.scaling import scaled
from fedmq.rules.settings import require
from fedmq.rules.staleness import Decay, require_decay, spelt, worth

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class StalenessDiscount(Guard):
    """Scale an update down by its staleness: how many models have come out since the one it started from.

    Formula: `delta * worth(s)` on the trainable numbers, with `worth(s)` equal to `(1 + s)^-a` (`polynomial`),
    `e^(-a s)` (`exponential`), or 1 up to `b` and `1 / (a (s - b) + 1)` above (`hinge`); `s` is the aggregator's own
    count. It is the delta that shrinks, not its weight: weights are relative, so an update that comes alone, or among
    others as stale, would be discounted by nothing. The weigher `by_freshness` does that where it is wanted.

    Source: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (FedBuff), scale deltas by
    `1 / sqrt(1 + s)`, the defaults here; Xie, Koyejo and Gupta 2019, "Asynchronous Federated Optimization" (FedAsync),
    section 5.2, for the three curves, by which they scale the step towards the one model that came.

    Cost: 4 ms for 10 MB where an update is stale; none that can be measured where it is fresh.

    Use it with an asynchronous policy, where updates start from models of all ages. In rounds every update is fresh,
    and it does nothing.

    Configuration: `kind = "staleness_discount"`, `decay` (polynomial, exponential or hinge), `a` (how steep, default
    0.5), `b` (hinge only: the staleness that costs nothing, default 4).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> claim = Claim(examples=1, staleness=3)
        >>> StalenessDiscount().check(np.array([2.0, -4.0], np.float32), claim, layout)
        array([ 1., -2.], dtype=float32)
    """

    decay: Decay = "polynomial"
    a: float = 0.5
    b: float = 4.0

    def __post_init__(self) -> None:
        require_decay("staleness_discount", self.decay, self.a, self.b)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`, or a scaled copy."""
        return scaled(delta, worth(claim.staleness, self.decay, self.a, self.b), layout)

    def __str__(self) -> str:
        return f"stale {spelt(self.decay, self.a, self.b)}"


@dataclass(frozen=True, slots=True)
class StalenessBound(Guard):
    """Refuse an update that started from too old a model.

    Formula: pass where `s <= most`, `s` being how many models have come out since the one it started from.

    Source: Xie, Koyejo and Gupta 2019, "Asynchronous Federated Optimization", whose convergence needs a greatest
    staleness K; Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server".

    Cost: none that can be measured.

    Use it with an asynchronous policy and devices that may come back after days: no discount makes a direction right
    that was right for another model. The device hears why, and trains again from the current model.

    Configuration: `kind = "staleness_bound"`, `most` (default 10).

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (1,)),))
        >>> StalenessBound(most=2).check(np.ones(1, np.float32), Claim(examples=1, staleness=3), layout)
        Traceback (most recent call last):
        fedmq.errors.Refused: update started 3 models ago, at most 2 are taken: train again from the current one
    """

    most: int = 10

    def __post_init__(self) -> None:
        require(self.most >= 0, f"staleness_bound has most {self.most}, wants at least 0")

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused where it is too stale."""
        if claim.staleness > self.most:
            raise Refused(
                f"update started {claim.staleness} models ago, at most {self.most} are taken: "
                "train again from the current one"
            )
        return delta

    def __str__(self) -> str:
        return f"staleness(at most {self.most})"
