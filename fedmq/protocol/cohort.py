"""Who takes part in a round: a keyed hash that a device and the aggregator compute alike, without a message.

A task carries a salt and a fraction. A device is in the cohort when the first eight bytes of
HMAC-SHA256(key=salt, message=device name in UTF-8), read as a big-endian integer, are below ``fraction * 2**64``. The
salt is fresh each round, so every device's turn comes, and nobody can choose a name that is always in.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SPAN = 2**64


def in_cohort(device: str, salt: bytes, fraction: float) -> bool:
    """Say whether `device` is in the cohort of the task with this `salt` and `fraction` (0 to 1)."""
    if fraction >= 1:
        return True
    word = hmac.digest(salt, device.encode(), "sha256")[:8]
    return int.from_bytes(word, "big") < int(fraction * _SPAN)


def draw_salt(seed: bytes, round_: int, attempt: int) -> bytes:
    """Return the 16-byte salt of one round; `seed` is the federation's secret, `attempt` counts redraws from 0."""
    return hashlib.sha256(b"salt" + seed + round_.to_bytes(8, "big") + attempt.to_bytes(4, "big")).digest()[
        :16
    ]


def members(devices: Iterable[str], salt: bytes, fraction: float) -> Iterator[str]:
    """Yield those of `devices` that are in the cohort, as `in_cohort` says of each; for many it is much faster.

    HMAC's two keyed beginnings are hashed once: see RFC 2104, section 4.
    """
    if fraction >= 1:
        yield from devices
        return
    edge = int(fraction * _SPAN).to_bytes(8, "big")
    inner, outer = (
        hashlib.sha256(bytes(byte ^ pad for byte in salt.ljust(64, b"\0"))) for pad in (0x36, 0x5C)
    )
    for device in devices:
        first, second = inner.copy(), outer.copy()
        first.update(device.encode())
        second.update(first.digest())
        if second.digest() < edge:
            yield device


def cohort_size(devices: Iterable[str], salt: bytes, fraction: float) -> int:
    """Count those of `devices` that are in the cohort."""
    return sum(1 for _ in members(devices, salt, fraction))
