"""Reducers: the third slot of a rule. Each turns many weighted deltas into one, as a fold.

A fold is four functions, ``zero``, ``add``, ``merge`` and ``result``: memory is that of the state, however many
devices report, and states of parts of the fleet (shards, site gateways) merge into the state of the whole.

The mean's bits hang on no order because its sums are whole numbers, which never round: see `fedmq.rules.exact`.

Range: see the constants. Below 2^-79 a product is rounded to a multiple of that, half of 2^-79 off at most: with
weights of 1 or more that is 8e-25 for each device's delta, and no product of more than 2^-32 loses anything.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.exact import DIGIT, TOP_UNIT, Block, carried, value
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.needs import Needs
from fedmq.rules.weighers import LEAST_WEIGHT, MOST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from fedmq.vectors import Layout, Vector

MOST_DELTA = 2.0**31
"""No number of a delta may reach this. Weights of models stay below 10^3; the rest is for statistics of raw input."""

MOST_UPDATES = 2**20
"""A fold takes fewer updates than this: 2^20 slices of up to 2^43 units fill 64 bits (see `fedmq.rules.exact`)."""

MOST_TOTAL = 2.0**40
"""A fold's sum of weights stays below this: times `MOST_DELTA`, in the largest unit, it fills 63 bits."""

_TOTAL_UNIT = -43
"""Weights are whole multiples of 2^-43: 24 significant bits down from the least, 2^-20."""

_BLOCK = 1 << 15
"""Numbers added up at a time: three float64 arrays of as many stay in a core's second-level cache, or nearly; half as
many take an eighth longer, for all the calls."""

_HEADER = struct.Struct("<I16s")

State = TypeVar("State")
_Float = TypeVar("_Float", np.float32, np.float64)


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

    @property
    def needs(self) -> Needs:
        """What it asks of the updates' codec: nothing, unless it says otherwise."""
        return Needs()

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

    def rounded(self, state: State, memory: Memory = EMPTY) -> Vector:
        """Return `result` in float32."""
        return self.result(state, memory).astype(np.float32)

    def learn(self, result: NDArray[np.floating[Any]]) -> Memory:  # noqa: ARG002 # for those that learn
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
    """State of `Mean`: exact sums, block by block, and the sum of weights in units of 2^-43.

    8 bytes for each number of the model, and 24 more in blocks whose products differ too much in size.
    """

    blocks: list[Block]
    size: int
    count: int = 0
    total: int = 0

    @classmethod
    def empty(cls, size: int) -> Sums:
        """Return sums of nothing."""
        bins = np.zeros(size, np.uint64)
        return cls([Block(bins[span]) for span in _spans(size)], size)

    @classmethod
    def of(cls, digits: Iterable[NDArray[np.int64]], size: int, count: int, total: int) -> Sums:
        """Return the sums that these are the blocks' digits of."""
        bins = np.zeros(size, np.uint64)
        pairs = zip(_spans(size), digits, strict=True)
        return cls([Block(bins[span], each) for span, each in pairs], size, count, total)

    def spread(self) -> Iterator[tuple[slice, Block]]:
        """Yield each block and its place in the vector."""
        return zip(_spans(self.size), self.blocks, strict=True)


