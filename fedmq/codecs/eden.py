"""EDEN: one to four bits for each number of a rotated vector, and an unbiased scale for each block.

Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021, and "EDEN: Communication-Efficient and
Robust Distributed Mean Estimation for Federated Learning", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.counter import SCALES, fractions
from fedmq.codecs.many import ManyQuantiser
from fedmq.codecs.scales import MOST_SIGNIFICAND, Octets
from fedmq.codecs.stages import Alphabet, Bound, ErrorSize, Quantised, ScaleForm, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fedmq.vectors import Vector

CENTROIDS: Final[tuple[tuple[int, ...], ...]] = (
    (1,),
    (14, 48),
    (8, 24, 43, 69),
    (4, 12, 21, 30, 40, 52, 66, 87),
)
"""What symbols say of a number's magnitude, for one to four bits, in the block's scale.

From two bits on these are the centroids of Lloyd and Max for a normal variable, in 32nds of its standard deviation:
whole numbers, so that sums of them are exact. They cost less than a quarter of a percent in squared error.
"""

_SIGNED: Final = tuple(
    np.array([-m for m in reversed(magnitudes)] + list(magnitudes), dtype=np.float32)
    for magnitudes in CENTROIDS
)
"""The centroids in their order, by bits."""

_CENTROIDS_PER_DEVIATION: Final = 32
_WHOLE_NUMBERS: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Eden(ManyQuantiser):
    """The sign of each number and, with two to four `bits`, which of the normal distribution's centroids is nearest.

    Numbers y with centroids c decode to s · c, where s = ‖y‖² / ⟨y, c⟩ for each block. That is not the s of the least
    error, ⟨y, c⟩ / ‖c‖², but the one with ⟨y, s · c⟩ = ‖y‖². So the error is at right angles to y, and since a random
    rotation prefers no direction there to another, its mean over rotations is zero (DRIVE, section 4). That holds for
    each block that `rotate` makes, and for the random part that `sample` leaves of it. Without a rotation the error of
    a given vector would be the same each time, so a codec takes `eden` behind `rotate` only.

    Signs and a Hadamard transform are not quite a uniform rotation: where a block has but few numbers that are not
    zero, some bias is left. The squared error is 0.57, 0.13, 0.036 or 0.0096 times the squared norm, by bits.
    """

    name: ClassVar[str] = "eden"
    examples: ClassVar[tuple[str, ...]] = ("eden", "eden(2)", "eden(3)", "eden(4)")
    scale_form: ClassVar[ScaleForm] = Octets()
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "large"

    bits: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= len(CENTROIDS):
            raise ConfigError(f"eden has no symbols of {self.bits} bits: choose 1 to {len(CENTROIDS)}")

    @property
    def alphabet(self) -> Alphabet:
        """Return the centroids' places in their order, from the lowest negative one up."""
        return Alphabet("u1", 0, (1 << self.bits) - 1)

    def sums_exactly(self, count: int) -> bool:
        """Tell whether sums of `count` numbers of one block are exact: whole numbers, up to float32's 24 bits."""
        return count * MOST_SIGNIFICAND * CENTROIDS[self.bits - 1][-1] <= _WHOLE_NUMBERS

    def scales(self, sizes: Sizes) -> int:
        """Return one per block, an empty one too."""
        return len(sizes)

    def encode_all(
        self, vectors: Sequence[Vector], sizes: Sizes, seeds: Sequence[int]
    ) -> Sequence[Quantised]:
        """Return the nearest centroids, and the scales rounded so that their mean over seeds is the unbiased one."""
        stack = np.stack(vectors)
        symbols = self._symbols(stack, sizes)
        draws = np.stack([fractions(seed, SCALES, len(sizes)) for seed in seeds])
        scales = Octets().near(self._unbiased_scales(stack, symbols, sizes), draws)
        return list(starmap(Quantised, zip(scales, symbols, strict=True)))

    def decode_all(self, quantised: Sequence[Quantised], sizes: Sizes) -> Sequence[Vector]:
        """Return each centroid times its block's scale."""
        vectors: NDArray[np.float32] = self._centroids()[np.stack([each.symbols for each in quantised])]
        vectors *= np.repeat(np.stack([each.scales for each in quantised]), sizes, axis=1)
        return list(vectors)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return each number's magnitude and the largest centroid times the scale, rounded up."""
        stack = vector[None]
        (scales,) = self._unbiased_scales(stack, self._symbols(stack, sizes), sizes)
        upper = 1.0625 * scales + np.max(scales, initial=0.0) * 2.0**-18 + 2.0**-149
        return np.abs(vector) + np.repeat(upper, sizes) * CENTROIDS[self.bits - 1][-1] * (1 + 2.0**-23)

    def _centroids(self) -> NDArray[np.float32]:
        return _SIGNED[self.bits - 1]

    def _along(self, numbers: NDArray[np.float64], symbols: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return each number times its centroid: with one bit its magnitude, for that bit is its sign."""
        return np.abs(numbers) if self.bits == 1 else numbers * self._centroids()[symbols]

    def _symbols(self, vectors: NDArray[np.float32], sizes: Sizes) -> NDArray[np.uint8]:
        if self.bits == 1:
            return (vectors >= 0).view(np.uint8)
        squares = _sums(np.square(vectors, dtype=np.float64), sizes)
        deviations = np.sqrt(squares / np.maximum(sizes, 1))
        unified = vectors / np.repeat(np.where(deviations > 0, deviations, 1), sizes, axis=1)
        symbols: NDArray[np.uint8] = np.searchsorted(_edges(self._centroids()), unified).astype(np.uint8)
        return symbols

    def _unbiased_scales(
        self, vectors: NDArray[np.float32], symbols: NDArray[np.uint8], sizes: Sizes
    ) -> NDArray[np.float64]:
        exact = vectors.astype(np.float64)
        squares, products = _sums(exact * exact, sizes), _sums(self._along(exact, symbols), sizes)
        return np.divide(squares, products, out=np.zeros_like(squares), where=products > 0)


def _edges(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where the next centroid becomes the nearest one, in standard deviations."""
    return (centroids[1:] + centroids[:-1]) / np.float32(2 * _CENTROIDS_PER_DEVIATION)


def _sums(numbers: NDArray[np.float64], sizes: Sizes) -> NDArray[np.float64]:
    """Return the sum of each block of each row, 0 for an empty one."""
    lengths = np.asarray(sizes, dtype=np.intp)
    sums, filled = np.zeros((len(numbers), lengths.size)), lengths > 0
    if filled.any():
        sums[:, filled] = np.add.reduceat(numbers, (np.cumsum(lengths) - lengths)[filled], axis=1)
    return sums
