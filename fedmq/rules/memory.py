"""What a rule remembers from round to round: arrays by dotted name, each part in a scope of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Memory: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]
"""Arrays by name, such as ``step.velocity``; empty before the first round. A single figure has shape (1,)."""

EMPTY: Final[Memory] = MappingProxyType({})
"""The memory before the first round."""


def scoped(memory: Memory, scope: str) -> Memory:
    """Return what stands in `memory` under names that begin with `scope`, without it."""
    return {name.removeprefix(scope): array for name, array in memory.items() if name.startswith(scope)}


def prefixed(memory: Memory, scope: str) -> dict[str, NDArray[np.floating[Any]]]:
    """Return `memory` with `scope` put before each name."""
    return {scope + name: array for name, array in memory.items()}


def figure(memory: Memory, name: str, first: float) -> float:
    """Return the single figure that is remembered as `name`, or `first`."""
    return float(memory[name][0]) if name in memory else first


def as_figure(value: float) -> NDArray[np.floating[Any]]:
    """Return one figure as an array for memory."""
    return np.array([value], np.float64)
