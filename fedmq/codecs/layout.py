"""Layouts: in which order the symbols' bytes stand, so that an entropy coder finds the pattern in them."""
# ruff: noqa: ARG002 - a stage takes the arguments that its family's protocol names, needed or not

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.errors import DecodeError

if TYPE_CHECKING:
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

    def encode(self, symbols: Symbols, sizes: Sizes) -> bytes:
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

    def encode(self, symbols: Symbols, sizes: Sizes) -> bytes:
        """Return plane after plane, the least significant bytes first."""
        return symbols.view(np.uint8).reshape(symbols.size, symbols.itemsize).T.tobytes()

    def decode(self, body: bytes, sizes: Sizes, alphabet: Alphabet) -> Symbols:
        """Return the symbols; raises DecodeError unless every plane has one byte per coordinate."""
        _check_length(body, self.most_bytes(sizes, alphabet))
        planes = np.frombuffer(body, dtype=np.uint8).reshape(alphabet.width, sum(sizes))
        symbols = np.empty((sum(sizes), alphabet.width), dtype=np.uint8)
        for place, plane in zip(symbols.T, planes, strict=True):  # five times as fast as a transposed copy
            place[:] = plane
        return symbols.view(alphabet.dtype)[:, 0]


def _check_length(body: bytes, wanted: int) -> None:
    if len(body) != wanted:
        raise DecodeError(
            f"data holds {len(body)} bytes of symbols, the model has {wanted}: was it for another?"
        )


LAYOUTS: Final[dict[str, type[SymbolLayout]]] = {stage.name: stage for stage in (Dense, Planes)}
"""Every layout by name."""
