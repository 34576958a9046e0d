"""The guard that is a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import MisuseError
from fedmq.rules.dotted import function
from fedmq.rules.guards.interface import Guard
from fedmq.rules.memory import EMPTY, Memory

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


@dataclass(frozen=True, slots=True)
class CustomGuard(Guard):
    """Call a function of one's own.

    Formula: `function(delta, claim, layout)`, which returns `delta` or a changed copy of it, or raises
    `fedmq.errors.Refused` with a sentence for the device. It sees `delta` read-only.

    Source: yours. It is imported when the rule is made, from this Python's path, and never from the network.

    Cost: that of the function, in the aggregator's worker thread, for each update.

    Use it for a check that knows your model ("the bias of the third output stays below 2") and remembers nothing from
    round to round; for one that does, write a class that inherits from `fedmq.rules.Guard`.

    Configuration: `kind = "custom_guard"`, `name` (`my_package.module:function`; by default one of
    `fedmq.rules.samples`).

    Example:
        >>> from fedmq.rules import Claim
        >>> from fedmq.vectors import Layout, Variable
        >>> guard = CustomGuard("fedmq.rules.samples:within_a_million")
        >>> guard.check(np.array([1.0, 3e7], np.float32), Claim(examples=1), Layout((Variable("w", (2,)),)))
        Traceback (most recent call last):
        fedmq.errors.Refused: update holds a number beyond a million: are its inputs scaled?
    """

    name: str = "fedmq.rules.samples:within_a_million"

    def __post_init__(self) -> None:
        function("custom guard", self.name)

    def check(self, delta: Vector, claim: Claim, layout: Layout, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # the slot's signature
        """Return what the function does; raise MisuseError where that is no vector like `delta`."""
        shown = delta.view()
        shown.flags.writeable = False
        passed = function("custom guard", self.name)(shown, claim, layout)
        if passed is shown:
            return delta
        kind, shape = getattr(passed, "dtype", type(passed).__name__), getattr(passed, "shape", ())
        if kind != np.float32 or shape != delta.shape:
            raise MisuseError(
                f"custom guard {self.name} returned {kind} of shape {shape}, wants float32 of shape {delta.shape}"
            )
        return np.array(passed) if np.shares_memory(passed, delta) else passed

    def __str__(self) -> str:
        return f"custom {self.name}"
