"""Low rank: a weight matrix as the product of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from math import isqrt
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

import numpy as np

from fedmq.codecs.counter import FACTORS, words
from fedmq.codecs.rate import Rate
from fedmq.codecs.stages import Bound, ErrorSize, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

MOST_RANK: Final = 64
"""Largest rank that `lowrank` takes; beyond it the factors are hardly smaller than what they stand for."""

_SWEEPS: Final = 3
"""Power iterations; with a warm start one would do, but a start from the seed needs no memory on the device."""

_WORTH: Final = 2
_MOST: Final = float(np.finfo(np.float32).max)


class Shape(NamedTuple):
    """A block as a matrix, row after row."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Lowrank:
    """Each block that is a large enough matrix becomes two factors of `rank` columns; others stay as they are.

    Large enough is one of which the factors are at most half.

    Vogels, Karimireddy and Jaggi 2019, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
    Optimization", NeurIPS. See `shapes` for what counts as a matrix.
    """

    name: ClassVar[str] = "lowrank"
    examples: ClassVar[tuple[str, ...]] = ("lowrank", "lowrank(1)")
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "moderate"
    evens: ClassVar[bool] = True
    rate: ClassVar[Rate] = Rate("rank", least=1, most=MOST_RANK, whole=True)

    rank: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST_RANK:
            raise ConfigError(f"lowrank has no rank {self.rank}: choose 1 to {MOST_RANK}")

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return two blocks for each one that is factored: the left factor's length and the right one's."""
        return tuple(chain.from_iterable(self._pieces(shape) for shape in shapes(sizes)))

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return the factors, row after row, of every block that has any."""
        coded = np.empty(sum(self.sizes(sizes)), dtype=np.float32)
        for shape, before, after in self._blocks(sizes):
            if self._is_factored(shape):
                left, right = _factors(vector[before].reshape(shape), self.rank, seed)
                coded[after] = np.concatenate((left.ravel(), right.ravel()))
            else:
                coded[after] = vector[before]
        return coded

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:  # noqa: ARG002 - as in every transform
        """Return the factors' products, summed in float64 in a fixed order: the same bits on every machine."""
        decoded = np.empty(sum(sizes), dtype=np.float32)
        for shape, before, after in self._blocks(sizes):
            if self._is_factored(shape):
                product = _product(*self._pair(vector[after], shape))
                decoded[before] = np.clip(product, -_MOST, _MOST).ravel()
            else:
                decoded[before] = vector[after]
        return decoded

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return what the factors miss, and what the errors of both make of each other."""
        coded, bound = self.encode(vector, sizes, seed), np.empty(vector.size)
        for shape, before, after in self._blocks(sizes):
            if self._is_factored(shape):
                factors, errors = self._pair(coded[after], shape), self._pair(inner[after], shape)
                block = vector[before].astype(np.float64)
                bound[before] = (
                    np.abs(block - _product(*factors).ravel()) + _spread(*factors, *errors).ravel()
                )
            else:
                bound[before] = inner[after]
        return bound

    def _is_factored(self, shape: Shape) -> bool:
        """Tell whether factors are worth it: a matrix that they do not halve is better sent whole."""
        return _WORTH * sum(shape) * self.rank <= shape.rows * shape.columns

    def _pieces(self, shape: Shape) -> tuple[int, ...]:
        if self._is_factored(shape):
            return shape.rows * self.rank, shape.columns * self.rank
        return (shape.rows * shape.columns,)

    def _blocks(self, sizes: Sizes) -> Iterator[tuple[Shape, slice, slice]]:
        """Yield each block's shape, where it stands in the vector, and where its factors stand."""
        place = after = 0
        for shape, size in zip(shapes(sizes), sizes, strict=True):
            length = sum(self._pieces(shape))
            yield shape, slice(place, place + size), slice(after, after + length)
            place, after = place + size, after + length

    def _pair(
        self, factors: NDArray[np.floating], shape: Shape
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the left and the right factor, one row per row and per column of the block."""
        wide = factors.astype(np.float64).reshape(sum(shape), self.rank)
        return wide[: shape.rows], wide[shape.rows :]


@lru_cache(maxsize=16)
def shapes(sizes: Sizes) -> tuple[Shape, ...]:
    """Return each block as a matrix, from the lengths of the blocks alone.

    A kernel is stored row after row and followed by its bias, one number per column: so where the next block's length
    divides a block's, it is the number of columns. Any other block is cut as squarely as its length allows.
    """
    following = pairwise((*sizes, 0))
    return tuple(_shape(size, after) for size, after in following)


def _shape(size: int, after: int) -> Shape:
    if 1 < after < size and size % after == 0:
        return Shape(size // after, after)
    columns = next((count for count in range(isqrt(size), 1, -1) if size % count == 0), 1)
    return Shape(size // columns, columns)


def _factors(block: Vector, rank: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two factors of equal lengths by power iteration, begun from signs that the seed draws.

    The block is scaled to its largest magnitude, so that float32 is wide enough for it: twice as fast as float64.
    """
    peak = np.abs(block).max()
    scaled = block / (peak or np.float32(1))
    drawn = words(seed, FACTORS, block.shape[1] * rank).reshape(block.shape[1], rank)
    right = np.where(drawn & 1, np.float32(-1), np.float32(1))
    for _ in range(_SWEEPS - 1):
        right = scaled.T @ np.linalg.qr(scaled @ right)[0]
    left = np.linalg.qr(scaled @ right)[0].astype(np.float64)
    right = (scaled.T @ left.astype(np.float32)).astype(np.float64) * peak
    lengths = np.sqrt(np.linalg.norm(right, axis=0))
    return left * lengths, right / np.where(lengths > 0, lengths, 1.0)


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return left · rightᵀ without BLAS, whose order of additions differs from machine to machine."""
    total, term = np.zeros((2, len(left), len(right)))
    for column, row in zip(left.T, np.ascontiguousarray(right.T), strict=True):
        total += np.multiply(column[:, np.newaxis], row, out=term)
    return total


def _spread(
    left: NDArray[np.float64], right: NDArray[np.float64], left_error: Bound, right_error: Bound
) -> NDArray[np.float64]:
    """Return how far the product may be off where its factors are, and the roundings to float32."""
    reach_left, reach_right = np.abs(left) + left_error, np.abs(right) + right_error
    errors = left_error @ reach_right.T + np.abs(left) @ right_error.T
    spread: NDArray[np.float64] = errors + (reach_left @ reach_right.T) * 2.0**-22 + 2.0**-148
    return spread
