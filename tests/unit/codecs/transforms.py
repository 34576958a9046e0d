"""Two transforms for tests: they fill the slot that the package's table leaves empty, in the two ways that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.codecs.counter import words
from fedmq.codecs.stages import Bound, ErrorSize, Sizes

if TYPE_CHECKING:
    from fedmq.vectors import Vector

STREAM = 99


@dataclass(frozen=True, slots=True)
class Flip:
    """Random signs, times a power of two: linear, seeded, its own inverse up to the factor, and without loss."""

    name: ClassVar[str] = "flip"
    examples: ClassVar[tuple[str, ...]] = ("flip", "flip(2.0)", "flip(0.5, side=left)")
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "none"
    evens: ClassVar[bool] = False

    factor: float = 1.0
    side: str = "right"

    def sizes(self, sizes: Sizes) -> Sizes:
        return sizes

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        return vector * _signs(seed, vector.size) * np.float32(self.factor)

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        return vector * _signs(seed, vector.size) / np.float32(self.factor)

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        return inner / self.factor + 2.0**-149


@dataclass(frozen=True, slots=True)
class Halve:
    """One half of each block, doubled; the seed says which: fewer numbers, unbiased, a large error."""

    name: ClassVar[str] = "halve"
    examples: ClassVar[tuple[str, ...]] = ("halve",)
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "large"
    evens: ClassVar[bool] = False

    def sizes(self, sizes: Sizes) -> Sizes:
        return tuple((size + 1) // 2 for size in sizes)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        kept = np.zeros((sum(self.sizes(sizes)),), dtype=np.float32)
        mask = self._mask(sizes, seed)
        kept[self._places(sizes, seed)] = vector[mask] * np.float32(2)
        return kept

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        whole = np.zeros(sum(sizes), dtype=np.float32)
        whole[self._mask(sizes, seed)] = vector[self._places(sizes, seed)]
        return whole

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        bound = np.abs(vector).astype(np.float64)
        mask = self._mask(sizes, seed)
        bound[mask] += inner[self._places(sizes, seed)]
        return bound

    def _second(self, seed: int) -> bool:
        return bool(words(seed, STREAM, 1)[0] & 1)

    def _mask(self, sizes: Sizes, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        pieces = [(np.arange(size) >= (size + 1) // 2) == self._second(seed) for size in sizes]
        return np.concatenate([np.empty(0, dtype=np.bool_), *pieces])

    def _places(self, sizes: Sizes, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the kept numbers are used: the second half may be one shorter than the first."""
        pieces = [
            np.arange((size + 1) // 2) < size // 2 + (not self._second(seed)) * (size % 2) for size in sizes
        ]
        return np.concatenate([np.empty(0, dtype=np.bool_), *pieces])


def _signs(seed: int, count: int) -> Vector:
    return np.where(words(seed, STREAM, count) & 1, np.float32(-1), np.float32(1))
