"""Layouts: in which order the bytes or bits of symbols stand."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.codecs.many import ManyLayout
from fedmq.codecs.planes import from_planes, to_planes
from fedmq.codecs.sparse_layouts import Bitmap, Gaps
from fedmq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fedmq.codecs.stages import Alphabet, Sizes, SymbolLayout, Symbols


@dataclass(frozen=True, slots=True)
class Dense:
    """One symbol after the other, little-endian."""

    name: ClassVar[str] = "dense"
    examples: ClassVar[tuple[str, ...]] = ("dense",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True: it takes all symbols."""
        return True

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return one width per coordinate, which is also the least."""
        return sum(sizes) * alphabet.width

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return the symbols' bytes in order."""
        return symbols.tobytes()

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless there is one per coordinate."""
        _check_length(body, self.most_bytes(sizes, alphabet))
        return np.frombuffer(body, dtype=alphabet.dtype)


@dataclass(frozen=True, slots=True)
class Planes:
    """The first bytes of all symbols, then all second bytes, and so on: exponents and zeros come to stand together."""

    name: ClassVar[str] = "planes"
    examples: ClassVar[tuple[str, ...]] = ("planes",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True for symbols of several bytes; one byte has one plane, which is `dense`."""
        return alphabet.width > 1

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return one width per coordinate, which is also the least."""
        return sum(sizes) * alphabet.width

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return plane after plane, the least significant bytes first."""
        return to_planes(symbols)

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless every plane has one byte per coordinate."""
        _check_length(body, self.most_bytes(sizes, alphabet))
        return from_planes(body, alphabet.dtype)


@dataclass(frozen=True, slots=True)
class Packed(ManyLayout):
    """As many bits per symbol as tell them apart, symbol after symbol, least significant bits first.

    The bits left in the last byte are zero.
    """

    name: ClassVar[str] = "packed"
    examples: ClassVar[tuple[str, ...]] = ("packed",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True for symbols that leave some of their bytes' bits unused."""
        return alphabet.bits < 8 * alphabet.width

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return the bytes that all bits fill, which is also the least."""
        return -(-sum(sizes) * alphabet.bits // 8)

    def encode_all(self, symbols: Sequence[Symbols], sizes: Sizes, alphabet: Alphabet) -> Sequence[bytes]:
        """Return the symbols' distances from the lowest one, in few bits each."""
        lowest = _lowest(alphabet)
        codes: NDArray[np.uint16] = np.stack(symbols).view(lowest.dtype) - lowest
        bits = np.empty((*codes.shape, alphabet.bits), dtype=np.uint8)
        for place in range(alphabet.bits):  # 2 to 27 times as fast as NumPy's unpackbits along the short axis
            bits[..., place] = codes >> place & 1
        rows = np.packbits(bits.reshape(len(codes), -1), axis=1, bitorder="little")
        return [row.tobytes() for row in rows]

    def decode_all(self, bodies: Sequence[bytes], sizes: Sizes, alphabet: Alphabet) -> Sequence[Symbols]:
        """Return the symbols; raises DecodeError unless there is one per coordinate, and zeros after the last."""
        for body in bodies:
            _check_length(body, self.most_bytes(sizes, alphabet))
        rows = np.frombuffer(b"".join(bodies), dtype=np.uint8).reshape(len(bodies), -1)
        bits, used = np.unpackbits(rows, axis=1, bitorder="little"), sum(sizes) * alphabet.bits
        if bits[:, used:].any():
            raise DecodeError(
                "data has bits behind its last symbol, where an encoder leaves zeros: was it damaged?"
            )
        lowest = _lowest(alphabet)
        codes: NDArray[np.uint16] = np.zeros((len(bodies), sum(sizes)), dtype=lowest.dtype)
        each = bits[:, :used].reshape(*codes.shape, alphabet.bits)
        for place in range(alphabet.bits):
            codes |= each[..., place].astype(lowest.dtype) << place
        return list((codes + lowest).view(alphabet.dtype))


@dataclass(frozen=True, slots=True)
class Auto:
    """Whatever is smallest for this vector: the usual layout, `bitmap` or `gaps`; one byte says which."""

    name: ClassVar[str] = "auto"
    examples: ClassVar[tuple[str, ...]] = ("auto",)

    def accepts(self, alphabet: Alphabet) -> bool:
        """Return True for symbols of which one is zero."""
        return Gaps().accepts(alphabet)

    def most_bytes(self, sizes: Sizes, alphabet: Alphabet) -> int:
        """Return what the largest of them may take, and a byte."""
        return 1 + max(layout.most_bytes(sizes, alphabet) for layout in _choices(alphabet))

    def encode(self, symbols: Symbols, sizes: Sizes, alphabet: Alphabet) -> bytes:
        """Return the number of the smallest layout, of equal ones the first, and what it makes."""
        bodies = [layout.encode(symbols, sizes, alphabet) for layout in _choices(alphabet)]
        method = min(range(len(bodies)), key=lambda choice: len(bodies[choice]))
        return bytes([method]) + bodies[method]

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError for an unknown number, and as the layout does."""
        choices = _choices(alphabet)
        if not body or body[0] >= len(choices):
            raise DecodeError(
                f"data does not begin with a layout's number below {len(choices)}: was it damaged?"
            )
        return choices[body[0]].decode(body[1:], sizes, alphabet)


def _choices(alphabet: Alphabet) -> tuple[SymbolLayout, ...]:
    """Return the layouts that `auto` chooses from, by number."""
    return usual_layout(alphabet), Bitmap(), Gaps()


def usual_layout(alphabet: Alphabet) -> SymbolLayout:
    """Return the layout of a line that names none."""
    return Packed() if Packed().accepts(alphabet) else Dense()


def _lowest(alphabet: Alphabet) -> NDArray[np.uint16]:
    """Return the lowest symbol as an unsigned number of its width, with which differences and sums may wrap."""
    return np.array([alphabet.low or 0], dtype=alphabet.dtype).view(f"<u{alphabet.width}")


def _check_length(body: bytes, wanted: int) -> None:
    if len(body) != wanted:
        raise DecodeError(
            f"data holds {len(body)} bytes of symbols, the model has {wanted}: was it for another?"
        )


LAYOUTS: Final[dict[str, type[SymbolLayout]]] = {
    stage.name: stage for stage in (Dense, Planes, Packed, Bitmap, Gaps, Auto)
}
"""Every layout by name."""
