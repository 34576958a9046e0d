"""A fold that keeps every row: the state and the base class of all reducers that need them all.

Results are the same to the bit in any order of arrival and any grouping, for a reason other than the mean's: before
anything is computed, rows are put into one order, that of their weights, of some of their numbers, and where these
agree, of their digests (SHA-256 over a row's weight and its numbers). Rows with the same digest are the same, so it
does not matter which of them comes first.
"""

from __future__ import annotations

import hashlib
import io
import struct
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError, MisuseError, Refused
from fedmq.rules.memory import EMPTY, Memory
from fedmq.rules.needs import COMPARES, ErrorSize, Needs
from fedmq.rules.reduce import Reducer, in_weight, require_range, weight_units
from fedmq.rules.robust.spool import Spool
from fedmq.rules.robust.threads import share_out
from fedmq.rules.robust.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedmq.vectors import Layout, Vector

MOST_ROWS = 4096
"""A fold of rows takes no more than this: distances between all pairs are then 134 MB."""

_MOST_SPOOLS: Final = 8
"""A merged fold reads from no more files than this; with more, their rows are copied into one of its own."""

_CHUNK: Final = 2**16
"""Numbers that are hashed at a time: 256 KiB, which stay in a core's second-level cache."""

_GLANCES: Final = 8
"""Places, evenly apart, at which a row is looked at to tell it from others."""

_GLANCE: Final = 32
"""Numbers that are read at each: enough of all together that sparse rows differ in some."""

_HEADER: Final = struct.Struct("<I32s")
_WEIGHT: Final = struct.Struct("<f")


@dataclass(slots=True, eq=False)
class Row:
    """One update: its weight in units of 2^-43, where it is, and its digest once that was needed."""

    units: int
    spool: Spool
    place: int
    digest: bytes = b""


