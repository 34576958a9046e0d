"""Planes of bytes: the first bytes of all symbols, then all second ones, and so on, the least significant first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fedmq.codecs.stages import Symbols


def to_planes(symbols: Symbols) -> bytes:
    """Return the bytes of all symbols, plane after plane."""
    return symbols.view(np.uint8).reshape(symbols.size, symbols.itemsize).T.tobytes()


def from_planes(planes: bytes, dtype: str) -> Symbols:
    """Return the symbols, of which `planes` must hold a whole number."""
    width = np.dtype(dtype).itemsize
    symbols = np.empty((len(planes) // width, width), dtype=np.uint8)
    rows = np.frombuffer(planes, dtype=np.uint8).reshape(width, len(symbols))
    for place, row in zip(symbols.T, rows, strict=True):  # five times as fast as a transposed copy
        place[:] = row
    return symbols.view(dtype)[:, 0]
