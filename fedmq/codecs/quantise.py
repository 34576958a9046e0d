"""Quantisers: a vector to symbols of one, two or four bytes, with a bound on what is lost."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np

from fedmq.codecs.counter import ROUNDING, words
from fedmq.codecs.scales import NO_SCALES, Binary32
from fedmq.codecs.stages import Alphabet, Bound, ErrorSize, Quantised, ScaleForm, Sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.codecs.stages import Quantiser
    from fedmq.vectors import Vector

HALF_MAX: Final = 65504.0
"""Largest finite number of IEEE 754 binary16."""

LEVELS: Final = 127
"""Steps of `int8` on either side of zero; -128 is not used, so that the grid is symmetric."""


@dataclass(frozen=True, slots=True)
class Float32:
    """Every bit of every number: the reference that the others are measured against."""

    name: ClassVar[str] = "float32"
    examples: ClassVar[tuple[str, ...]] = ("float32",)
    alphabet: ClassVar[Alphabet] = Alphabet("<f4")
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "none"

    def scales(self, sizes: Sizes) -> int:
        """Return 0: numbers stand for themselves."""
        return 0

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the numbers themselves."""
        return Quantised(NO_SCALES, np.ascontiguousarray(vector, dtype="<f4"))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return what was sent, NaN and infinity included: whether to take that is a guard's decision."""
        return quantised.symbols.astype(np.float32)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return zeros."""
        return np.zeros(vector.shape)


@dataclass(frozen=True, slots=True)
class Float16:
    """IEEE 754 binary16, rounded to nearest even; beyond ±65504 it saturates instead of becoming infinite."""

    name: ClassVar[str] = "float16"
    examples: ClassVar[tuple[str, ...]] = ("float16",)
    alphabet: ClassVar[Alphabet] = Alphabet("<f2")
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "small"

    def scales(self, sizes: Sizes) -> int:
        """Return 0: numbers stand for themselves."""
        return 0

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the nearest numbers of binary16, the finite ones only."""
        return Quantised(NO_SCALES, np.clip(vector, -HALF_MAX, HALF_MAX).astype("<f2"))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return the same numbers, wider."""
        return quantised.symbols.astype(np.float32)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return half a unit in the last place (11 bits of significand, or 2⁻²⁵), or what saturation cuts off."""
        size = np.abs(vector.astype(np.float64))
        return np.maximum(np.maximum(size * 2.0**-11, 2.0**-25), size - HALF_MAX)


@dataclass(frozen=True, slots=True)
class Int8:
    """Whole numbers from -127 to 127, times 1/127 of the largest magnitude in the block.

    Rounds to nearest even; with `stochastic` to one of the two neighbours, so that the mean over seeds is exact up to
    the last bits of float32 and averaging over devices removes the error (QSGD, Alistarh et al., NIPS 2017).
    """

    name: ClassVar[str] = "int8"
    examples: ClassVar[tuple[str, ...]] = ("int8", "int8(stochastic)")
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -LEVELS, LEVELS)
    scale_form: ClassVar[ScaleForm] = Binary32()
    error: ClassVar[ErrorSize] = "small"

    rounding: Literal["nearest", "stochastic"] = "nearest"

    @property
    def unbiased(self) -> bool:
        """True with stochastic rounding."""
        return self.rounding == "stochastic"

    def scales(self, sizes: Sizes) -> int:
        """Return one per block, an empty one too."""
        return len(sizes)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the levels, and as scales the largest magnitude of each block."""
        peaks = block_peaks(vector, sizes)
        levels = vector / np.repeat(np.where(peaks > 0, peaks, np.float32(1)), sizes)
        levels *= np.float32(LEVELS)
        rounded = np.rint(levels) if self.rounding == "nearest" else _draw(levels, seed)
        return Quantised(peaks, rounded.astype(np.int8))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return level / 127 · peak, in two operations of float32: so no peak overflows and none is lost."""
        vector = quantised.symbols.astype(np.float32)
        vector /= np.float32(LEVELS)
        vector *= np.repeat(quantised.scales, sizes)
        return vector

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return half a step of the block's grid (a whole one if stochastic), and float32's own roundings."""
        steps = np.repeat(block_peaks(vector, sizes).astype(np.float64), sizes) / LEVELS
        return steps * ((1.0 if self.unbiased else 0.5) + 2.0**-14) + 2.0**-149


def block_peaks(vector: Vector, sizes: Sizes) -> NDArray[np.float32]:
    """Return the largest magnitude of each block, 0 for an empty one."""
    lengths = np.asarray(sizes, dtype=np.intp)
    starts = np.cumsum(lengths) - lengths
    peaks = np.zeros(lengths.size, dtype=np.float32)
    filled = lengths > 0
    if filled.any():
        peaks[filled] = np.maximum.reduceat(np.abs(vector), starts[filled])
    return peaks


def _draw(levels: Vector, seed: int) -> Vector:
    """Round each level up with the probability of its distance from the one below."""
    below = np.floor(levels)
    draws = (words(seed, ROUNDING, levels.size) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return below + (draws < levels - below)


QUANTISERS: Final[dict[str, type[Quantiser]]] = {stage.name: stage for stage in (Float32, Float16, Int8)}
"""Every quantiser by name."""
