"""Entropy coders: bytes to fewer bytes, with the standard library's compressors.

The streams are raw, without a container's header and checksum: the length is known from the model, and the transport
below keeps the bits. Decoders stop at the length that the model allows, whatever the stream claims.
"""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from fedmq.codecs.zstd import Zstd
from fedmq.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from fedmq.codecs.stages import EntropyCoder

_WINDOW: Final = -15  # zlib's spelling of a raw deflate stream with a window of 32 KiB
_STORE: Final = 0
_MOST_LEVEL: Final = 9

_PIECE: Final = 1 << 14
"""Bytes that are looked at together before they are coded; a block of zlib's has as many symbols."""
_EVERY: Final = 5
"""One in so many bytes is looked at: each byte of a symbol's four in its turn."""
_FEWEST: Final = 1 << 9
_EVEN: Final = 1.25
"""How much likelier than in noise two bytes may be the same where coding them is not worth the time: such bytes have
at least 7.7 bits each."""

DICTIONARY: Final = 1 << 16
"""Largest LZMA2 dictionary, in bytes. Quantised weights have no far repeats: 64 KiB came within 0.2 % of a dictionary
as long as the data, and it bounds a device's memory at about 1 MB."""

_LEAST_DICTIONARY: Final = 1 << 12  # liblzma takes none smaller


@dataclass(frozen=True, slots=True)
class Plain:
    """The bytes as they are."""

    name: ClassVar[str] = "none"
    examples: ClassVar[tuple[str, ...]] = ("none",)

    def most_bytes(self, most: int) -> int:
        """Return `most`."""
        return most

    def encode(self, body: bytes) -> bytes:
        """Return `body`."""
        return body

    def decode(self, data: bytes, most: int) -> bytes:
        """Return `data`; the layout checks its length."""
        return _within(data, most)


@dataclass(frozen=True, slots=True)
class Huffman:
    """Runs and Huffman codes, as a raw deflate stream (RFC 1951) whose only matches are runs of one byte.

    Trained weights repeat zeros and nothing else, so a full search for matches finds little more in ten times the time.
    The encoder stores what would hardly shrink, such as the last bits of a float's significand: half of its time went
    there.
    """

    name: ClassVar[str] = "huffman"
    examples: ClassVar[tuple[str, ...]] = ("huffman",)

    def most_bytes(self, most: int) -> int:
        """Return what a deflate stream may take."""
        return _slack(most)

    def encode(self, body: bytes) -> bytes:
        """Return a raw deflate stream."""
        runs = _runs(body)
        return b"".join(
            _deflate(run, level, zlib.Z_RLE, last=number == len(runs))
            for number, (level, run) in enumerate(runs, start=1)
        )

    def decode(self, data: bytes, most: int) -> bytes:
        """Return the body; raises DecodeError unless it is one whole stream of at most `most` bytes."""
        return _inflate(data, most)


@dataclass(frozen=True, slots=True)
class Zlib:
    """A raw deflate stream (RFC 1951) with matches; `level` from 1 (fast) to 9 (small)."""

    name: ClassVar[str] = "zlib"
    examples: ClassVar[tuple[str, ...]] = ("zlib", "zlib(1)", "zlib(9)")

    level: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.level <= _MOST_LEVEL:
            raise ConfigError(f"zlib has no level {self.level}: choose one from 1 (fast) to 9 (small)")

    def most_bytes(self, most: int) -> int:
        """Return what a deflate stream may take."""
        return _slack(most)

    def encode(self, body: bytes) -> bytes:
        """Return a raw deflate stream."""
        return _deflate(body, self.level, zlib.Z_DEFAULT_STRATEGY)

    def decode(self, data: bytes, most: int) -> bytes:
        """Return the body; raises DecodeError unless it is one whole stream of at most `most` bytes."""
        return _inflate(data, most)