@dataclass(slots=True, eq=False)
class Rows:
    """State of every reducer that needs all updates: 4 bytes on disk for each number of each, next to none in memory.

    `spool` takes what this fold adds; a merged fold's `rows` may be in others', to which it only reads.
    """

    layout: Layout
    folder: Path | None
    spool: Spool
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def empty(cls, layout: Layout, folder: Path | None) -> Rows:
        """Return a fold of no rows, whose file is made with the first."""
        return cls(layout, folder, Spool(layout.size, folder))

    def append(self, delta: Vector, units: int) -> None:
        """Take one row; raise StoreError, with the state as it was, where the disk will not."""
        self.rows.append(Row(units, self.spool, self.spool.append(delta)))

    def settle(self) -> None:
        """Compute the digests that are missing, from what the spool holds."""
        self._settle_all(self.rows)

    def ordered(self) -> list[Row]:
        """Return the rows in the order of their digests."""
        self.settle()
        return sorted(self.rows, key=attrgetter("digest"))

    def arranged(self) -> list[Row]:
        """Return the rows in an order of theirs that takes no digests, but of those that look the same."""
        looks = [(row.units, self._glance(row)) for row in self.rows]
        often = Counter(looks)
        twins = [row for row, look in zip(self.rows, looks, strict=True) if often[look] > 1]
        self._settle_all(twins)
        keyed = sorted(zip(looks, self.rows, strict=True), key=lambda pair: (pair[0], pair[1].digest))
        return [row for _, row in keyed]

    def view(self, *, in_any_order: bool = False) -> View:
        """Return the rows as a reducer reads them; later changes of this state do not show in it.

        They are left as they came where `in_any_order` says so.
        """
        rows = list(self.rows) if in_any_order else self.arranged()
        weights = np.array([in_weight(row.units) for row in rows], np.float64)
        taken = replace(self, rows=rows)
        return View(self.layout, weights, [(row.spool, row.place) for row in rows], taken.seed)

    def seed(self) -> int:
        """Return a number drawn from all bytes of all rows."""
        return int.from_bytes(_seal(self.ordered())[:16], "little")

    def joined(self, other: Rows) -> Rows:
        """Return the fold of both, which reads where they wrote, or has copies where those are many files."""
        both = Rows.empty(self.layout, self.folder)
        both.rows += self.rows + other.rows
        if len({id(row.spool) for row in both.rows}) > _MOST_SPOOLS:
            both.rows = [both.copied(row) for row in both.rows]
        return both

    def copied(self, row: Row) -> Row:
        """Return `row` as it is found in this fold's own spool."""
        return replace(row, spool=self.spool, place=self.spool.append(self.numbers(row)))

    def numbers(self, row: Row) -> Vector:
        """Read one row."""
        vector = np.empty(self.layout.size, np.float32)
        row.spool.read(row.place, slice(0, vector.size), vector)
        return vector

    def _glance(self, row: Row) -> bytes:
        """Return some of a row's numbers: those which follow `_GLANCES` places."""
        step = max(_GLANCE, -(-self.layout.size // _GLANCES))
        starts = range(0, self.layout.size, step)
        seen = np.zeros((len(starts), _GLANCE), np.float32)
        for start, numbers in zip(starts, seen, strict=True):
            stop = min(start + _GLANCE, self.layout.size)
            row.spool.read(row.place, slice(start, stop), numbers[: stop - start])
        return _bytes(seen)

    def _settle_all(self, rows: Sequence[Row]) -> None:
        missing = [row for row in rows if not row.digest]
        share_out(self._settle, missing, len(missing) * self.layout.size)

    def _settle(self, rows: Sequence[Row]) -> None:
        buffer = np.empty(min(_CHUNK, self.layout.size), np.float32)
        for row in rows:
            digest = hashlib.sha256(_WEIGHT.pack(in_weight(row.units)))
            for start in range(0, self.layout.size, _CHUNK):
                chunk = buffer[: min(_CHUNK, self.layout.size - start)]
                row.spool.read(row.place, slice(start, start + chunk.size), chunk)
                digest.update(chunk.astype("<f4", copy=False).view(np.uint8).data)
            row.digest = digest.digest()


@dataclass(frozen=True, slots=True)
class FromRows(Reducer[Rows]):
    """A reducer that needs every row; a subclass says in `combine` what it makes of them.

    What is computed hangs on the view alone, so `combine` need not care about order, parts or restarts.
    """

    @property
    def in_any_order(self) -> bool:
        """Whether `combine` gives the same bits for rows in any order, so that they need not be put in one."""
        return False

    @property
    def bears(self) -> ErrorSize:
        """The largest error of single updates under which it still does what it is for, as far as was measured."""
        return "small"

    @property
    def needs(self) -> Needs:
        """Errors no larger than it bears: see the reason."""
        return Needs(self.bears, str(self), COMPARES)

    @abstractmethod
    def combine(self, view: View, memory: Memory) -> NDArray[np.float64]:
        """Return the rows made one, float64 of the layout's length; `view` has at least one."""

    def zero(self, layout: Layout, folder: Path | None = None) -> Rows:
        """Return a fold of no rows; those to come are kept in `folder`."""
        return Rows.empty(layout, folder)

    def check(self, state: Rows, delta: Vector, weight: float) -> None:
        """Raise Refused where a number or the weight is out of range, or the fold is full."""
        require_range(_peak(delta))
        weight_units(weight)
        _room(len(state.rows) + 1)

    def add(self, state: Rows, delta: Vector, weight: float) -> None:
        """Put one row aside; raise StoreError, with the state as it was, where the disk will not."""
        self.check(state, delta, weight)
        state.append(delta, weight_units(weight))

    def merge(self, left: Rows, right: Rows) -> Rows:
        """Return the fold of both; raise Refused where it would hold too many rows."""
        _room(len(left.rows) + len(right.rows))
        return left.joined(right)

    def result(self, state: Rows, memory: Memory = EMPTY) -> NDArray[np.float64]:
        """Return the rows made one; raise MisuseError where there are none."""
        if not state.rows:
            raise MisuseError(
                f"no update was added, so there is no {self}: abandon the round instead of finishing it"
            )
        return self.combine(state.view(in_any_order=self.in_any_order), memory)

    def total(self, state: Rows) -> float:
        """Return the sum of weights, rounded once."""
        return in_weight(sum(row.units for row in state.rows))

    def dump(self, state: Rows) -> bytes:
        """Return count (4 bytes), seal (32), and each row in canonical order: weight (4), numbers (4 each).

        The seal is SHA-256 over the rows' digests. All little-endian.
        """
        ordered = state.ordered()
        data = io.BytesIO()
        data.write(_HEADER.pack(len(ordered), _seal(ordered)))
        for row in ordered:
            data.write(_WEIGHT.pack(in_weight(row.units)))
            data.write(_bytes(state.numbers(row)))
        return data.getvalue()

    def load(self, data: bytes, layout: Layout, folder: Path | None = None) -> Rows:
        """Return the fold in `data`; raise DecodeError where a length, a number, a weight or the seal is not right."""
        count, seal = _head(data, layout)
        state = self.zero(layout, folder)
        try:
            for start in range(_HEADER.size, len(data), _WEIGHT.size + 4 * layout.size):
                (weight,) = _WEIGHT.unpack_from(data, start)
                numbers = np.frombuffer(data, "<f4", layout.size, start + _WEIGHT.size)
                self.add(state, numbers.astype(np.float32, copy=False), weight)
        except Refused as refusal:
            raise DecodeError(f"rows hold what no fold takes: {refusal}") from refusal
        state.settle()
        if len(state.rows) != count or _seal(state.rows) != seal:
            raise DecodeError("rows do not match their seal: were they damaged on their way?")
        return state


def _head(data: bytes, layout: Layout) -> tuple[int, bytes]:
    """Return count and seal of a dump whose length is right for them."""
    if len(data) < _HEADER.size:
        raise DecodeError(
            f"rows end after {len(data)} bytes, within their header: were they cut on their way?"
        )
    head: tuple[int, bytes] = _HEADER.unpack_from(data)
    wanted = _HEADER.size + head[0] * (_WEIGHT.size + 4 * layout.size)
    if len(data) != wanted:
        raise DecodeError(
            f"{head[0]} rows of {layout.size} numbers take {wanted} bytes, here are {len(data)}: "
            "were they for another model?"
        )
    return head


def _room(count: int) -> None:
    if count > MOST_ROWS:
        raise Refused(
            f"fold would hold {count} rows, it has room for {MOST_ROWS}: "
            "finish the round, or let fewer devices take part"
        )


def _peak(delta: Vector) -> float:
    """Return the greatest magnitude, NaN where there is one."""
    return float(max(delta.max(initial=0.0), -delta.min(initial=0.0)))


def _bytes(vector: NDArray[np.floating[Any]]) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def _seal(rows: list[Row]) -> bytes:
    return hashlib.sha256(b"".join(row.digest for row in rows)).digest()
