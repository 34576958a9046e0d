"""Forms of scales: how the few numbers that give symbols their meaning are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from fedmq.errors import DecodeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BINARY32: Final = np.dtype("<f4")

NO_SCALES: Final = np.empty(0, dtype=np.float32)
"""For quantisers whose symbols stand for themselves."""


@dataclass(frozen=True, slots=True)
class Binary32:
    """IEEE 754 binary32, every bit of it."""

    width: ClassVar[int] = _BINARY32.itemsize

    def write(self, scales: NDArray[np.float32]) -> bytes:
        """Return the scales' own bytes, little-endian."""
        return scales.astype(_BINARY32, copy=False).tobytes()

    def read(self, data: bytes) -> NDArray[np.float32]:
        """Return the scales; raises DecodeError for one that is negative, minus zero or not finite."""
        scales = np.frombuffer(data, dtype=_BINARY32).astype(np.float32)
        if np.signbit(scales).any() or not np.isfinite(scales).all():
            raise DecodeError(
                "data holds a scale that is negative or not finite, which no encoder makes: was it damaged?"
            )
        return scales
