"""Transforms that keep the large numbers of a vector as they are and make zeros of the others."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.codecs.rate import Rate
from fedmq.codecs.sparse import root_mean_square
from fedmq.codecs.stages import Bound, ErrorSize, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from fedmq.vectors import Vector


@dataclass(frozen=True, slots=True)
class Topk:
    """The `fraction` of the vector that is largest, at least one number; of equal ones the first.

    Aji and Heafield 2017, "Sparse Communication for Distributed Gradient Descent", EMNLP. Followed by `ternary` it is
    sparse ternary compression: Sattler, Wiedemann, Mueller and Samek 2019, "Robust and Communication-Efficient
    Federated Learning from Non-IID Data", IEEE Transactions on Neural Networks and Learning Systems.
    """

    name: ClassVar[str] = "topk"
    examples: ClassVar[tuple[str, ...]] = ("topk", "topk(0.1)")
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "large"
    evens: ClassVar[bool] = False
    rate: ClassVar[Rate] = Rate("fraction", least=0.0001, most=1.0)

    fraction: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"topk keeps a share of {self.fraction}: choose one above 0, up to 1")

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return `sizes`: what is left out stays, as zeros."""
        return sizes

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return the largest numbers, and zeros."""
        count = min(vector.size, max(1, round(self.fraction * vector.size)))
        magnitudes = np.abs(vector)
        kept = np.zeros_like(vector)
        if count:
            least = np.partition(magnitudes, vector.size - count)[vector.size - count]
            places = np.flatnonzero(magnitudes > least)
            ties = np.flatnonzero(magnitudes == least)[: count - places.size]
            for chosen in (places, ties):
                kept[chosen] = vector[chosen]
        return kept

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return `vector`."""
        return vector

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return `inner`, and the magnitude of what is left out."""
        return _left_out(vector, self.encode(vector, sizes, seed)) + inner


@dataclass(frozen=True, slots=True)
class Threshold:
    """The numbers of at least `level` root mean squares of the vector."""

    name: ClassVar[str] = "threshold"
    examples: ClassVar[tuple[str, ...]] = ("threshold", "threshold(1.0)")
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "large"
    evens: ClassVar[bool] = False
    rate: ClassVar[Rate] = Rate("level", least=0.5, most=20.0, slope=-3.0)

    level: float = 3.0

    def __post_init__(self) -> None:
        if not self.level > 0.0:
            raise ConfigError(f"threshold is {self.level} root mean squares: choose one above 0")

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return `sizes`: what is left out stays, as zeros."""
        return sizes

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return the large numbers, and zeros."""
        least = np.float32(min(self.level * root_mean_square(vector), float(np.finfo(np.float32).max)))
        return np.where(np.abs(vector) >= least, vector, np.float32(0))

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return `vector`."""
        return vector

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return `inner`, and the magnitude of what is left out."""
        return _left_out(vector, self.encode(vector, sizes, seed)) + inner


def _left_out(vector: Vector, kept: Vector) -> Bound:
    return np.where(kept, 0.0, np.abs(vector.astype(np.float64)))
