"""Zstandard as an entropy coder, where its library is installed: ``pip install fedmq[zstd]``."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from fedmq.errors import ConfigError, DecodeError

_HEADER: Final = 2  # the descriptor, and the window's logarithm
_BLOCK_HEADER: Final = 3
_ONE_BYTE: Final = 1  # of block types: one byte, repeated
_LEAST_WINDOW: Final = 10
_MOST_WINDOW: Final = 20
"""Logarithm of the largest window, in bytes: what bounds a device's memory."""

_MOST_LEVEL: Final = 19


@dataclass(frozen=True, slots=True)
class Zstd:
    """One Zstandard frame (RFC 8878) without magic number, content size and checksum; `level` from 1 to 19."""

    name: ClassVar[str] = "zstd"
    examples: ClassVar[tuple[str, ...]] = ("zstd", "zstd(19)")

    level: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.level <= _MOST_LEVEL:
            raise ConfigError(
                f"zstd has no level {self.level}: choose one from 1 (fast) to {_MOST_LEVEL} (small)"
            )
        _library()

    def most_bytes(self, most: int) -> int:
        """Return what a frame may take: blocks that cannot be made smaller are kept as they are, with a header each."""
        return most + most // 256 + 64

    def encode(self, body: bytes) -> bytes:
        """Return one frame."""
        library = _library()
        parameters = library.ZstdCompressionParameters.from_level(
            self.level,
            source_size=max(1, len(body)),
            window_log=_window(len(body)),
            write_content_size=False,
            format=library.FORMAT_ZSTD1_MAGICLESS,
        )
        frame: bytes = library.ZstdCompressor(compression_params=parameters).compress(body)
        return frame

    def decode(self, data: bytes, most: int) -> bytes:
        """Return the body; raises DecodeError unless `data` is one whole frame of at most `most` bytes."""
        _check_frame(data)
        library = _library()
        window = 1 << _window(most)
        decompressor = library.ZstdDecompressor(max_window_size=window, format=library.FORMAT_ZSTD1_MAGICLESS)
        try:
            body: bytes = decompressor.decompress(data, max_output_size=max(1, most))
        except library.ZstdError as error:
            raise DecodeError(
                f"data is no Zstandard frame of at most {most} bytes ({error}): was it damaged?"
            ) from error
        if len(body) > most:
            raise DecodeError(
                f"data holds more than the {most} bytes that the model has: was it for another?"
            )
        return body


def _window(length: int) -> int:
    """Return the logarithm of a window that holds `length` bytes, within limits."""
    return min(max((length - 1).bit_length(), _LEAST_WINDOW), _MOST_WINDOW)


def _check_frame(data: bytes) -> None:
    """Raise DecodeError unless `data` has our header, and its blocks end where it does.

    The library would believe a content size in the header, whatever limit it is given, and would pass over what
    follows the last block.
    """
    if len(data) < _HEADER or data[0]:
        raise DecodeError("data does not begin like a plain Zstandard frame: was it damaged?")
    place, last = _HEADER, False
    while not last and place + _BLOCK_HEADER <= len(data):
        header = int.from_bytes(data[place : place + _BLOCK_HEADER], "little")
        last, kind = bool(header & 1), header >> 1 & 3
        place += _BLOCK_HEADER + (1 if kind == _ONE_BYTE else header >> 3)
    if not last or place != len(data):
        raise DecodeError(
            f"data has {len(data)} bytes, its Zstandard frame does not end there: was it cut or joined?"
        )


@cache
def _library() -> Any:  # noqa: ANN401 - a module that need not be there
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise ConfigError(
            "zstd needs the package zstandard: install fedmq[zstd], or take `huffman` or `lzma`"
        ) from error