@dataclass(frozen=True, slots=True)
class Lzma:
    """Raw LZMA2 with lc = lp = pb = 0: an adaptive binary range coder without context for what weights do not have.

    The smallest of the coders here, and the slowest.
    """

    name: ClassVar[str] = "lzma"
    examples: ClassVar[tuple[str, ...]] = ("lzma",)

    def most_bytes(self, most: int) -> int:
        """Return what an LZMA2 stream may take."""
        return _slack(most)

    def encode(self, body: bytes) -> bytes:
        """Return a raw LZMA2 stream."""
        return lzma.compress(body, format=lzma.FORMAT_RAW, filters=_filters(len(body)))

    def decode(self, data: bytes, most: int) -> bytes:
        """Return the body; raises DecodeError unless it is one whole stream of at most `most` bytes."""
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_filters(most))
        try:
            body = stream.decompress(data, max_length=most + 1)
        except lzma.LZMAError as error:
            raise DecodeError(f"data is no LZMA2 stream ({error}): was it damaged?") from error
        return _whole(body, most, ended=stream.eof, rest=stream.unused_data)


def _filters(length: int) -> list[dict[str, Any]]:
    """Return liblzma's filter chain for a body of at most `length` bytes; all but the dictionary is the encoder's."""
    dictionary = min(max(length, _LEAST_DICTIONARY), DICTIONARY)
    search = {"mode": lzma.MODE_NORMAL, "mf": lzma.MF_HC3, "nice_len": 64, "depth": 1}
    return [{"id": lzma.FILTER_LZMA2, "dict_size": dictionary, "lc": 0, "lp": 0, "pb": 0, **search}]


def _runs(body: bytes) -> list[tuple[int, bytes]]:
    """Cut `body` into runs with the level of each: what is worth coding, and what is stored."""
    pieces = [body[place : place + _PIECE] for place in range(0, len(body), _PIECE)] or [b""]
    runs = groupby(pieces, lambda piece: _STORE if _is_noise(piece) else _MOST_LEVEL)
    return [(level, b"".join(run)) for level, run in runs]


def _is_noise(piece: bytes) -> bool:
    """Tell whether two of its bytes are hardly ever the same, counted over some of them."""
    some = np.frombuffer(piece, np.uint8)[::_EVERY]
    counts = np.bincount(some, minlength=256)
    same, pairs = int(counts @ counts) - some.size, some.size * (some.size - 1)
    return some.size >= _FEWEST and counts.size * same < _EVEN * pairs


def _deflate(body: bytes, level: int, strategy: int, *, last: bool = True) -> bytes:
    """Return a raw deflate stream, or where it is not the `last`, what another may follow."""
    stream = zlib.compressobj(level, zlib.DEFLATED, _WINDOW, zlib.DEF_MEM_LEVEL, strategy)
    return stream.compress(body) + stream.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _inflate(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj(_WINDOW)
    try:
        body = stream.decompress(data, most + 1)  # 0 would mean no limit
    except zlib.error as error:
        raise DecodeError(f"data is no deflate stream ({error}): was it damaged?") from error
    return _whole(body, most, ended=stream.eof, rest=stream.unused_data)


def _whole(body: bytes, most: int, *, ended: bool, rest: bytes) -> bytes:
    """Return `body` if it is all that its stream holds and the stream is all that came."""
    body = _within(body, most)
    if not ended:
        raise DecodeError("data ends before its stream does: was it cut?")
    if rest:
        raise DecodeError(f"data goes on for {len(rest)} bytes after its stream's end: send the stream alone")
    return body


def _within(body: bytes, most: int) -> bytes:
    if len(body) > most:
        raise DecodeError(
            f"data holds more than the {most} bytes of symbols that the model has: was it for another?"
        )
    return body


def _slack(most: int) -> int:
    """Bound any sane encoder's output: a ninth bit per byte (fixed Huffman codes), and room for headers."""
    return most + most // 8 + 64


ENTROPY: Final[dict[str, type[EntropyCoder]]] = {
    stage.name: stage for stage in (Plain, Huffman, Zlib, Lzma, Zstd)
}
"""Every entropy coder by name."""
