"""Functions to start one's own from: what the `name` of a custom guard, weigher or step may point to."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fedmq.errors import Refused

if TYPE_CHECKING:
    from fedmq.rules.claim import Claim
    from fedmq.vectors import Layout, Vector


def within_a_million(delta: Vector, claim: Claim, layout: Layout) -> Vector:  # noqa: ARG001 # a guard's arguments
    """Guard: refuse large numbers wherever they are. Return `delta`, or a changed copy; never write to it."""
    if np.abs(delta).max(initial=0.0) > 1e6:  # noqa: PLR2004 # its name says it
        raise Refused("update holds a number beyond a million: are its inputs scaled?")
    return delta


def by_root(claim: Claim) -> float:
    """Weigher: between one voice for each device and one for each example."""
    return math.sqrt(max(claim.examples, 1))


def half_way(model: Vector, delta: Vector) -> Vector:
    """Step: go half as far as the devices did."""
    return model + delta / np.float32(2)
