"""Guards: the first slot of a rule. Each looks at one update, and passes it, changes it or refuses it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fedmq.errors import Refused
from fedmq.rules.measure import norm, trainable_spans
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


class Guard(Protocol):
    """Stands before the fold. `Rule.prepare` has already checked that the delta has the model's length and dtype.

    A guard that learns from round to round counts updates while a round is open, and says at its end what it remembers;
    inherit from this class to do neither.
    """

    __slots__ = ()

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:
        """Return `delta` itself, or a changed copy; never write to it. Raise Refused to keep it from the model.

        `memory` is what the guard learned last.
        """

    def count(self, delta: Vector, layout: Layout, memory: Memory) -> int:  # noqa: ARG002 # for those that count
        """Return 1 where this delta, as it comes to the guard, is to be counted, else 0."""
        return 0

    def learn(self, delta: Vector, share: float, layout: Layout, memory: Memory) -> Memory:  # noqa: ARG002 # as above
        """Return what to remember: `delta` is the round's reduced one, `share` that of the updates counted."""
        return {}


@dataclass(frozen=True, slots=True)
class Finite(Guard):
    """Refuse an update that holds NaN or infinite numbers.

    Formula: pass where every number is finite.

    Source: one NaN in one update makes every later model NaN; several published aggregators let it through.

    Cost: 0.5 ms for 10 MB where all is well; counting the bad ones, a little more.

    Use it always, first: it tells the device what was wrong in plain words. (The mean would refuse the update too.)

    Configuration: `kind = "finite"`.
    """

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused with the count where a number is not finite."""
        if math.isfinite(delta.min(initial=0.0)) and math.isfinite(delta.max(initial=0.0)):
            return delta
        bad = delta.size - np.count_nonzero(np.isfinite(delta))
        raise Refused(
            f"update holds {bad} of {delta.size} numbers that are not finite: "
            "did training diverge? Try a lower learning rate"
        )

    def __str__(self) -> str:
        return "finite"


@dataclass(frozen=True, slots=True)
class NormClip(Guard):
    """Scale an update down so that its trainable part is no longer than `limit`.

    Formula: `delta * min(1, limit / norm)`, where the norm is L2 over the trainable numbers. Statistics (batch norm's
    mean and variance) are neither measured nor scaled: half of a variance is not a smaller step but a wrong one.

    Source: Sun et al. 2019, "Can You Really Backdoor Federated Learning?", section 4 (norm thresholding); McMahan et
    al. 2018, "Learning Differentially Private Recurrent Language Models", section 2 (flat clipping).

    Cost: 4 ms for 10 MB; as much again where it clips. The result's norm is within one part in 10^6 of the limit.

    Use it when a few devices train on odd data or cannot be trusted: it bounds what one device can do to the model in
    one round. Start with about twice the median of the round's `norm_mean`; a limit below most norms slows learning.

    Configuration: `kind = "norm_clip"`, `limit` (model units, default 10).
    """

    limit: float = 10.0

    def __post_init__(self) -> None:
        require(
            0.0 < self.limit < math.inf, f"norm_clip has limit {self.limit}, wants a positive finite number"
        )

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`, or a scaled copy; raise Refused where the norm is not finite."""
        length = norm(delta, layout)
        if not math.isfinite(length):
            raise Refused("update's norm is not finite, so it cannot be clipped: did training diverge?")
        if length <= self.limit:
            return delta
        clipped = delta.copy()
        for span in trainable_spans(layout):
            np.multiply(
                delta[span], self.limit / length, out=clipped[span], dtype=np.float64, casting="same_kind"
            )
        return clipped

    def __str__(self) -> str:
        return f"clip({self.limit:g})"


@dataclass(frozen=True, slots=True)
class ExamplesBound(Guard):
    """Refuse an update whose claimed number of examples nobody should believe.

    Formula: pass where `low <= examples <= high`.

    Source: the number is the device's word alone; under weighting by examples one claim of 10^12 replaces the model,
    and a negative one subtracts from it.

    Cost: none that can be measured.

    Use it always, with `high` near the most that one of your devices can hold; `low` above 1 keeps devices with too
    little data out.

    Configuration: `kind = "examples"`, `low` (default 1), `high` (default 10 million).
    """

    low: int = 1
    high: int = 10_000_000

    def __post_init__(self) -> None:
        require(
            0 <= self.low <= self.high,
            f"examples has bounds {self.low} to {self.high}, wants 0 <= low <= high",
        )

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused where the claim is outside the bounds."""
        if not self.low <= claim.examples <= self.high:
            raise Refused(
                f"update claims {claim.examples} examples, between {self.low} and {self.high} are believed"
            )
        return delta

    def __str__(self) -> str:
        return f"examples({self.low}..{self.high})"


GUARDS: dict[str, type[Guard]] = {
    "finite": Finite,
    "norm_clip": NormClip,
    "examples": ExamplesBound,
}
"""Every guard by the `kind` that configuration names it with."""
