"""Weighted sums of float32 that never round, in whole numbers: same bits in any order and any grouping.

Floating-point addition rounds, and how it rounds depends on the order. Whole numbers do not have that problem. A number
(24 significant bits) times a weight (rounded to 24) is a float64 without rounding. Adding a large constant that leaves
no room for bits below a unit, and taking it off again, cuts it in two without error, ``whole = (x + anchor) - anchor``
and ``rest = x - whole`` (Ogita, Rump and Oishi 2005); and while ``x + anchor`` is at hand, its low 52 bits *are* the
whole number, so these are added up as 64-bit integers (after Demmel and Nguyen 2013, "Fast Reproducible Floating-Point
Summation"). The anchor's own bit pattern is added along each time; how often is counted, and it comes off in the end,
modulo 2^64 as all of this arithmetic.

Where the bits go
-----------------
Every product is a whole multiple of 2^-79, or rounded to one, and a block's sum is the sum of all that it holds:

- Its *lane*: one integer for each number, in units that the block's first products set, 2^47 of them at the most. Later
  products may be 16 times as large. Rests are rare: products of full floats and small whole weights have 24 to 34
  bits, so only those far below the largest have bits below the unit.
- Its *crumbs*: the rests of a few numbers, each a Python integer, in units of 2^-79.
- Its *slices*: three more integers for each number, in fixed units, for rests too many to be crumbs and for products
  too large for the lane. They take anything within the range, for three times the memory and twice the time, are made
  when first needed, and take all products of the block from when its crumbs became too many.

What goes where hangs on what came before; the sum does not, and `Block.digits` writes it down in the one way there is.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedmq.vectors import Vector

DIGIT: Final = 44
"""Bits from one digit's unit to the next."""

TOP_UNIT: Final = 2.0**9
"""Unit of the first of the three digits."""

_LAST: Final = 9 - 2 * DIGIT
_FIRST_BITS: Final = 47
_COARSEST: Final = 8
"""A lane's greatest unit: 2^51 of it are the greatest product, and it is less than that of the first digit."""

_MOST_UNITS: Final = 2.0**51
"""What `x + anchor` has room for on either side."""

_MOST_REACHED: Final = 2.0**62
_MOST_CRUMBS: Final = 256
_RADIX: Final = 2.0**DIGIT


def _pattern(number: float) -> int:
    return int.from_bytes(struct.pack("<d", number), "little")


_ANCHOR: Final = 1.5 * 2.0**52
_ANCHOR_PATTERN: Final = _pattern(_ANCHOR)
_SLICES: Final = tuple(
    (2.0**exponent, _ANCHOR * 2.0**exponent, _pattern(_ANCHOR * 2.0**exponent))
    for exponent in (_LAST + 2 * DIGIT, _LAST + DIGIT, _LAST)
)
"""Unit, anchor and the anchor's bits of each slice."""