@dataclass(frozen=True, slots=True)
class Mean(Reducer[Sums]):
    """The weighted mean, with the same bits in any order of arrival and any grouping.

    Formula: `sum_i w_i * delta_i / sum_i w_i`, each weight rounded to 24 significant bits (whole numbers of examples up
    to 16 million are exact). Both sums are exact; the quotient is within 2^-50 of the true one, relatively, before it
    is rounded to float32.

    Source: McMahan et al. 2017, algorithm 1, for the mean; Demmel and Nguyen 2013 for the exact sum (see the module).

    Cost: 10 ms for 10 MB, where a plain float64 sum takes 3.4 ms; 8 bytes of memory for each number of the model,
    however many devices report. Where weights are no whole numbers, 14 ms and 24 to 32 bytes.

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
        return Sums.empty(layout.size)

    def check(self, state: Sums, delta: Vector, weight: float) -> None:
        """Raise Refused where a number, the weight, the count or the sum of weights would leave the range."""
        units = weight_units(weight)
        with np.errstate(all="ignore"):
            # if so no number is anywhere near the limit, which one call has shown
            small = np.dot(delta, delta) < MOST_DELTA
        _admit(state, np.zeros(0) if small else _peaks(delta), units)

    def add(self, state: Sums, delta: Vector, weight: float) -> None:
        """Add ``weight * delta``, exactly."""
        peaks, units = _peaks(delta), weight_units(weight)
        _admit(state, peaks, units)
        exact = in_weight(units)
        scratch = np.empty((2, min(_BLOCK, delta.size)))
        for (span, block), peak in zip(state.spread(), peaks.tolist(), strict=True):
            block.add(delta[span], exact, peak * exact, scratch)
        state.count += 1
        state.total += units

    def merge(self, left: Sums, right: Sums) -> Sums:
        """Return the sums of both."""
        count, total = left.count + right.count, left.total + right.total
        _room(count, total)
        pairs = zip(left.blocks, right.blocks, strict=True)
        digits = (carried(mine.digits() + other.digits()) for mine, other in pairs)
        return Sums.of(digits, left.size, count, total)

    def result(self, state: Sums, memory: Memory = EMPTY) -> NDArray[np.float64]:  # noqa: ARG002 # as above
        """Return the mean."""
        return self._put(state, np.empty(state.size))

    def rounded(self, state: Sums, memory: Memory = EMPTY) -> Vector:  # noqa: ARG002 # as above
        """Return the mean in float32, each number rounded as it is made."""
        return self._put(state, np.empty(state.size, np.float32))

    def total(self, state: Sums) -> float:
        """Return the sum of weights, rounded once."""
        return in_weight(state.total)

    def dump(self, state: Sums) -> bytes:
        """Return count (4 bytes), sum of weights (16) and three rows of digits (8 each number), little-endian."""
        rows = np.empty((3, state.size), "<i8")
        for span, block in state.spread():
            rows[:, span] = block.digits()
        return _HEADER.pack(state.count, state.total.to_bytes(16, "little")) + rows.tobytes()

    def load(self, data: bytes, layout: Layout, folder: Path | None = None) -> Sums:  # noqa: ARG002 # as above
        """Return the sums in `data`, where its length is right and its numbers are ones that sums can reach."""
        size = layout.size
        wanted = _HEADER.size + 24 * size
        if len(data) != wanted:
            raise DecodeError(
                f"sums take {len(data)} bytes, {wanted} for {size} numbers: were they for another model?"
            )
        count, units = _HEADER.unpack_from(data)
        total = int.from_bytes(units, "little")
        rows = np.frombuffer(data, "<i8", offset=_HEADER.size).reshape(3, size)
        if not _reachable(rows, count, total):
            raise DecodeError(
                "sums hold counts that no set of updates gives: were they damaged on their way?"
            )
        return Sums.of((rows[:, span].astype(np.int64) for span in _spans(size)), size, count, total)

    def _put(self, state: Sums, mean: NDArray[_Float]) -> NDArray[_Float]:
        """Put the mean into `mean`; raise MisuseError where there is none."""
        if not state.count:
            raise MisuseError(
                "no update was added, so there is no mean: abandon the round instead of finishing it"
            )
        total = self.total(state)
        for span, block in state.spread():
            mean[span] = value(block.digits()) / total
        return mean

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
    starts = np.arange(0, delta.size, _BLOCK)
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


def _spans(size: int) -> Iterator[slice]:
    """Yield each block's place in the vector."""
    return (slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))


def _reachable(rows: NDArray[np.int64], count: int, total: int) -> bool:
    """Tell whether updates within the limits can have given `rows`, so that adding more cannot overflow them."""
    weight = in_weight(total)
    if count >= MOST_UPDATES or weight >= MOST_TOTAL:
        return False
    if not LEAST_WEIGHT * count <= weight <= MOST_WEIGHT * count:
        return False
    first = int(weight * MOST_DELTA / TOP_UNIT) + count
    others = count << (DIGIT - 1)
    return all(_within(row, most) for row, most in zip(rows, (first, others, others), strict=True))


def _within(row: NDArray[np.int64], most: int) -> bool:
    return bool(row.min(initial=0) >= -most and row.max(initial=0) <= most)
