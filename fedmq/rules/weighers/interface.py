"""The interface of the second slot of a rule, and the bounds of a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from fedmq.rules.needs import Needs

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim

LEAST_WEIGHT = 2.0**-20
"""Least weight of one update, about one millionth."""

MOST_WEIGHT = 2.0**28
"""Most weight of one update, 268 million; the fold's range (see `fedmq.rules.reduce`) has room for 4,095 of these."""


class Weighed(NamedTuple):
    """How an update goes into one lane: with `weight`, its trainable part times `scale`."""

    weight: float
    scale: float = 1.0


class Weigher(Protocol):
    """Turns a claim into weights."""

    __slots__ = ()

    @property
    def lanes(self) -> tuple[float, ...]:
        """The share of each lane in the result; positive, and one in sum. One lane by default."""
        return (1.0,)

    @property
    def uniform(self) -> bool:
        """Whether every update gets the same weight; not by default."""
        return False

    @property
    def needs(self) -> Needs:
        """What it asks of the updates' codec: nothing, unless it says otherwise."""
        return Needs()

    def weigh(self, claim: Claim) -> tuple[float, ...]:
        """Return one weight for each lane; raise Refused where the claim gives none."""

    def weighed(self, claim: Claim, norm: float) -> tuple[Weighed, ...]:  # noqa: ARG002 # for those that need it
        """Return how the update goes into each lane, given the L2 norm of its trainable part behind the guards.

        What `weigh` says, unscaled, by default. A weigher whose sums need other weights above and below the line (as
        q-fair averaging's do: `sum_i a_i * delta_i / sum_i h_i`) gives weight `h` and scale `a / h`.
        """
        return tuple(map(Weighed, self.weigh(claim)))
