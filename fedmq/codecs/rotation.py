"""Random rotations: what a vector holds in few places is spread evenly over many."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.counter import SIGNS, signs, words
from fedmq.codecs.many import ManyTransform
from fedmq.codecs.stages import Bound, ErrorSize, Sizes
from fedmq.errors import ConfigError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

MOST_BLOCK: Final = 1 << 16
"""Numbers in the largest block that `rotate` takes: 256 KiB, which stay in a small processor's cache."""

_ROUNDING: Final = 2.0**-23
_DIGITS: Final = 4
"""Binary digits of a place per product: 4,096 numbers by three products of 16 by 16 take 40 % less time than by two of
64 by 64, and as much as by four of 8 by 8."""
_AT_ONCE: Final = 1 << 15
"""Numbers that are transformed in one go: few enough to stay in a processor's cache, many enough to be worth a call."""


@dataclass(frozen=True, slots=True)
class Rotate(ManyTransform):
    """A random rotation: signs at random, then the Hadamard transform of each block of `block` numbers.

    What a block held is spread evenly over it: its numbers come out near to Gaussian with one variance, whatever they
    were (Suresh et al., "Distributed mean estimation with limited communication", ICML 2017). The blocks pay no heed to
    the model's variables. The rest of the vector has up to three smaller blocks, the last one filled up with zeros.
    """

    name: ClassVar[str] = "rotate"
    examples: ClassVar[tuple[str, ...]] = ("rotate", "rotate(64)")
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "small"
    evens: ClassVar[bool] = True

    block: int = 4096

    def __post_init__(self) -> None:
        if not 1 < self.block <= MOST_BLOCK or self.block.bit_count() != 1:
            raise ConfigError(
                f"rotate has no blocks of {self.block}: choose a power of two from 2 to {MOST_BLOCK}"
            )

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return the blocks that it makes of the whole vector; their sum is more by the zeros at the end."""
        return _blocks(sum(sizes), self.block)

    def encode_all(self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]) -> Sequence[Vector]:
        """Return the rotated vectors; raises Refused where a vector's norm is beyond 2⁶⁴."""
        for vector in vectors:
            check_norm(vector, self.name)
        blocks, count = self.sizes(sizes), sum(sizes)
        padded = np.zeros((len(vectors), sum(blocks)), dtype=np.float32)
        for own, vector, seed in zip(padded, vectors, seeds, strict=True):
            np.multiply(vector, signs(_octets(seed, count), 0, count), out=own[:count])
        return list(_turned(padded, blocks))

    def decode_all(self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]) -> Sequence[Vector]:
        """Return the vectors turned back."""
        count = sum(sizes)
        turned = _turned(np.stack(vectors), self.sizes(sizes))[:, :count]
        turned *= np.stack([signs(_octets(seed, count), 0, count) for seed in seeds])
        turned += np.float32(0)  # the sign of a zero would tell in which order the sum was taken
        return list(turned)

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return, for all numbers of a block alike, the errors' sum over the root of their count, and roundings."""
        padded = np.zeros(inner.size)
        padded[: vector.size] = np.abs(vector)
        bound = np.empty(inner.size)
        for place, length in _groups(self.sizes(sizes)):
            errors, magnitudes = (sums[place].reshape(-1, length).sum(axis=1) for sums in (inner, padded))
            errors /= np.sqrt(length)
            slack = 2 * (length.bit_length() + 64) * _ROUNDING
            bound[place] = np.repeat(errors + slack * (errors + magnitudes) + length * 2.0**-148, length)
        return bound[: vector.size]


@lru_cache(maxsize=64)
def _blocks(count: int, block: int) -> Sizes:
    """Return whole blocks, then the binary digits of the rest, rounded up to three of them."""
    whole, rest = divmod(count, block)
    grain = 1 << max((rest - 1).bit_length() - 3, 0)
    rest = -(-rest // grain) * grain
    digits = (1 << place for place in reversed(range(rest.bit_length())))
    return (block,) * whole + tuple(digit for digit in digits if rest & digit)


def _octets(seed: int, count: int) -> NDArray[np.uint8]:
    """Return a bit for each of `count` signs."""
    return words(seed, SIGNS, -(-count // 32)).view(np.uint8)


def _groups(sizes: Sizes) -> Iterator[tuple[slice, int]]:
    """Yield the places of as many blocks of one length as are transformed in one go, and that length."""
    start = 0
    for length, equals in groupby(sizes):
        stop = start + length * len(list(equals))
        for first in range(start, stop, max(length, _AT_ONCE)):
            yield slice(first, min(first + max(length, _AT_ONCE), stop)), length
        start = stop


def _turned(vectors: NDArray[np.float32], blocks: Sizes) -> NDArray[np.float32]:
    """Return the transform of each block of each row."""
    turned = np.empty_like(vectors)
    for place, length in _groups(blocks):
        for some in _few(len(vectors), place):
            turned[some, place] = _hadamard(vectors[some, place], length)
    return turned


def _few(count: int, place: slice) -> Iterator[slice]:
    """Yield as many rows at a time as are transformed in one go at `place`."""
    rows = max(1, _AT_ONCE // (place.stop - place.start))
    return (slice(first, first + rows) for first in range(0, count, rows))


def _hadamard(vectors: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Transform each block of `length` numbers, four binary digits of the places at a time. It is its own inverse.

    A product of matrices transforms the lowest digits and makes them the highest, so after all steps they stand as
    before. Such products add in an order of the library's own; sums of whole numbers times one power of two are exact
    in any order up to 2²⁴, and `eden` gives such (docs/reference/codecs.md).
    """
    turned, power = vectors.reshape(-1, length), length.bit_length() - 1
    for done in range(0, power, _DIGITS):
        matrix = _matrix(min(_DIGITS, power - done))
        turned = np.matmul(matrix, turned.reshape(len(turned), -1, len(matrix)).transpose(0, 2, 1))
    return turned.reshape(vectors.shape) * np.float32(length**-0.5)


@cache
def _matrix(power: int) -> NDArray[np.float32]:
    """Return Hadamard's matrix of 2^`power` rows, in natural order: entry (i, j) is -1 where i & j has odd parity."""
    matrix = np.ones((1, 1), dtype=np.float32)
    for _ in range(power):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    matrix.setflags(write=False)
    return matrix


def check_norm(vector: Vector, stage: str) -> None:
    """Raise Refused where decoding might overflow: float32 ends at 2¹²⁸, and there the norm's square is infinite."""
    if not np.isfinite(np.dot(vector, vector)):
        raise Refused(
            f"the vector's norm is beyond 2⁶⁴ or not a number, `{stage}` takes smaller ones: did the training diverge?"
        )