class Block:
    """The sums of one block of numbers; `bins`, zeros of uint64, is the memory of its lane.

    Products may come to 2^59 each and 2^71 in all, and be fewer than 2^20: their sum then fits three digits.
    """

    __slots__ = ("_bins", "_crumbs", "_deposits", "_exponent", "_reached", "_slices")

    def __init__(self, bins: NDArray[np.uint64], digits: NDArray[np.int64] | None = None) -> None:
        self._bins = bins
        self._deposits = 0
        self._exponent: int | None = None
        self._reached = 0.0
        self._crumbs: dict[int, int] = {}
        self._slices: _Slices | None = None if digits is None else _Slices(digits.view(np.uint64))

    def add(self, numbers: Vector, weight: float, peak: float, scratch: NDArray[np.float64]) -> None:
        """Add ``weight * numbers``, of which none is larger than `peak`.

        `scratch` has two rows of float64, each as long as the block or longer.
        """
        if not peak:
            return
        rest, whole = scratch[:, : numbers.size]
        rest[:] = numbers  # widened first: faster than leaving that to the product
        exponent = self._unit(peak)
        units = math.ldexp(peak, -exponent)
        if units > _MOST_UNITS or self._reached + units + 1.0 > _MOST_REACHED:
            np.multiply(rest, weight, out=rest)
            self._slice(rest, whole, peak)
            return
        self._reached += units + 1.0
        np.multiply(rest, math.ldexp(weight, -exponent), out=rest)
        np.add(rest, _ANCHOR, out=whole)
        np.add(self._bins, whole.view(np.uint64), out=self._bins)
        self._deposits += 1
        if exponent == _LAST:
            return
        np.subtract(whole, _ANCHOR, out=whole)
        if np.count_nonzero(rest == whole) < rest.size:
            np.subtract(rest, whole, out=rest)
            self._keep(rest, whole, exponent)

    def digits(self) -> NDArray[np.int64]:
        """Return the sums, shape (3, numbers): digits of 44 bits, from the unit 2^9 down to 2^-79.

        The lower two lie in [-2^43, 2^43), so that each sum has one way to be written.
        """
        sums = self._split()
        if self._slices:
            sums += self._slices.digits()
        for place, crumb in self._crumbs.items():
            for row in (2, 1):
                crumb, digit = divmod(crumb, 1 << DIGIT)  # noqa: PLW2901 # what is left of it
                sums[row, place] += digit
            sums[0, place] += crumb
        return carried(sums)

    def _unit(self, peak: float) -> int:
        if self._exponent is None:
            self._exponent = min(max(math.frexp(peak)[1] - _FIRST_BITS, _LAST), _COARSEST)
        return self._exponent

    def _keep(self, rest: NDArray[np.float64], spare: NDArray[np.float64], exponent: int) -> None:
        """Keep what of the products is below the lane's unit; both arrays are spent."""
        places = np.flatnonzero(rest)
        if len(self._crumbs) + places.size > _MOST_CRUMBS:
            np.multiply(rest, math.ldexp(1.0, exponent), out=rest)
            self._slice(rest, spare, math.ldexp(0.5, exponent))
            self._reached = math.inf  # to the slices with all that comes: filling both takes longest
            return
        for place, crumb in zip(places.tolist(), rest[places].tolist(), strict=True):
            self._crumbs[place] = self._crumbs.get(place, 0) + round(math.ldexp(crumb, exponent - _LAST))

    def _slice(self, rest: NDArray[np.float64], spare: NDArray[np.float64], peak: float) -> None:
        if self._slices is None:
            self._slices = _Slices(np.zeros((3, rest.size), np.uint64))
        self._slices.add(rest, spare, peak)

    def _split(self) -> NDArray[np.int64]:
        """Return the lane's sums as digits that are yet to be carried."""
        if self._deposits:
            self._bins -= np.uint64(self._deposits * _ANCHOR_PATTERN % 2**64)
            self._deposits = 0
        counts = self._bins.view(np.int64)
        sums = np.zeros((3, counts.size), np.int64)
        if self._exponent is not None:
            rows, shift = divmod(self._exponent - _LAST, DIGIT)
            kept = DIGIT - shift
            np.left_shift(counts & ((1 << kept) - 1), shift, out=sums[2 - rows])
            np.right_shift(counts, kept, out=sums[1 - rows])
        return sums


class _Slices:
    """Three integers for each number of a block, in units of 2^9, 2^-35 and 2^-79."""

    __slots__ = ("_bins", "_deposits")

    def __init__(self, bins: NDArray[np.uint64]) -> None:
        self._bins = bins
        self._deposits = [0, 0, 0]

    def add(self, rest: NDArray[np.float64], spare: NDArray[np.float64], peak: float) -> None:
        """Cut `rest`, products of at most `peak`, into slices, and add each to its bins. Both arrays are spent.

        A slice whose numbers would all be zero is left out: the first one where products stay below 2^8. The last one
        is anchored in place, which saves the cache one array.
        """
        for row, (unit, anchor, _) in enumerate(_SLICES):
            if peak < unit / 2:
                continue
            last = row == len(_SLICES) - 1
            slices = np.add(rest, anchor, out=rest if last else spare)
            np.add(self._bins[row], slices.view(np.uint64), out=self._bins[row])
            self._deposits[row] += 1
            if not last:
                np.subtract(slices, anchor, out=slices)
                np.subtract(rest, slices, out=rest)

    def digits(self) -> NDArray[np.int64]:
        """Return the sums, carried, in memory of their own."""
        for row, (_, _, pattern) in enumerate(_SLICES):
            self._bins[row] -= np.uint64(self._deposits[row] * pattern % 2**64)
        self._deposits = [0, 0, 0]
        return carried(self._bins.view(np.int64).copy())


def carried(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Carry the three digits of each number upwards, in place, until the lower two lie in [-2^43, 2^43)."""
    for row in (2, 1):
        carry = sums[row] >> (DIGIT - 1)
        carry += 1
        carry >>= 1
        sums[row - 1] += carry
        carry <<= DIGIT
        sums[row] -= carry
    return sums


def value(digits: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return carried digits as one float64 each, within 2^-51 of the true sum, relatively."""
    high, middle, low = digits
    numbers: NDArray[np.float64] = high.astype(np.float64)
    numbers *= _RADIX
    numbers += middle
    numbers *= _RADIX
    numbers += low
    numbers *= _SLICES[-1][0]
    return numbers
