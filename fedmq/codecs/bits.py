"""Bits in a row, whole arrays of them at a time: how sparse layouts write what does not fill bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedmq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

Bits: TypeAlias = NDArray[np.uint8]
"""One bit per element, 0 or 1."""

Counts: TypeAlias = NDArray[np.int64]
"""Whole numbers that are not negative."""

SEGMENT: Final = 16
"""Fewest numbers that share one Rice parameter; a stream may take this many times a power of two."""

_FORM_BITS: Final = 4
_PARAMETER_BITS: Final = 4
PARAMETERS: Final = 1 << _PARAMETER_BITS
"""Rice parameters are smaller than this."""


def fields(numbers: Counts, width: int) -> Bits:
    """Return each number in `width` bits, the least significant first."""
    bits = np.empty((numbers.size, width), dtype=np.uint8)
    for place in range(width):
        bits[:, place] = numbers >> place & 1
    return bits.ravel()


def pack(pieces: Sequence[Bits]) -> bytes:
    """Return the pieces' bits in order, eight to a byte, the first one least significant; the rest is zero."""
    return np.packbits(np.concatenate(pieces), bitorder="little").tobytes()


@dataclass(slots=True)
class BitReader:
    """Reads what `pack` has written, never further than its end."""

    data: bytes
    place: int = field(default=0)

    def bits(self, count: int) -> Bits:
        """Return the next `count` bits; raises DecodeError when there are fewer."""
        if count > self.left:
            raise DecodeError(f"data has {self.left} bits where {count} must follow: was it cut?")
        taken = self._look(count)
        self.place += count
        return taken

    def numbers(self, count: int, width: int) -> Counts:
        """Return the next `count` numbers of `width` bits each, written by `fields`."""
        rows = self.bits(count * width).reshape(count, width)
        numbers = np.zeros(count, dtype=np.int64)
        for place in range(width):
            numbers |= rows[:, place].astype(np.int64) << place
        return numbers

    def unary(self, count: int, most: int) -> Counts:
        """Return the next `count` numbers, each as many zeros and a one; raises DecodeError when they pass `most`.

        `most` is that of their sum: no more bits than `count` and `most` are looked at.
        """
        ends = np.flatnonzero(self._look(min(count + most, self.left)))[:count]
        if ends.size < count:
            raise DecodeError(
                f"data ends or strays within {count} runs: was it damaged, or for another model?"
            )
        if count:
            self.place += int(ends[-1]) + 1
        return np.diff(ends, prepend=-1) - 1

    def rest(self) -> bytes:
        """Return the bytes after the current one, the last bits of which must be zero (DecodeError)."""
        filling = self.bits(-self.place % 8)
        if filling.any():
            raise DecodeError("data has bits set where an encoder leaves zeros: was it damaged?")
        return self.data[self.place // 8 :]

    @property
    def left(self) -> int:
        """Bits that are left."""
        return 8 * len(self.data) - self.place

    def _look(self, count: int) -> Bits:
        start, offset = divmod(self.place, 8)
        window = np.frombuffer(self.data, np.uint8)[start : start + (offset + count + 7) // 8]
        return np.unpackbits(window, bitorder="little")[offset : offset + count]


def write_rice(numbers: Counts) -> list[Bits]:
    """Return `numbers` as a Rice code whose parameter follows them, in the fewest bits over lengths of segments.

    Rice and Plaunt 1971, "Adaptive Variable-Length Coding for Efficient Compression of Spacecraft Television Data".
    A number v is its quotient v >> k in unary and its k lowest bits. All parameters come first, then all quotients,
    then the low bits, those of numbers with k = 1 first, then k = 2 and so on: so whole arrays are read at once.
    """
    if not numbers.size:
        return []
    form, parameters = _cheapest(numbers)
    each = parameters[np.arange(numbers.size) // (SEGMENT << form)]
    low = [fields(numbers[each == k], k) for k in _used(parameters)]
    head = fields(np.array([form]), _FORM_BITS)
    return [head, fields(parameters, _PARAMETER_BITS), _unary(numbers >> each), *low]


def read_rice(reader: BitReader, count: int, most: int) -> Counts:
    """Return `count` numbers that `write_rice` has written; raises DecodeError when their sum may pass `most`."""
    if not count:
        return np.zeros(0, dtype=np.int64)
    segment = SEGMENT << int(reader.numbers(1, _FORM_BITS)[0])
    parameters = reader.numbers(-(-count // segment), _PARAMETER_BITS)
    each = parameters[np.arange(count) // segment]
    numbers = reader.unary(count, most) << each
    for k in _used(parameters):
        chosen = each == k
        numbers[chosen] |= reader.numbers(int(np.count_nonzero(chosen)), k)
    return numbers


def _used(parameters: Counts) -> list[int]:
    """Return the parameters that leave low bits, in order, each once."""
    return [int(k) for k in np.unique(parameters) if k]


def _unary(quotients: Counts) -> Bits:
    ends = np.cumsum(quotients + 1)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    bits[ends - 1] = 1
    return bits


def _cheapest(numbers: Counts) -> tuple[int, Counts]:
    """Return the logarithm of the best segment's length, in `SEGMENT`s, and each segment's best parameter."""
    starts = np.arange(0, numbers.size, SEGMENT)
    lengths = np.diff(starts, append=numbers.size)
    costs = np.array([np.add.reduceat(numbers >> k, starts) + lengths * (k + 1) for k in range(PARAMETERS)])
    choices = [_choice(costs)]
    while costs.shape[1] > 1 and len(choices) < 1 << _FORM_BITS:
        costs = np.add.reduceat(costs, np.arange(0, costs.shape[1], 2), axis=1)
        choices.append(_choice(costs))
    form = min(range(len(choices)), key=lambda form: choices[form][0])
    return form, choices[form][1]


def _choice(costs: Counts) -> tuple[int, Counts]:
    """Return the bits that segments take, and their best parameters; `costs` has a row per parameter."""
    return int(costs.min(axis=0).sum()) + _PARAMETER_BITS * costs.shape[1], costs.argmin(axis=0)
