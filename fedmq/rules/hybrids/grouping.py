"""Groups of updates that point the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_PASSES: Final = 100
"""Passes after which grouping stops, settled or not; a few are usual."""


def cosines(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows' cosine similarities from their inner products, shape (n, n); zero with a row of zeros."""
    lengths = np.sqrt(np.diagonal(products))
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0.0)
    return np.asarray(products * scale[:, None] * scale[None, :])


def grouped(similarity: NDArray[np.float64], most: int) -> list[list[int]]:
    """Return at most `most` groups of rows as lists of their indices, the largest first.

    Spherical k-means (Dhillon and Modha 2001), which needs no more than the cosines: a row goes to the group with whose
    mean direction it has the greatest similarity, until nothing moves. It begins with the two rows that point apart the
    most, as Sattler et al. 2020 split, then with those that are farthest from all the ones before. The same rows in
    the same order give the same groups; nothing is drawn.
    """
    labels = _nearest(similarity[:, _seeds(similarity, most)])
    for _ in range(_MOST_PASSES):
        again = _nearest(_to_means(similarity, labels))
        if np.array_equal(again, labels):
            break
        labels = again
    members = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    return sorted(members, key=lambda group: (-len(group), group))


def _seeds(similarity: NDArray[np.float64], most: int) -> Sequence[int]:
    first, second = divmod(int(similarity.argmin()), len(similarity))
    chosen = sorted({first, second})[:most]
    while len(chosen) < min(most, len(similarity)):
        nearest = similarity[:, chosen].max(axis=1)
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
    return chosen


def _to_means(similarity: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return each row's similarity to each group's mean direction, shape (n, groups)."""
    member = (labels[:, None] == np.unique(labels)[None, :]).astype(np.float64)
    sums = similarity @ member
    lengths = np.sqrt(np.maximum(np.einsum("ng,ng->g", member, sums), 0.0))
    return np.asarray(np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0.0))


def _nearest(similarity: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.asarray(similarity.argmax(axis=1), np.intp)
