"""Numbers counted in equal steps of a scale, block by block, to nearest or at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedmq.codecs.counter import ROUNDING, fractions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.codecs.stages import Bound, Sizes, Symbols
    from fedmq.vectors import Vector


def steps(vector: Vector, scales: NDArray[np.float32], sizes: Sizes, levels: int) -> Vector:
    """Return x / scale · `levels`, in two operations of float32; 0 where the scale is 0."""
    counted: Vector = vector / np.repeat(np.where(scales > 0, scales, np.float32(1)), sizes)
    counted *= np.float32(levels)
    return counted


def numbers(symbols: Symbols, scales: NDArray[np.float32], sizes: Sizes, levels: int) -> Vector:
    """Return symbol / `levels` · scale, in two operations of float32: so no scale overflows and none is lost."""
    vector = symbols.astype(np.float32)
    vector /= np.float32(levels)
    vector *= np.repeat(scales, sizes)
    return vector


def reach(scales: NDArray[np.float32], sizes: Sizes, levels: int, share: float) -> Bound:
    """Return a `share` of each number's step, and float32's own roundings."""
    return np.repeat(scales.astype(np.float64), sizes) * ((share + levels * 2.0**-21) / levels) + 2.0**-149


def drawn(counted: Vector, seed: int) -> Vector:
    """Round each number of steps up with the probability of its distance from the whole one below."""
    below = np.floor(counted)
    rounded: Vector = below + (fractions(seed, ROUNDING, counted.size) < counted - below)
    return rounded


def block_peaks(vector: Vector, sizes: Sizes) -> NDArray[np.float32]:
    """Return the largest magnitude of each block, 0 for an empty one."""
    return _reduced(np.maximum, np.abs(vector), sizes)


def block_norms(vector: Vector, sizes: Sizes) -> NDArray[np.float32]:
    """Return the Euclidean norm of each block, 0 for an empty one; never below its largest magnitude, and finite."""
    norms = np.sqrt(_reduced(np.add, np.square(vector, dtype=np.float64), sizes))
    finite: NDArray[np.float32] = np.minimum(norms, np.finfo(np.float32).max).astype(np.float32)
    return finite


def _reduced(function: np.ufunc, numbers: NDArray[np.floating], sizes: Sizes) -> NDArray[np.floating]:
    lengths = np.asarray(sizes, dtype=np.intp)
    starts = np.cumsum(lengths) - lengths
    reduced = np.zeros(lengths.size, dtype=numbers.dtype)
    filled = lengths > 0
    if filled.any():
        reduced[filled] = function.reduceat(numbers, starts[filled])
    return reduced
