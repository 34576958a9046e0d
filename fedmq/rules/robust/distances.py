"""Squared distances between a round's rows, exact enough to choose among rows by them.

The distance of two rows comes from inner products, ``|a|^2 + |b|^2 - 2ab``: one matrix product for all pairs, fifty
times as fast as to take differences pair by pair. But where two rows are much nearer to each other than to the origin,
the terms cancel, and what is left is their rounding. Taking a centre off first is no cure: one far row would move the
mean, and spoil the distances of all the others; the median costs more than all the rest.

So products come first, of the rows as they are, where no row can spoil another pair. Rows that are found close then
form groups around one of them, and their products are taken again, of the differences to that one; and once more for
those that are close even then. Copies of one row come out at a distance of exactly zero. Most rounds need one pass:
updates of devices with different data are as far from each other as from the origin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.rules.measure import trainable_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fedmq.rules.robust.view import Numbers, View

CLOSE: Final = 2.0**-10
"""Rows are close whose squared distance is less than this part of the sum of their squared lengths.

For others, at most 10 of a float64's 52 bits are lost.
"""

PASSES: Final = 3
"""How many times at most the rows are read again; each costs no more than the first, and gains at least 10 bits."""

AGREE: Final = 2.0**-36
"""Two distances, or sums of them, that differ by less than this part of either are held to be the same."""


_Group: TypeAlias = NDArray[np.intp]
"""Indices of rows, all of them close to the first."""


def squared_distances(view: View) -> NDArray[np.float64]:
    """Return the squared distances of all pairs over the trainable numbers, shape (n, n), symmetric to the bit.

    Each is within about ``2^-39`` of the true one, relatively; where rows are so near that all passes leave them close,
    within ``2^-79`` of the sum of their squared lengths. Time and memory: those of `View.gram`, and as much again for
    each pass over rows that are close.
    """
    products = view.gram()
    squares = _between(products)
    everyone = np.arange(view.n)
    groups = _groups(everyone, squares, np.diagonal(products))
    for _ in range(PASSES):
        if not groups:
            break
        groups = [
            closer
            for group, local in zip(groups, _grams(view, groups), strict=True)
            for closer in _refined(squares, group, local)
        ]
    return squares


def _refined(squares: NDArray[np.float64], group: _Group, products: NDArray[np.float64]) -> list[_Group]:
    """Put a group's distances into `squares`; return the groups of those that are close even as seen from its first."""
    inner = _between(products)
    squares[np.ix_(group, group)] = inner
    return _groups(group, inner, np.diagonal(products))


def _between(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squared distances from inner products; what rounding left below zero is zero."""
    lengths = np.diagonal(products)
    squares = lengths[:, None] + lengths[None, :] - 2.0 * products
    np.fill_diagonal(squares, 0.0)
    return np.maximum(squares, 0.0, out=squares)


def _groups(
    members: NDArray[np.intp], squares: NDArray[np.float64], lengths: NDArray[np.float64]
) -> list[_Group]:
    """Cut `members` into groups of rows close to one of them; a row that is close to none is left out."""
    close = squares < CLOSE * (lengths[:, None] + lengths[None, :])
    np.fill_diagonal(close, val=False)
    left = np.asarray(close.any(axis=1))
    groups = list[_Group]()
    while left.any():
        first = int(np.argmax(left))
        near = close[first] & left
        left[first] = False
        left &= ~near
        if near.any():
            groups.append(members[np.concatenate(([first], np.flatnonzero(near)))])
    return groups


def _grams(view: View, groups: list[_Group]) -> list[NDArray[np.float64]]:
    """Return each group's inner products of the differences to its first row."""
    totals = [np.zeros((len(group), len(group))) for group in groups]
    for _, block in trainable(view):
        for index, group in enumerate(groups):
            local = block[group].astype(np.float64)
            local -= local[0].copy()
            totals[index] += local @ local.T
    return totals


def trainable(view: View) -> Iterator[tuple[slice, Numbers]]:
    """Yield the columns and numbers of the view's blocks, but for statistics."""
    return view.blocks(trainable_spans(view.layout))


def lengths(view: View) -> NDArray[np.float64]:
    """Return the rows' L2 norms over the trainable numbers."""
    return _root_sums(view.n, (block for _, block in trainable(view)))


def distances_to(view: View, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rows' distances to `centre`, a vector of the layout, over the trainable numbers."""
    return _root_sums(view.n, (block - centre[columns] for columns, block in trainable(view)))


def _root_sums(count: int, blocks: Iterable[Numbers]) -> NDArray[np.float64]:
    total = np.zeros(count)
    for block in blocks:
        total += np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return np.sqrt(total)


def least(figures: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """Return equal shares of one for the `keep` least of `figures`, along the last axis, and zero for the rest.

    Figures that `AGREE` with the last one kept share the places left for them evenly. So a choice among equals does not
    hang on their order, and does not turn around with the last bit of a distance.
    """
    ordered = np.partition(figures, keep - 1, axis=-1)[..., keep - 1 : keep]
    slack = AGREE * np.abs(ordered)
    inside = figures < ordered - slack
    level = (figures <= ordered + slack) & ~inside
    places = keep - np.count_nonzero(inside, axis=-1, keepdims=True)
    shares = inside + level * (places / np.count_nonzero(level, axis=-1, keepdims=True))
    return np.asarray(shares / keep, np.float64)
