"""Forms of scales: how the few numbers that give symbols their meaning are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.many import ManyScales
from fedmq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_BINARY32: Final = np.dtype("<f4")
_LEAST_EXPONENT: Final = -149  # float32 is a grid of whole multiples of two to this
_DIGITS: Final = 5  # significant bits of a scale in one byte, the first of which goes without saying

MOST_SIGNIFICAND: Final = (1 << _DIGITS) - 1
"""Scales that take one byte are whole numbers up to this one, times a power of two."""

_ROW: Final = 1 << _DIGITS - 1  # codes per binary exponent
_MOST_EXPONENT: Final = 256 // _ROW - 2
_MOST_UNITS: Final = MOST_SIGNIFICAND << _MOST_EXPONENT  # the largest that a byte can say

NO_SCALES: Final = np.empty(0, dtype=np.float32)
"""For quantisers whose symbols stand for themselves."""


@dataclass(frozen=True, slots=True)
class Binary32:
    """IEEE 754 binary32, every bit of it."""

    width: ClassVar[int] = _BINARY32.itemsize

    def size(self, count: int) -> int:
        """Return four bytes a scale."""
        return count * _BINARY32.itemsize

    def write(self, scales: NDArray[np.float32]) -> bytes:
        """Return the scales' own bytes, little-endian."""
        return scales.astype(_BINARY32, copy=False).tobytes()

    def read(self, data: bytes) -> NDArray[np.float32]:
        """Return the scales; raises DecodeError for one that is negative, minus zero or not finite."""
        scales = np.frombuffer(data, dtype=_BINARY32).astype(np.float32)
        if np.signbit(scales).any() or not np.isfinite(scales).all():
            raise DecodeError(
                "data holds a scale that is negative or not finite, which no encoder makes: was it damaged?"
            )
        return scales


@dataclass(frozen=True, slots=True)
class Octets(ManyScales):
    """One byte each, a number of five significant bits and of a binary exponent, in a unit that is common to all.

    The unit is a power of two, and takes a byte before them. Steps are a sixteenth at most, down to 2⁻¹⁵ of the largest
    scale. `near` says which scales these are, and its callers round to one of them.
    """

    def size(self, count: int) -> int:
        """Return a byte a scale and one for their unit, where there are any."""
        return count + (count > 0)

    def near(self, scales: NDArray[np.float64], draws: NDArray[np.float32]) -> NDArray[np.float32]:
        """Round each to one of its two neighbours, to the upper one with the probability of its distance to the lower.

        `draws` are even between 0 and 1, one for each; the mean over them is the scale. The largest is below 2¹²⁴.
        Where there are several rows, each has a unit of its own.
        """
        unit = _unit(scales)
        exponents = _steps(scales, unit) + unit
        rounded: NDArray[np.float64] = np.ldexp(np.floor(np.ldexp(scales, -exponents) + draws), exponents)
        return rounded.astype(np.float32)

    def write_all(self, scales: Sequence[NDArray[np.float32]]) -> Sequence[bytes]:
        """Return the unit and a byte for each, exactly, if they come from `near`."""
        rows = np.stack(scales)
        if not rows.size:
            return [b"" for _ in rows]
        unit = _unit(rows)
        steps = _steps(rows, unit)
        codes = _ROW * steps + np.ldexp(rows, -unit - steps).astype(np.int32)
        written = np.concatenate([unit - _LEAST_EXPONENT, codes], axis=1).astype(np.uint8)
        return [row.tobytes() for row in written]

    def read_all(self, data: Sequence[bytes]) -> Sequence[NDArray[np.float32]]:
        """Return the scales: whatever the bytes, they are below 2¹²⁵."""
        rows = np.frombuffer(b"".join(data), dtype=np.uint8).reshape(len(data), -1).astype(np.int32)
        unit, codes = rows[:, :1] + _LEAST_EXPONENT, rows[:, 1:]
        steps = np.maximum(codes // _ROW - 1, 0)
        scales: NDArray[np.float64] = np.ldexp((codes - _ROW * steps).astype(np.float64), steps + unit)
        return list(scales.astype(np.float32))


def _unit(scales: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.int32]:
    """Return each row's least exponent with which its largest scale is sayable, the same before and after rounding."""
    most: NDArray[np.float64] = scales.max(axis=-1, initial=0.0, keepdims=True).astype(np.float64)
    exponents = np.where(most > 0, np.frexp(most)[1] - (_DIGITS + _MOST_EXPONENT), _LEAST_EXPONENT)
    exponents += np.ldexp(most, -exponents) > _MOST_UNITS
    return np.maximum(exponents, _LEAST_EXPONENT)


def _steps(scales: NDArray[np.float32] | NDArray[np.float64], unit: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the binary exponents, in units, of the steps around each scale: five significant bits, or whole units."""
    exponents = np.where(scales > 0, np.frexp(scales)[1], unit)
    steps: NDArray[np.int32] = np.maximum(exponents - (unit + _DIGITS), 0)
    return steps
