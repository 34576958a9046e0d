"""The guard against numbers that are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import Refused
from fedmq.rules.guards.interface import Guard
from fedmq.rules.memory import EMPTY, Memory
from fedmq.vectors import is_finite

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class Finite(Guard):
    """Refuse an update that holds NaN or infinite numbers.

    Formula: pass where every number is finite.

    Source: one NaN in one update makes every later model NaN; several published aggregators let it through.

    Cost: 0.5 ms for 10 MB where all is well; counting the bad ones, a little more.

    Use it always, first: it tells the device what was wrong in plain words. (The mean would refuse the update too.)

    Configuration: `kind = "finite"`.

    Example:
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> layout = Layout((Variable("w", (2,)),))
        >>> Finite().check(
        ...     np.array([1.0, np.nan], np.float32), Claim(examples=1), layout
        ... )  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        fedmq.errors.Refused: update holds 1 of 2 numbers that are not finite: did training diverge? Try ...
    """

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return `delta`; raise Refused with the count where a number is not finite."""
        if is_finite(delta):
            return delta
        bad = delta.size - np.count_nonzero(np.isfinite(delta))
        raise Refused(
            f"update holds {bad} of {delta.size} numbers that are not finite: "
            "did training diverge? Try a lower learning rate"
        )

    def __str__(self) -> str:
        return "finite"
