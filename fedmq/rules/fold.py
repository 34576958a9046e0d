"""The state of one round's aggregation: a reducer's state for each lane, and a tally for people."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fedmq.errors import DecodeError
from fedmq.rules.memory import EMPTY, Memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedmq.vectors import Layout

_TALLY: Final = struct.Struct("<II16sd")
_COUNT: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<Q")
_NORM_BITS: Final = 32

MOST_COUNT: Final = 2**43
"""What a guard counts of one update stays below this: a fold's 2^20 updates then fill 63 bits."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a fold knows of its updates beside their sum; all of it independent of order, down to the last bit.

    `changed` counts the updates that a guard changed. `norms` is the sum of the deltas' L2 norms, in whole units of
    2^-32; `longest` is the greatest norm.
    """

    count: int = 0
    changed: int = 0
    norms: int = 0
    longest: float = 0.0

    @classmethod
    def of(cls, length: float, *, changed: bool) -> Tally:
        """Return the tally of one update."""
        return cls(1, int(changed), round(math.ldexp(length, _NORM_BITS)), length)

    def plus(self, other: Tally) -> Tally:
        """Return the tally of both sets of updates."""
        return Tally(
            self.count + other.count,
            self.changed + other.changed,
            self.norms + other.norms,
            max(self.longest, other.longest),
        )

    @property
    def norm_mean(self) -> float:
        """Mean of the deltas' norms."""
        return math.ldexp(self.norms / self.count, -_NORM_BITS)


@dataclass(slots=True, eq=False)
class Fold:
    """A round's updates so far. `Rule.absorb` changes it in place; it takes one caller at a time.

    `lanes` holds one state of the rule's reducer for each of its weigher's lanes (rules made of rules keep theirs
    there), `memory` what the rule remembered when the round began, `counts` what each guard counted.
    """

    layout: Layout
    lanes: tuple[Any, ...]
    memory: Memory = field(default_factory=lambda: EMPTY)
    tally: Tally = field(default_factory=Tally)
    counts: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many updates it holds."""
        return self.tally.count


def pack(tag: bytes, tally: Tally, counts: Sequence[int], lanes: Sequence[bytes]) -> bytes:
    """Return one body: eight bytes of `tag`, the tally, the counts and each lane after its length. Little-endian."""
    head = tag + _TALLY.pack(tally.count, tally.changed, tally.norms.to_bytes(16, "little"), tally.longest)
    counted = b"".join(_COUNT.pack(count) for count in counts)
    return head + counted + b"".join(_LENGTH.pack(len(lane)) + lane for lane in lanes)


def unpack(tag: bytes, data: bytes, counts: int) -> tuple[Tally, tuple[int, ...], list[bytes]]:
    """Return what `pack` put into `data`, which has `counts` counts.

    Raises DecodeError where it was for another tag, or is damaged.
    """
    if data[: len(tag)] != tag:
        raise DecodeError(
            "fold was made by another rule or for another model: give both sides the same of each"
        )
    start = len(tag) + _TALLY.size + counts * _COUNT.size
    if len(data) < start:
        raise DecodeError(f"fold ends after {len(data)} bytes, within its tally: was it cut on its way?")
    count, changed, norms, longest = _TALLY.unpack_from(data, len(tag))
    tally = Tally(count, changed, int.from_bytes(norms, "little"), longest)
    if not (changed <= count and 0.0 <= longest < math.inf):
        raise DecodeError(
            f"fold holds a tally that no set of updates gives ({tally}): was it damaged on its way?"
        )
    counted = tuple(count for (count,) in _COUNT.iter_unpack(data[len(tag) + _TALLY.size : start]))
    if any(each > count * MOST_COUNT for each in counted):
        raise DecodeError(f"fold has guards that counted {counted} of {count} updates: was it damaged?")
    return tally, counted, list(_lanes(data, start))


def _lanes(data: bytes, start: int) -> Iterator[bytes]:
    while start < len(data):
        if start + _LENGTH.size > len(data):
            raise DecodeError("fold ends within the length of a lane: was it cut on its way?")
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        if length > len(data) - start:
            raise DecodeError(
                f"fold has a lane of {length} bytes, {len(data) - start} are left: was it cut on its way?"
            )
        yield data[start : start + length]
        start += length
