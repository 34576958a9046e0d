"""Norms and inner products over the trainable part of a vector, with the same bits on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.vectors import Layout, Vector

BLOCK = 16_384
"""Numbers whose products are added up together: 128 KiB of float64, which stays in a core's second-level cache."""

_AT_ONCE = 8 * BLOCK
"""Numbers that are multiplied together: with fewer, short models would pay for many calls."""


def trainable_spans(layout: Layout) -> tuple[slice, ...]:
    """Return the longest runs of trainable numbers in the vector, in order."""
    return layout.trainable_spans


def statistic_spans(layout: Layout) -> tuple[slice, ...]:
    """Return the longest runs of running statistics in the vector, in order."""
    return _runs(~layout.trainable)


def _runs(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return tuple(slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def norm(vector: Vector, layout: Layout) -> float:
    """Return the L2 norm of the trainable part; NaN or infinite where that part is not finite. 2 ms for 10 MB."""
    return float(np.sqrt(dot(vector, vector, layout)))


def dot(left: Vector, right: Vector, layout: Layout) -> float:
    """Return the inner product of the trainable parts.

    NumPy's own summation in blocks of fixed size, not BLAS: its order of additions, so its last bit, does not hang on
    the processor. Float64 products of float32 numbers cannot overflow.
    """
    total = 0.0
    for span in trainable_spans(layout):
        for start in range(span.start, span.stop, _AT_ONCE):
            place = slice(start, min(start + _AT_ONCE, span.stop))
            # widened first: faster than leaving that to the product
            products = left[place].astype(np.float64)
            np.multiply(products, products if left is right else right[place], out=products)
            whole = products.size // BLOCK * BLOCK
            for part in np.add.reduce(products[:whole].reshape(-1, BLOCK), axis=1).tolist():
                total += part
            total += float(np.add.reduce(products[whole:]))
    return total
