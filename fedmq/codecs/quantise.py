"""Quantisers: a vector to symbols of one, two or four bytes, with a bound on what is lost."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import numpy as np

from fedmq.codecs.eden import Eden
from fedmq.codecs.grid import block_norms, block_peaks, drawn, numbers, reach, steps
from fedmq.codecs.scales import NO_SCALES, Binary32
from fedmq.codecs.sparse import Deadzone, Ternary
from fedmq.codecs.stages import Alphabet, Bound, ErrorSize, Quantised, ScaleForm, Sizes
from fedmq.errors import ConfigError

if TYPE_CHECKING:
    from fedmq.codecs.stages import Quantiser
    from fedmq.vectors import Vector

HALF_MAX: Final = 65504.0
"""Largest finite number of IEEE 754 binary16."""

BRAIN_MAX: Final = float.fromhex("0x1.fep127")
"""Largest finite number of bfloat16."""

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
    even_error: ClassVar[ErrorSize] = "none"
    stable: ClassVar[bool] = True

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
    even_error: ClassVar[ErrorSize] = "small"
    stable: ClassVar[bool] = True

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
class Bfloat16:
    """The upper half of binary32, rounded to nearest even: the range of float32, 8 significant bits; it saturates."""

    name: ClassVar[str] = "bfloat16"
    examples: ClassVar[tuple[str, ...]] = ("bfloat16",)
    alphabet: ClassVar[Alphabet] = Alphabet("<u2")
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = False
    error: ClassVar[ErrorSize] = "small"
    even_error: ClassVar[ErrorSize] = "small"

    def scales(self, sizes: Sizes) -> int:
        """Return 0: numbers stand for themselves."""
        return 0

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the upper halves of the nearest numbers, the finite ones only."""
        bits = np.clip(vector, -BRAIN_MAX, BRAIN_MAX).astype("<f4").view("<u4")
        return Quantised(NO_SCALES, (bits + np.uint32(0x7FFF) + (bits >> 16 & 1) >> 16).astype("<u2"))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return the same numbers, wider."""
        return (quantised.symbols.astype("<u4") << 16).view("<f4").astype(np.float32, copy=False)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return half a unit in the last place: 8 bits of significand, or 2⁻¹³⁴."""
        return np.maximum(np.abs(vector.astype(np.float64)) * 2.0**-8, 2.0**-134)


