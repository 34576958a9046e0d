"""Reducers: the third slot of a rule. Each turns many weighted deltas into one, as a fold.

A fold is four functions, ``zero``, ``add``, ``merge`` and ``result``: memory is that of the state, however many
devices report, and states of parts of the fleet (shards, site gateways) merge into the state of the whole.

How the mean's bits come to be independent of order
---------------------------------------------------
Floating-point addition rounds, and how it rounds depends on the order. Whole numbers do not have that problem, so
`Mean` adds whole numbers. A delta (24 significant bits) times a weight (rounded to 24) is a float64 without rounding.
It is cut into three slices, each a whole multiple of a fixed unit, with the old trick of adding a large constant that
leaves no room for the bits below the unit, and taking it off again: ``slice = (x + anchor) - anchor``, the next slice
from ``x - slice``, both without error (Demmel and Nguyen 2013, "Fast Reproducible Floating-Point Summation"; Ogita,
Rump and Oishi 2005 for the extraction). The units are fixed powers of two, not chosen from the data, so every device's
slices are the same whatever came before; and while ``x + anchor`` is at hand, its low 52 bits *are* the whole number,
so the slices are added up as 64-bit integers and nothing is ever rounded again.

The anchor's own bit pattern is added along each time. `Sums.deposits` counts how often, per block and slice, and
`Sums.settle` takes it off, modulo 2^64 as all of this arithmetic.

Range: see the constants. Below the last unit a product is rounded to it, half of 2^-79: with weights of 1 or more that
is 8e-25 for each device's delta, and no product of more than 2^-32 loses anything.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.measure import BLOCK
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.weighers import LEAST_WEIGHT, MOST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedmq.vectors import Layout, Vector

MOST_DELTA = 2.0**31
"""No number of a delta may reach this. Weights of models stay below 10^3; the rest is for statistics of raw input."""

MOST_UPDATES = 2**20
"""A fold takes fewer updates than this: 2^20 slices of up to 2^43 units fill 64 bits."""

MOST_TOTAL = 2.0**40
"""A fold's sum of weights stays below this: times `MOST_DELTA`, in the largest unit, it fills 63 bits."""

_TOTAL_UNIT = -43
"""Weights are whole multiples of 2^-43: 24 significant bits down from the least, 2^-20."""

_DIGIT = 44
"""Bits from one unit to the next."""


class _Grid(NamedTuple):
    """One of the three slices: multiples of `unit`, up to 2^51 of them."""

    unit: float
    anchor: float
    pattern: int

    @classmethod
    def of(cls, exponent: int) -> _Grid:
        """Return the slice with unit ``2**exponent``; its anchor is 1.5 * 2^52 units, amid a binade."""
        anchor = 1.5 * 2.0 ** (52 + exponent)
        return cls(2.0**exponent, anchor, struct.unpack("<Q", struct.pack("<d", anchor))[0])


_GRIDS = (_Grid.of(9), _Grid.of(9 - _DIGIT), _Grid.of(9 - 2 * _DIGIT))
_HEADER = struct.Struct("<I16s")

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Traits:
    """What the result of a reducer is known to do, up to float64's rounding; the laws hold it to what it says.

    `between`: each number lies between the least and the greatest that came, so equal deltas give themselves.
    `shifts`: it moves with a vector that is added to every delta. `scales`: it grows with a factor on every delta.
    `mirrors`: it changes its sign with the deltas.
    """

    between: bool = True
    shifts: bool = True
    scales: bool = True
    mirrors: bool = True


class Reducer(Protocol[State]):
    """A fold over weighted deltas.

    `add` changes its state in place, and it alone; `result` and `dump` may tidy it up, which nothing but time can tell.
    """

    __slots__ = ()

    @property
    def unweighted(self) -> str:
        """Why weights have no meaning here: half a sentence for people; empty where they have."""
        return ""

    @property
    def traits(self) -> Traits:
        """What its result is known to do: all there is, unless it says otherwise."""
        return Traits()

    def withstands(self, n: int) -> int:  # noqa: ARG002 # for those that outvote
        """Return how many of `n` updates of equal weight may hold anything, and the result stays near the others'."""
        return 0

    def zero(self, layout: Layout, folder: Path | None = None) -> State:
        """Return the state before the first delta of `layout`; files go into `folder` and vanish with the state."""

    def check(self, state: State, delta: Vector, weight: float) -> None:
        """Raise Refused where `add` would; change nothing."""

    def add(self, state: State, delta: Vector, weight: float) -> None:
        """Take one delta into `state`; raise Refused, with `state` as it was, where it cannot be taken."""

    def merge(self, left: State, right: State) -> State:
        """Return the state of both sets of deltas; raise Refused where they are too many for one."""

    def result(self, state: State, memory: Memory = EMPTY) -> NDArray[np.float64]:
        """Return the deltas made one; raise MisuseError where there are none. `memory` is what `learn` gave last."""

    def learn(self, result: NDArray[np.float64]) -> Memory:  # noqa: ARG002 # for those that learn
        """Return what to remember of a round's result for the next."""
        return {}

    def total(self, state: State) -> float:
        """Return the sum of weights."""

    def dump(self, state: State) -> bytes:
        """Return the state as bytes: the same for the same deltas, in whatever order and parts they came."""

    def load(self, data: bytes, layout: Layout, folder: Path | None = None) -> State:
        """Return the state that `dump` wrote, for deltas of `layout`; raise DecodeError where `data` is not that."""


