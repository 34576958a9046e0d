"""Chance that needs no memory: numbers from 0 to 1 that follow from seed, purpose, device and a counter.

Every draw stands alone: which others were made before it, in which order, by which process, changes nothing. So a
device's behaviour can be asked about at any time in any order, and a hundred thousand devices cost no state at all.

The mixing function is that of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", section 4), applied once for each thing that the number hangs on.
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Reals: TypeAlias = NDArray[np.float64]

_MASK: Final = 2**64 - 1
_WEYL: Final = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_NORMAL: Final = NormalDist()
_UNIT: Final = 2.0**-53


class Chance:
    """Draws of one `purpose` under one `seed`."""

    def __init__(self, seed: int, purpose: str) -> None:
        """Make a stream apart from all those of other seeds and purposes."""
        word = hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8]
        self._key = int.from_bytes(word, "big")

    def word(self, device: int, counter: int = 0) -> int:
        """Return 64 random bits; `counter` may be negative."""
        return _mixed(_mixed(self._key + device * _WEYL) + counter * _WEYL)

    def one(self, device: int, counter: int = 0) -> float:
        """Return a number above 0 and below 1, every one as likely as any other."""
        return ((self.word(device, counter) >> 11) + 0.5) * _UNIT

    def many(self, devices: Integers, counters: Integers | int = 0) -> Reals:
        """Return what `one` returns for each of `devices`, with its own of `counters` or the same one for all."""
        word = np.broadcast_to(_words(devices) * np.uint64(_WEYL) + np.uint64(self._key), np.shape(devices))
        word = _mixed_all(word)
        word = _mixed_all(word + _words(counters) * np.uint64(_WEYL))
        return ((word >> np.uint64(11)).astype(np.float64) + 0.5) * _UNIT

    def normal(self, device: int, counter: int = 0) -> float:
        """Return a draw from the standard normal distribution."""
        return _NORMAL.inv_cdf(self.one(device, counter))

    def generator(self, device: int, counter: int = 0) -> np.random.Generator:
        """Return a generator for draws of many kinds; dearer than `one` by far."""
        return np.random.Generator(np.random.Philox(key=self.word(device, counter)))


def _mixed(word: int) -> int:
    word &= _MASK
    word = ((word ^ (word >> 30)) * _FIRST) & _MASK
    word = ((word ^ (word >> 27)) * _SECOND) & _MASK
    return word ^ (word >> 31)


def _words(numbers: Integers | int) -> NDArray[np.uint64]:
    return np.atleast_1d(np.asarray(numbers, np.int64)).astype(np.uint64)


def _mixed_all(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_FIRST)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_SECOND)
    return word ^ (word >> np.uint64(31))
