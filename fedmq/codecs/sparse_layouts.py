"""Layouts for vectors that are mostly zero: where the others stand, and what they are."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmq.codecs.bits import BitReader, fields, pack, read_rice, write_rice
from fedmq.codecs.planes import from_planes, to_planes
from fedmq.errors import DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmq.codecs.bits import Bits, Counts
    from fedmq.codecs.stages import Alphabet, Sizes, Symbols


@dataclass(frozen=True, slots=True)
class Bitmap:
    """One bit per coordinate, set where the symbol is not zero, and then those symbols.

    Leave the bits to an entropy coder: where the same places are set again and again it takes fewer bytes than `gaps`.
    """

    name: ClassVar[str] = "bitmap"
    examples: ClassVar[tuple[str, ...]] = ("bitmap",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True for symbols of which one is zero."""
        return _has_zero(alphabet)

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return what a vector without any zero may take."""
        return _bytes(sum(sizes)) + _most_value_bytes(sum(sizes), alphabet)

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return the bits, then the symbols that are not zero."""
        present = patterns(symbols) != 0
        bits = np.packbits(present, bitorder="little").tobytes()
        return bits + _write_values(symbols[present], alphabet, [])

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless there is one for every bit that is set."""
        size, reader = sum(sizes), BitReader(body)
        present = np.flatnonzero(reader.bits(size))
        reader = BitReader(reader.rest())
        return _spread(size, present, _read_values(reader, present.size, alphabet), alphabet)


@dataclass(frozen=True, slots=True)
class Gaps:
    """The runs of zeros between symbols, as a Rice code, and then the symbols that are not zero.

    It takes about as many bytes as there are by chance, and fewer where the vector is fuller in some places than in
    others; an entropy coder finds nothing more.
    """

    name: ClassVar[str] = "gaps"
    examples: ClassVar[tuple[str, ...]] = ("gaps",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True for symbols of which one is zero."""
        return _has_zero(alphabet)

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return what the fullest vector may take."""
        return _bytes(_most_set_bits(sum(sizes))) + _most_value_bytes(sum(sizes), alphabet)

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return the places of the symbols that are not zero, then the symbols."""
        places = np.flatnonzero(patterns(symbols))
        return _write_values(symbols[places], alphabet, _write_set(places, symbols.size))

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless `body` is one set of places and a symbol for each."""
        size, reader = sum(sizes), BitReader(body)
        places = _read_set(reader, size)
        return _spread(size, places, _read_values(reader, places.size, alphabet), alphabet)


def patterns(symbols: Symbols) -> NDArray[np.unsignedinteger]:
    """Return the symbols' bits as whole numbers: minus zero is none of the zeros that are left out."""
    return symbols.view(f"<u{symbols.itemsize}")


def _has_zero(alphabet: Alphabet) -> bool:
    return alphabet.low is None or _is_signed(alphabet)


def _is_signed(alphabet: Alphabet) -> bool:
    """Tell whether symbols are counted in steps on both sides of zero."""
    return alphabet.low is not None and alphabet.high is not None and alphabet.low == -alphabet.high


def _spread(size: int, places: NDArray[np.intp], values: Symbols, alphabet: Alphabet) -> Symbols:
    symbols = np.zeros(size, dtype=alphabet.dtype)
    symbols[places] = values
    return symbols


# Sets of places, as their number and the gaps before each.


def _write_set(places: Counts, size: int) -> list[Bits]:
    count = fields(np.array([places.size]), size.bit_length())
    return [count, *write_rice(np.diff(places, prepend=-1) - 1)]


def _read_set(reader: BitReader, size: int) -> Counts:
    count = int(reader.numbers(1, size.bit_length())[0])
    if count > size:
        raise DecodeError(f"data has {count} symbols, the model has {size} numbers: was it for another?")
    places = np.cumsum(read_rice(reader, count, size - count) + 1) - 1
    if count and places[-1] >= size:
        raise DecodeError(f"data puts a symbol at {places[-1]}, the model has {size}: was it for another?")
    return places


def _most_set_bits(size: int) -> int:
    """Bound what a set may take: its count, and Rice codes in the shortest segments with k = 0, which are there."""
    return size.bit_length() + 4 + 4 * -(-size // 16) + size


# The symbols that are not zero.


def _write_values(values: Symbols, alphabet: Alphabet, before: list[Bits]) -> bytes:
    """Return the bits `before` and the symbols: signs, which are above one step, by how many; or planes."""
    if not _is_signed(alphabet):
        return pack([*before, _NO_BITS]) + to_planes(values)
    pieces = [*before, (values < 0).view(np.uint8)]
    if alphabet.high != 1:
        steps = np.abs(values.astype(np.int64))
        larger = np.flatnonzero(steps > 1)
        pieces += [*_write_set(larger, steps.size), *write_rice(steps[larger] - 2)]
    return pack(pieces)


def _read_values(reader: BitReader, count: int, alphabet: Alphabet) -> Symbols:
    """Return `count` symbols that are not zero; raises DecodeError unless they are all that is left."""
    if not _is_signed(alphabet):
        return _read_planes(reader.rest(), count, alphabet)
    signs = reader.bits(count).astype(np.int64)
    steps = np.ones(count, dtype=np.int64)
    if alphabet.high != 1:
        larger = _read_set(reader, count)
        steps[larger] += 1 + read_rice(reader, larger.size, larger.size * (alphabet.high or 0))
    if rest := reader.rest():
        raise DecodeError(
            f"data goes on for {len(rest)} bytes after its last symbol: was it for another model?"
        )
    if np.any(steps > (alphabet.high or 0)):
        raise DecodeError(
            f"data holds a symbol beyond {alphabet.high}, which no encoder makes: was it damaged?"
        )
    return np.where(signs, -steps, steps).astype(alphabet.dtype)


def _read_planes(data: bytes, count: int, alphabet: Alphabet) -> Symbols:
    if len(data) != count * alphabet.width:
        raise DecodeError(
            f"data holds {len(data)} bytes of symbols, {count * alphabet.width} must follow: was it damaged?"
        )
    values = from_planes(data, alphabet.dtype)
    if not patterns(values).all():
        raise DecodeError("data holds a zero among the symbols that are not: was it damaged?")
    return values


def _most_value_bytes(count: int, alphabet: Alphabet) -> int:
    if not _is_signed(alphabet):
        return count * alphabet.width + 1
    largest = alphabet.high or 0
    return _bytes(
        count + _most_set_bits(count) + 4 + 4 * -(-count // 16) + count * (largest.bit_length() + 1)
    )


def _bytes(bits: int) -> int:
    return -(-bits // 8)


_NO_BITS = np.zeros(0, dtype=np.uint8)
