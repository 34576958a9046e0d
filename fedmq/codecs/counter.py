"""Random bits that both sides of a link can draw, on any platform: the counter generator Philox4x64-10.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS: Final = 1 << 64
"""A seed is a whole number below this one."""

ROUNDING: Final = 1
"""Stream for stochastic rounding. Each use of randomness has a stream of its own, so one seed serves a whole chain."""

SIGNS: Final = 2
"""Stream for the signs of a random rotation."""

PLACES: Final = 3
"""Stream for the places that a random sample takes."""

SCALES: Final = 4
"""Stream for the stochastic rounding of scales."""

FACTORS: Final = 6
"""Stream for the start of a search for factors."""

FOLDS: Final = 5
"""Stream for the signs of a random fold."""


def words(seed: int, stream: int, count: int) -> NDArray[np.uint32]:
    """Return the first `count` 32-bit words of `stream` under `seed`.

    The key is (`seed`, `stream`), the counter runs 1, 2, 3, …, and each 64-bit output gives its low word first.
    """
    raw = _SOURCE.at(seed, stream).random_raw((count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<u4")[:count]


def signs(octets: NDArray[np.uint8], start: int, count: int) -> NDArray[np.float32]:
    """Return `count` numbers from bit `start` on, -1 where it is set and else 1; each byte gives its low bit first."""
    first, skipped = divmod(start, 8)
    return np.take(_SIGNS, octets[first : -(-(start + count) // 8)], axis=0).reshape(-1)[
        skipped : skipped + count
    ]


def fractions(seed: int, stream: int, count: int) -> NDArray[np.float32]:
    """Return `count` numbers from 0 up to, but not including, 1: the upper 24 bits of each word."""
    return (words(seed, stream, count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


_OCTETS: Final = np.arange(256, dtype=np.uint8).reshape(256, 1)
_SIGNS: Final = 1 - 2 * np.unpackbits(_OCTETS, axis=1, bitorder="little").astype(np.float32)


class _Source(threading.local):
    """A generator for each thread, which is set to where it is to begin: a new one would ask the system for a seed."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(0)
        self._start: Any = self._philox.state  # NumPy declares less than it takes
        self._start["state"]["counter"][:] = 0

    def at(self, seed: int, stream: int) -> np.random.Philox:
        """Return the generator before its first number under this key."""
        self._start["state"]["key"][:] = seed, stream
        self._philox.state = self._start
        return self._philox


_SOURCE: Final = _Source()
