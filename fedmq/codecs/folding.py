"""Random folds: many numbers on top of each other, each with a sign of its own, by which they come apart on average."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.counter import FOLDS, signs, words
from fedmq.codecs.rate import Rate
from fedmq.codecs.rotation import check_norm
from fedmq.codecs.stages import Bound, ErrorSize, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

MOST_LAYERS: Final = 10_000
"""The most layers that `fold` takes; its error grows with their number."""

_ROUNDING: Final = 2.0**-23
_AT_ONCE: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class Fold:
    """Signs at random, then the vector cut into `layers` equal pieces and their sum.

    Each number decodes to the sum that it is part of, times its own sign: itself, and the others of its place with
    signs that are as often plus as minus. So the mean over seeds is the vector, and the squared error of one is
    `layers` - 1 times the vector's: as with a random share of 1 / `layers`, but nothing is missed, and few numbers are
    left to rotate. This is a count sketch of one row (Charikar, Chen and Farach-Colton, "Finding frequent items in data
    streams", ICALP 2002).
    """

    name: ClassVar[str] = "fold"
    examples: ClassVar[tuple[str, ...]] = ("fold", "fold(3)")
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "large"
    evens: ClassVar[bool] = False
    rate: ClassVar[Rate] = Rate("layers", least=2, most=1000, slope=-1.0, whole=True)

    layers: int = 20

    def __post_init__(self) -> None:
        if not 1 < self.layers <= MOST_LAYERS:
            raise ConfigError(f"fold has no {self.layers} layers: choose 2 to {MOST_LAYERS}")

    def sizes(self, sizes: Sizes) -> Sizes:
        """Return one block of the length of a layer."""
        return (-(-sum(sizes) // self.layers),)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return the sum of all layers; raises Refused where the vector's norm is beyond 2⁶⁴."""
        check_norm(vector, self.name)
        octets, folded = _octets(seed, vector.size), np.zeros(self.sizes(sizes), dtype=np.float32)
        for start, stop in self._pieces(vector.size):
            layers = vector[start:stop] * signs(octets, start, stop - start)
            whole = layers.size // folded.size * folded.size
            folded += layers[:whole].reshape(-1, folded.size).sum(axis=0)
            folded[: layers.size - whole] += layers[whole:]
        return folded

    def decode(self, vector: Vector, sizes: Sizes, seed: int) -> Vector:
        """Return all layers, each of them the sum with its own signs."""
        count = sum(sizes)
        octets, unfolded = _octets(seed, count), np.empty(count, dtype=np.float32)
        for start, stop in self._pieces(count):
            layers, drawn = unfolded[start:stop], signs(octets, start, stop - start)
            whole, rows = layers.size // vector.size * vector.size, (-1, vector.size)
            np.multiply(drawn[:whole].reshape(rows), vector, out=layers[:whole].reshape(rows))
            np.multiply(drawn[whole:], vector[: layers.size - whole], out=layers[whole:])
        return unfolded

    def bound(self, vector: Vector, sizes: Sizes, seed: int, inner: Bound) -> Bound:
        """Return the sum of the magnitudes that stand on top of each number, and the sum's own error."""
        length = inner.size
        padded = np.zeros((self.layers, length))
        padded.reshape(-1)[: vector.size] = np.abs(vector)
        sums = padded.sum(axis=0)
        others: Bound = sums - padded + inner + self.layers * _ROUNDING * (sums + inner) + 2.0**-148
        return others.ravel()[: vector.size]

    def _pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield from where to where there are whole layers that fit into a processor's cache; the last may be short."""
        length = max(-(-count // self.layers), 1)
        step = max(_AT_ONCE // length, 1) * length
        return pairwise([*range(0, count, step), count])


def _octets(seed: int, count: int) -> NDArray[np.uint8]:
    """Return a bit for each of `count` signs."""
    return words(seed, FOLDS, -(-count // 32)).view(np.uint8)
