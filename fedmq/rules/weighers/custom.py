"""The weigher that is a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmq.rules.dotted import function
from fedmq.rules.weighers.interface import Weigher

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim


@dataclass(frozen=True, slots=True)
class CustomWeigher(Weigher):
    """An update counts by a function of one's own.

    Formula: `w = function(claim)`, from what the device reports: `claim.examples`, `claim.steps`, `claim.metrics`, and
    `claim.staleness`. The function may raise `fedmq.errors.Refused` with a sentence for the device.

    Source: yours. It is imported when the rule is made, from this Python's path, and never from the network.

    Cost: that of the function, for each update.

    Use it where examples, a metric, freshness, their `blend` and their `product` do not say what you mean. Nothing in a
    claim is proven: bound what one device can weigh. A weight outside 2^-20 to 2^28 has the update refused.

    Configuration: `kind = "custom_weigher"`, `name` (`my_package.module:function`; by default one of
    `fedmq.rules.samples`).

    Example:
        >>> from fedmq.rules import Claim
        >>> CustomWeigher("fedmq.rules.samples:by_root").weigh(Claim(examples=400))
        (20.0,)
    """

    name: str = "fedmq.rules.samples:by_root"

    def __post_init__(self) -> None:
        function("custom weigher", self.name)

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return what the function does."""
        return (float(function("custom weigher", self.name)(claim)),)

    def __str__(self) -> str:
        return f"by {self.name}"
