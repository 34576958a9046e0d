"""The interface of the first slot of a rule: what stands before the fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.needs import Needs

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


class Guard(Protocol):
    """Stands before the fold. `Rule.prepare` has already checked that the delta has the model's length and dtype.

    A guard that learns from round to round counts while a round is open, and says at its end what it remembers; inherit
    from this class to do neither. Only updates that enter the fold are counted, and nothing is learned from a round
    that is abandoned.
    """

    __slots__ = ()

    @property
    def needs(self) -> Needs:
        """What it asks of the updates' codec: nothing, unless it says otherwise."""
        return Needs()

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:
        """Return `delta` itself, or a changed copy; never write to it. Raise Refused to keep it from the model.

        `memory` is what the guard learned last.
        """

    def count(self, delta: Vector, layout: Layout, memory: Memory) -> int:  # noqa: ARG002 # for those that count
        """Return a whole number to add up over the updates, at least 0 and below 2^43; often just 0 or 1.

        `delta` is the update as it comes to this guard. Whole numbers, so that the sum hangs on no order.
        """
        return 0

    def learn(self, delta: Vector, mean_count: float, layout: Layout, memory: Memory) -> Memory:  # noqa: ARG002 # as above
        """Return what to remember: `delta` is the round's reduced one, `mean_count` the mean of what was counted."""
        return {}