@dataclass(slots=True, eq=False)
class Sums:
    """State of `Mean`: 24 bytes for each number of the model, of which a third stays untouched by small deltas.

    `bins` has one row for each slice and one column for each number of the model; `total` is the sum of weights in
    units of 2^-43.
    """

    bins: NDArray[np.uint64]
    deposits: NDArray[np.uint64]
    count: int = 0
    total: int = 0

    def settle(self) -> None:
        """Take the anchors' patterns off the bins, so that these are plain two's complement counts of units."""
        for block, span in _blocks(self.bins.shape[1]):
            for bins, deposits, grid in zip(self.bins, self.deposits, _GRIDS, strict=True):
                if deposits[block]:
                    bins[span] -= np.uint64(int(deposits[block]) * grid.pattern % 2**64)
        self.deposits[:] = 0


@dataclass(frozen=True, slots=True)
class Mean(Reducer[Sums]):
    """The weighted mean, with the same bits in any order of arrival and any grouping.

    Formula: `sum_i w_i * delta_i / sum_i w_i`, each weight rounded to 24 significant bits (whole numbers of examples up
    to 16 million are exact). Both sums are exact; the quotient is within 2^-50 of the true one, relatively, before it
    is rounded to float32.

    Source: McMahan et al. 2017, algorithm 1, for the mean; Demmel and Nguyen 2013 for the exact sum (see the module).

    Cost: 9 ms for 10 MB where a plain float64 sum takes 3.4 ms (13 ms where deltas times weights reach 2^8); 24 bytes
    of memory for each number of the model, however many devices report.

    Breakdown point: 0. One device of any number moves it anywhere that the guards let through.

    Use it unless devices may lie: one device moves a mean as far as it likes, within what the guards allow.

    Configuration: `kind = "mean"`.

    Example:
        >>> from fedmq.vectors import Layout, Variable
        >>> mean = Mean()
        >>> sums = mean.zero(Layout((Variable("w", (2,)),)))
        >>> mean.add(sums, np.array([1.0, 2.0], np.float32), weight=1.0)
        >>> mean.add(sums, np.array([2.0, 6.0], np.float32), weight=3.0)
        >>> mean.result(sums)
        array([1.75, 5.  ])
    """

    def zero(self, layout: Layout, folder: Path | None = None) -> Sums:  # noqa: ARG002 # the slot's signature
        """Return sums of nothing."""
        blocks = -(-layout.size // BLOCK)
        return Sums(np.zeros((3, layout.size), np.uint64), np.zeros((3, blocks), np.uint64))

    def check(self, state: Sums, delta: Vector, weight: float) -> None:
        """Raise Refused where a number, the weight, the count or the sum of weights would leave the range."""
        _admit(state, _peaks(delta), weight_units(weight))

    def add(self, state: Sums, delta: Vector, weight: float) -> None:
        """Add ``weight * delta``, exactly."""
        peaks, units = _peaks(delta), weight_units(weight)
        _admit(state, peaks, units)
        exact = in_weight(units)
        scratch = np.empty((2, BLOCK))
        for block, span in _blocks(delta.size):
            rest, anchored = scratch[:, : span.stop - span.start]
            rest[:] = delta[span]  # widened first: faster than leaving that to the product
            np.multiply(rest, exact, out=rest)
            _deposit(state, block, rest, anchored, peaks[block] * exact)
        state.count += 1
        state.total += units

    def merge(self, left: Sums, right: Sums) -> Sums:
        """Return the sums of both."""
        count, total = left.count + right.count, left.total + right.total
        _room(count, total)
        return Sums(left.bins + right.bins, left.deposits + right.deposits, count, total)

    def result(self, state: Sums, memory: Memory = EMPTY) -> NDArray[np.float64]:  # noqa: ARG002 # as above
        """Return the mean."""
        if not state.count:
            raise MisuseError(
                "no update was added, so there is no mean: abandon the round instead of finishing it"
            )
        state.settle()
        mean = np.empty(state.bins.shape[1])
        for _, span in _blocks(mean.size):
            mean[span] = _value(state.bins[:, span].view(np.int64))
        return np.divide(mean, self.total(state), out=mean)

    def total(self, state: Sums) -> float:
        """Return the sum of weights, rounded once."""
        return in_weight(state.total)

    def dump(self, state: Sums) -> bytes:
        """Return count (4 bytes), sum of weights (16) and the rows of bins (8 each number), little-endian."""
        state.settle()
        return (
            _HEADER.pack(state.count, state.total.to_bytes(16, "little")) + state.bins.astype("<u8").tobytes()
        )

    def load(self, data: bytes, layout: Layout, folder: Path | None = None) -> Sums:  # noqa: ARG002 # as above
        """Return the sums in `data`, where its length is right and its numbers are ones that sums can reach."""
        size = layout.size
        wanted = _HEADER.size + 24 * size
        if len(data) != wanted:
            raise DecodeError(
                f"sums take {len(data)} bytes, {wanted} for {size} numbers: were they for another model?"
            )
        count, total = _HEADER.unpack_from(data)
        state = self.zero(layout)
        state.bins[:] = np.frombuffer(data, "<u8", offset=_HEADER.size).reshape(3, size)
        state.count, state.total = count, int.from_bytes(total, "little")
        if not _reachable(state):
            raise DecodeError(
                "sums hold counts that no set of updates gives: were they damaged on their way?"
            )
        return state

    def __str__(self) -> str:
        return "mean"


def weight_units(weight: float) -> int:
    """Return `weight`, rounded to 24 significant bits, in units of 2^-43; raise Refused where it is out of bounds."""
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise Refused(
            f"update weighs {weight:g}, a weight must lie between {LEAST_WEIGHT:g} and {MOST_WEIGHT:g}"
        )
    return int(math.ldexp(float(np.float32(weight)), -_TOTAL_UNIT))


def in_weight(units: int) -> float:
    """Return the weight of so many units of 2^-43, rounded once: `weight_units` the other way."""
    return math.ldexp(units, _TOTAL_UNIT)


def _peaks(delta: Vector) -> NDArray[np.float64]:
    """Return the greatest magnitude of each block, NaN where it holds one."""
    starts = np.arange(0, delta.size, BLOCK)
    magnitudes = np.maximum(np.maximum.reduceat(delta, starts), -np.minimum.reduceat(delta, starts))
    return magnitudes.astype(np.float64)


def require_range(peak: float) -> None:
    """Raise Refused unless `peak`, an update's greatest magnitude, is finite and below `MOST_DELTA`."""
    if not peak < MOST_DELTA:
        raise Refused(
            f"update holds {peak:g}, numbers must be finite and below {MOST_DELTA:g}: did it diverge?"
        )


def _admit(state: Sums, peaks: NDArray[np.float64], units: int) -> None:
    require_range(peaks.max(initial=0.0))
    _room(state.count + 1, state.total + units)


def _room(count: int, total: int) -> None:
    weight = in_weight(total)
    if count >= MOST_UPDATES or weight >= MOST_TOTAL:
        raise Refused(
            f"fold would hold {count} updates that weigh {weight:g} in all, it has room for fewer than {MOST_UPDATES} "
            f"and less than {MOST_TOTAL:g}: finish the round, or cap the weights"
        )


def _blocks(size: int) -> Iterator[tuple[int, slice]]:
    """Yield each block's index and its place in the vector."""
    return ((start // BLOCK, slice(start, min(start + BLOCK, size))) for start in range(0, size, BLOCK))


def _deposit(
    state: Sums, block: int, rest: NDArray[np.float64], anchored: NDArray[np.float64], peak: float
) -> None:
    """Cut `rest`, a block's products of at most `peak`, into slices, and add each to its bins. Both arrays are spent.

    A slice whose numbers would all be zero is left out: the first one where products stay below 2^8, as most do. The
    last one is anchored in place, which saves the cache one array.
    """
    columns = slice(block * BLOCK, block * BLOCK + rest.size)
    for row, (unit, anchor, _) in enumerate(_GRIDS):
        if peak < unit / 2:
            continue
        last = row == len(_GRIDS) - 1
        slices = np.add(rest, anchor, out=rest if last else anchored)
        bins = state.bins[row, columns]
        np.add(bins, slices.view(np.uint64), out=bins)
        state.deposits[row, block] += np.uint64(1)
        if not last:
            np.subtract(slices, anchor, out=slices)
            np.subtract(rest, slices, out=rest)


def _value(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the three counts as one float64 each.

    First carries upwards, so that the two lower digits lie in [0, 2^44) and nothing cancels afterwards.
    """
    high, middle, low = bins
    mask, radix = (1 << _DIGIT) - 1, 2.0**_DIGIT
    carried = low >> _DIGIT
    carried += middle
    digits = carried & mask
    carried >>= _DIGIT
    carried += high
    value: NDArray[np.float64] = carried.astype(np.float64)
    value *= radix
    value += digits
    value *= radix
    value += np.bitwise_and(low, mask, out=digits)
    value *= _GRIDS[-1].unit
    return value


def _reachable(state: Sums) -> bool:
    """Tell whether updates within the limits can have given `state`, so that adding more cannot overflow it."""
    weight = in_weight(state.total)
    if state.count >= MOST_UPDATES or weight >= MOST_TOTAL:
        return False
    if not LEAST_WEIGHT * state.count <= weight <= MOST_WEIGHT * state.count:
        return False
    first = int(weight * MOST_DELTA / _GRIDS[0].unit) + state.count
    others = state.count << (_DIGIT - 1)
    return all(_within(row, most) for row, most in zip(state.bins, (first, others, others), strict=True))


def _within(row: NDArray[np.uint64], most: int) -> bool:
    counts = row.view(np.int64)
    return bool(counts.min(initial=0) >= -most and counts.max(initial=0) <= most)
