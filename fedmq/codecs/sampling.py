"""Random samples: a share of a vector's numbers, of which nothing needs to say which ones they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import numpy as np

from fedmq.codecs.counter import PLACES, words
from fedmq.codecs.rate import Rate
from fedmq.codecs.rotation import check_norm
from fedmq.codecs.stages import Bound, ErrorSize, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.vectors import Vector

LEAST_SHARE: Final = 1e-6
"""The least share that `sample` takes: weights stay below 2²⁰, far from where float32 ends."""

_ROUNDING: Final = 2.0**-23


@dataclass(frozen=True, slots=True)
class Sample:
    """A random share of the numbers: one of each run of about 1 / `share`, times the run's length where it is decoded.

    Which ones follows from the seed, so nothing says so in the message. The mean over seeds is the vector; the error of
    one is about 1 / `share` - 1 times as large as the vector, squared. Behind `rotate` no number is worth more than
    another, and nothing is missed for long.
    """

    name: ClassVar[str] = "sample"
    examples: ClassVar[tuple[str, ...]] = ("sample", "sample(0.5)")
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "large"
    evens: ClassVar[bool] = False
    rate: ClassVar[Rate] = Rate("share", least=0.001, most=1.0)

    share: float = 0.05

    def __post_init__(self) -> None:
        if not LEAST_SHARE <= self.share <= 1.0:
            raise ConfigError(f"sample takes no share of {self.share}: choose one from {LEAST_SHARE} to 1")

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return the share of each block, to the nearest whole number and at least one."""
        return tuple(min(size, max(1, int(self.share * size + 0.5))) for size in sizes)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return the numbers taken; raises Refused where their norm is beyond 2⁶⁴."""
        kept = vector[_drawn(self._runs(sizes), seed)]
        check_norm(kept, self.name)
        return kept

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return zeros, and at the places drawn each number times the length of its run."""
        runs = self._runs(sizes)
        whole = np.zeros(sum(sizes), dtype=np.float32)
        whole[_drawn(runs, seed)] = vector * runs.weights
        return whole

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return the magnitude of each number left out, and for one taken how much its weight and error add."""
        runs = self._runs(sizes)
        places, weights = _drawn(runs, seed), runs.weights.astype(np.float64)
        bound = np.abs(vector).astype(np.float64)
        grown = bound[places] * (weights - 1) + inner * weights
        bound[places] = grown * (1 + _ROUNDING) + weights * 2.0**-149
        return bound

    def _runs(self, sizes: Sizes) -> _Runs:
        return _runs(sizes, self.sizes(sizes))


class _Runs(NamedTuple):
    """The runs of which one number each is drawn."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.uint64]
    weights: NDArray[np.float32]


@lru_cache(maxsize=16)
def _runs(sizes: Sizes, counts: Sizes) -> _Runs:
    """Cut each block into runs that differ by at most one in length: from ⌊i·size/count⌋ up to the next."""
    wholes, parts = np.array(sizes, dtype=np.int64), np.array(counts, dtype=np.int64)
    firsts, blocks = np.cumsum(parts) - parts, np.cumsum(wholes) - wholes
    size, count, first, block = (np.repeat(each, parts) for each in (wholes, parts, firsts, blocks))
    index = np.arange(count.size) - first
    start, stop = index * size // count, (index + 1) * size // count
    lengths = stop - start
    return _Runs(block + start, lengths.astype(np.uint64), lengths.astype(np.float32))


def _drawn(runs: _Runs, seed: int) -> NDArray[np.int64]:
    """Return one place of each run: word / 2³² of the way along it, rounded down."""
    draws = words(seed, PLACES, runs.starts.size).astype(np.uint64)
    return runs.starts + (draws * runs.lengths >> np.uint64(32)).astype(np.int64)
