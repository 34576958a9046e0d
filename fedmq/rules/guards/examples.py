"""The guard against claims that nobody should believe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.errors import Refused
from fedmq.rules.guards.interface import Guard
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


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

    Example:
        >>> import numpy as np
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (1,)),))
        >>> ExamplesBound(high=5000).check(np.ones(1, np.float32), Claim(examples=10**12), layout)
        Traceback (most recent call last):
        fedmq.errors.Refused: update claims 1000000000000 examples, between 1 and 5000 are believed
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
