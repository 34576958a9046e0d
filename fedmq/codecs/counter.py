"""Random bits that both sides of a link can draw, on any platform: the counter generator Philox4x64-10.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS: Final = 1 << 64
"""A seed is a whole number below this one."""

ROUNDING: Final = 1
"""Stream for stochastic rounding. Each use of randomness has a stream of its own, so one seed serves a whole chain."""


def words(seed: int, stream: int, count: int) -> NDArray[np.uint32]:
    """Return the first `count` 32-bit words of `stream` under `seed`.

    The key is (`seed`, `stream`), the counter runs 1, 2, 3, …, and each 64-bit output gives its low word first.
    """
    source = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    raw = source.random_raw((count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<u4")[:count]
