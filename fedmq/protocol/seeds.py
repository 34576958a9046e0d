"""Numbers that both ends derive instead of sending: seeds of random codec stages."""

from __future__ import annotations

import hashlib


def update_seed(run: bytes, round_: int, update: bytes) -> int:
    """Return the seed of an update's random codec stages.

    The first eight bytes, big-endian, of SHA-256 over run, round (eight bytes, big-endian) and update id.
    """
    return _word(run + round_.to_bytes(8, "big") + update)


def frame_seed(run: bytes, version: int) -> int:
    """Return the seed of a model frame's random codec stages.

    The first eight bytes, big-endian, of SHA-256 over run, ``frame`` and version (eight bytes, big-endian).
    """
    return _word(run + b"frame" + version.to_bytes(8, "big"))


def _word(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
