"""What steps have in common: float64 inside, float32 outside, and statistics that only follow the devices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import MisuseError
from fedmq.rules.measure import statistic_spans
from fedmq.rules.memory import figure
from fedmq.rules.settings import require

if TYPE_CHECKING:
    from fedmq.rules.memory import Memory
    from fedmq.vectors import Layout, Vector


def require_rate(kind: str, rate: float) -> None:
    """Raise ConfigError unless `rate` is a positive finite number."""
    require(0.0 < rate < math.inf, f"{kind} has rate {rate}, wants a positive finite number")


def require_beta(kind: str, name: str, beta: float) -> None:
    """Raise ConfigError unless `beta` fades what is remembered: at least 0, below 1."""
    require(0.0 <= beta < 1.0, f"{kind} has {name} {beta}, wants at least 0 and less than 1")


def recall(memory: Memory, name: str, layout: Layout, first: float) -> NDArray[np.float64]:
    """Return what is remembered as `name`, or `first` everywhere."""
    known = memory.get(name)
    if known is None:
        return np.full(layout.size, first)
    if known.shape != (layout.size,):
        raise MisuseError(
            f"memory {name!r} has shape {known.shape}, the model ({layout.size},): is it from another model?"
        )
    return wide(known)


def recall_figure(memory: Memory, name: str, first: float) -> float:
    """Return the single figure that is remembered as `name`, or `first`."""
    if name in memory and memory[name].shape != (1,):
        raise MisuseError(
            f"memory {name!r} has shape {memory[name].shape}, one figure was wanted: is it another step's?"
        )
    return figure(memory, name, first)


def moved(model: Vector, delta: Vector, move: NDArray[np.float64], layout: Layout) -> Vector:
    """Return the model, its trainable numbers moved by `move` and its statistics by `delta`."""
    result = wide(model)
    result += move
    for span in statistic_spans(layout):
        np.add(model[span], delta[span], out=result[span], dtype=np.float64)
    return narrow(result)


def wide(vector: Vector) -> NDArray[np.float64]:
    """Return `vector` in float64."""
    return vector.astype(np.float64)


def narrow(numbers: NDArray[np.float64]) -> Vector:
    """Return `numbers` in float32, infinite where they are too large for it."""
    with np.errstate(over="ignore"):  # `Rule.finish` looks for the infinities
        return numbers.astype(np.float32)
