"""What robust reducers make of one column of numbers: medians, trimmed means and votes, for a block of columns at once.

Blocks have shape (updates, columns); results, float64, have one number for each column, and do not hang on the order
of the updates, to the bit. None of it changes its block.

How a column is sorted
----------------------
Columns are copied into tiles in which each of them is contiguous, and sorted there: NumPy sorts a hundred contiguous
float32 with vector instructions in 0.2 us, where a sort or a partition down the rows takes 1.3 us, and ``np.median``
2.6 us. A network of compare-exchanges over whole rows (Batcher's, cut down to the middle) needs no copy, but some 2,000
minima and maxima for a hundred rows, which come to 0.4 us; a partition of contiguous columns costs as much as the sort
up to a few hundred rows. The copy itself takes 0.07 us where rows do not stand a multiple of 4 KiB apart (see
`fedmq.rules.robust.view`). Figures are for one core with AVX2.

A sorted column is the same whatever order it had before, but for the sign of zeros, which comes off in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedmq.rules.robust.view import Numbers

Wide: TypeAlias = NDArray[np.float64]

Middle: TypeAlias = Literal["mid", "lower", "upper"]
"""Which median an even number of updates has: the average of the two in the middle, the lower or the upper one."""

_TILE: Final = 1024
"""Columns that are sorted at a time: 400 KiB for a hundred rows, which stay in a core's second-level cache."""

_TOTAL_BITS: Final = 61
"""Weights are compared as whole numbers whose sum has about this many bits, so that twice the sum fits 64."""


def median(block: Numbers, middle: Middle = "mid") -> Wide:
    """Return each column's median; `np.median` where `middle` is ``mid``."""

    def of(columns: Numbers) -> Wide:
        columns.sort(axis=1)
        n = columns.shape[1]
        return _middle(columns[:, (n - 1) // 2], columns[:, n // 2], middle)

    return _in_tiles(block, of)


def weighted_median(block: Numbers, weights: Wide, middle: Middle = "mid") -> Wide:
    """Return each column's median where updates have unequal `weights`.

    The lower one is the first number, in ascending order, at which the weights so far reach half of their sum; the
    upper one the first at which they exceed it. Equal numbers may come in any order: either way the sum passes one half
    among them.
    """
    whole = whole_weights(weights)
    total = whole.sum()

    def of(columns: Numbers) -> Wide:
        order = np.argsort(columns, axis=1)
        twice = 2 * np.cumsum(whole[order], axis=1)
        return _middle(_after(twice < total, order, columns), _after(twice <= total, order, columns), middle)

    return _in_tiles(block, of)


def trimmed_mean(block: Numbers, cut: int) -> Wide:
    """Return the mean of each column without its `cut` greatest and its `cut` least numbers; ``2 * cut`` below all."""

    def of(columns: Numbers) -> Wide:
        columns.sort(axis=1)
        return np.asarray(columns[:, cut : columns.shape[1] - cut].mean(axis=1, dtype=np.float64))

    return _in_tiles(block, of)


def mean_around_median(block: Numbers, kept: int) -> Wide:
    """Return the mean of the `kept` numbers of each column that are nearest to its median; at least one.

    Of two that are as far from it on either side, as far as float64 can tell, both count half where there is room for
    one.

    In order, the nearest stand next to each other. So of numbers that are `kept` places apart, just one is in: the
    nearest of them.
    """

    def of(columns: Numbers) -> Wide:
        columns.sort(axis=1)
        n = columns.shape[1]
        twice = columns[:, (n - 1) // 2, None].astype(np.float64) + columns[:, n // 2, None]
        nearest = columns[:, :kept].astype(np.float64)
        for start in range(kept, n, kept):
            rival = columns[:, start : start + kept].astype(np.float64)
            known = nearest[:, : rival.shape[1]]
            side = known + rival - twice
            known[...] = np.where(side < 0, rival, np.where(side > 0, known, (known + rival) / 2))
        return np.asarray(nearest.mean(axis=1))

    return _in_tiles(block, of)


def votes(block: Numbers) -> Wide:
    """Return how many more of each column's numbers are positive than negative."""
    return np.asarray(np.sign(block).sum(axis=0), np.float64)


def whole_weights(weights: Wide) -> NDArray[np.int64]:
    """Return `weights` as whole numbers in the same proportions, with a sum of at most 62 bits.

    A power of two is between the two, so that weights which add up to the same still do, unless some are less than
    2^-37 of all.
    """
    _, exponent = np.frexp(weights.sum())
    return np.rint(np.ldexp(weights, _TOTAL_BITS - int(exponent))).astype(np.int64)


def _middle(lower: Numbers, upper: Numbers, middle: Middle) -> Wide:
    if middle == "mid":
        return (lower.astype(np.float64) + upper) / 2
    return (lower if middle == "lower" else upper).astype(np.float64)


def _after(short: NDArray[np.bool_], order: NDArray[np.intp], columns: Numbers) -> Numbers:
    """Return the number of each column that follows those which are `short` of the mark, in the given order."""
    place = np.count_nonzero(short, axis=1, keepdims=True)
    return np.take_along_axis(columns, np.take_along_axis(order, place, axis=1), axis=1)[:, 0]


def _in_tiles(block: Numbers, of: Callable[[Numbers], Wide]) -> Wide:
    """Return what `of` makes of each column of `block`, given tiles of shape (columns, updates) that it may spoil."""
    count, width = block.shape
    result, tile = np.empty(width), np.empty((min(_TILE, width), count), block.dtype)
    for start in range(0, width, _TILE):
        columns = tile[: min(_TILE, width - start)]
        columns[...] = block[:, start : start + _TILE].T
        result[start : start + _TILE] = of(columns)
    return np.add(result, 0.0, out=result)