@dataclass(frozen=True, slots=True)
class _Uniform:
    """Whole numbers of steps, the largest magnitude in the block being so many of them."""

    levels: ClassVar[int]
    scale_form: ClassVar[ScaleForm] = Binary32()

    rounding: Literal["nearest", "stochastic"] = "nearest"

    @property
    def unbiased(self) -> bool:
        """True with stochastic rounding."""
        return self.rounding == "stochastic"

    @property
    def stable(self) -> bool:
        """True with rounding to nearest.

        The peak is itself a level, 127, so it comes back bit by bit. Another level l comes back as a number whose
        quotient by the peak, times 127, is off from l by some units of float32's last place of 127; among subnormal
        numbers by less than 63/127 as well, since l·peak/127 is never in the middle between two of them.
        """
        return self.rounding == "nearest"

    def scales(self, sizes: Sizes) -> int:
        """Return one per block, an empty one too."""
        return len(sizes)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the levels, and as scales the largest magnitude of each block."""
        peaks = block_peaks(vector, sizes)
        counted = steps(vector, peaks, sizes, self.levels)
        rounded = np.rint(counted) if self.rounding == "nearest" else drawn(counted, seed)
        return Quantised(peaks, rounded.astype(np.int8))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return level / levels · peak."""
        return numbers(quantised.symbols, quantised.scales, sizes, self.levels)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return half a step of the block's grid, a whole one if stochastic, and float32's own roundings."""
        return reach(block_peaks(vector, sizes), sizes, self.levels, 1.0 if self.unbiased else 0.5)


@dataclass(frozen=True, slots=True)
class Int8(_Uniform):
    """Whole numbers from -127 to 127, times 1/127 of the largest magnitude in the block.

    Rounds to nearest even; with `stochastic` to one of the two neighbours, so that the mean over seeds is exact up to
    the last bits of float32 and averaging over devices removes the error (QSGD, Alistarh et al., NIPS 2017).
    """

    name: ClassVar[str] = "int8"
    examples: ClassVar[tuple[str, ...]] = ("int8", "int8(stochastic)")
    levels: ClassVar[int] = LEVELS
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -LEVELS, LEVELS)
    error: ClassVar[ErrorSize] = "small"
    even_error: ClassVar[ErrorSize] = "small"


@dataclass(frozen=True, slots=True)
class Int4(_Uniform):
    """Whole numbers from -7 to 7, times a seventh of the largest magnitude in the block."""

    name: ClassVar[str] = "int4"
    examples: ClassVar[tuple[str, ...]] = ("int4", "int4(stochastic)")
    levels: ClassVar[int] = 7
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -7, 7)
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "moderate"


@dataclass(frozen=True, slots=True)
class Int2(_Uniform):
    """-1, 0 or 1, times the largest magnitude in the block.

    With `stochastic` it is TernGrad: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed
    Deep Learning", NIPS 2017.
    """

    name: ClassVar[str] = "int2"
    examples: ClassVar[tuple[str, ...]] = ("int2", "int2(stochastic)")
    levels: ClassVar[int] = 1
    alphabet: ClassVar[Alphabet] = Alphabet("i1", -1, 1)
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "large"


@dataclass(frozen=True, slots=True)
class Qsgd:
    """Whole numbers up to `levels`, times the Euclidean norm of each `bucket` of consecutive numbers, at random.

    Alistarh, Grubic, Li, Tomioka and Vojnovic 2017, "QSGD: Communication-Efficient SGD via Gradient Quantization and
    Encoding", NIPS. With one level most numbers become 0. Buckets pay no heed to blocks; the last may be shorter.
    """

    name: ClassVar[str] = "qsgd"
    examples: ClassVar[tuple[str, ...]] = ("qsgd", "qsgd(7, bucket=64)")
    scale_form: ClassVar[ScaleForm] = Binary32()
    unbiased: ClassVar[bool] = True
    error: ClassVar[ErrorSize] = "large"
    even_error: ClassVar[ErrorSize] = "large"

    levels: int = 1
    bucket: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= LEVELS:
            raise ConfigError(f"qsgd has {self.levels} levels: choose 1 to {LEVELS}")
        if self.bucket < 1:
            raise ConfigError(f"qsgd takes buckets of {self.bucket} numbers: choose 1 or more")

    @property
    def alphabet(self) -> Alphabet:
        """Steps on both sides of zero."""
        return Alphabet("i1", -self.levels, self.levels)

    def scales(self, sizes: Sizes) -> int:
        """Return one per bucket."""
        return -(-sum(sizes) // self.bucket)

    def encode(self, vector: Vector, sizes: Sizes, seed: int) -> Quantised:
        """Return the levels, and as scales the norm of each bucket."""
        buckets = self._buckets(vector.size)
        norms = block_norms(vector, buckets)
        counted = steps(vector, norms, buckets, self.levels)
        return Quantised(norms, drawn(counted, seed).astype(np.int8))

    def decode(self, quantised: Quantised, sizes: Sizes) -> Vector:
        """Return level / levels · norm."""
        symbols = quantised.symbols
        return numbers(symbols, quantised.scales, self._buckets(symbols.size), self.levels)

    def bound(self, vector: Vector, sizes: Sizes) -> Bound:
        """Return a step of the bucket's grid, and float32's own roundings."""
        buckets = self._buckets(vector.size)
        return reach(block_norms(vector, buckets), buckets, self.levels, 1.0)

    def _buckets(self, size: int) -> Sizes:
        return tuple(min(self.bucket, size - start) for start in range(0, size, self.bucket))


QUANTISERS: Final[dict[str, type[Quantiser]]] = {
    stage.name: stage
    for stage in (Float32, Float16, Bfloat16, Int8, Int4, Int2, Qsgd, Ternary, Deadzone, Eden)
}
"""Every quantiser by name."""
